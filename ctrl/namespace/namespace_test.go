package namespace_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/ctrl/namespace"
)

var (
	pods    = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	maps    = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	widgets = schema.GroupVersionResource{Group: "a.io", Version: "v1", Resource: "widgets"}
	now     = time.Date(2000, 1, 1, 0, 1, 0, 0, time.UTC)
)

func TestDecide(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   namespace.Input
		want string
	}{
		{
			"empty, as far as was watched: the server is asked",
			namespace.Input{},
			"verify",
		},
		{
			"empty, but just deleted: something may still come in",
			namespace.Input{Since: now.Add(-100 * time.Millisecond)},
			"after 400ms",
		},
		{
			"empty indeed", namespace.Input{Verified: true}, "finalize",
		},
		{
			"pods go before all else, and all conditions are there",
			namespace.Input{Contents: []namespace.Content{{GroupVersionResource: maps, Count: 2, Alive: 2}, {GroupVersionResource: pods, Count: 1, Alive: 1}}},
			`delete pods
NamespaceDeletionDiscoveryFailure False ResourcesDiscovered All resources successfully discovered
NamespaceDeletionGroupVersionParsingFailure False ParsedGroupVersions All legacy kube types successfully parsed
NamespaceDeletionContentFailure False ContentDeleted All content successfully deleted, may be waiting on finalization
NamespaceContentRemaining True SomeResourcesRemain Some resources are remaining: pods. has 1 resource instances
NamespaceFinalizersRemaining False ContentHasNoFinalizers All content-preserving finalizers finished`,
		},
		{
			"what was asked to go is not asked again at once, what goes already not at all",
			namespace.Input{
				Contents: []namespace.Content{
					{GroupVersionResource: maps, Count: 2, Alive: 1, Finalizers: map[string]int{"x/y": 2}},
					{GroupVersionResource: widgets, Count: 1, Finalizers: map[string]int{"x/y": 1}},
				},
				Asked: map[schema.GroupVersionResource]time.Time{maps: now.Add(-time.Second)},
			},
			`after 4s
NamespaceDeletionDiscoveryFailure False ResourcesDiscovered All resources successfully discovered
NamespaceDeletionGroupVersionParsingFailure False ParsedGroupVersions All legacy kube types successfully parsed
NamespaceDeletionContentFailure False ContentDeleted All content successfully deleted, may be waiting on finalization
NamespaceContentRemaining True SomeResourcesRemain Some resources are remaining: configmaps. has 2 resource instances, widgets.a.io has 1 resource instances
NamespaceFinalizersRemaining True SomeFinalizersRemain Some content in the namespace has finalizers remaining: x/y in 3 resource instances`,
		},
		{
			"no pod, as far as was watched: the server is asked before anything else goes",
			namespace.Input{Contents: []namespace.Content{{GroupVersionResource: maps, Count: 1, Alive: 1}}},
			"verify",
		},
		{
			"failures are told, and tried again",
			namespace.Input{
				Verified: true,
				Contents: []namespace.Content{{GroupVersionResource: maps, Count: 1, Alive: 1}},
				Failed:   map[schema.GroupVersionResource]error{maps: errors.New("denied"), widgets: errors.New("gone since")},
			},
			`delete configmaps
after 1s
NamespaceDeletionDiscoveryFailure False ResourcesDiscovered All resources successfully discovered
NamespaceDeletionGroupVersionParsingFailure False ParsedGroupVersions All legacy kube types successfully parsed
NamespaceDeletionContentFailure True ContentDeletionFailed Failed to delete all resource types, 1 remaining: denied
NamespaceContentRemaining True SomeResourcesRemain Some resources are remaining: configmaps. has 1 resource instances
NamespaceFinalizersRemaining False ContentHasNoFinalizers All content-preserving finalizers finished`,
		},
		{
			"a kind that cannot be discovered may have something left",
			namespace.Input{Verified: true, Discovery: errors.New("a.io is down")},
			`after 1s
NamespaceDeletionDiscoveryFailure True DiscoveryFailed a.io is down
NamespaceDeletionGroupVersionParsingFailure False ParsedGroupVersions All legacy kube types successfully parsed
NamespaceDeletionContentFailure False ContentDeleted All content successfully deleted, may be waiting on finalization
NamespaceContentRemaining False ContentRemoved All content successfully removed
NamespaceFinalizersRemaining False ContentHasNoFinalizers All content-preserving finalizers finished`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.in.Namespace, tt.in.Now = &corev1.Namespace{}, now
			if diff := cmp.Diff(tt.want, describe(namespace.Decide(tt.in))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestCountsAreToldSlowly decides about a namespace as its pods go one by one.
func TestCountsAreToldSlowly(t *testing.T) {
	in := namespace.Input{Namespace: &corev1.Namespace{}, Now: now, Contents: []namespace.Content{{GroupVersionResource: pods, Count: 3}}}
	v := namespace.Decide(in)
	if v.Status == nil {
		t.Fatal("nothing is said at first")
	}
	in.Namespace, in.Said, in.Now = v.Status, now, now.Add(time.Second)
	in.Contents[0].Count = 2
	if v = namespace.Decide(in); v.Status != nil || v.After != time.Second {
		t.Errorf("another count a second later: status %v, after %v", v.Status, v.After)
	}
	in.Now = now.Add(2 * time.Second)
	if v = namespace.Decide(in); v.Status == nil {
		t.Error("another count two seconds later is not said")
	}
	in.Contents[0].Finalizers = map[string]int{"x": 1}
	in.Now = now.Add(time.Second)
	if v = namespace.Decide(in); v.Status == nil {
		t.Error("a finalizer is not said at once")
	}
}

func describe(v namespace.Verdict) string {
	var out []string
	if v.Verify {
		out = append(out, "verify")
	}
	if v.Finalize {
		out = append(out, "finalize")
	}
	for _, r := range v.Delete {
		out = append(out, "delete "+r.Resource)
	}
	if v.After > 0 {
		out = append(out, fmt.Sprint("after ", v.After))
	}
	if v.Status != nil {
		for _, c := range v.Status.Status.Conditions {
			out = append(out, fmt.Sprintf("%s %s %s %s", c.Type, c.Status, c.Reason, c.Message))
		}
	}
	return strings.Join(out, "\n")
}

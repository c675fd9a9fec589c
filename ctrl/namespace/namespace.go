// Package namespace decides how the contents of a namespace that is being
// deleted go, and what is said of that meanwhile. The contents are of any
// kind, so it is package ctrl/engine/sweep that counts and deletes them.
package namespace

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/ctrl"
)

// Finalizer is ours in a namespace's spec.
const Finalizer = corev1.FinalizerKubernetes

// settle is how long after its deletion was seen a namespace is given up at
// the earliest: an API server that has not seen it may still let something in.
const settle = 500 * time.Millisecond

// again is how long to wait for what was asked to be deleted before it is
// asked again.
const again = 5 * time.Second

// unwatched is when to look again at what only the server itself knows.
const unwatched = time.Second

// between is the least time between two statuses that differ in counts only.
const between = 2 * time.Second

// An Input is what is known of a namespace and its contents.
type Input struct {
	Namespace *corev1.Namespace
	Contents  []Content
	Verified  bool // Contents come from the server itself, not from what was watched

	Discovery error                                 // of the resources that there are; some may be missing then
	Failed    map[schema.GroupVersionResource]error // the deletions that failed last

	Since time.Time                                 // when the deletion of the namespace was seen
	Said  time.Time                                 // when its status was last written
	Asked map[schema.GroupVersionResource]time.Time // when each resource was last deleted
	Now   time.Time
}

// Content is what there is of one resource.
type Content struct {
	schema.GroupVersionResource

	Count, Alive int // all, and those not being deleted yet
	Finalizers   map[string]int
}

// A Verdict is what is to be done with the namespace.
type Verdict struct {
	Delete   []schema.GroupVersionResource // all objects of these
	Verify   bool                          // look at the server itself, and decide again
	Finalize bool
	Status   *corev1.Namespace // with conditions to write, nil for none
	After    time.Duration     // when to look again though nothing changed; 0 for never
}

// Decide decides about a namespace. Pods go first, and all else only when no
// pod is left: they may need it to end well.
func Decide(in Input) Verdict {
	left := slices.DeleteFunc(slices.Clone(in.Contents), func(c Content) bool { return c.Count == 0 })
	slices.SortFunc(left, func(a, b Content) int { return strings.Compare(a.String(), b.String()) })
	if len(left) == 0 && in.Discovery == nil {
		if wait := settle - in.Now.Sub(in.Since); wait > 0 {
			return Verdict{After: wait}
		}
		return Verdict{Verify: !in.Verified, Finalize: in.Verified}
	}
	var v Verdict
	if in.Verified {
		v.After = unwatched
	}
	first := slices.IndexFunc(left, func(c Content) bool { return c.GroupVersionResource == pods })
	if first >= 0 {
		left = left[first : first+1]
	}
	for _, c := range left {
		wait := again - in.Now.Sub(in.Asked[c.GroupVersionResource])
		switch {
		case c.Alive == 0:
		case wait > 0:
			v.After = ctrl.Soonest(v.After, wait)
		default:
			v.Delete = append(v.Delete, c.GroupVersionResource)
		}
	}
	if first < 0 && len(v.Delete) > 0 && !in.Verified {
		return Verdict{Verify: true} // of a pod we may hear later than of the rest
	}
	status, news := in.say(left)
	if wait := between - in.Now.Sub(in.Said); news || wait <= 0 {
		v.Status = status
	} else if status != nil {
		v.After = ctrl.Soonest(v.After, wait)
	}
	return v
}

var pods = corev1.SchemeGroupVersion.WithResource("pods")

// say is the namespace with what its conditions should be, nil where they are
// so; news is more than another count.
func (in Input) say(left []Content) (out *corev1.Namespace, news bool) {
	out = in.Namespace.DeepCopy()
	changed := false
	for _, c := range in.conditions(left) {
		c.LastTransitionTime = metav1.NewTime(in.Now.Truncate(time.Second))
		i := slices.IndexFunc(out.Status.Conditions, func(o corev1.NamespaceCondition) bool { return o.Type == c.Type })
		if i < 0 {
			out.Status.Conditions = append(out.Status.Conditions, c)
			changed, news = true, true
			continue
		}
		had := &out.Status.Conditions[i]
		if had.Status == c.Status {
			c.LastTransitionTime = had.LastTransitionTime
		}
		changed, news = changed || *had != c, news || had.Status != c.Status || had.Reason != c.Reason
		*had = c
	}
	if !changed {
		return nil, false
	}
	return out, news
}

// conditions are all that a namespace on its way out has; clients wait for
// each of them to be there, whatever it says.
func (in Input) conditions(left []Content) []corev1.NamespaceCondition {
	discovery := fine(corev1.NamespaceDeletionDiscoveryFailure, "ResourcesDiscovered", "All resources successfully discovered")
	if in.Discovery != nil {
		discovery = wrong(discovery, "DiscoveryFailed", in.Discovery.Error())
	}
	content := fine(corev1.NamespaceDeletionContentFailure, "ContentDeleted", "All content successfully deleted, may be waiting on finalization")
	var failures []string
	for _, c := range left {
		if err := in.Failed[c.GroupVersionResource]; err != nil {
			failures = append(failures, err.Error())
		}
	}
	if n := len(failures); n > 0 {
		slices.Sort(failures)
		content = wrong(content, "ContentDeletionFailed", fmt.Sprintf("Failed to delete all resource types, %d remaining: %s", n, strings.Join(failures, ", ")))
	}
	remaining := fine(corev1.NamespaceContentRemaining, "ContentRemoved", "All content successfully removed")
	finalizers := fine(corev1.NamespaceFinalizersRemaining, "ContentHasNoFinalizers", "All content-preserving finalizers finished")
	var resources, held []string
	sums := map[string]int{}
	for _, c := range left {
		resources = append(resources, fmt.Sprintf("%s.%s has %d resource instances", c.Resource, c.Group, c.Count))
		for f, n := range c.Finalizers {
			sums[f] += n
		}
	}
	for f, n := range sums {
		held = append(held, fmt.Sprintf("%s in %d resource instances", f, n))
	}
	slices.Sort(resources)
	slices.Sort(held)
	if len(resources) > 0 {
		remaining = wrong(remaining, "SomeResourcesRemain", "Some resources are remaining: "+strings.Join(resources, ", "))
	}
	if len(held) > 0 {
		finalizers = wrong(finalizers, "SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: "+strings.Join(held, ", "))
	}
	parsing := fine(corev1.NamespaceDeletionGVParsingFailure, "ParsedGroupVersions", "All legacy kube types successfully parsed")
	return []corev1.NamespaceCondition{discovery, parsing, content, remaining, finalizers}
}

func fine(t corev1.NamespaceConditionType, reason, message string) corev1.NamespaceCondition {
	return corev1.NamespaceCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, Message: message}
}

func wrong(c corev1.NamespaceCondition, reason, message string) corev1.NamespaceCondition {
	c.Status, c.Reason, c.Message = corev1.ConditionTrue, reason, message
	return c
}

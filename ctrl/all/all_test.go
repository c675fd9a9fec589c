package all_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/ctrl"
	"github.com/knarr-dev/knarr/ctrl/all"
	"github.com/knarr-dev/knarr/ctrl/nodeipam"
)

// makers are the kinds that more than one controller creates, and who.
var makers = map[string][]string{
	"Pod":                {"daemonset-controller", "job-controller", "replicaset-controller", "replicationcontroller-controller", "statefulset-controller"},
	"EndpointSlice":      {"endpointslice-controller", "endpointslice-mirroring-controller"},
	"ControllerRevision": {"daemonset-controller", "statefulset-controller"},
}

func list() []ctrl.Erased {
	return all.List(all.Options{
		RootCA: func() string { return "" }, PodRanges: []nodeipam.Range{{}},
		Counts: func(string) (map[schema.GroupResource]int, bool) { return nil, false },
	})
}

func TestOneMakerAKind(t *testing.T) {
	got := map[string][]string{}
	for _, c := range list() {
		for _, w := range c.Writes {
			if slices.Contains(w.Verbs, ctrl.Create) {
				kind := reflect.TypeOf(w.Kind).Elem().Name()
				got[kind] = append(got[kind], c.Name)
			}
		}
	}
	for kind, who := range got {
		slices.Sort(who)
		if want := makers[kind]; len(who) > 1 && !slices.Equal(who, want) {
			t.Errorf("%s is created by %v; the table says %v", kind, who, want)
		}
	}
	for kind := range makers {
		if len(got[kind]) < 2 {
			t.Errorf("the table has %s, which %v creates", kind, got[kind])
		}
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range list() {
		if c.Name == "" || c.Account == "" || c.Decide == nil || c.Workers < 1 || seen[c.Name] {
			t.Errorf("%s", fmt.Sprintf("%+v", c))
		}
		seen[c.Name] = true
	}
}

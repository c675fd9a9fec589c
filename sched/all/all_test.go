package all_test

import (
	"testing"

	"github.com/knarr-dev/knarr/sched/all"
	"github.com/knarr-dev/knarr/sched/schedtest"
)

func TestExamples(t *testing.T) {
	schedtest.Run(t, "testdata/*.txtar", all.Plugins...)
}

// TestOrder holds the list to the documented order and weights, on which
// messages and choices depend.
func TestOrder(t *testing.T) {
	want := []struct {
		name   string
		weight int64
	}{
		{"SchedulingGates", 0},
		{"PrioritySort", 0},
		{"NodeUnschedulable", 0},
		{"NodeName", 0},
		{"TaintToleration", 3},
		{"NodeAffinity", 2},
		{"NodePorts", 0},
		{"NodeResourcesFit", 1},
		{"VolumeRestrictions", 0},
		{"NodeVolumeLimits", 0},
		{"VolumeBinding", 0},
		{"VolumeZone", 0},
		{"PodTopologySpread", 2},
		{"InterPodAffinity", 2},
		{"DynamicResources", 0},
		{"DefaultPreemption", 0},
		{"NodeResourcesBalancedAllocation", 1},
		{"ImageLocality", 1},
	}
	if len(all.Plugins) != len(want) {
		t.Fatalf("%d plugins, want %d", len(all.Plugins), len(want))
	}
	for i, w := range want {
		if pl := all.Plugins[i]; pl.Name != w.name || pl.Weight != w.weight {
			t.Errorf("plugin %d is %s of weight %d, want %s of weight %d", i, pl.Name, pl.Weight, w.name, w.weight)
		}
	}
}

package sched

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func node(name, zone string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelTopologyZone: zone}},
		Status: corev1.NodeStatus{
			Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), "example.com/x": resource.MustParse("2")},
			Images:      []corev1.ContainerImage{{Names: []string{"a:1", "b:1"}, SizeBytes: 10}},
		},
	}
}

func pod(name string, edit ...func(*corev1.Pod)) *Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID(name), Labels: map[string]string{"app": "a"}}}
	p.Spec.Containers = []corev1.Container{{
		Ports:     []corev1.ContainerPort{{HostPort: 80}},
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m"), "example.com/x": resource.MustParse("1")}},
	}}
	for _, e := range edit {
		e(p)
	}
	return NewPod(p)
}

func averse(p *corev1.Pod) {
	p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: "x"}}}}
}

func names(nodes []*Node) (out []string) {
	for _, n := range nodes {
		out = append(out, n.Name)
	}
	return out
}

// TestClusterKeepsSums puts pods on nodes and takes them off again, in other
// orders than a quiet day would: nothing may be left.
func TestClusterKeepsSums(t *testing.T) {
	c := NewCluster(nil)
	c.PutPod(pod("early", averse), "n1") // before its node
	if len(c.Nodes()) != 0 {
		t.Fatalf("nodes %v before any was seen", names(c.Nodes()))
	}
	c.PutNode(node("n1", "a"))
	c.PutNode(node("n2", "a"))
	c.PutPod(pod("late"), "n1")
	c.PutPod(pod("late"), "n2") // moves
	n1, n2 := c.Node("n1"), c.Node("n2")
	if len(n1.Pods) != 1 || len(n2.Pods) != 1 || n1.Used.CPU != 500 || n1.Used.Other["example.com/x"] != 1 || len(n1.Ports) != 1 {
		t.Errorf("n1 has %d pods using %v and ports %v, n2 has %d pods", len(n1.Pods), n1.Used, n1.Ports, len(n2.Pods))
	}
	if !c.Averse()[n1] || !c.Affine()[n1] || c.Averse()[n2] {
		t.Error("the pod that is averse is not found on n1 alone")
	}
	if n1.Images["a:1"].Nodes != 2 {
		t.Errorf("the image is on %d nodes, want 2", n1.Images["a:1"].Nodes)
	}
	if k := c.Count("ns", Selector(&metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}})); k.On(n1) != 1 || k.On(n2) != 1 || len(k.Nodes) != 2 {
		t.Errorf("counted %d and %d", k.On(n1), k.On(n2))
	}
	c.DropNode("n1")
	if n2.Images["a:1"].Nodes != 1 || c.Node("n1") != nil {
		t.Error("n1 is still there after it was dropped")
	}
	c.DropPod("early")
	c.DropPod("late")
	c.DropNode("n2")
	if len(c.nodes)+len(c.pods)+len(c.images)+len(c.affine)+len(c.averse)+len(c.groups)+len(c.zones.of) != 0 || len(c.free) != c.slots {
		t.Errorf("left behind: %d nodes, %d pods, %d images, %d groups, zones %v", len(c.nodes), len(c.pods), len(c.images), len(c.groups), c.zones.names)
	}
}

func TestNodesMixZones(t *testing.T) {
	c := NewCluster(nil)
	for _, n := range []string{"a1", "a2", "a3", "b1", "b2"} {
		c.PutNode(node(n, n[:1]))
	}
	if got, want := names(c.Nodes()), []string{"a1", "b1", "a2", "b2", "a3"}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
	c.PutNode(node("a1", "b"))
	if got, want := names(c.Nodes()), []string{"a2", "b1", "a3", "b2", "a1"}; !slices.Equal(got, want) {
		t.Errorf("order after a1 moved %v, want %v", got, want)
	}
}

func TestClone(t *testing.T) {
	c := NewCluster(nil)
	n := c.PutNode(node("n1", ""))
	c.PutPod(pod("a", averse), "n1")
	m := n.Clone()
	m.Add(pod("b", averse))
	m.Remove(m.Pods[0])
	if n.Used.Other["example.com/x"] != 1 || len(n.Pods) != 1 || n.Pods[0].Name != "a" || len(n.Averse) != 1 || n.Averse[0].Name != "a" || len(n.Ports) != 1 {
		t.Errorf("what was done to the copy shows in the original: %v %v", n.Used, n.Ports)
	}
}

func TestNominate(t *testing.T) {
	c := NewCluster(nil)
	p := pod("a")
	c.Nominate(p, "n1")
	c.Nominate(p, "n2")
	if c.Nomination("a") != "n2" || len(c.Nominated("n1")) != 0 || len(c.Nominated("n2")) != 1 {
		t.Errorf("nominated to %q, n1 has %d, n2 has %d", c.Nomination("a"), len(c.Nominated("n1")), len(c.Nominated("n2")))
	}
	c.Nominate(p, "")
	if c.Nomination("a") != "" || len(c.nominated)+len(c.nominee) != 0 {
		t.Error("the claim is still there")
	}
}

func TestEnough(t *testing.T) {
	for nodes, want := range map[int]int{0: 0, 1: 1, 99: 99, 100: 100, 250: 120, 1000: 420, 5000: 500, 6000: 300, 10000: 500} {
		if got := enough(nodes); got != want {
			t.Errorf("of %d nodes %d are enough, want %d", nodes, got, want)
		}
	}
}

func TestStretch(t *testing.T) {
	for _, c := range []struct {
		less     bool
		in, want []int64
	}{
		{false, []int64{1, 2, 4}, []int64{25, 50, 100}},
		{true, []int64{1, 2, 4}, []int64{75, 50, 0}},
		{false, []int64{0, 0}, []int64{0, 0}},
		{true, []int64{0, 0}, []int64{100, 100}},
	} {
		got := slices.Clone(c.in)
		Stretch(got, c.less)
		if !slices.Equal(got, c.want) {
			t.Errorf("%v (less is better: %v) becomes %v, want %v", c.in, c.less, got, c.want)
		}
	}
}

// TestPickIsFair throws the dice for equal nodes so that each of three is as
// likely as the others.
func TestPickIsFair(t *testing.T) {
	c := NewCluster(nil)
	for i := range 3 {
		c.PutNode(node(fmt.Sprint("n", i), ""))
	}
	even := Plugin[struct{}]{Name: "even", Weight: 1, Score: func(_ *Pod, _ *Cluster, _ []*Node, scores []int64) {
		for i := range scores {
			scores[i] = 7
		}
	}}.Erase()
	got := map[string]int{}
	// All throws there are of a two-sided die and then a three-sided one.
	for throw := range 6 {
		tr, err := Begin(pod("p"), c, []Erased{even})
		if err != nil {
			t.Fatal(err)
		}
		got[tr.Pick(Search{Dice: func(sides int) int {
			if sides == 2 {
				return throw % 2
			}
			return throw / 2
		}}).Node.Name]++
	}
	if want := map[string]int{"n0": 2, "n1": 2, "n2": 2}; !maps.Equal(got, want) {
		t.Errorf("picked %v, want %v", got, want)
	}
}

// TestSearchGoesOn begins each search where the last one ended.
func TestSearchGoesOn(t *testing.T) {
	c := NewCluster(nil)
	for i := range 120 {
		c.PutNode(node(fmt.Sprint("n", i), ""))
	}
	tr, err := Begin(pod("p"), c, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := tr.Pick(Search{From: 30, Dice: func(int) int { return 1 }})
	if len(got.Fit) != 100 || got.Fit[0].Name != "n30" || got.Fit[99].Name != "n9" || got.After != 100 {
		t.Errorf("looked at %d, found %d from %s to %s", got.After, len(got.Fit), got.Fit[0].Name, got.Fit[len(got.Fit)-1].Name)
	}
}

func TestMessage(t *testing.T) {
	c := NewCluster(nil)
	tr := &Trial{Pod: pod("p"), Cluster: c}
	if got := tr.Message(Eviction{}); got != NoNodes {
		t.Errorf("without nodes: %q", got)
	}
	for _, n := range []string{"n1", "n2", "n3"} {
		c.PutNode(node(n, ""))
	}
	tr.Rejected = []Rejection{{c.Node("n1"), Verdict{Why: []string{"b", "a"}}}, {c.Node("n2"), Verdict{Why: []string{"a"}}}}
	tr.Elsewhere = "c"
	if got, want := tr.Message(Eviction{Why: "no one goes"}), "0/3 nodes are available: 1 b, 1 c, 2 a. no one goes"; got != want {
		t.Error(cmp.Diff(want, got))
	}
	tr.No = "never"
	if got, want := tr.Message(Eviction{}), "0/3 nodes are available: never."; got != want {
		t.Error(cmp.Diff(want, got))
	}
}

func TestNodeTerm(t *testing.T) {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"rank": "7", "disk": "ssd"}}}
	rule := func(key string, op corev1.NodeSelectorOperator, values ...string) corev1.NodeSelectorRequirement {
		return corev1.NodeSelectorRequirement{Key: key, Operator: op, Values: values}
	}
	for _, c := range []struct {
		name string
		term corev1.NodeSelectorTerm
		want bool
	}{
		{"nothing", corev1.NodeSelectorTerm{}, false},
		{"in", corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{rule("disk", corev1.NodeSelectorOpIn, "hdd", "ssd")}}, true},
		{"not in", corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{rule("none", corev1.NodeSelectorOpNotIn, "x")}}, true},
		{"greater", corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{rule("rank", corev1.NodeSelectorOpGt, "10")}}, false},
		{"no number", corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{rule("rank", corev1.NodeSelectorOpGt, "x")}}, false},
		{"all rules", corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{rule("disk", corev1.NodeSelectorOpExists), rule("rank", corev1.NodeSelectorOpDoesNotExist)}}, false},
		{"name", corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{rule("metadata.name", corev1.NodeSelectorOpIn, "n1")}}, true},
		{"other name", corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{rule("metadata.name", corev1.NodeSelectorOpNotIn, "n1")}}, false},
		{"other field", corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{rule("metadata.uid", corev1.NodeSelectorOpIn, "n1")}}, false},
	} {
		if term := CompileNode(&c.term); term.Match(n) != c.want {
			t.Errorf("%s: matches %v, want %v", c.name, !c.want, c.want)
		}
	}
}

package all_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/sched"
	"github.com/knarr-dev/knarr/sched/all"
	"github.com/knarr-dev/knarr/sched/schedtest"
)

// crowd is a cluster of that many nodes in ten zones, with two pods on each.
func crowd(nodes int) *sched.Cluster {
	var objects []apis.Object
	for app := range 10 {
		name := fmt.Sprint("app-", app)
		objects = append(objects, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
			Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": name}},
		})
	}
	for i := range nodes {
		name := fmt.Sprint("node-", i)
		objects = append(objects, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
				corev1.LabelHostname: name, corev1.LabelTopologyZone: fmt.Sprint("zone-", i%10),
				corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64",
			}},
			Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("32Gi"), corev1.ResourcePods: resource.MustParse("110"),
			}},
		})
		for j := range 2 {
			p := pod(fmt.Sprint("pod-", i, "-", j), fmt.Sprint("app-", (i+j)%10))
			p.Spec.NodeName = name
			objects = append(objects, p)
		}
	}
	return schedtest.Build(objects)
}

func pod(name, app string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name), Labels: map[string]string{"app": app}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Image: "registry.local/" + app, Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("500Mi")},
		}}}},
	}
}

var shapes = []struct {
	name  string
	shape func(*corev1.Pod)
}{
	{"plain", func(p *corev1.Pod) { p.Labels["app"] = "none" }},
	{"service", func(*corev1.Pod) {}},
	{"spread", func(p *corev1.Pod) {
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule,
			LabelSelector: &metav1.LabelSelector{MatchLabels: p.Labels},
		}}
	}},
	{"apart", func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: p.Labels},
		}}}}
	}},
	{"toobig", func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("100")
	}},
	{"daemon", func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{
				Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"node-0"},
			}}}},
		}}}
	}},
}

// BenchmarkCycle is the choice of a node for pods of some shapes; the last is
// turned down everywhere.
func BenchmarkCycle(b *testing.B) {
	for _, nodes := range []int{1, 100, 1000, 5000} {
		c := crowd(nodes)
		for _, s := range shapes {
			b.Run(fmt.Sprintf("%s/%d", s.name, nodes), func(b *testing.B) {
				obj := pod("new", "app-0")
				s.shape(obj)
				p := sched.NewPod(obj)
				from := 0
				b.ReportAllocs()
				for b.Loop() {
					t, err := sched.Begin(p, c, all.Plugins)
					if err != nil {
						b.Fatal(err)
					}
					choice := t.Pick(sched.Search{From: from, Dice: func(int) int { return 1 }})
					from += choice.After
					if choice.Node == nil {
						t.Message(t.Evict(func(int) int { return 0 }))
					}
				}
			})
		}
	}
}

package endpointslice_test

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/knarr-dev/knarr/ctrl"
	"github.com/knarr-dev/knarr/ctrl/ctrltest"
	"github.com/knarr-dev/knarr/ctrl/endpointslice"
)

func TestExamples(t *testing.T) {
	ctrltest.Run(t, endpointslice.Controller, "testdata/service-*.txtar")
	ctrltest.Run(t, endpointslice.Mirroring, "testdata/mirror-*.txtar")
}

// TestManyPods lets a service have more pods than fit in a slice, and lets
// some of them go and others come: as few slices as possible change.
func TestManyPods(t *testing.T) {
	w := ctrltest.NewWorld(&corev1.Node{})
	svc := &corev1.Service{}
	svc.Name, svc.Namespace, svc.UID = "web", "shop", "s"
	svc.Spec = corev1.ServiceSpec{
		ClusterIP: "10.0.0.1", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
		Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80}},
	}
	w.Put(svc)
	put := func(i int) {
		p := &corev1.Pod{}
		p.Name, p.Namespace, p.Labels = fmt.Sprintf("web-%03d", i), "shop", map[string]string{"app": "web"}
		p.Status.PodIPs = []corev1.PodIP{{IP: fmt.Sprintf("10.1.%d.%d", i/256, i%256)}}
		w.Put(p)
	}
	steps := []struct {
		name string
		do   func()
		want map[ctrl.Verb]int
		fill []int
	}{
		{"250 pods", func() {
			for i := range 250 {
				put(i)
			}
		}, map[ctrl.Verb]int{ctrl.Create: 3}, []int{100, 100, 50}},
		{"one more", func() { put(250) }, map[ctrl.Verb]int{ctrl.Update: 1}, []int{100, 100, 51}},
		{"sixty more", func() {
			for i := range 60 {
				put(300 + i)
			}
		}, map[ctrl.Verb]int{ctrl.Create: 1}, []int{100, 100, 51, 60}},
		{"all go", func() {
			for _, o := range w.Find(reflect.TypeFor[*corev1.Pod](), nil, "") {
				if _, err := w.Perform(ctrl.Action{Verb: ctrl.Delete, Obj: o.(*corev1.Pod)}, time.Time{}); err != nil {
					t.Fatal(err)
				}
			}
		}, map[ctrl.Verb]int{ctrl.Update: 1, ctrl.Delete: 3}, []int{0}},
	}
	for _, s := range steps {
		s.do()
		did := map[ctrl.Verb]int{}
		for _, a := range endpointslice.Controller.Decide(ctrl.World{Seen: w, Now: time.Now()}, svc).Do {
			did[a.Verb]++
			if _, err := w.Perform(a, time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		var fill []int
		for _, o := range w.Find(reflect.TypeFor[*discoveryv1.EndpointSlice](), nil, "") {
			fill = append(fill, len(o.(*discoveryv1.EndpointSlice).Endpoints))
		}
		if !reflect.DeepEqual(did, s.want) || !reflect.DeepEqual(fill, s.fill) {
			t.Errorf("%s: did %v and left slices of %v, want %v and %v", s.name, did, fill, s.want, s.fill)
		}
	}
}

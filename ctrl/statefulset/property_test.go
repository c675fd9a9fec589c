package statefulset_test

import (
	"fmt"
	"math/rand"
	"reflect"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/ctrl"
	"github.com/knarr-dev/knarr/ctrl/ctrltest"
	"github.com/knarr-dev/knarr/ctrl/statefulset"
)

// A sim is a stateful set with its pods, of which chance makes what it likes.
type sim struct {
	*ctrltest.World
	*rand.Rand

	t   *testing.T
	now time.Time
}

// TestOrder changes sets and pods at random and looks at each plan whether it
// keeps the order, and at the end whether all came to be as it should.
func TestOrder(t *testing.T) {
	for seed := range int64(50) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newSim(t, seed)
			for range 80 {
				switch s.Intn(8) {
				case 0:
					s.change()
				case 1, 2, 3:
					s.podsChange()
				default:
					s.decide()
				}
			}
			s.settle()
		})
	}
}

func newSim(t *testing.T, seed int64) *sim {
	s := &sim{World: ctrltest.NewWorld(), Rand: rand.New(rand.NewSource(seed)), t: t, now: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)}
	labels := map[string]string{"app": "db"}
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "db", Namespace: "shop", UID: "s", Generation: 1}}
	set.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	set.Spec.Template.Labels = labels
	set.Spec.Replicas = new(int32(3))
	set.Spec.RevisionHistoryLimit = new(int32(2))
	set.Spec.UpdateStrategy.Type = appsv1.RollingUpdateStatefulSetStrategyType
	if s.Intn(2) == 0 {
		set.Spec.PodManagementPolicy = appsv1.ParallelPodManagement
	}
	s.Put(set)
	s.change()
	return s
}

func (s *sim) set() *appsv1.StatefulSet {
	return s.Get(reflect.TypeFor[*appsv1.StatefulSet](), "shop", "db").(*appsv1.StatefulSet)
}

func (s *sim) pod(n int) *corev1.Pod {
	p, _ := s.Get(reflect.TypeFor[*corev1.Pod](), "shop", fmt.Sprintf("db-%d", n)).(*corev1.Pod)
	return p
}

func (s *sim) pods() (out []*corev1.Pod) {
	for _, o := range s.Find(reflect.TypeFor[*corev1.Pod](), nil, "") {
		out = append(out, o.(*corev1.Pod))
	}
	return out
}

// change is what a user does.
func (s *sim) change() {
	set := s.set().DeepCopy()
	set.Spec.Replicas = new(int32(s.Intn(6)))
	set.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: new(int32(s.Intn(3)))}
	set.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: int32(s.Intn(3))}
	set.Spec.Template.Spec.Containers = []corev1.Container{{Name: "c", Image: fmt.Sprintf("i:%d", s.Intn(5))}}
	set.Generation++
	s.Put(set)
}

// podsChange is what the nodes do.
func (s *sim) podsChange() {
	for _, p := range s.pods() {
		switch p = p.DeepCopy(); {
		case s.Intn(2) == 0:
		case p.DeletionTimestamp != nil, s.Intn(30) == 0:
			s.gone(p)
		case s.Intn(20) == 0:
			p.Status = corev1.PodStatus{Phase: corev1.PodFailed}
			s.Put(p)
		default:
			s.run(p, s.Intn(5) > 0)
		}
	}
}

func (s *sim) gone(p *corev1.Pod) {
	if _, err := s.Perform(ctrl.Action{Verb: ctrl.Delete, Obj: p, Grace: new(int64(0))}, s.now); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sim) run(p *corev1.Pod, ready bool) {
	if p.Status.Phase == corev1.PodFailed {
		return
	}
	p.Spec.NodeName = "n"
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning}
	if ready {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(s.now)}}
	}
	s.Put(p)
}

func well(p *corev1.Pod) bool {
	return p != nil && p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning && ctrl.Ready(p)
}

func (s *sim) decide() {
	set := s.set()
	plan := statefulset.Controller.Decide(ctrl.World{Now: s.now, Seen: s}, set)
	moves := 0
	for _, a := range plan.Do {
		if p, ok := a.Obj.(*corev1.Pod); ok {
			moves++
			s.check(set, a, p, moves)
		}
		if _, err := s.Perform(a, s.now); err != nil {
			s.t.Fatalf("%v: %v", a, err)
		}
	}
	s.now = s.now.Add(time.Second)
}

// check holds that a pod may be created or deleted now.
func (s *sim) check(set *appsv1.StatefulSet, a ctrl.Action, p *corev1.Pod, moves int) {
	var n int
	if _, err := fmt.Sscanf(p.Name, "db-%d", &n); err != nil {
		s.t.Fatal(err)
	}
	start, end := int(set.Spec.Ordinals.Start), int(set.Spec.Ordinals.Start+*set.Spec.Replicas)
	ordered := set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement
	if ordered && moves > 1 {
		s.t.Fatalf("%v is one thing too many at a time", a)
	}
	inside := n >= start && n < end
	if a.Verb == ctrl.Create && !inside {
		s.t.Fatalf("%v, of %d to %d", a, start, end)
	}
	if a.Verb == ctrl.Delete && inside && p.Status.Phase != corev1.PodFailed {
		if n < start+int(*set.Spec.UpdateStrategy.RollingUpdate.Partition) {
			s.t.Fatalf("%v, though it is below the partition", a)
		}
		for i := n + 1; i < end; i++ {
			if !well(s.pod(i)) {
				s.t.Fatalf("%v, though %d is not well", a, i)
			}
		}
	}
	if !ordered || a.Verb == ctrl.Delete && inside && p.Status.Phase == corev1.PodFailed {
		return
	}
	for i := start; i < min(n, end); i++ {
		if !well(s.pod(i)) {
			s.t.Fatalf("%v, though %d is not well", a, i)
		}
	}
}

// settle makes all pods well: all must come to be as the set says.
func (s *sim) settle() {
	for range 60 {
		s.decide()
		for _, p := range s.pods() {
			if p.DeletionTimestamp != nil {
				s.gone(p)
			} else {
				s.run(p.DeepCopy(), true)
			}
		}
	}
	if again := statefulset.Controller.Decide(ctrl.World{Now: s.now, Seen: s}, s.set()); len(again.Do) > 0 {
		s.t.Fatalf("still wants %v", again.Do)
	}
	set := s.set()
	n, st := *set.Spec.Replicas, set.Status
	if int(n) != len(s.pods()) || st.Replicas != n || st.ReadyReplicas != n || st.AvailableReplicas != n {
		s.t.Errorf("%d replicas wanted, %d pods, status %+v", n, len(s.pods()), st)
	}
	for i := set.Spec.Ordinals.Start + *set.Spec.UpdateStrategy.RollingUpdate.Partition; i < set.Spec.Ordinals.Start+n; i++ {
		if p := s.pod(int(i)); p == nil || p.Spec.Containers[0].Image != set.Spec.Template.Spec.Containers[0].Image {
			s.t.Errorf("pod %d: %v", i, p)
		}
	}
	if revs := s.Find(reflect.TypeFor[*appsv1.ControllerRevision](), nil, ""); len(revs) > 2+2+3 {
		s.t.Errorf("%d revisions are kept, with a history of 2", len(revs))
	}
}

package daemonset_test

import (
	"fmt"
	"math/rand"
	"reflect"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-dev/knarr/ctrl"
	"github.com/knarr-dev/knarr/ctrl/ctrltest"
	"github.com/knarr-dev/knarr/ctrl/daemonset"
)

// A sim is a daemon set with nodes and pods, of which chance makes what it likes.
type sim struct {
	*ctrltest.World
	*rand.Rand

	t    *testing.T
	now  time.Time
	memo any
}

// TestBounds changes a set, its nodes and pods at random and looks at each
// plan whether it takes no more pods away than it may, and at the end whether
// every node has its pod.
func TestBounds(t *testing.T) {
	for seed := range int64(50) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newSim(t, seed)
			for range 80 {
				switch s.Intn(9) {
				case 0:
					s.change()
				case 1:
					s.nodeChange()
				case 2, 3, 4:
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
	labels := map[string]string{"app": "log"}
	d := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "log", Namespace: "sys", UID: "d", Generation: 1}}
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	d.Spec.Template.Labels = labels
	d.Spec.RevisionHistoryLimit = new(int32(2))
	d.Spec.UpdateStrategy.Type = appsv1.RollingUpdateDaemonSetStrategyType
	s.Put(d)
	s.change()
	for range 5 {
		s.nodeChange()
	}
	return s
}

func (s *sim) set() *appsv1.DaemonSet {
	return s.Get(reflect.TypeFor[*appsv1.DaemonSet](), "sys", "log").(*appsv1.DaemonSet)
}

func all[T any](s *sim) (out []T) {
	for _, o := range s.Find(reflect.TypeFor[T](), nil, "") {
		out = append(out, o.(T))
	}
	return out
}

// change is what a user does.
func (s *sim) change() {
	d := s.set().DeepCopy()
	missing, surge := intstr.FromInt(1+s.Intn(3)), intstr.FromInt(0)
	if s.Intn(2) == 0 {
		missing, surge = surge, missing
	}
	d.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &missing, MaxSurge: &surge}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "c", Image: fmt.Sprintf("i:%d", s.Intn(4))}}
	d.Generation++
	s.Put(d)
}

// nodeChange has a node come, close, open or turn its pods out.
func (s *sim) nodeChange() {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", s.Intn(6))}}
	switch s.Intn(4) {
	case 0:
		n.Spec.Taints = []corev1.Taint{{Key: "x", Effect: corev1.TaintEffectNoSchedule}}
	case 1:
		n.Spec.Taints = []corev1.Taint{{Key: "x", Effect: corev1.TaintEffectNoExecute}}
	}
	s.Put(n)
}

func (s *sim) open(node string) bool {
	n, _ := s.Get(reflect.TypeFor[*corev1.Node](), "", node).(*corev1.Node)
	return n != nil && len(n.Spec.Taints) == 0
}

// podsChange is what the scheduler and the nodes do.
func (s *sim) podsChange() {
	for _, p := range all[*corev1.Pod](s) {
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
	p.Spec.NodeName = p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchFields[0].Values[0]
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning}
	if ready {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(s.now)}}
	}
	s.Put(p)
}

// served counts the open nodes that have a pod which is ready and stays.
func (s *sim) served() int {
	nodes := map[string]bool{}
	for _, p := range all[*corev1.Pod](s) {
		if p.DeletionTimestamp == nil && ctrl.Ready(p) && s.open(p.Spec.NodeName) {
			nodes[p.Spec.NodeName] = true
		}
	}
	return len(nodes)
}

func (s *sim) decide() {
	d, before := s.set(), s.served()
	plan := daemonset.Controller.Decide(ctrl.World{Now: s.now, Seen: s, Memo: s.memo}, d)
	s.memo = plan.Memo
	for _, a := range plan.Do {
		if _, err := s.Perform(a, s.now); err != nil {
			s.t.Fatalf("%v: %v", a, err)
		}
	}
	wanted := 0
	for _, n := range all[*corev1.Node](s) {
		if s.open(n.Name) {
			wanted++
		}
	}
	rolling := d.Spec.UpdateStrategy.RollingUpdate
	if least := min(before, wanted-rolling.MaxUnavailable.IntValue()); s.served() < least {
		s.t.Fatalf("of %d nodes %d were served, and %d are; at least %d should be, after\n%v", wanted, before, s.served(), least, plan.Do)
	}
	s.now = s.now.Add(time.Second)
}

// settle makes all pods well: each open node must have one, of the template of now.
func (s *sim) settle() {
	for range 40 {
		s.decide()
		s.now = s.now.Add(time.Hour)
		for _, p := range all[*corev1.Pod](s) {
			if p.DeletionTimestamp != nil {
				s.gone(p)
			} else {
				s.run(p.DeepCopy(), true)
			}
		}
	}
	if again := daemonset.Controller.Decide(ctrl.World{Now: s.now, Seen: s, Memo: s.memo}, s.set()); len(again.Do) > 0 {
		s.t.Fatalf("still wants %v", again.Do)
	}
	d, open := s.set(), 0
	for _, n := range all[*corev1.Node](s) {
		var mine []*corev1.Pod
		for _, p := range all[*corev1.Pod](s) {
			if p.Spec.NodeName == n.Name {
				mine = append(mine, p)
			}
		}
		switch {
		case !s.open(n.Name):
		case len(mine) != 1 || mine[0].Spec.Containers[0].Image != d.Spec.Template.Spec.Containers[0].Image:
			s.t.Errorf("node %s has %v", n.Name, mine)
		default:
			open++
		}
	}
	if st := d.Status; int(st.NumberAvailable) != open || int(st.UpdatedNumberScheduled) != open || st.NumberUnavailable != 0 {
		s.t.Errorf("%d nodes are open, status %+v", open, st)
	}
	if n := len(all[*appsv1.ControllerRevision](s)); n > 4 {
		s.t.Errorf("%d revisions are kept, with a history of 2", n)
	}
}

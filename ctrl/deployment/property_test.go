package deployment_test

import (
	"fmt"
	"math/rand"
	"reflect"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-dev/knarr/ctrl"
	"github.com/knarr-dev/knarr/ctrl/ctrltest"
	"github.com/knarr-dev/knarr/ctrl/deployment"
)

// A sim is a deployment with its sets, of which chance makes pods ready.
type sim struct {
	*ctrltest.World
	*rand.Rand

	t   *testing.T
	now time.Time
}

// TestRolloutKeepsWithinBounds changes the template, the size and the limits
// of deployments at random and looks after each plan whether it asks for no
// more pods than allowed and takes away none that are needed.
func TestRolloutKeepsWithinBounds(t *testing.T) {
	for seed := range int64(200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newSim(t, seed)
			for range 60 {
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
	labels := map[string]string{"app": "web"}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", UID: "d", Generation: 1}}
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	d.Spec.Template.Labels = labels
	d.Spec.ProgressDeadlineSeconds = new(int32(600))
	d.Spec.RevisionHistoryLimit = new(int32(2))
	d.Spec.Replicas = new(int32(10))
	d.Spec.Strategy.Type = appsv1.RollingUpdateDeploymentStrategyType
	s.Put(d)
	s.change()
	return s
}

func (s *sim) deployment() *appsv1.Deployment {
	return s.Get(reflect.TypeFor[*appsv1.Deployment](), "shop", "web").(*appsv1.Deployment)
}

func (s *sim) sets() (out []*appsv1.ReplicaSet) {
	for _, o := range s.Find(reflect.TypeFor[*appsv1.ReplicaSet](), nil, "") {
		out = append(out, o.(*appsv1.ReplicaSet))
	}
	return out
}

// change is what a user does.
func (s *sim) change() {
	d := s.deployment().DeepCopy()
	*d.Spec.Replicas = int32(s.Intn(20))
	surge, missing := intstr.FromInt(s.Intn(5)), intstr.FromString(fmt.Sprintf("%d%%", s.Intn(50)))
	d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &missing}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "c", Image: fmt.Sprintf("i:%d", s.Intn(4))}}
	d.Generation++
	s.Put(d)
}

// podsChange is what the replica set controller and the nodes do, for some
// of the sets later.
func (s *sim) podsChange() {
	for _, rs := range s.sets() {
		if s.Intn(3) == 0 {
			continue
		}
		rs = rs.DeepCopy()
		st := &rs.Status
		st.ObservedGeneration = rs.Generation
		st.TerminatingReplicas = new(int32(0))
		st.Replicas = *rs.Spec.Replicas
		st.AvailableReplicas = min(st.AvailableReplicas, st.Replicas)
		if s.Intn(2) == 0 {
			st.AvailableReplicas += s.Int31n(st.Replicas - st.AvailableReplicas + 1)
		}
		st.ReadyReplicas = st.AvailableReplicas
		s.Put(rs)
	}
}

// load is how many pods are asked for, and how many of the available stay.
// Unless only what is asked for counts, pods yet to be deleted are added.
func (s *sim) load(askedOnly bool) (pods, stay int32) {
	for _, rs := range s.sets() {
		if askedOnly {
			pods += *rs.Spec.Replicas
		} else {
			pods += max(*rs.Spec.Replicas, rs.Status.Replicas)
		}
		stay += min(*rs.Spec.Replicas, rs.Status.AvailableReplicas)
	}
	return pods, stay
}

func (s *sim) decide() {
	d := s.deployment()
	scaled := s.scaled(d)
	podsBefore, stayBefore := s.load(scaled)
	plan := deployment.Controller.Decide(ctrl.World{Now: s.now, Seen: s}, d)
	for _, a := range plan.Do {
		if _, err := s.Perform(a, s.now); err != nil {
			s.t.Fatalf("%v: %v", a, err)
		}
		pods, _ := s.load(scaled)
		if most := max(podsBefore, s.most(d)); pods > most {
			s.t.Fatalf("after %v there will be %d pods, more than %d", a, pods, most)
		}
	}
	s.now = s.now.Add(time.Second)
	_, stay := s.load(scaled)
	if least := min(stayBefore, s.least(d)); stay < least && !scaled {
		s.t.Fatalf("of %d available pods %d stay, fewer than %d", stayBefore, stay, least)
	}
	if again := deployment.Controller.Decide(ctrl.World{Now: s.now, Seen: s}, s.deployment()); len(again.Do) > 0 {
		s.t.Fatalf("still wants %v", again.Do)
	}
}

// scaled reports whether the plan will have to bring the sets to another
// size: it keeps their proportions then, whatever is available.
func (s *sim) scaled(d *appsv1.Deployment) bool {
	return slices.ContainsFunc(s.sets(), func(rs *appsv1.ReplicaSet) bool {
		return *rs.Spec.Replicas > 0 && rs.Annotations["deployment.kubernetes.io/desired-replicas"] != fmt.Sprint(*d.Spec.Replicas)
	})
}

func (s *sim) most(d *appsv1.Deployment) int32 {
	return *d.Spec.Replicas + d.Spec.Strategy.RollingUpdate.MaxSurge.IntVal
}

func (s *sim) least(d *appsv1.Deployment) int32 {
	n, err := intstr.GetScaledValueFromIntOrPercent(d.Spec.Strategy.RollingUpdate.MaxUnavailable, int(*d.Spec.Replicas), false)
	if err != nil {
		s.t.Fatal(err)
	}
	if n == 0 && d.Spec.Strategy.RollingUpdate.MaxSurge.IntVal == 0 {
		n = 1
	}
	return *d.Spec.Replicas - int32(n)
}

// settle makes all pods ready: the rollout must come to its end.
func (s *sim) settle() {
	for range 40 {
		s.decide()
		for _, rs := range s.sets() {
			rs = rs.DeepCopy()
			n := *rs.Spec.Replicas
			rs.Status = appsv1.ReplicaSetStatus{
				Replicas: n, ReadyReplicas: n, AvailableReplicas: n, TerminatingReplicas: new(int32(0)), ObservedGeneration: rs.Generation,
			}
			s.Put(rs)
		}
	}
	d := s.deployment()
	if n := *d.Spec.Replicas; d.Status.UpdatedReplicas != n || d.Status.AvailableReplicas != n || d.Status.Replicas != n {
		s.t.Errorf("does not come to an end: %d replicas wanted, status %+v", n, d.Status)
	}
	if n := len(s.sets()); n > 3 {
		s.t.Errorf("%d sets are kept, with a history of 2", n)
	}
}

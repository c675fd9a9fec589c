package job_test

import (
	"fmt"
	"math/rand"
	"reflect"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
	"github.com/knarr-dev/knarr/ctrl/ctrltest"
	"github.com/knarr-dev/knarr/ctrl/job"
)

// A sim is a job, of whose pods chance decides, with a controller that may be
// killed between any two writes.
type sim struct {
	*ctrltest.World
	*rand.Rand

	t                 *testing.T
	now               time.Time
	memo              any
	succeeded, failed int // pods that truly did
	killed            bool
}

// TestCountsEachPodOnce runs jobs to their end with a controller that is
// killed at random moments and forgets all, while finished pods vanish as soon
// as nothing holds them: no pod is counted twice, and none is missed.
func TestCountsEachPodOnce(t *testing.T) {
	for seed := range int64(200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := &sim{World: ctrltest.NewWorld(), Rand: rand.New(rand.NewSource(seed)), t: t, now: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)}
			completions, parallelism := int32(1+s.Intn(8)), int32(1+s.Intn(4))
			j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j", Namespace: "ns", UID: "j", Generation: 1}}
			j.Spec.Completions, j.Spec.Parallelism, j.Spec.BackoffLimit = &completions, &parallelism, new(int32(1000))
			j.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"j": "j"}}
			j.Spec.Template.Labels = map[string]string{"j": "j"}
			if s.Intn(2) == 0 {
				j.Spec.CompletionMode = new(batchv1.IndexedCompletion)
			}
			s.Put(j)
			for range 2000 {
				s.look()
				s.podsChange()
				s.now = s.now.Add(time.Duration(s.Intn(300)) * time.Second)
				if done(s.job()) {
					s.check()
					return
				}
			}
			t.Fatalf("it does not end: %+v", s.job().Status)
		})
	}
}

func (s *sim) job() *batchv1.Job {
	return s.Get(reflect.TypeFor[*batchv1.Job](), "ns", "j").(*batchv1.Job)
}

func (s *sim) pods() (out []*corev1.Pod) {
	for _, o := range s.Find(reflect.TypeFor[*corev1.Pod](), nil, "") {
		out = append(out, o.(*corev1.Pod))
	}
	return out
}

func done(j *batchv1.Job) bool {
	for _, c := range j.Status.Conditions {
		if c.Type == batchv1.JobComplete {
			return true
		}
	}
	return false
}

// look lets the controller decide, and kills it now and then.
func (s *sim) look() {
	plan := job.Controller.Decide(ctrl.World{Now: s.now, Memo: s.memo, Seen: s}, s.job())
	s.memo = plan.Memo
	s.killed = false
	s.do(plan.Do)
	if s.killed {
		s.memo = nil
	}
	active := int32(0)
	for _, p := range s.pods() {
		if ctrl.Active(p) {
			active++
		}
	}
	if active > *s.job().Spec.Parallelism {
		s.t.Fatalf("%d pods are active", active)
	}
}

func (s *sim) do(actions []ctrl.Action) {
	for _, a := range actions {
		if s.killed = s.killed || s.Intn(12) == 0; s.killed {
			return
		}
		var now apis.Object
		if o, ok := s.Get(reflect.TypeOf(a.Obj), a.Obj.GetNamespace(), a.Obj.GetName()).(apis.Object); ok {
			now = o
		}
		if a.Verb == ctrl.Patch && now == nil {
			continue
		}
		made, err := s.Perform(a, s.now)
		if err != nil {
			s.t.Fatalf("%v: %v", a, err)
		}
		if a.Then != nil && made != nil {
			s.do(a.Then(made))
		}
	}
}

// podsChange lets pods end, and be deleted by somebody, and lets those vanish
// that nothing holds.
func (s *sim) podsChange() {
	for _, p := range s.pods() {
		p = p.DeepCopy()
		if !ctrl.Finished(p) && p.DeletionTimestamp == nil {
			switch s.Intn(4) {
			case 0:
				p.Status.Phase = corev1.PodSucceeded
				s.succeeded++
			case 1:
				p.Status.Phase = corev1.PodFailed
				s.failed++
			case 2:
				p.DeletionTimestamp = &metav1.Time{Time: s.now}
				s.failed++
			}
			s.Put(p)
		}
		if (ctrl.Finished(p) || p.DeletionTimestamp != nil) && len(p.Finalizers) == 0 {
			if _, err := s.Perform(ctrl.Action{Verb: ctrl.Delete, Obj: p, Grace: new(int64(0))}, s.now); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

func (s *sim) check() {
	st := s.job().Status
	if int(st.Failed) != s.failed {
		s.t.Errorf("%d pods failed, and %d are counted", s.failed, st.Failed)
	}
	if want := *s.job().Spec.Completions; st.Succeeded != want || s.succeeded < int(want) {
		s.t.Errorf("%d pods succeeded, %d are counted, %d were wanted", s.succeeded, st.Succeeded, want)
	}
	if s.job().Spec.CompletionMode == nil && int(st.Succeeded) != s.succeeded {
		s.t.Errorf("%d pods succeeded, and %d are counted", s.succeeded, st.Succeeded)
	}
	if u := st.UncountedTerminatedPods; st.Active != 0 || u != nil && len(u.Succeeded)+len(u.Failed) > 0 {
		s.t.Errorf("at the end the status is %+v", st)
	}
}

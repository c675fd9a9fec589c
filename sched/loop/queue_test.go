package loop

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/sched"
)

// The plugins of these tests: one that orders and holds back, and two whose
// verdicts different changes may alter.
var queuePlugins = []sched.Erased{
	sched.Plugin[struct{}]{
		Name: "order",
		Before: func(a, b sched.Waiting) bool {
			if a.Pod.Priority != b.Pod.Priority {
				return a.Pod.Priority > b.Pod.Priority
			}
			return a.Since.Before(b.Since)
		},
		Hold: func(p *corev1.Pod) bool { return len(p.Spec.SchedulingGates) > 0 },
	}.Erase(),
	sched.Plugin[struct{}]{Name: "room", Wakes: []sched.Change{sched.PodDeleted, sched.NodeAdded}}.Erase(),
	sched.Plugin[struct{}]{Name: "labels", Wakes: []sched.Change{sched.NodeLabels, sched.NodeAdded}}.Erase(),
}

const room, labels = sched.Set(1 << 1), sched.Set(1 << 2)

var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return epoch.Add(time.Duration(seconds * float64(time.Second))) }

func queued(name string, priority int32, gates ...string) *sched.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Spec: corev1.PodSpec{Priority: &priority}}
	for _, g := range gates {
		p.Spec.SchedulingGates = append(p.Spec.SchedulingGates, corev1.PodSchedulingGate{Name: g})
	}
	return sched.NewPod(p)
}

func always(int, *sched.Pod) bool { return true }

// popped pops all there is.
func popped(q *queue, now time.Time) (names []string) {
	for it := q.pop(now); it != nil; it = q.pop(now) {
		names = append(names, it.Pod.Name)
	}
	return names
}

func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestQueueOrder(t *testing.T) {
	q := newQueue(queuePlugins)
	q.put(queued("a", 0), at(0))
	q.put(queued("b", 0), at(0)) // at the same time, but after
	q.put(queued("c", 9), at(1))
	q.put(queued("d", 0), at(-1))
	expect(t, "order", popped(q, at(2)), "c", "d", "a", "b")
}

func TestQueueWakesByWhoRefused(t *testing.T) {
	q := newQueue(queuePlugins)
	for _, c := range []struct {
		name string
		by   sched.Set
	}{{"full", room}, {"wrong", labels}, {"both", room | labels}} {
		q.put(queued(c.name, 0), at(0))
		q.refuse(q.pop(at(0)), c.by, at(0))
	}
	expect(t, "before anything happens", popped(q, at(60)))
	q.wake(sched.Event{Change: sched.PodShrunk}, at(60), always)
	expect(t, "after what no one waits for", popped(q, at(60)))
	q.wake(sched.Event{Change: sched.PodDeleted}, at(60), func(_ int, p *sched.Pod) bool { return p.Name == "both" })
	expect(t, "after what helps one", popped(q, at(60)), "both")
	q.wake(sched.Event{Change: sched.NodeAdded}, at(60), always)
	expect(t, "after what helps all", popped(q, at(60)), "full", "wrong")
}

// TestQueueBackoff has a pod woken right after each of many refusals, with
// another one to try, so that it must wait.
func TestQueueBackoff(t *testing.T) {
	q := newQueue(queuePlugins)
	q.put(queued("a", 0), at(0))
	now := at(0)
	for i, want := range []float64{1, 2, 4, 8, 10, 10} {
		it := q.pop(now)
		q.refuse(it, room, now)
		q.wake(sched.Event{Change: sched.PodDeleted}, now, always)
		if got := q.next(now); got != time.Duration(want*float64(time.Second)) {
			t.Fatalf("after %d refusals it waits %v, want %vs", it.refusals, got, want)
		}
		q.put(queued(fmt.Sprint("other", i), 0), now)
		if got := q.pop(now); got == it {
			t.Fatalf("after %d refusals it is tried before its time", it.refusals)
		}
		now = now.Add(q.next(now))
	}
}

func TestQueueIdle(t *testing.T) {
	q := newQueue(queuePlugins)
	q.put(queued("refused", 0), at(0))
	q.refuse(q.pop(at(0)), room, at(0))
	q.wake(sched.Event{Change: sched.PodDeleted}, at(0), always)
	expect(t, "in backoff, with nothing else to do", popped(q, at(.1)), "refused")
	q.put(queued("failed", 0), at(0))
	q.fail(q.pop(at(0)), at(0))
	expect(t, "after an error, with nothing else to do", popped(q, at(.9)))
	expect(t, "after an error and a second", popped(q, at(1)), "failed")
}

func TestQueueHolds(t *testing.T) {
	q := newQueue(queuePlugins)
	q.put(queued("a", 0, "x", "y"), at(0))
	q.put(queued("a", 0, "x"), at(1))
	expect(t, "with a gate", popped(q, at(2)))
	q.put(queued("a", 0), at(2))
	expect(t, "without gates", popped(q, at(2)), "a")
}

func TestQueueUpdates(t *testing.T) {
	q := newQueue(queuePlugins)
	q.put(queued("a", 0), at(0))
	q.refuse(q.pop(at(0)), room, at(0))
	status := queued("a", 0)
	status.Status.Message = "new"
	q.put(status, at(20))
	expect(t, "after its status changed", popped(q, at(20)))
	changed := queued("a", 0)
	changed.Spec.Tolerations = []corev1.Toleration{{Key: "x"}}
	q.put(changed, at(20))
	expect(t, "after its spec changed", popped(q, at(20)), "a")
	// Changed while it was being tried: it must be tried again.
	changed = queued("a", 0)
	q.put(changed, at(30))
	q.refuse(q.items["a"], room, at(30))
	expect(t, "after its spec changed in flight", popped(q, at(60)), "a")
}

func TestQueueEvicting(t *testing.T) {
	q := newQueue(queuePlugins)
	q.put(queued("a", 0), at(0))
	it := q.pop(at(0))
	it.evicting = true
	q.refuse(it, room, at(0))
	q.wake(sched.Event{Change: sched.PodDeleted}, at(60), always)
	expect(t, "while victims are being evicted", popped(q, at(60)))
	if !it.woken {
		t.Error("what happened meanwhile was forgotten")
	}
}

func TestQueueLate(t *testing.T) {
	q := newQueue(queuePlugins)
	q.put(queued("a", 0), at(0))
	q.refuse(q.pop(at(0)), room, at(0))
	q.late(at(299))
	expect(t, "before five minutes", popped(q, at(299)))
	q.late(at(301))
	expect(t, "after five minutes", popped(q, at(301)), "a")
}

func TestQueueRemove(t *testing.T) {
	q := newQueue(queuePlugins)
	for _, name := range []string{"a", "b", "c"} {
		q.put(queued(name, 0), at(0))
	}
	q.remove("b")
	q.remove("b")
	expect(t, "what is left", popped(q, at(0)), "a", "c")
	q.remove("a")
	q.remove("c")
	for place, p := range q.piles {
		if p.Len() > 0 {
			t.Errorf("%d items left in %s", p.Len(), place)
		}
	}
}

package loop

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/sched"
)

// try runs one cycle.
func (l *loop) try(ctx context.Context, it *item) {
	p, start := it.Pod, time.Now()
	if p.DeletionTimestamp != nil {
		l.event(p, corev1.EventTypeWarning, "FailedScheduling", "Scheduling", fmt.Sprintf("skip schedule deleting pod: %s/%s", p.Namespace, p.Name))
		l.queue.remove(p.UID)
		return
	}
	t, err := sched.Begin(p, l.cluster, l.Plugins)
	if err != nil {
		l.fail(ctx, it, err, start)
		return
	}
	choice := t.Pick(sched.Search{From: l.from, Dice: dice})
	if nodes := len(l.cluster.Nodes()); nodes > 0 {
		l.from = (l.from + choice.After) % nodes
	}
	if choice.Node == nil {
		l.refuse(ctx, it, t, start)
		return
	}
	l.Metrics.algorithm.Observe(time.Since(start).Seconds())
	l.assume(ctx, &assumption{item: it, node: choice.Node.Name, writes: t.Writes(choice.Node), start: start})
}

// refuse returns a pod that fits nowhere to the queue, says so, and has room
// made for it if that can be.
func (l *loop) refuse(ctx context.Context, it *item, t *sched.Trial, start time.Time) {
	p := it.Pod
	var e sched.Eviction
	by := t.By
	if len(l.cluster.Nodes()) == 0 {
		by = l.queue.wakers[sched.NodeAdded]
	} else {
		e = t.Evict(dice)
		l.Metrics.evictions.Inc()
	}
	l.Metrics.algorithm.Observe(time.Since(start).Seconds())
	claim := l.cluster.Nomination(p.UID)
	switch {
	case e.Node != nil:
		claim = e.Node.Name
	case !e.Keep:
		claim = ""
	}
	l.cluster.Nominate(p, claim)
	if e.Node != nil {
		l.evict(ctx, it, e)
	}
	l.queue.refuse(it, by, time.Now())
	l.report(ctx, p, corev1.PodReasonUnschedulable, t.Message(e), claim)
	l.Metrics.tried(unschedulable, p.Spec.SchedulerName, time.Since(start))
}

// fail returns a pod for which something went wrong to the queue, and says so.
func (l *loop) fail(ctx context.Context, it *item, err error, start time.Time) {
	p := it.Pod
	l.cluster.Nominate(p, "")
	l.queue.fail(it, time.Now())
	l.report(ctx, p, corev1.PodReasonSchedulerError, err.Error(), "")
	l.Metrics.tried(failed, p.Spec.SchedulerName, time.Since(start))
}

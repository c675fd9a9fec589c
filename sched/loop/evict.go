package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/sched"
)

// evict has the victims deleted. The pod that they make room for is not tried
// again before that has been asked for; it fits once they are gone.
func (l *loop) evict(ctx context.Context, it *item, e sched.Eviction) {
	var victims []*sched.Pod
	for _, v := range e.Victims {
		if v.DeletionTimestamp == nil {
			victims = append(victims, v)
		}
	}
	outdone := l.outdone(it.Pod, e.Node.Name)
	if len(victims)+len(outdone) == 0 {
		return
	}
	l.Metrics.victims.Observe(float64(len(e.Victims)))
	it.evicting = true
	p, node := it.Pod, e.Node.Name
	l.calls.do(p.UID, func() {
		start := time.Now()
		for _, q := range outdone {
			if err := l.patch(ctx, q.Pod, status{}); err != nil && !apierrors.IsNotFound(err) {
				slog.WarnContext(ctx, "take back a claim to a node", "obj", "Pod/"+q.Namespace+"/"+q.Name, "err", err)
			}
		}
		err := l.deleteAll(ctx, p, node, victims)
		l.inbox.put(func() { l.evicted(ctx, it, err, time.Since(start)) })
	})
}

// outdone takes from less important pods the claims that they have to the
// node, and lets them look for another.
func (l *loop) outdone(p *sched.Pod, node string) (out []*sched.Pod) {
	for _, q := range l.cluster.Nominated(node) {
		if q.Priority < p.Priority {
			out = append(out, q)
		}
	}
	for _, q := range out {
		l.cluster.Nominate(q, "")
		if it := l.queue.items[q.UID]; it != nil && it.place == pool {
			l.queue.requeue(it, time.Now(), "NominationTaken")
		}
	}
	return out
}

func (l *loop) deleteAll(ctx context.Context, p *sched.Pod, node string, victims []*sched.Pod) error {
	errs := make([]error, len(victims))
	var all sync.WaitGroup
	for i, v := range victims {
		all.Go(func() { errs[i] = l.delete(ctx, p, node, v) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// delete marks a victim, then deletes it as anyone would: it may end in its
// own time.
func (l *loop) delete(ctx context.Context, p *sched.Pod, node string, v *sched.Pod) error {
	c := condition(v.Pod, corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler,
		Message: p.Spec.SchedulerName + ": preempting to accommodate a higher priority pod",
	})
	if c != nil {
		if err := l.patch(ctx, v.Pod, status{c, v.Status.NominatedNodeName}); apierrors.IsNotFound(err) {
			return nil
		} else if err != nil {
			return err
		}
	}
	err := l.Client.CoreV1().Pods(v.Namespace).Delete(ctx, v.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(v.UID))})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("evict %s/%s: %w", v.Namespace, v.Name, err)
	}
	if r := l.recorder[p.Spec.SchedulerName]; r != nil {
		r.Eventf(v.Pod, p.Pod, corev1.EventTypeNormal, "Preempted", "Preempting", "Preempted by pod %s on node %s", p.UID, node)
	}
	return nil
}

// evicted has the pod tried again if something has happened meanwhile, or gone
// wrong.
func (l *loop) evicted(ctx context.Context, it *item, err error, took time.Duration) {
	result := "success"
	if err != nil {
		result = failed
		slog.WarnContext(ctx, "evict pods for another", "obj", "Pod/"+it.Pod.Namespace+"/"+it.Pod.Name, "err", err)
	}
	l.Metrics.evicted.WithLabelValues(result).Inc()
	l.Metrics.evicting.WithLabelValues(result).Observe(took.Seconds())
	it.evicting = false
	if l.queue.items[it.Pod.UID] == it && it.place == pool && (it.woken || err != nil) {
		l.queue.requeue(it, time.Now(), "PreemptionDone")
	}
}

package loop

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/sched"
)

// volumesPatience is how long a pod waits for its volumes to be bound once it
// has a node.
const volumesPatience = 10 * time.Minute

// An assumption is that a pod will be on a node, from when the node was chosen
// until the informer has the pod on it.
type assumption struct {
	item   *item
	node   string
	writes []sched.Write
	start  time.Time

	until time.Time // zero unless it waits for what the writes ask for
}

func (a *assumption) objects() (out []apis.Object) {
	for _, w := range a.writes {
		out = append(out, w.Object)
	}
	return out
}

// assume takes the pod to be on its node, and begins to bind it.
func (l *loop) assume(ctx context.Context, a *assumption) {
	p := a.item.Pod
	l.assumed[p.UID] = a
	l.cluster.Nominate(p, "")
	l.cluster.PutPod(p, a.node)
	if len(a.writes) == 0 {
		l.bind(ctx, a)
		return
	}
	l.objects.assume(a.objects()...)
	l.calls.do(p.UID, func() {
		// Others may wish to know where the pod will be. It does no harm if
		// they do not.
		_ = l.patch(ctx, p.Pod, status{Nominated: a.node})
		written, err := l.write(ctx, a.objects())
		l.inbox.put(func() { l.written(ctx, a, written, err) })
	})
}

func (l *loop) write(ctx context.Context, list []apis.Object) (out []apis.Object, err error) {
	for _, obj := range list {
		var made apis.Object
		switch obj := obj.(type) {
		case *corev1.PersistentVolume:
			made, err = l.Client.CoreV1().PersistentVolumes().Update(ctx, obj, metav1.UpdateOptions{})
		case *corev1.PersistentVolumeClaim:
			made, err = l.Client.CoreV1().PersistentVolumeClaims(obj.Namespace).Update(ctx, obj, metav1.UpdateOptions{})
		default:
			err = fmt.Errorf("a plugin would have a %T written", obj)
		}
		if err != nil {
			return out, err
		}
		out = append(out, made)
	}
	return out, nil
}

// written goes on after the writes.
func (l *loop) written(ctx context.Context, a *assumption, made []apis.Object, err error) {
	if l.assumed[a.item.Pod.UID] != a {
		return
	}
	for _, obj := range made {
		l.objects.wrote(obj)
	}
	if err != nil {
		l.retract(ctx, a, fmt.Errorf("running PreBind plugin %q: %w", "VolumeBinding", err))
		return
	}
	a.until = time.Now().Add(volumesPatience)
	l.proceed(ctx)
}

// proceed goes on with the pods that have waited for what was written for
// them to come about.
func (l *loop) proceed(ctx context.Context) {
	for _, a := range l.assumed {
		if a.until.IsZero() {
			continue
		}
		ready, err := l.ready(a)
		switch {
		case err != nil:
			l.retract(ctx, a, fmt.Errorf("running PreBind plugin %q: binding volumes: %w", "VolumeBinding", err))
		case ready:
			a.until = time.Time{}
			l.bind(ctx, a)
		}
	}
}

func (l *loop) ready(a *assumption) (bool, error) {
	if l.cluster.Node(a.node) == nil {
		return false, fmt.Errorf("node %q is gone", a.node)
	}
	if !time.Now().Before(a.until) {
		return false, context.DeadlineExceeded
	}
	for _, w := range a.writes {
		if ready, err := w.Done(l.objects); err != nil || !ready {
			return false, err
		}
	}
	return true, nil
}

// bind tells the server where the pod is to run.
func (l *loop) bind(ctx context.Context, a *assumption) {
	p := a.item.Pod
	l.calls.do(p.UID, func() {
		err := l.Client.CoreV1().Pods(p.Namespace).Bind(ctx, &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID},
			Target:     corev1.ObjectReference{Kind: "Node", Name: a.node},
		}, metav1.CreateOptions{})
		l.inbox.put(func() { l.answered(ctx, a, err) })
	})
}

// answered goes on after the server has answered. That the pod is bound it
// will tell again, through the informer, as it tells all others.
func (l *loop) answered(ctx context.Context, a *assumption, err error) {
	p := a.item.Pod
	switch {
	case apierrors.IsNotFound(err):
		if l.undo(a) {
			l.queue.remove(p.UID) // the informer will say so too
		}
		return
	case err != nil:
		l.retract(ctx, a, fmt.Errorf("running Bind plugin %q: %w", "DefaultBinder", err))
		return
	}
	l.event(p, corev1.EventTypeNormal, "Scheduled", "Binding", fmt.Sprintf("Successfully assigned %s/%s to %s", p.Namespace, p.Name, a.node))
	l.Metrics.tried(scheduled, p.Spec.SchedulerName, time.Since(a.start))
	l.Metrics.bound(a.item, time.Now())
}

// settle ends an assumption that has come true, or that no one cares for any
// more, and returns it.
func (l *loop) settle(uid types.UID) *assumption {
	a := l.assumed[uid]
	delete(l.assumed, uid)
	return a
}

// retract takes back an assumption, and has the pod tried again.
func (l *loop) retract(ctx context.Context, a *assumption, err error) {
	if l.undo(a) {
		l.fail(ctx, a.item, err, a.start)
	}
}

// undo takes back an assumption, unless the informer has settled it already.
func (l *loop) undo(a *assumption) bool {
	p := a.item.Pod
	if l.assumed[p.UID] != a {
		return false
	}
	l.settle(p.UID)
	l.cluster.DropPod(p.UID)
	l.objects.forget(a.objects()...)
	l.wake(sched.Event{Change: sched.PodDeleted, Node: l.cluster.Node(a.node), Pod: p.Pod})
	return true
}

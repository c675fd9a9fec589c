package loop

import (
	"context"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/sched"
)

// node takes in that a node has changed; one of the two may be nil.
func (l *loop) node(ctx context.Context, old, obj *corev1.Node) {
	if obj == nil {
		n := l.cluster.Node(old.Name)
		l.cluster.DropNode(old.Name)
		if n != nil {
			l.wake(sched.Event{Change: sched.NodeDeleted})
			l.proceed(ctx)
		}
		return
	}
	known := l.cluster.Node(obj.Name)
	if known != nil {
		old = known.Node
	}
	n := l.cluster.PutNode(obj)
	if known == nil {
		l.wake(sched.Event{Change: sched.NodeAdded, Node: n})
		return
	}
	for _, c := range nodeChanges(old, obj) {
		l.wake(sched.Event{Change: c, Node: n})
	}
}

func nodeChanges(old, obj *corev1.Node) (out []sched.Change) {
	if !equality.Semantic.DeepEqual(old.Status.Allocatable, obj.Status.Allocatable) {
		out = append(out, sched.NodeAllocatable)
	}
	if !equality.Semantic.DeepEqual(old.Labels, obj.Labels) {
		out = append(out, sched.NodeLabels)
	}
	if old.Spec.Unschedulable && !obj.Spec.Unschedulable || !equality.Semantic.DeepEqual(old.Spec.Taints, obj.Spec.Taints) {
		out = append(out, sched.NodeTaints)
	}
	return out
}

// pod takes in that a pod has changed; one of the two may be nil.
func (l *loop) pod(ctx context.Context, old, obj *corev1.Pod) {
	if old != nil && (obj == nil || obj.UID != old.UID) {
		l.gone(old)
	}
	switch {
	case obj == nil:
	case sched.Done(obj):
		l.gone(obj)
	default:
		p := sched.NewPod(obj)
		if err := l.objects.need(ctx, p, l.Plugins); err != nil {
			// Nothing but the end of ctx, which ends the loop too.
			slog.ErrorContext(ctx, "fetch what plugins need", "obj", "Pod/"+obj.Namespace+"/"+obj.Name, "err", err)
		}
		if obj.Spec.NodeName != "" {
			l.assigned(p)
		} else if l.ours(obj) {
			l.pending(old, p)
		}
	}
}

// assigned takes in a pod on a node: one that was bound, as it was assumed or
// otherwise, or one that has changed since.
func (l *loop) assigned(p *sched.Pod) {
	was, on := l.cluster.Where(p.UID)
	guessed := l.settle(p.UID) != nil
	l.queue.remove(p.UID)
	l.cluster.Nominate(p, "")
	l.cluster.PutPod(p, p.Spec.NodeName)
	e := sched.Event{Node: l.cluster.Node(p.Spec.NodeName), Pod: p.Pod}
	if was == nil || guessed {
		e.Change = sched.PodAssigned
		l.wake(e)
		if was != nil && on != l.cluster.Node(p.Spec.NodeName) {
			l.wake(sched.Event{Change: sched.PodDeleted, Node: on, Pod: was.Pod}) // from where it was assumed to be
		}
		return
	}
	e.Was = was.Pod
	if !equality.Semantic.DeepEqual(was.Labels, p.Labels) {
		e.Change = sched.PodLabels
		l.wake(e)
	}
	if shrunk(was.Requests, p.Requests) {
		e.Change = sched.PodShrunk
		l.wake(e)
	}
}

func shrunk(old, now sched.Resources) bool {
	for name, v := range old.Other {
		if now.Other[name] < v {
			return true
		}
	}
	return now.CPU < old.CPU || now.Memory < old.Memory || now.Storage < old.Storage
}

// pending takes in a pod without a node.
func (l *loop) pending(old *corev1.Pod, p *sched.Pod) {
	claim := l.cluster.Nomination(p.UID)
	switch nominated := p.Status.NominatedNodeName; {
	case nominated != "":
		l.cluster.Nominate(p, nominated)
	case old != nil && old.Status.NominatedNodeName != "":
		l.cluster.Nominate(p, "")
	default:
		// What the loop has decided need not have been written yet.
		l.cluster.Nominate(p, claim)
	}
	if now := l.cluster.Nomination(p.UID); claim != "" && claim != now {
		l.released(p.Pod, claim)
	}
	if a := l.assumed[p.UID]; a != nil {
		l.cluster.Nominate(p, "")
		a.item.Pod = p
		return
	}
	l.queue.put(p, time.Now())
}

// gone takes in that a pod takes up nothing any more.
func (l *loop) gone(obj *corev1.Pod) {
	claim := l.cluster.Nomination(obj.UID)
	l.cluster.Nominate(&sched.Pod{Pod: obj}, "")
	l.queue.remove(obj.UID)
	if a := l.settle(obj.UID); a != nil {
		l.objects.forget(a.objects()...)
	}
	if was, on := l.cluster.Where(obj.UID); was != nil {
		l.cluster.DropPod(obj.UID)
		l.wake(sched.Event{Change: sched.PodDeleted, Node: on, Pod: was.Pod})
	} else if claim != "" {
		l.released(obj, claim)
	}
}

// released takes in that a claim to room on a node is no more, which is as
// good as a pod less there.
func (l *loop) released(obj *corev1.Pod, node string) {
	l.wake(sched.Event{Change: sched.PodDeleted, Node: l.cluster.Node(node), Pod: obj})
}

// storage takes in a change of what volumes are made of.
func (l *loop) storage(ctx context.Context, obj apis.Object) {
	l.objects.saw(obj)
	l.wake(sched.Event{Change: sched.StorageChanged, Object: obj})
	l.proceed(ctx)
}

// wake has those pods tried again that the event may help. A plugin that
// judges a node by itself is asked about the one that has changed.
func (l *loop) wake(e sched.Event) {
	l.queue.wake(e, time.Now(), func(plugin int, p *sched.Pod) bool {
		pl := &l.Plugins[plugin]
		switch {
		case pl.Helps != nil:
			return pl.Helps(p, e)
		case pl.Local:
			return e.Node != nil && pl.Alone(p, l.cluster, e.Node).Fits()
		}
		return true
	})
}

// asksAnew tells whether a pod asks for something else than before.
func asksAnew(old, now *corev1.Pod) bool {
	return !equality.Semantic.DeepEqual(old.Labels, now.Labels) ||
		!equality.Semantic.DeepEqual(old.Spec, now.Spec) ||
		!slices.Equal(old.Status.ResourceClaimStatuses, now.Status.ResourceClaimStatuses)
}

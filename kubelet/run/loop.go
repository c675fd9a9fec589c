package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-dev/knarr/kubelet"
	"github.com/knarr-dev/knarr/kubelet/cri"
	"github.com/knarr-dev/knarr/kubelet/pod"
)

type podID = types.UID

// loop has one worker per pod and tells each what concerns it.
type loop struct {
	Config

	rt      cri.Runtime
	client  kubernetes.Interface
	hooks   []kubelet.Hook
	runtime string // its name
	wait    sync.WaitGroup

	mu      sync.Mutex
	workers map[podID]*worker
	seen    map[podID]string // by Relist: what the runtime had
}

// begin starts the workers of the pods that there are, in the API and in the
// runtime, and has the API tell of every change from then on.
func (l *loop) begin(ctx context.Context) error {
	var early []func() // until the first list is complete nothing is admitted
	complete := false
	var mu sync.Mutex
	handle := func(f func()) {
		mu.Lock()
		defer mu.Unlock()
		if !complete {
			early = append(early, f)
			return
		}
		f()
	}
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: l.source(ctx), ObjectType: &corev1.Pod{}, Transform: lean,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { handle(func() { l.update(ctx, o.(*corev1.Pod)) }) },
			UpdateFunc: func(_, o any) { handle(func() { l.update(ctx, o.(*corev1.Pod)) }) },
			DeleteFunc: func(o any) {
				if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
					o = gone.Obj
				}
				handle(func() { l.gone(o.(*corev1.Pod)) })
			},
		},
	})
	l.wait.Go(func() { informer.RunWithContext(ctx) })
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return fmt.Errorf("list the node's pods: %w", ctx.Err())
	}
	boxes, containers, err := l.both(ctx)
	if err != nil {
		return err
	}
	have := byPod(boxes, containers)
	mu.Lock()
	defer mu.Unlock()
	complete = true
	for _, p := range byAge(store.List()) {
		if have[p.UID] != nil {
			p = accepted(p)
		}
		l.update(ctx, p)
	}
	for _, f := range early {
		f()
	}
	l.adopt(ctx, have)
	return nil
}

// byAge orders pods so that those that run are before those that would, and
// the older ones before the younger.
func byAge(list []any) []*corev1.Pod {
	pods := make([]*corev1.Pod, 0, len(list))
	for _, o := range list {
		pods = append(pods, o.(*corev1.Pod))
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		if fresh(a) != fresh(b) {
			if fresh(a) {
				return 1
			}
			return -1
		}
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(string(a.UID), string(b.UID)))
	})
	return pods
}

// fresh tells whether no kubelet has taken the pod yet.
func fresh(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && p.Status.StartTime.IsZero() && (p.Status.Phase == corev1.PodPending || p.Status.Phase == "")
}

// accepted is a pod as it is once a kubelet has taken it.
func accepted(p *corev1.Pod) *corev1.Pod {
	if p.Status.StartTime.IsZero() {
		p = p.DeepCopy()
		p.Status.StartTime = &p.CreationTimestamp
	}
	return p
}

// source has the pods of this node only.
func (l *loop) source(ctx context.Context) cache.ListerWatcher {
	mine := fields.OneTermEqualSelector("spec.nodeName", l.NodeName).String()
	pods := l.client.CoreV1().Pods(metav1.NamespaceAll)
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(_ context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = mine
			return pods.List(ctx, o)
		},
		WatchFuncWithContext: func(_ context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = mine
			return pods.Watch(ctx, o)
		},
	}, l.client)
}

// lean drops what the kubelet never reads.
func lean(o any) (any, error) {
	if p, ok := o.(*corev1.Pod); ok {
		p.ManagedFields = nil
	}
	return o, nil
}

// update tells a pod's worker what the API has now; a new pod gets a worker,
// if the node can take it.
func (l *loop) update(ctx context.Context, p *corev1.Pod) {
	l.mu.Lock()
	w, ok := l.workers[p.UID]
	if !ok {
		w = l.hire(p)
	}
	l.mu.Unlock()
	if ok {
		w.post(func(w *worker) { w.replace(p) })
		return
	}
	if fresh(p) {
		w.st.End = l.admit(p)
	}
	l.start(ctx, w)
}

// admit asks the hooks whether the node can take a pod, one pod at a time.
func (l *loop) admit(p *corev1.Pod) *pod.End {
	others := l.active(p.UID)
	for _, h := range l.hooks {
		if h.Admit == nil {
			continue
		}
		if err := h.Admit(p, others); err != nil {
			r, ok := errors.AsType[*kubelet.Refusal](err)
			if !ok {
				r = &kubelet.Refusal{Reason: "UnexpectedAdmissionError", Message: err.Error()}
			}
			l.Tell(p, "", corev1.EventTypeWarning, r.Reason, r.Message)
			return &pod.End{Refused: true, Reason: r.Reason, Message: "Pod was rejected: " + r.Message}
		}
	}
	return nil
}

// gone tells a pod's worker that the API has it no longer.
func (l *loop) gone(p *corev1.Pod) {
	l.post(p.UID, func(w *worker) { w.st.Gone = true })
}

// adopt starts workers for pods that only the runtime knows, to end them.
func (l *loop) adopt(ctx context.Context, have map[podID]*corev1.Pod) {
	for uid, p := range have {
		l.mu.Lock()
		_, known := l.workers[uid]
		var w *worker
		if !known {
			w = l.hire(p)
			w.st.Gone = true
		}
		l.mu.Unlock()
		if w != nil {
			l.start(ctx, w)
		}
	}
}

// hire makes a worker; the lock is held. It waits for older pods of its name.
func (l *loop) hire(p *corev1.Pod) *worker {
	w := newWorker(l, p)
	for _, other := range l.workers {
		if other.name == w.name {
			w.st.Blocked = true
		}
	}
	l.workers[p.UID] = w
	l.Pods.put(p.UID, known{pod: p})
	return w
}

func (l *loop) start(ctx context.Context, w *worker) {
	l.wait.Go(func() { w.run(ctx) })
}

// dismiss forgets a worker whose pod is no more and lets the next one of its
// name begin.
func (l *loop) dismiss(w *worker) {
	l.Pods.drop(w.uid)
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.workers, w.uid)
	delete(l.seen, w.uid)
	var next *worker
	for _, other := range l.workers {
		if other.name == w.name && (next == nil || other.since.Before(next.since)) {
			next = other
		}
	}
	if next != nil {
		next.post(func(w *worker) { w.st.Blocked = false })
	}
}

// post tells a pod's worker, if there is one.
func (l *loop) post(uid podID, f func(*worker)) {
	l.mu.Lock()
	w := l.workers[uid]
	l.mu.Unlock()
	if w != nil {
		w.post(f)
	}
}

// watch tells workers what happens in the runtime, until ctx ends.
func (l *loop) watch(ctx context.Context) {
	every := l.Relist
	if every == 0 {
		every = defaultRelist
	}
	l.wait.Go(func() {
		for ctx.Err() == nil {
			err := l.rt.Watch(ctx,
				// An event from before the runtime took notice of us is lost: look a little later too.
				func() { l.wait.Go(func() { l.relist(ctx); wait(ctx, 2*time.Second); l.relist(ctx) }) },
				func(uid string) { l.post(podID(uid), (*worker).look) })
			switch {
			case errors.Is(err, cri.ErrUnsupported):
				slog.InfoContext(ctx, "the runtime tells no events and is asked every second")
				for ctx.Err() == nil {
					l.relist(ctx)
					wait(ctx, time.Second)
				}
			case ctx.Err() == nil:
				slog.WarnContext(ctx, "the runtime's events end", "err", err)
				wait(ctx, time.Second)
			}
		}
	})
	for ctx.Err() == nil {
		wait(ctx, every)
		if ctx.Err() == nil {
			l.relist(ctx)
		}
	}
}

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// relist compares what the runtime has with what it had and tells the workers
// of the pods that differ.
func (l *loop) relist(ctx context.Context) {
	boxes, containers, err := l.both(ctx)
	if err != nil {
		if ctx.Err() == nil {
			slog.WarnContext(ctx, "ask the runtime what it has", "err", err)
		}
		return
	}
	parts := map[podID][]string{}
	for _, b := range boxes {
		uid := podID(b.Labels[cri.UIDLabel])
		parts[uid] = append(parts[uid], b.Id+b.State.String())
	}
	for _, c := range containers {
		uid := podID(c.Labels[cri.UIDLabel])
		parts[uid] = append(parts[uid], c.Id+c.State.String())
	}
	have := byPod(boxes, containers)
	l.mu.Lock()
	var changed []*worker
	for uid, w := range l.workers {
		slices.Sort(parts[uid])
		if now := strings.Join(parts[uid], " "); now != l.seen[uid] {
			l.seen[uid] = now
			changed = append(changed, w)
		}
	}
	l.mu.Unlock()
	for _, w := range changed {
		w.post((*worker).look)
	}
	l.adopt(ctx, have)
}

func (l *loop) both(ctx context.Context) ([]*runtimeapi.PodSandbox, []*runtimeapi.Container, error) {
	boxes, err := l.rt.ListSandboxes(ctx, "")
	if err != nil {
		return nil, nil, fmt.Errorf("list sandboxes: %w", err)
	}
	containers, err := l.rt.ListContainers(ctx, "")
	if err != nil {
		return nil, nil, fmt.Errorf("list containers: %w", err)
	}
	return boxes, containers, nil
}

// active lists the pods that hold something of the node, but for one.
func (l *loop) active(but podID) []*corev1.Pod {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []*corev1.Pod
	for uid := range l.workers {
		if uid == but {
			continue
		}
		if k, ok := l.Pods.byUID(uid); ok && k.pod.Status.Phase != corev1.PodSucceeded && k.pod.Status.Phase != corev1.PodFailed {
			list = append(list, k.pod)
		}
	}
	return list
}

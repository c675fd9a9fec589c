package run

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-dev/knarr/kubelet"
	"github.com/knarr-dev/knarr/kubelet/pod"
)

// A worker does all that concerns one pod. Only its own goroutine touches its
// state; others post functions to it, and operations that take time go on in
// goroutines that post their outcome.
type worker struct {
	l     *loop
	uid   podID
	name  string // namespace/name
	since time.Time

	mu    sync.Mutex
	inbox []func(*worker)
	bell  chan struct{}

	st      pod.State
	old     bool // the observation is
	ops     map[string]op
	lastOp  int
	fails   map[string]int // in a row, by Step.Subject
	told    map[string]bool
	ended   map[string]*runtimeapi.ContainerStatus // that will not change any more
	stopped map[string]bool                        // sandboxes
	hooked  map[string]context.CancelFunc          // running containers that the hooks know
	dying   chan struct{}                          // closed when the pod begins to end
	box     *kubelet.Sandbox                       // as the hooks prepared it
	writing bool                                   // the status
	rewrite time.Time                              // when to try that again
	done    bool
}

// op is an operation that goes on.
type op struct {
	id     int
	cancel context.CancelFunc
}

func newWorker(l *loop, p *corev1.Pod) *worker {
	w := &worker{
		l: l, uid: p.UID, name: p.Namespace + "/" + p.Name, since: p.CreationTimestamp.Time,
		bell: make(chan struct{}, 1), old: true, ops: map[string]op{}, fails: map[string]int{}, told: map[string]bool{},
		ended: map[string]*runtimeapi.ContainerStatus{}, stopped: map[string]bool{}, hooked: map[string]context.CancelFunc{},
		dying: make(chan struct{}),
	}
	w.st = pod.State{
		Pod: p, Was: *p.Status.DeepCopy(), MaxBackoff: l.MaxBackoff, Host: pod.Host{Runtime: l.runtime},
		Probes: map[string]pod.Probes{}, Killing: map[string]pod.Killing{}, Doing: map[string]pod.Step{},
		Trouble: map[string]pod.Trouble{}, Backoff: map[string]pod.Backoff{},
	}
	return w
}

// post has f run by the worker, soon.
func (w *worker) post(f func(*worker)) {
	w.mu.Lock()
	w.inbox = append(w.inbox, f)
	w.mu.Unlock()
	select {
	case w.bell <- struct{}{}:
	default:
	}
}

// look is what to post when the runtime may have something new of a pod.
func (w *worker) look() { w.old = true }

// replace takes over what the API has of a pod now, unless it is older than
// what is known.
func (w *worker) replace(p *corev1.Pod) {
	s := &w.st
	if older(p.ResourceVersion, s.Pod.ResourceVersion) {
		return
	}
	if p.Generation != s.Pod.Generation || !maps.Equal(p.Labels, s.Pod.Labels) || !maps.Equal(p.Annotations, s.Pod.Annotations) {
		s.Stale = true
	}
	s.Pod = p
}

func older(a, b string) bool {
	x, err1 := strconv.ParseUint(a, 10, 64)
	y, err2 := strconv.ParseUint(b, 10, 64)
	return err1 == nil && err2 == nil && x < y
}

// run works until the pod is no more or ctx ends.
func (w *worker) run(ctx context.Context) {
	defer func() {
		for _, stop := range w.hooked {
			stop()
		}
	}()
	for !w.done && ctx.Err() == nil {
		next := w.turn(ctx)
		if w.done {
			break
		}
		var timer <-chan time.Time
		if next > 0 {
			t := time.NewTimer(next)
			defer t.Stop()
			timer = t.C
		}
		select {
		case <-ctx.Done():
		case <-w.bell:
		case <-timer:
		}
	}
	if w.done {
		w.l.dismiss(w)
	}
}

// turn is one round: take in the news, observe, decide, and set off what is to
// be done. It returns when to look again though nothing happens; zero is never.
func (w *worker) turn(ctx context.Context) (next time.Duration) {
	defer func() {
		// A fault in one pod's handling must not take the others with it.
		if r := recover(); r != nil {
			slog.ErrorContext(ctx, "panic in a pod's worker", "obj", "Pod/"+w.name, "err", fmt.Sprint(r), "stack", string(debug.Stack()))
			next = time.Second
		}
	}()
	w.mu.Lock()
	news := w.inbox
	w.inbox = nil
	w.mu.Unlock()
	for _, f := range news {
		f(w)
	}
	if w.old {
		if err := w.observe(ctx); err != nil {
			if ctx.Err() == nil {
				slog.WarnContext(ctx, "observe", "obj", "Pod/"+w.name, "err", err)
			}
			return time.Second
		}
		w.old = false
	}
	s := &w.st
	s.Now = time.Now()
	w.status(ctx)
	w.introduce(ctx)
	plan := pod.Next(*s)
	if plan.Ending && s.Since.IsZero() {
		s.Since = s.Now
		close(w.dying)
		plan = pod.Next(*s)
	}
	if plan.Ending {
		w.giveUp()
	}
	for _, step := range plan.Steps {
		w.do(ctx, step)
	}
	next = plan.Wait
	if late := time.Until(w.rewrite); !w.rewrite.IsZero() && (next == 0 || late < next) {
		next = max(late, time.Millisecond)
	}
	return next
}

// giveUp stops what is being started for a pod that ends.
func (w *worker) giveUp() {
	for key, o := range w.ops {
		switch w.st.Doing[key].Op {
		case pod.Prepare, pod.CreateSandbox, pod.Start:
			o.cancel()
		}
	}
}

// snapshot is the pod with the status that the kubelet knows.
func (w *worker) snapshot() *corev1.Pod {
	p := *w.st.Pod
	p.Status = w.st.Was
	return &p
}

// introduce tells the hooks of containers that run, and lets those go that do
// not any more.
func (w *worker) introduce(ctx context.Context) {
	running := map[string]bool{}
	for _, c := range w.st.Containers {
		starting, busy := w.st.Doing[pod.Step{Op: pod.Start}.Key()]
		if c.Phase != pod.Running || busy && starting.Container == c.Name {
			continue
		}
		running[c.ID] = true
		spec, target := specOf(w.st.Pod, c.Name)
		if w.hooked[c.ID] != nil || spec == nil {
			continue
		}
		hctx, stop := context.WithCancel(ctx)
		w.hooked[c.ID] = stop
		k := &kubelet.Container{Pod: w.snapshot(), Spec: spec, Target: target, Sandbox: w.box, ID: c.ID, Started: c.Started, Ending: w.dying}
		for _, h := range w.l.hooks {
			if h.Running != nil {
				h.Running(hctx, k)
			}
		}
	}
	for id, stop := range w.hooked {
		if !running[id] {
			stop()
			delete(w.hooked, id)
			delete(w.st.Probes, id)
		}
	}
}

// specOf finds a container's specification, and the target of an ephemeral one.
func specOf(p *corev1.Pod, name string) (spec *corev1.Container, target string) {
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i], ""
			}
		}
	}
	for _, e := range p.Spec.EphemeralContainers {
		if e.Name == name {
			c := corev1.Container(e.EphemeralContainerCommon)
			return &c, e.TargetContainerName
		}
	}
	return nil, ""
}

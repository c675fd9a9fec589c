// Package loop is the part of the scheduler that acts: it watches nodes and
// pods, queues the pods that have no node, has the plugins choose nodes for
// them, and binds them. What is chosen, and why, is up to the plugins.
//
// One goroutine owns the cluster, the queue and all else that changes; what
// informers and answered calls have for it to do comes through its inbox.
// So a cycle sees a cluster that stands still, and needs no copy of it.
package loop

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/sched"
)

// A Config is what the scheduler needs.
type Config struct {
	Client kubernetes.Interface
	// Informers may be shared with other parts. It is asked for pods and
	// nodes, and for other kinds once a pod needs them; what it is asked for
	// is started, for as long as Run's context lasts.
	Informers informers.SharedInformerFactory
	// Plugins are asked in this order.
	Plugins []sched.Erased
	// Names are the schedulerNames of the pods to schedule; default-scheduler
	// where empty.
	Names []string
	// Elect has the scheduler wait until it holds the lease
	// kube-system/kube-scheduler, and end when it loses it.
	Elect bool
	// Metrics are kept where they are not nil.
	Metrics *Metrics
}

// How long the lease lasts, how long its holder tries to renew it, and how
// often.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

// ErrLost says that another scheduler has taken over.
var ErrLost = errors.New("leader election lost")

// Run schedules pods until ctx ends, or the lease is lost.
func Run(ctx context.Context, c Config) error {
	if len(c.Names) == 0 {
		c.Names = []string{corev1.DefaultSchedulerName}
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics()
	}
	// Informers outlive the lease: others may share them.
	begin := func() { c.Informers.StartWithContext(ctx) }
	if !c.Elect {
		return run(ctx, c, begin)
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("name the holder of the lease: %w", err)
	}
	leading, cancel := context.WithCancel(ctx)
	defer cancel()
	began, ended := make(chan struct{}), make(chan error, 1)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "kube-scheduler"},
			Client:     c.Client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: host + "_" + string(uuid.NewUUID())},
		},
		LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				close(began)
				ended <- run(ctx, c, begin)
				cancel() // should it have ended by itself
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("elect a leader: %w", err)
	}
	elector.Run(leading)
	select {
	case <-began:
		err = <-ended
	default: // it never led
	}
	if err == nil && ctx.Err() == nil {
		err = ErrLost
	}
	return err
}

// loop is the state of the scheduler.
type loop struct {
	Config

	inbox    *inbox
	calls    *calls
	recorder map[string]events.EventRecorder // by schedulerName

	cluster *sched.Cluster
	objects *objects
	queue   *queue
	from    int // where the next search begins

	assumed map[types.UID]*assumption
}

func run(ctx context.Context, c Config, begin func()) error {
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: c.Client.EventsV1()})
	defer broadcaster.Shutdown()
	if err := broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
		return fmt.Errorf("record events: %w", err)
	}
	l := &loop{
		Config: c, inbox: newInbox(), calls: newCalls(), recorder: map[string]events.EventRecorder{},
		queue: newQueue(c.Plugins), assumed: map[types.UID]*assumption{},
	}
	defer l.calls.close()
	for _, name := range c.Names {
		l.recorder[name] = broadcaster.NewRecorder(scheme.Scheme, name)
	}
	l.objects = newObjects(c.Informers, begin, func(obj apis.Object) { l.inbox.put(func() { l.storage(ctx, obj) }) })
	l.cluster = sched.NewCluster(l.objects)
	l.queue.entered = c.Metrics.entered
	stop, err := l.watch(ctx)
	if err != nil {
		return err
	}
	defer stop()
	return l.work(ctx)
}

// work does what the inbox asks for, and tries a pod whenever there is nothing
// else to do.
func (l *loop) work(ctx context.Context) error {
	late := time.NewTicker(patience / 10)
	defer late.Stop()
	for ctx.Err() == nil {
		for _, job := range l.inbox.take() {
			job()
		}
		l.Metrics.size(l.queue, len(l.cluster.Nodes()), l.cluster.Pods())
		now := time.Now()
		if it := l.queue.pop(now); it != nil {
			l.try(ctx, it)
			continue
		}
		wait := time.NewTimer(l.queue.next(now))
		select {
		case <-ctx.Done():
		case <-l.inbox.more:
		case <-wait.C:
		case <-late.C:
			l.queue.late(time.Now())
			l.proceed(ctx)
		}
		wait.Stop()
	}
	return nil
}

// watch has the inbox told of nodes and pods, beginning with those that are
// there, and returns what ends that.
func (l *loop) watch(ctx context.Context) (stop func(), err error) {
	nodes, pods := l.Informers.Core().V1().Nodes().Informer(), l.Informers.Core().V1().Pods().Informer()
	onNode, err := nodes.AddEventHandler(handler(l.inbox, func(old, n *corev1.Node) { l.node(ctx, old, n) }))
	if err != nil {
		return nil, fmt.Errorf("watch nodes: %w", err)
	}
	onPod, err := pods.AddEventHandler(handler(l.inbox, func(old, p *corev1.Pod) { l.pod(ctx, old, p) }))
	if err != nil {
		return nil, fmt.Errorf("watch pods: %w", err)
	}
	stop = func() {
		// Neither fails but for a handler of another informer.
		_ = nodes.RemoveEventHandler(onNode)
		_ = pods.RemoveEventHandler(onPod)
	}
	l.objects.begin()
	if !cache.WaitFor(ctx, "", onNode.HasSyncedChecker(), onPod.HasSyncedChecker()) {
		stop()
		return nil, ctx.Err()
	}
	return stop, nil
}

// handler puts changes into the inbox: old is nil for what is new, obj for
// what is gone.
func handler[T any](to *inbox, change func(old, obj *T)) cache.ResourceEventHandlerFuncs {
	as := func(obj any) *T {
		if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = gone.Obj
		}
		t, _ := obj.(*T)
		return t
	}
	put := func(old, obj *T) {
		if old != nil || obj != nil {
			to.put(func() { change(old, obj) })
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { put(nil, as(obj)) },
		UpdateFunc: func(old, obj any) { put(as(old), as(obj)) },
		DeleteFunc: func(obj any) { put(as(obj), nil) },
	}
}

// ours tells whether it is this scheduler that a pod waits for.
func (l *loop) ours(p *corev1.Pod) bool { return slices.Contains(l.Names, p.Spec.SchedulerName) }

func dice(n int) int { return rand.IntN(n) }

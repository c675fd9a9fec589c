package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A Runtime tells what it is and how it is.
type Runtime interface {
	Version(context.Context, *runtimeapi.VersionRequest, ...grpc.CallOption) (*runtimeapi.VersionResponse, error)
	Status(context.Context, *runtimeapi.StatusRequest, ...grpc.CallOption) (*runtimeapi.StatusResponse, error)
}

// Images tells which images there are.
type Images interface {
	ListImages(context.Context, *runtimeapi.ListImagesRequest, ...grpc.CallOption) (*runtimeapi.ListImagesResponse, error)
}

// A Config is what Run needs. A func left nil has nothing to tell, or is not told.
type Config struct {
	Settings

	Client   kubernetes.Interface
	Recorder record.EventRecorder
	Runtime  Runtime
	Images   Images
	Machine  Machine

	Addresses    func() ([]corev1.NodeAddress, error)
	Disk         func() (bytes int64, err error) // of the kubelet's directory
	Devices      func() (capacity, allocatable corev1.ResourceList)
	Pressure     func() Pressure
	Problems     func() []string
	VolumesInUse func() []corev1.UniqueVolumeName
	// Changed wakes Run at once when one of the above has something new.
	Changed <-chan struct{}

	// Enforce is told once what all pods together may use.
	Enforce func(allocatable corev1.ResourceList) error
	// Observe sees the Node whenever it has changed, one state after another.
	// It must not change it.
	Observe func(*corev1.Node)
	// PodCIDRs is told the ranges of pod addresses, again if it fails and when
	// they change.
	PodCIDRs func([]string) error
}

// How often what is done. The first and the last two are upstream's defaults.
const (
	lookEvery   = 10 * time.Second
	reportEvery = 5 * time.Minute
	// Until the node is ready for the first time it is looked at much more
	// often, less so the longer it takes.
	firstLook = 20 * time.Millisecond
	slowLook  = time.Second
	// patience is for a runtime that does not answer. A call waits for a
	// runtime that is not there yet, so it comes back as soon as there is one.
	patience = 2 * time.Second
	// brief is for a runtime that is not there when the node registers.
	brief = 50 * time.Millisecond
)

// Run registers the node and keeps its Node and its Lease until ctx ends.
func Run(ctx context.Context, c Config) error {
	k := &keeper{Config: c, woken: make(chan struct{}, 1)}
	k.gather(ctx, brief)
	k.register(ctx)
	if ctx.Err() != nil {
		return nil
	}
	var tasks sync.WaitGroup
	defer tasks.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	tasks.Go(func() { holdLease(ctx, c.Client, k.node()) })
	tasks.Go(func() { k.watch(ctx) })
	k.enforce()
	k.loop(ctx)
	return nil
}

// A keeper keeps one Node.
type keeper struct {
	Config

	facts Facts
	woken chan struct{}
	cidrs []string // that PodCIDRs has taken

	seeing  sync.Mutex // held while one state is taken and told
	mu      sync.Mutex
	current *corev1.Node // never changed, only replaced
}

func (k *keeper) node() *corev1.Node {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current
}

// see takes n for the Node, unless a newer one was seen.
func (k *keeper) see(n *corev1.Node) {
	k.seeing.Lock()
	defer k.seeing.Unlock()
	k.mu.Lock()
	old := k.current
	if old != nil && old.UID == n.UID {
		if c, err := resourceversion.CompareResourceVersion(old.ResourceVersion, n.ResourceVersion); err == nil && c >= 0 {
			k.mu.Unlock()
			return
		}
	}
	k.current = n
	k.mu.Unlock()
	if old != nil && old.Spec.Unschedulable != n.Spec.Unschedulable {
		k.record(schedulable(n))
	}
	if k.Observe != nil {
		k.Observe(n)
	}
	select {
	case k.woken <- struct{}{}:
	default:
	}
}

// watch follows the Node.
func (k *keeper) watch(ctx context.Context) {
	byName := fields.OneTermEqualSelector("metadata.name", k.Name)
	nodes := k.Client.CoreV1().Nodes()
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = byName.String()
			return nodes.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = byName.String()
			return nodes.Watch(ctx, o)
		},
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(lw, k.Client), ObjectType: &corev1.Node{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { k.see(o.(*corev1.Node)) },
			UpdateFunc: func(_, o any) { k.see(o.(*corev1.Node)) },
		},
	})
	informer.RunWithContext(ctx)
}

// loop writes the status whenever it has changed. How soon it looks again is
// in fast until the node has been ready once.
func (k *keeper) loop(ctx context.Context) {
	fast, report := firstLook, time.Now().Add(spread())
	look := time.NewTimer(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.woken: // the facts are as they were
		case <-k.Changed:
			k.gather(ctx, patience)
		case <-look.C:
			k.gather(ctx, patience)
			if fast > 0 {
				look.Reset(fast)
				fast = min(slowLook, fast+fast/8)
			} else {
				look.Reset(lookEvery)
			}
		}
		switch taken, err := k.takeCIDRs(); {
		case err != nil:
			slog.WarnContext(ctx, "take pod address ranges", "err", err)
		case taken && fast > 0: // the network may be ready in a moment
			fast = firstLook
			look.Reset(fast)
		}
		due := time.Now().After(report)
		isReady, err := k.write(ctx, due)
		if err != nil {
			slog.WarnContext(ctx, "write node status", "err", err)
			look.Reset(slowLook)
			continue
		}
		if due {
			report = time.Now().Add(spread())
		}
		if isReady && fast > 0 {
			fast = 0
			look.Reset(lookEvery)
		}
	}
}

// spread is when to report next, so that nodes started together do not report together.
func spread() time.Duration { return reportEvery - rand.N(reportEvery/5) }

// write writes the status if it is another, or if it is due.
func (k *keeper) write(ctx context.Context, due bool) (ready bool, err error) {
	old := k.node()
	now := old.DeepCopy()
	now.Status = *Status(&old.Status, &k.Settings, &k.facts, metav1.Now())
	ready = condition(&now.Status, corev1.NodeReady).Status == corev1.ConditionTrue
	if !due && !changed(&old.Status, &now.Status) {
		return ready, nil
	}
	patch, err := statusPatch(old, now)
	if err != nil {
		return ready, err
	}
	written, err := k.Client.CoreV1().Nodes().Patch(ctx, k.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return ready, err
	}
	k.tell(old, now)
	k.see(written)
	return ready, nil
}

// tell records what has happened between two states of the Node.
func (k *keeper) tell(old, now *corev1.Node) {
	for _, e := range events(old, now) {
		k.record(e)
	}
}

func (k *keeper) record(e Event) {
	// With its uid, so that describing the node shows them.
	ref := &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: k.Name, UID: k.node().UID}
	k.Recorder.Event(ref, e.Type, e.Reason, e.Message)
}

func (k *keeper) enforce() {
	if k.Enforce == nil {
		return
	}
	e := Event{corev1.EventTypeNormal, "NodeAllocatableEnforced", "Updated Node Allocatable limit across pods"}
	if err := k.Enforce(k.node().Status.Allocatable); err != nil {
		e = Event{corev1.EventTypeWarning, "FailedNodeAllocatableEnforcement", fmt.Sprintf("Failed to update Node Allocatable Limits: %v", err)}
	}
	k.record(e)
}

func (k *keeper) takeCIDRs() (taken bool, err error) {
	have := k.node().Spec.PodCIDRs
	if k.PodCIDRs == nil || len(have) == 0 || slices.Equal(have, k.cidrs) {
		return false, nil
	}
	if err := k.PodCIDRs(have); err != nil {
		return false, err
	}
	k.cidrs = have
	return true, nil
}

// register makes the Node, or takes the one that is there, trying until ctx ends.
func (k *keeper) register(ctx context.Context) {
	for pause := firstLook; ; pause = min(slowLook, pause+pause/2) {
		err := k.tryRegister(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		slog.WarnContext(ctx, "register node", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		k.gather(ctx, brief)
	}
}

func (k *keeper) tryRegister(ctx context.Context) error {
	if len(k.facts.Addresses) == 0 {
		return errors.New("the node has no address yet")
	}
	nodes, initial := k.Client.CoreV1().Nodes(), Initial(&k.Settings, &k.facts, metav1.Now())
	made, err := nodes.Create(ctx, initial, metav1.CreateOptions{})
	starting := Event{corev1.EventTypeNormal, "Starting", "Starting kubelet."}
	if err == nil {
		k.see(made)
		k.record(starting)
		k.tell(&corev1.Node{}, made)
		return nil
	}
	// Who may not create may still find it made by someone else.
	if !apierrors.IsAlreadyExists(err) && !apierrors.IsForbidden(err) {
		return err
	}
	there, err2 := nodes.Get(ctx, k.Name, metav1.GetOptions{})
	if err2 != nil {
		return err
	}
	patch, err := metadataPatch(there, reconciled(there, initial))
	if err != nil {
		return err
	}
	if patch != nil {
		if there, err = nodes.Patch(ctx, k.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return fmt.Errorf("label node: %w", err)
		}
	}
	k.see(there)
	k.record(starting)
	return nil
}

// gather brings the facts up to date.
func (k *keeper) gather(ctx context.Context, patience time.Duration) {
	f := &k.facts
	f.Capacity = k.Machine.Capacity()
	f.Info.MachineID, f.Info.SystemUUID, f.Info.BootID = k.Machine.IDs()
	f.Info.KernelVersion, f.Info.OSImage = k.Machine.System()
	if swap := k.Machine.SwapBytes(); swap > 0 {
		f.Info.Swap = &corev1.NodeSwapStatus{Capacity: &swap}
	}
	if addresses, err := k.Addresses(); err != nil {
		slog.WarnContext(ctx, "find the node's addresses", "err", err)
	} else {
		f.Addresses = addresses
	}
	if disk, err := k.Disk(); err != nil {
		slog.WarnContext(ctx, "measure disk", "err", err)
	} else {
		f.Disk = disk
	}
	if k.Devices != nil {
		f.Devices, f.AllocatableDevices = k.Devices()
	}
	if k.Pressure != nil {
		f.Pressure = k.Pressure()
	}
	if k.Problems != nil {
		f.Problems = k.Problems()
	}
	if k.VolumesInUse != nil {
		f.VolumesInUse = k.VolumesInUse()
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := k.ask(ctx); err != nil {
		slog.DebugContext(ctx, "ask the runtime how it is", "err", err)
		f.Version, f.Runtime = nil, nil
	}
}

func (k *keeper) ask(ctx context.Context) (err error) {
	f := &k.facts
	if f.Runtime, err = k.Runtime.Status(ctx, &runtimeapi.StatusRequest{}); err != nil {
		return err
	}
	if f.Version, err = k.Runtime.Version(ctx, &runtimeapi.VersionRequest{}); err != nil {
		return err
	}
	list, err := k.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return err
	}
	f.Images = list.Images
	return nil
}

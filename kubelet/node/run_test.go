package node

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// cri is a runtime that is there from a time on, and whose network is ready
// a moment after it has been told of its addresses.
type cri struct {
	there time.Time

	mu      sync.Mutex
	network time.Time
}

func (c *cri) Version(context.Context, *runtimeapi.VersionRequest, ...grpc.CallOption) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{RuntimeName: "containerd", RuntimeVersion: "2.4.2"}, nil
}

func (c *cri) Status(ctx context.Context, _ *runtimeapi.StatusRequest, _ ...grpc.CallOption) (*runtimeapi.StatusResponse, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(time.Until(c.there)):
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	network := !c.network.IsZero() && !time.Now().Before(c.network)
	return &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true}, {Type: runtimeapi.NetworkReady, Status: network},
	}}}, nil
}

func (c *cri) ListImages(context.Context, *runtimeapi.ListImagesRequest, ...grpc.CallOption) (*runtimeapi.ListImagesResponse, error) {
	return &runtimeapi.ListImagesResponse{}, nil
}

func (c *cri) configure([]string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.network = time.Now().Add(30 * time.Millisecond)
	return nil
}

type machine struct{}

func (machine) Capacity() corev1.ResourceList {
	return corev1.ResourceList{"cpu": resource.MustParse("2"), "memory": resource.MustParse("8Gi")}
}
func (machine) IDs() (machine, system, boot string) { return "m", "s", "b" }
func (machine) System() (kernel, os string)         { return "6.1.0", "Test" }
func (machine) SwapBytes() int64                    { return 0 }

// A world is a node that runs in fake time.
type world struct {
	*testing.T

	start  time.Time
	client *fake.Clientset
	config Config
	events *record.FakeRecorder
	cri    *cri
}

// run runs a node for d of fake time, and lets do happen meanwhile.
func run(t *testing.T, d time.Duration, do func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, start: time.Now(), client: fake.NewClientset(), events: record.NewFakeRecorder(100), cri: &cri{there: time.Now()}}
		w.config = Config{
			Settings: Settings{Name: "n1", Version: "v1.36.3", Port: 10250, MaxPods: 110},
			Client:   w.client, Recorder: w.events, Runtime: w.cri, Images: w.cri, Machine: machine{},
			Addresses: func() ([]corev1.NodeAddress, error) {
				return []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}}, nil
			},
			Disk: func() (int64, error) { return 1000, nil },
		}
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		do(w)
		if err := Run(ctx, w.config); err != nil {
			t.Error(err)
		}
	})
}

// at runs f when so much time has passed.
func (w *world) at(d time.Duration, f func()) { time.AfterFunc(d, f) }

func (w *world) node() *corev1.Node {
	n, err := w.client.CoreV1().Nodes().Get(w.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		w.Fatal(err)
	}
	return n
}

// writes are the writes of a kind, with when they were made.
func (w *world) writes(verb, resource string) *[]time.Duration {
	var list []time.Duration
	w.client.PrependReactor(verb, resource, func(clienttesting.Action) (bool, runtime.Object, error) {
		list = append(list, time.Since(w.start))
		return false, nil, nil
	})
	return &list
}

func (w *world) happened() (reasons []string) {
	for len(w.events.Events) > 0 {
		reasons = append(reasons, strings.Fields(<-w.events.Events)[1])
	}
	return reasons
}

func readyCondition(n *corev1.Node) corev1.NodeCondition {
	return *condition(&n.Status, corev1.NodeReady)
}

// TestReadySoon holds that a node is ready a moment after its runtime and its
// network are, though neither was there when it registered.
// contract: N-1, N-3, N-5
func TestReadySoon(t *testing.T) {
	run(t, 2*time.Second, func(w *world) {
		w.cri.there = w.start.Add(300 * time.Millisecond)
		w.config.PodCIDRs = w.cri.configure
		w.config.Enforce = func(allocatable corev1.ResourceList) error {
			if allocatable.Cpu().Value() != 2 {
				t.Errorf("enforce %v", allocatable)
			}
			return nil
		}
		patches := w.writes("patch", "nodes")
		w.at(200*time.Millisecond, func() {
			n := w.node()
			if c := readyCondition(n); c.Message != "container runtime is down" {
				t.Errorf("before the runtime is there: %+v", c)
			}
			if _, err := w.client.CoreV1().Nodes().Patch(w.Context(), "n1", types.MergePatchType, []byte(`{"spec":{"podCIDRs":["10.1.0.0/24"]}}`), metav1.PatchOptions{}); err != nil {
				t.Error(err)
			}
		})
		w.at(400*time.Millisecond, func() {
			if c := readyCondition(w.node()); c.Status != corev1.ConditionTrue {
				t.Errorf("late: %+v", c)
			}
		})
		w.at(1900*time.Millisecond, func() {
			want := []string{"Starting", "NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeAllocatableEnforced", "NodeReady"}
			if got := w.happened(); !slices.Equal(got, want) {
				t.Errorf("events %v, want %v", got, want)
			}
			if len(*patches) > 3 { // the one for the range is the test's own
				t.Errorf("patched at %v", *patches)
			}
		})
	})
}

func TestReadyAtOnce(t *testing.T) {
	run(t, time.Hour, func(w *world) {
		w.cri.network = w.start
		patches, creates := w.writes("patch", "nodes"), w.writes("create", "nodes")
		w.at(time.Millisecond, func() {
			if n := w.node(); readyCondition(n).Status != corev1.ConditionTrue || n.Status.NodeInfo.ContainerRuntimeVersion != "containerd://2.4.2" {
				t.Errorf("registered as %+v", n.Status)
			}
		})
		w.at(time.Hour-time.Millisecond, func() {
			if len(*creates) != 1 || len(*patches) < 12 || len(*patches) > 15 {
				t.Errorf("created at %v, patched at %v", *creates, *patches)
			}
			for i, at := range *patches {
				last := time.Duration(0)
				if i > 0 {
					last = (*patches)[i-1]
				}
				if at-last > reportEvery+lookEvery {
					t.Errorf("silent from %v to %v", last, at)
				}
			}
			if age := time.Since(readyCondition(w.node()).LastHeartbeatTime.Time); age > reportEvery+lookEvery {
				t.Errorf("last heartbeat %v ago", age)
			}
		})
	})
}

// TestOthersChanges holds that what others write stays, and is answered soon.
func TestOthersChanges(t *testing.T) {
	run(t, time.Minute, func(w *world) {
		w.cri.network = w.start
		var cordoned atomic.Bool
		w.config.Observe = func(n *corev1.Node) { cordoned.Store(n.Spec.Unschedulable) }
		pressed := false
		changed := make(chan struct{}, 1)
		w.config.Changed, w.config.Pressure = changed, func() Pressure { return Pressure{Memory: pressed} }
		patch := func(p, sub string) {
			if _, err := w.client.CoreV1().Nodes().Patch(w.Context(), "n1", types.StrategicMergePatchType, []byte(p), metav1.PatchOptions{}, sub); err != nil {
				t.Error(err)
			}
		}
		w.at(12*time.Second, func() { patch(`{"status":{"capacity":{"scheduling.k8s.io/foo":"5"}}}`, "status") })
		w.at(12*time.Second+time.Millisecond, func() {
			if q := w.node().Status.Allocatable["scheduling.k8s.io/foo"]; q.Value() != 5 {
				t.Errorf("allocatable %v", w.node().Status.Allocatable)
			}
		})
		w.at(13*time.Second, func() { patch(`{"spec":{"unschedulable":true}}`, "") })
		w.at(14*time.Second, func() { pressed = true; changed <- struct{}{} })
		w.at(14*time.Second+time.Millisecond, func() {
			if c := condition(&w.node().Status, corev1.NodeMemoryPressure); c.Status != corev1.ConditionTrue {
				t.Errorf("%+v", c)
			}
			if q := w.node().Status.Capacity["scheduling.k8s.io/foo"]; q.Value() != 5 {
				t.Errorf("capacity %v", w.node().Status.Capacity)
			}
			got := w.happened()
			if !slices.Equal(got[len(got)-2:], []string{"NodeNotSchedulable", "NodeHasInsufficientMemory"}) {
				t.Errorf("events %v", got)
			}
			if !cordoned.Load() {
				t.Error("the cordon was not observed")
			}
		})
	})
}

// contract: N-4
func TestLease(t *testing.T) {
	run(t, 95*time.Second, func(w *world) {
		w.cri.network = w.start
		get := func() (time.Time, string) {
			l, err := w.client.CoordinationV1().Leases("kube-node-lease").Get(w.Context(), "n1", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if *l.Spec.HolderIdentity != "n1" || *l.Spec.LeaseDurationSeconds != 40 {
				t.Errorf("%+v", l.Spec)
			}
			return l.Spec.RenewTime.Time, string(l.OwnerReferences[0].UID) + l.OwnerReferences[0].Kind
		}
		w.client.PrependReactor("create", "nodes", func(a clienttesting.Action) (bool, runtime.Object, error) {
			a.(clienttesting.CreateAction).GetObject().(*corev1.Node).UID = "uid1"
			return false, nil, nil
		})
		away := func() bool { s := time.Since(w.start); return s > 25*time.Second && s < 65*time.Second }
		w.client.PrependReactor("*", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			return away(), nil, errors.New("API server is away")
		})
		for at, age := range map[time.Duration]time.Duration{
			time.Second:      time.Second,
			15 * time.Second: 5 * time.Second,
			76 * time.Second: 11 * time.Second, // the server is back after 65, so it was renewed by 75
		} {
			w.at(at, func() {
				renewed, owner := get()
				if time.Since(renewed) > age || owner != "uid1Node" {
					t.Errorf("after %v renewed %v ago, owned by %s", at, time.Since(renewed), owner)
				}
			})
		}
	})
}

// TestRegisterAgain holds that a node that was here before is taken over, be
// creating it refused or a conflict, and after the API server was away.
func TestRegisterAgain(t *testing.T) {
	for _, refusal := range []error{
		apierrors.NewAlreadyExists(corev1.Resource("nodes"), "n1"),
		apierrors.NewForbidden(corev1.Resource("nodes"), "n1", errors.New("no")),
	} {
		run(t, 5*time.Second, func(w *world) {
			w.cri.network = w.start
			old := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"theirs": "kept"}}}
			old.Status.NodeInfo.BootID = "first"
			if err := w.client.Tracker().Add(old); err != nil {
				t.Fatal(err)
			}
			tries := 0
			w.client.PrependReactor("create", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
				if tries++; tries < 4 {
					return true, nil, errors.New("API server is away")
				}
				return true, nil, refusal
			})
			w.at(time.Second, func() {
				n := w.node()
				if n.Labels["theirs"] != "kept" || n.Labels[corev1.LabelHostname] != "n1" || readyCondition(n).Status != corev1.ConditionTrue {
					t.Errorf("%+v", n)
				}
				if got := w.happened(); !slices.Contains(got, "Rebooted") || got[0] != "Starting" {
					t.Errorf("events %v", got)
				}
			})
		})
	}
}

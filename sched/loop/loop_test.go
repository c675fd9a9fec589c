package loop

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	clienttesting "k8s.io/client-go/testing"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/sched"
)

// plugins are simple ones: CPU is the only resource, the first less important
// pod on the first node goes, and a pod with the annotation "claim" needs its
// claim annotated, and then bound, before it is bound itself.
var plugins = []sched.Erased{
	queuePlugins[0],
	sched.Plugin[struct{}]{
		Name: "Room",
		Filter: func(_ struct{}, p *sched.Pod, n *sched.Node) sched.Verdict {
			if n.Used.CPU+p.Requests.CPU > n.Allocatable.CPU {
				return sched.Verdict{Why: []string{"no room"}}
			}
			return sched.Fits
		},
		Evict: func(t *sched.Trial, _ func(int) int) sched.Eviction {
			for _, n := range t.Cluster.Nodes() {
				for _, v := range n.Pods {
					if v.Priority < t.Pod.Priority {
						return sched.Eviction{Node: n, Victims: []*sched.Pod{v}, Keep: true}
					}
				}
			}
			return sched.Eviction{Why: "no one goes", Keep: true}
		},
		Wakes: []sched.Change{sched.NodeAdded, sched.NodeAllocatable, sched.PodDeleted, sched.PodShrunk},
		Local: true,
	}.Erase(),
	sched.Plugin[struct{}]{
		Name:  "Claims",
		Reads: []apis.Object{&corev1.PersistentVolumeClaim{}},
		ReadsFor: func(p *sched.Pod) bool {
			return p.Spec.NodeName == "" && p.Annotations["claim"] != ""
		},
		Prepare: func(p *sched.Pod, c *sched.Cluster) (s struct{}, scope sched.Scope) {
			if name := p.Annotations["claim"]; name != "" {
				if _, ok := sched.Get[*corev1.PersistentVolumeClaim](c.Objects, p.Namespace, name); !ok {
					scope.No = "claim not found"
				}
			}
			return s, scope
		},
		Writes: func(_ struct{}, p *sched.Pod, n *sched.Node) []sched.Write {
			name := p.Annotations["claim"]
			if name == "" {
				return nil
			}
			claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: p.Namespace, Annotations: map[string]string{"node": n.Name}}}
			return []sched.Write{{Object: claim, Done: func(o sched.Objects) (bool, error) {
				c, _ := sched.Get[*corev1.PersistentVolumeClaim](o, p.Namespace, name)
				if c != nil && c.Status.Phase == corev1.ClaimLost {
					return false, errors.New("lost")
				}
				return c != nil && c.Status.Phase == corev1.ClaimBound, nil
			}}}
		},
		Wakes: []sched.Change{sched.StorageChanged},
	}.Erase(),
}

// A stage is a scheduler in front of a server that does the least.
type stage struct {
	*testing.T

	client *fake.Clientset
	refuse func(pod string) error // to bind; nil binds all
	hold   func(pod string)       // waits before a pod is bound; nil for not at all
	binds  []string
}

// play runs the scheduler on fake time for as long as act takes.
func play(t *testing.T, act func(s *stage), objects ...runtime.Object) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &stage{T: t, client: fake.NewClientset(objects...)}
		s.client.PrependReactor("create", "pods", s.bind)
		s.client.PrependReactor("delete", "pods", s.remove)
		f := informers.NewSharedInformerFactory(s.client, 0)
		ended := make(chan error)
		go func() { ended <- Run(ctx, Config{Client: slow{s.client, s}, Informers: f, Plugins: plugins}) }()
		synctest.Wait()
		act(s)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		f.Shutdown()
	})
}

// slow is the client, with calls to bind that take as long as the stage wants.
// The wait is not the fake client's: that would let nobody else in meanwhile.
type (
	slow struct {
		kubernetes.Interface
		stage *stage
	}
	slowCore struct {
		typedcorev1.CoreV1Interface
		stage *stage
	}
	slowPods struct {
		typedcorev1.PodInterface
		stage *stage
	}
)

func (c slow) CoreV1() typedcorev1.CoreV1Interface { return slowCore{c.Interface.CoreV1(), c.stage} }

func (c slowCore) Pods(namespace string) typedcorev1.PodInterface {
	return slowPods{c.CoreV1Interface.Pods(namespace), c.stage}
}

func (c slowPods) Bind(ctx context.Context, b *corev1.Binding, opts metav1.CreateOptions) error {
	if c.stage.hold != nil {
		c.stage.hold(b.Name)
	}
	return c.PodInterface.Bind(ctx, b, opts)
}

func (s *stage) bind(a clienttesting.Action) (bool, runtime.Object, error) {
	create, ok := a.(clienttesting.CreateAction)
	if !ok || a.GetSubresource() != "binding" {
		return false, nil, nil
	}
	b := create.GetObject().(*corev1.Binding)
	if s.refuse != nil {
		if err := s.refuse(b.Name); err != nil {
			return true, nil, err
		}
	}
	obj, err := s.client.Tracker().Get(a.GetResource(), b.Namespace, b.Name)
	if err != nil {
		return true, nil, err
	}
	p := obj.(*corev1.Pod).DeepCopy()
	p.Spec.NodeName = b.Target.Name
	s.binds = append(s.binds, b.Name+" on "+b.Target.Name)
	return true, b, s.client.Tracker().Update(a.GetResource(), p, b.Namespace)
}

// remove marks a pod on a node, which a kubelet would have to end.
func (s *stage) remove(a clienttesting.Action) (bool, runtime.Object, error) {
	d := a.(clienttesting.DeleteAction)
	obj, err := s.client.Tracker().Get(a.GetResource(), d.GetNamespace(), d.GetName())
	if err != nil {
		return true, nil, err
	}
	p := obj.(*corev1.Pod).DeepCopy()
	if p.Spec.NodeName == "" || p.DeletionTimestamp != nil {
		return false, nil, nil
	}
	now := metav1.Now()
	p.DeletionTimestamp = &now
	return true, nil, s.client.Tracker().Update(a.GetResource(), p, p.Namespace)
}

func testNode(name, cpu string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}}
}

func testPod(name, cpu string, priority int32, edit ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID(name), Generation: 3},
		Spec: corev1.PodSpec{SchedulerName: corev1.DefaultSchedulerName, Priority: &priority, Containers: []corev1.Container{{
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}},
		}}},
	}
	for _, e := range edit {
		e(p)
	}
	return p
}

func on(node string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.NodeName = node } }

func (s *stage) create(p *corev1.Pod) {
	s.Helper()
	if _, err := s.client.CoreV1().Pods(p.Namespace).Create(s.Context(), p, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
	synctest.Wait()
}

// pass lets time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (s *stage) get(name string) *corev1.Pod {
	s.Helper()
	p, err := s.client.CoreV1().Pods("ns").Get(s.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return p
}

func (s *stage) kill(name string) {
	s.Helper()
	if err := s.client.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("pods"), "ns", name); err != nil {
		s.Fatal(err)
	}
	synctest.Wait()
}

func (s *stage) isOn(name, node string) {
	s.Helper()
	if got := s.get(name).Spec.NodeName; got != node {
		s.Errorf("pod %s is on %q, want %q", name, got, node)
	}
}

func (s *stage) hasCondition(name string, want corev1.PodCondition) {
	s.Helper()
	for _, c := range s.get(name).Status.Conditions {
		if c.Type == want.Type {
			c.LastTransitionTime = metav1.Time{}
			if c != want {
				s.Errorf("pod %s has condition %+v, want %+v", name, c, want)
			}
			return
		}
	}
	s.Errorf("pod %s has no condition %s", name, want.Type)
}

// events lists the events of a pod, of which each is recorded some time after
// it happened.
func (s *stage) events(name string) (out []string) {
	s.Helper()
	synctest.Wait()
	list, err := s.client.EventsV1().Events("ns").List(s.Context(), metav1.ListOptions{})
	if err != nil {
		s.Fatal(err)
	}
	for _, e := range list.Items {
		if e.Regarding.Name == name {
			out = append(out, strings.Join([]string{e.Type, e.Reason, e.Action, e.ReportingController, e.Note}, "|"))
		}
	}
	slices.Sort(out)
	return out
}

func TestBinds(t *testing.T) {
	play(t, func(s *stage) {
		s.create(testPod("a", "1", 0))
		s.isOn("a", "n1")
		expect(t, "events", s.events("a"), "Normal|Scheduled|Binding|default-scheduler|Successfully assigned ns/a to n1")
		s.create(testPod("other", "1", 0, func(p *corev1.Pod) { p.Spec.SchedulerName = "other" }))
		s.isOn("other", "")
	}, testNode("n1", "2"))
}

func TestNoNodes(t *testing.T) {
	play(t, func(s *stage) {
		s.create(testPod("a", "1", 0))
		s.hasCondition("a", corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, ObservedGeneration: 3, Reason: "Unschedulable", Message: sched.NoNodes})
		if _, err := s.client.CoreV1().Nodes().Create(s.Context(), testNode("n1", "2"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.isOn("a", "n1")
	})
}

// TestRetries has a pod wait for another one to go. No time passes.
func TestRetries(t *testing.T) {
	play(t, func(s *stage) {
		const message = "0/1 nodes are available: 1 no room. no one goes"
		s.create(testPod("second", "2", 0))
		s.isOn("second", "")
		s.hasCondition("second", corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, ObservedGeneration: 3, Reason: "Unschedulable", Message: message})
		expect(t, "events", s.events("second"), "Warning|FailedScheduling|Scheduling|default-scheduler|"+message)
		s.create(testPod("third", "2", 0))
		s.kill("first")
		s.isOn("second", "n1")
		s.isOn("third", "")
	}, testNode("n1", "2"), testPod("first", "1", 0, on("n1")))
}

// TestPatience has a pod refused for reasons that no event tells of.
func TestPatience(t *testing.T) {
	play(t, func(s *stage) {
		s.create(testPod("a", "2", 0))
		tries := func() int { return len(s.events("a")) }
		if tries() == 0 {
			t.Fatal("not tried")
		}
		s.client.ClearActions()
		pass(patience + patience/5)
		again := slices.ContainsFunc(s.client.Actions(), func(a clienttesting.Action) bool { return a.GetResource().Resource == "events" })
		if !again {
			t.Error("not tried again in six minutes")
		}
	}, testNode("n1", "1"))
}

func TestGates(t *testing.T) {
	play(t, func(s *stage) {
		p := testPod("a", "1", 0, func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "x"}} })
		s.create(p)
		s.isOn("a", "")
		if c := s.get("a").Status.Conditions; len(c) > 0 {
			t.Errorf("a pod that is held back has conditions %v", c)
		}
		p.Spec.SchedulingGates = nil
		if _, err := s.client.CoreV1().Pods("ns").Update(s.Context(), p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.isOn("a", "n1")
	}, testNode("n1", "2"))
}

// TestBindFails has the server refuse twice; the room that the pod would have
// taken is free meanwhile.
func TestBindFails(t *testing.T) {
	play(t, func(s *stage) {
		refusals := 0
		s.refuse = func(pod string) error {
			if pod != "a" || refusals == 2 {
				return nil
			}
			refusals++
			return apierrors.NewConflict(corev1.Resource("pods/binding"), "a", errors.New("not now"))
		}
		s.create(testPod("a", "2", 0))
		const message = `running Bind plugin "DefaultBinder": Operation cannot be fulfilled on pods/binding "a": not now`
		s.hasCondition("a", corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, ObservedGeneration: 3, Reason: "SchedulerError", Message: message})
		s.create(testPod("b", "2", 0))
		s.isOn("b", "n1")
		s.kill("b")
		pass(firstBackoff)
		s.isOn("a", "")
		pass(2 * firstBackoff)
		s.isOn("a", "n1")
	}, testNode("n1", "2"))
}

// TestNoDoubleBooking has the answer to a binding take long: the room is taken
// from when the node was chosen.
func TestNoDoubleBooking(t *testing.T) {
	play(t, func(s *stage) {
		answer := make(chan struct{})
		s.hold = func(pod string) {
			if pod == "a" {
				<-answer
			}
		}
		s.create(testPod("a", "2", 0))
		s.create(testPod("b", "2", 0))
		s.isOn("b", "")
		close(answer)
		synctest.Wait()
		s.isOn("a", "n1")
		s.isOn("b", "")
	}, testNode("n1", "2"))
}

// TestDeletedWhileBinding has a pod go before the server has bound it.
func TestDeletedWhileBinding(t *testing.T) {
	play(t, func(s *stage) {
		answer := make(chan struct{})
		s.hold = func(pod string) {
			if pod == "a" {
				<-answer
			}
		}
		s.create(testPod("a", "2", 0))
		s.create(testPod("b", "2", 0))
		s.kill("a")
		s.isOn("b", "n1")
		close(answer)
		synctest.Wait()
		expect(t, "bound", s.binds, "b on n1")
	}, testNode("n1", "2"))
}

func TestPreempts(t *testing.T) {
	play(t, func(s *stage) {
		s.create(testPod("vip", "2", 100))
		if got := s.get("vip"); got.Spec.NodeName != "" || got.Status.NominatedNodeName != "n1" {
			t.Errorf("vip is on %q with a claim to %q, want a claim to n1", got.Spec.NodeName, got.Status.NominatedNodeName)
		}
		victim := s.get("victim")
		if victim.DeletionTimestamp == nil {
			t.Error("the victim is not being deleted")
		}
		s.hasCondition("victim", corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, ObservedGeneration: 3, Reason: "PreemptionByScheduler",
			Message: "default-scheduler: preempting to accommodate a higher priority pod",
		})
		expect(t, "events", s.events("victim"), "Normal|Preempted|Preempting|default-scheduler|Preempted by pod vip on node n1")
		// Someone less important does not get the room.
		s.create(testPod("late", "1", 50))
		pass(20 * time.Second)
		s.isOn("vip", "")
		s.kill("victim")
		s.isOn("vip", "n1")
		s.isOn("late", "")
	}, testNode("n1", "2"), testPod("victim", "2", 0, on("n1")))
}

// TestClaims has a pod wait for its claim to be bound, and others read kinds
// only as they need them.
func TestClaims(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "ns"}}
	watched := func(s *stage) bool {
		return slices.ContainsFunc(s.client.Actions(), func(a clienttesting.Action) bool { return a.GetResource().Resource == "persistentvolumeclaims" })
	}
	needs := func(p *corev1.Pod) { p.Annotations = map[string]string{"claim": "c"} }
	play(t, func(s *stage) {
		s.create(testPod("plain", "1", 0))
		if watched(s) {
			t.Error("claims are watched though no pod has one")
		}
		s.create(testPod("a", "1", 0, needs))
		claims := s.client.CoreV1().PersistentVolumeClaims("ns")
		got, err := claims.Get(s.Context(), "c", metav1.GetOptions{})
		if err != nil || got.Annotations["node"] != "n1" {
			t.Fatalf("the claim is not written: %v, %v", got.Annotations, err)
		}
		if p := s.get("a"); p.Spec.NodeName != "" || p.Status.NominatedNodeName != "n1" {
			t.Errorf("the pod is on %q with a claim to %q before its volume is there", p.Spec.NodeName, p.Status.NominatedNodeName)
		}
		got.Status.Phase = corev1.ClaimBound
		if _, err := claims.UpdateStatus(s.Context(), got, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.isOn("a", "n1")
	}, testNode("n1", "4"), claim)
}

// TestClaimNeverBound gives up in the end.
func TestClaimNeverBound(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "ns"}}
	play(t, func(s *stage) {
		s.create(testPod("a", "1", 0, func(p *corev1.Pod) { p.Annotations = map[string]string{"claim": "c"} }))
		pass(volumesPatience + time.Minute)
		const message = `running PreBind plugin "VolumeBinding": binding volumes: context deadline exceeded`
		s.hasCondition("a", corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, ObservedGeneration: 3, Reason: "SchedulerError", Message: message})
	}, testNode("n1", "4"), claim)
}

// TestNodeGoesWhileBinding tries another node when the one that a pod waits on
// is no more.
func TestNodeGoesWhileBinding(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "ns"}}
	play(t, func(s *stage) {
		s.create(testPod("a", "1", 0, func(p *corev1.Pod) { p.Annotations = map[string]string{"claim": "c"} }))
		if err := s.client.CoreV1().Nodes().Delete(s.Context(), "n1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.client.CoreV1().Nodes().Create(s.Context(), testNode("n2", "4"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		pass(2 * firstBackoff)
		got, err := s.client.CoreV1().PersistentVolumeClaims("ns").Get(s.Context(), "c", metav1.GetOptions{})
		if err != nil || got.Annotations["node"] != "n2" {
			t.Errorf("the claim is for %q, want n2 (%v)", got.Annotations["node"], err)
		}
	}, testNode("n1", "4"), claim)
}

// TestShrink has a pod wait for another one to be resized.
func TestShrink(t *testing.T) {
	first := testPod("first", "2", 0, on("n1"))
	play(t, func(s *stage) {
		s.create(testPod("second", "1", 0))
		s.isOn("second", "")
		smaller := s.get("first")
		smaller.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("1")
		if _, err := s.client.CoreV1().Pods("ns").Update(s.Context(), smaller, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.isOn("second", "n1")
	}, testNode("n1", "2"), first)
}

// TestLongNote cuts what an event does not hold; the condition has it all.
func TestLongNote(t *testing.T) {
	long := strings.Repeat("x", 2*noteLimit)
	plugin := sched.Plugin[struct{}]{Name: "Never", Filter: func(struct{}, *sched.Pod, *sched.Node) sched.Verdict {
		return sched.Verdict{Why: []string{long}}
	}}.Erase()
	saved := plugins
	defer func() { plugins = saved }()
	plugins = []sched.Erased{plugin}
	play(t, func(s *stage) {
		s.create(testPod("a", "1", 0))
		message := "0/1 nodes are available: 1 " + long + "."
		s.hasCondition("a", corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, ObservedGeneration: 3, Reason: "Unschedulable", Message: message})
		expect(t, "events", s.events("a"), "Warning|FailedScheduling|Scheduling|default-scheduler|"+message[:noteLimit-4]+" ...")
	}, testNode("n1", "2"))
}

// TestElection has two schedulers, of which one leads until it is cut off from
// its lease.
func TestElection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(testNode("n1", "2"))
		var cut atomic.Bool
		client.PrependReactor("update", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			return cut.Load(), nil, errors.New("cut off")
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan string, 2)
		start := func(name string) {
			f := informers.NewSharedInformerFactory(client, 0)
			go func() {
				err := Run(ctx, Config{Client: client, Informers: f, Plugins: plugins, Elect: true})
				ended <- fmt.Sprintf("%s: %v", name, err)
			}()
		}
		start("first")
		pass(time.Second)
		start("second")
		pass(time.Minute)
		lease, err := client.CoordinationV1().Leases("kube-system").Get(ctx, "kube-scheduler", metav1.GetOptions{})
		if err != nil || *lease.Spec.LeaseDurationSeconds != 15 {
			t.Fatalf("lease %+v, %v", lease, err)
		}
		holder := *lease.Spec.HolderIdentity
		cut.Store(true)
		if got := <-ended; got != "first: "+ErrLost.Error() {
			t.Errorf("ended: %q", got)
		}
		cut.Store(false)
		pass(time.Minute)
		lease, err = client.CoordinationV1().Leases("kube-system").Get(ctx, "kube-scheduler", metav1.GetOptions{})
		if err != nil || *lease.Spec.HolderIdentity == holder || *lease.Spec.HolderIdentity == "" {
			t.Errorf("the lease is still held by %s, %v", holder, err)
		}
		cancel()
		<-ended
	})
}

package run

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/kubelet"
	"github.com/knarr-dev/knarr/kubelet/cri/critest"
)

// A world is a kubelet with a runtime in memory and an API that does what it
// is told, in a time of its own.
type world struct {
	t      *testing.T
	rt     *critest.Runtime
	client *fake.Clientset
	config Config
	hooks  []kubelet.Hook
	stop   func()

	mu     sync.Mutex
	events []string
}

// inWorld runs f in a world without pods.
func inWorld(t *testing.T, f func(*world), hooks ...kubelet.Hook) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, rt: critest.New("x"), client: fake.NewClientset(), hooks: hooks}
		w.config = Config{
			NodeName: "n", Root: dir + "/root", LogDir: dir + "/logs", Pods: &Pods{},
			IPs: func() []string { return []string{"192.168.0.1"} },
			Tell: func(p *corev1.Pod, c, _, reason, message string) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.events = append(w.events, strings.TrimSpace(p.Name+" "+c)+" "+reason+": "+message)
			},
		}
		w.start()
		f(w)
		w.stop()
		// Containers outlive the kubelet; goroutines must not outlive the test.
		boxes, _ := w.rt.ListSandboxes(t.Context(), "")
		for _, b := range boxes {
			_ = w.rt.RemoveSandbox(t.Context(), b.Id)
		}
	})
}

// start starts a kubelet; stop ends it as a crash would: its pods go on.
func (w *world) start() {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, w.config, w.rt, w.client, w.hooks) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	}
	after(time.Second) // an informer looks every tenth of one whether it is in step
}

// run creates a pod from YAML.
func (w *world) run(text string) *corev1.Pod {
	w.t.Helper()
	p := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
		w.t.Fatal(err)
	}
	p.Namespace, p.Spec.NodeName, p.Status.Phase = "ns", "n", corev1.PodPending
	p.CreationTimestamp = metav1.Now()
	if p.UID == "" {
		p.UID = types.UID("uid-" + p.Name)
	}
	for i := range p.Spec.Containers {
		p.Spec.Containers[i].Image = "x"
	}
	for i := range p.Spec.InitContainers {
		p.Spec.InitContainers[i].Image = "x"
	}
	if p.Spec.TerminationGracePeriodSeconds == nil {
		p.Spec.TerminationGracePeriodSeconds = new(int64(30))
	}
	if _, err := w.client.CoreV1().Pods("ns").Create(w.t.Context(), p, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// script is a pod of one container.
func (w *world) script(name, policy, script string) {
	w.t.Helper()
	w.run(fmt.Sprintf("metadata: {name: %s}\nspec: {restartPolicy: %s, containers: [{name: c, command: [sh, -c, \"%s\"]}]}", name, policy, script))
}

// get is a pod as the API has it; nil where it does not.
func (w *world) get(name string) *corev1.Pod {
	w.t.Helper()
	p, err := w.client.CoreV1().Pods("ns").Get(w.t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	} else if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// delete asks for a pod's deletion as an API server does.
func (w *world) delete(name string, grace int64) {
	w.t.Helper()
	p := w.get(name)
	at := metav1.NewTime(time.Now().Add(time.Duration(grace) * time.Second))
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &at, &grace
	if _, err := w.client.CoreV1().Pods("ns").Update(w.t.Context(), p, metav1.UpdateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// after lets time pass and everything settle.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// look is a pod's state in a line: phase, then each container.
func (w *world) look(name string) string {
	w.t.Helper()
	p := w.get(name)
	if p == nil {
		return "gone"
	}
	out := string(p.Status.Phase)
	if p.Status.Reason != "" {
		out += "(" + p.Status.Reason + ")"
	}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		out += " " + c.Name + "="
		switch {
		case c.State.Running != nil:
			out += "running"
		case c.State.Terminated != nil:
			out += fmt.Sprintf("exit%d", c.State.Terminated.ExitCode)
		default:
			out += c.State.Waiting.Reason
		}
		if c.RestartCount > 0 {
			out += fmt.Sprintf("/%d", c.RestartCount)
		}
		if c.Ready {
			out += "+"
		}
	}
	return out
}

func (w *world) want(name, want string) {
	w.t.Helper()
	if got := w.look(name); got != want {
		w.t.Errorf("%s is %q, want %q", name, got, want)
	}
}

// told counts the events that contain text.
func (w *world) told(text string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if strings.Contains(e, text) {
			n++
		}
	}
	return n
}

func (w *world) empty() {
	w.t.Helper()
	boxes, _ := w.rt.ListSandboxes(w.t.Context(), "")
	containers, _ := w.rt.ListContainers(w.t.Context(), "")
	if len(boxes)+len(containers) > 0 {
		w.t.Errorf("the runtime still has %d sandboxes and %d containers", len(boxes), len(containers))
	}
}

func TestLife(t *testing.T) {
	inWorld(t, func(w *world) {
		w.script("p", "Always", "trap 'exit 0' TERM; sleep 1000")
		after(0)
		w.want("p", "Running c=running+")
		p := w.get("p")
		if p.Status.PodIP == "" || p.Status.HostIP != "192.168.0.1" || p.Status.StartTime.IsZero() {
			t.Errorf("%+v", p.Status)
		}
		if id, running := w.config.Pods.Container("ns", "p", "", "c"); id == "" || !running || len(w.config.Pods.List()) != 1 || w.config.Pods.Sandbox("ns", "p", p.UID) == "" {
			t.Errorf("others see %q %v %v", id, running, w.config.Pods.List())
		}
		w.delete("p", 30)
		after(0)
		w.want("p", "gone")
		w.empty()
		if len(w.config.Pods.List()) != 0 {
			t.Error("others still see it")
		}
		for _, e := range []string{"p c Created: Container created", "p c Started: Container started", "p c Killing: Stopping container c"} {
			if w.told(e) != 1 {
				t.Errorf("%s: told %d times", e, w.told(e))
			}
		}
	})
}

// TestBackoff watches a container that always fails for an hour and a half.
func TestBackoff(t *testing.T) {
	inWorld(t, func(w *world) {
		began := time.Now()
		var starts []time.Duration
		w.rt.Before = func(op, _ string) error {
			if op == "StartContainer" {
				starts = append(starts, time.Since(began).Truncate(time.Second))
			}
			return nil
		}
		w.script("p", "Always", "exit 1")
		after(25 * time.Second)
		w.want("p", "Running c=CrashLoopBackOff/2")
		after(time.Hour)
		want := []time.Duration{0, 0, 10, 30, 70, 150, 310, 610, 910}
		for i, d := range want {
			if starts[i] != d*time.Second {
				t.Fatalf("starts at %v, want %v seconds", starts, want)
			}
		}
		if m := w.get("p").Status.ContainerStatuses[0].State.Waiting.Message; !strings.HasPrefix(m, "back-off 5m0s restarting failed container=c pod=p_ns(uid-p)") {
			t.Error(m)
		}
		if list, _ := w.rt.ListContainers(t.Context(), ""); len(list) > 3 {
			t.Errorf("%d containers are kept", len(list))
		}
	})
}

// TestBackoffEnds has a container run long enough to be trusted again.
func TestBackoffEnds(t *testing.T) {
	inWorld(t, func(w *world) {
		w.script("p", "Always", "sleep 700; exit 1")
		after(702 * time.Second)
		w.want("p", "Running c=running/1+")
		after(700 * time.Second)
		w.want("p", "Running c=running/2+")
	})
}

func TestPolicies(t *testing.T) {
	inWorld(t, func(w *world) {
		w.script("done", "Never", "exit 0")
		w.script("failed", "Never", "exit 3")
		w.script("tried", "OnFailure", "exits 1 1 0")
		after(time.Minute)
		w.want("done", "Succeeded c=exit0")
		w.want("failed", "Failed c=exit3")
		w.want("tried", "Succeeded c=exit0/2")
		w.stop()
		w.start()
		after(time.Minute)
		w.want("failed", "Failed c=exit3")
		w.want("tried", "Succeeded c=exit0/2")
	})
}

func TestInit(t *testing.T) {
	inWorld(t, func(w *world) {
		w.run(`
metadata: {name: p}
spec:
  restartPolicy: Always
  initContainers:
  - {name: one, command: [sleep, "5"]}
  - {name: side, restartPolicy: Always, command: [sh, -c, "trap 'exit 0' TERM; sleep infinity"]}
  - {name: two, command: [exits, "1", "0"]}
  containers:
  - {name: c, command: [sh, -c, "trap 'exit 0' TERM; sleep infinity"]}
`)
		after(time.Second)
		w.want("p", "Pending one=running side=PodInitializing two=PodInitializing c=PodInitializing")
		after(10 * time.Second)
		w.want("p", "Running one=exit0+ side=running+ two=exit0/1+ c=running+")
		began := time.Now()
		w.delete("p", 30)
		after(0)
		w.want("p", "gone")
		if time.Since(began) > 0 {
			t.Error(time.Since(began))
		}
	})
}

// TestSidecarsEndLast has the main container take its time.
func TestSidecarsEndLast(t *testing.T) {
	inWorld(t, func(w *world) {
		w.run(`
metadata: {name: p}
spec:
  initContainers:
  - {name: s1, restartPolicy: Always, command: [sh, -c, "trap 'exit 0' TERM; sleep infinity"]}
  - {name: s2, restartPolicy: Always, command: [sleep, infinity]}
  containers:
  - {name: c, command: [sh, -c, "sleep 20"]}
  restartPolicy: Always
`)
		after(12 * time.Second)
		w.delete("p", 15)
		after(7 * time.Second)
		w.want("p", "Running s1=running+ s2=running+ c=running+")
		after(2 * time.Second) // the container ended 8 s after the deletion
		w.want("p", "Running s1=running+ s2=running+ c=exit0")
		after(7 * time.Second) // the second sidecar heeds no signal
		w.want("p", "gone")
	})
}

func TestGrace(t *testing.T) {
	inWorld(t, func(w *world) {
		w.script("deaf", "Always", "trap '' TERM; sleep infinity")
		w.script("hurried", "Always", "trap '' TERM; sleep infinity")
		after(0)
		w.delete("deaf", 20)
		w.delete("hurried", 600)
		after(19 * time.Second)
		w.want("deaf", "Running c=running+")
		after(2 * time.Second)
		w.want("deaf", "gone")
		w.want("hurried", "Running c=running+")
		w.delete("hurried", 1)
		after(3 * time.Second)
		w.want("hurried", "gone")
		w.empty()
	})
}

// TestRestart kills the kubelet and starts it again.
func TestRestart(t *testing.T) {
	inWorld(t, func(w *world) {
		w.script("p", "Always", "sleep infinity")
		w.script("q", "Always", "exits 1 1 7")
		after(15 * time.Second)
		count := w.get("q").Status.ContainerStatuses[0].RestartCount
		id := w.get("p").Status.ContainerStatuses[0].ContainerID
		w.stop()
		starts := w.rt.Calls("StartContainer")
		patches := len(w.client.Actions())
		after(time.Minute)
		w.start()
		after(time.Second)
		w.want("p", "Running c=running+")
		if w.get("p").Status.ContainerStatuses[0].ContainerID != id {
			t.Error("the container was replaced")
		}
		if n := w.rt.Calls("StartContainer") - starts; n != 1 { // q, at once, for its back-off is forgotten
			t.Errorf("%d starts", n)
		}
		if got := w.get("q").Status.ContainerStatuses[0].RestartCount; got != count+1 {
			t.Errorf("restarts went from %d to %d", count, got)
		}
		for _, a := range w.client.Actions()[patches:] {
			if a.GetVerb() == "patch" && strings.Contains(fmt.Sprint(a), " p ") {
				t.Errorf("the status of what had not changed was written: %v", a)
			}
		}
	})
}

// TestOrphan has a pod deleted while no kubelet runs.
func TestOrphan(t *testing.T) {
	inWorld(t, func(w *world) {
		w.script("p", "Always", "trap 'exit 0' TERM; sleep infinity")
		after(0)
		w.stop()
		if err := w.client.CoreV1().Pods("ns").Delete(t.Context(), "p", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.start()
		after(3 * time.Second)
		w.empty()
	})
}

// TestSameName has a pod take the place of one that is not done yet.
func TestSameName(t *testing.T) {
	inWorld(t, func(w *world) {
		w.script("p", "Always", "trap '' TERM; sleep infinity")
		after(0)
		if err := w.client.CoreV1().Pods("ns").Delete(t.Context(), "p", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.run("metadata: {name: p, uid: second}\nspec: {containers: [{name: c, command: [sleep, infinity]}]}")
		after(29 * time.Second)
		w.want("p", "Pending c=ContainerCreating")
		after(2 * time.Second)
		w.want("p", "Running c=running+")
	})
}

func TestSandboxFails(t *testing.T) {
	inWorld(t, func(w *world) {
		var fail atomic.Bool
		fail.Store(true)
		w.rt.Before = func(op, _ string) error {
			if fail.Load() && op == "RunSandbox" {
				return fmt.Errorf("no network")
			}
			return nil
		}
		w.script("p", "Always", "trap 'exit 0' TERM; sleep infinity")
		after(time.Minute)
		w.want("p", "Pending c=ContainerCreating")
		if w.told("p FailedCreatePodSandBox: Failed to create pod sandbox: no network") < 3 {
			t.Error(w.events)
		}
		fail.Store(false)
		after(maxRetry)
		w.want("p", "Running c=running+")
		w.rt.Crash("uid-p")
		after(5 * time.Second)
		w.want("p", "Running c=running/1+")
		if w.told("SandboxChanged") != 1 {
			t.Error(w.events)
		}
	})
}

// TestReboot loses all that the runtime had.
func TestReboot(t *testing.T) {
	inWorld(t, func(w *world) {
		w.script("always", "Always", "sleep infinity")
		after(0)
		w.stop()
		w.rt.Forget()
		w.start()
		after(time.Second)
		w.want("always", "Running c=running/1+")
		if s := w.get("always").Status.ContainerStatuses[0]; s.LastTerminationState.Terminated == nil || s.LastTerminationState.Terminated.ExitCode != 137 {
			t.Errorf("%+v", s)
		}
	})
}

func TestDeadline(t *testing.T) {
	inWorld(t, func(w *world) {
		w.run("metadata: {name: p}\nspec: {activeDeadlineSeconds: 40, containers: [{name: c, command: [sh, -c, \"trap 'exit 9' TERM; sleep infinity\"]}]}")
		after(39 * time.Second)
		w.want("p", "Running c=running+")
		after(2 * time.Second)
		w.want("p", "Failed(DeadlineExceeded) c=exit9")
	})
}

// TestRefused has a hook turn a pod down.
func TestRefused(t *testing.T) {
	full := kubelet.Hook{Name: "full", Admit: func(_ *corev1.Pod, others []*corev1.Pod) error {
		if len(others) > 0 {
			return &kubelet.Refusal{Reason: "OutOfpods", Message: "no room"}
		}
		return nil
	}}
	inWorld(t, func(w *world) {
		w.script("p", "Always", "sleep infinity")
		w.script("q", "Always", "sleep infinity")
		after(time.Second)
		w.want("p", "Running c=running+")
		w.want("q", "Failed(OutOfpods)")
		if m := w.get("q").Status.Message; m != "Pod was rejected: no room" {
			t.Error(m)
		}
		w.stop()
		w.start()
		after(time.Second)
		w.want("p", "Running c=running+")
		w.want("q", "Failed(OutOfpods)")
	}, full)
}

// TestHooks holds the moments to their order.
func TestHooks(t *testing.T) {
	var log []string
	note := func(s string) { log = append(log, s) }
	hook := func(n string) kubelet.Hook {
		return kubelet.Hook{
			Name:        n,
			Prepare:     func(context.Context, *kubelet.Sandbox) error { note(n + " prepare"); return nil },
			BeforeStart: func(context.Context, *kubelet.Container) error { note(n + " before"); return nil },
			AfterStart:  func(context.Context, *kubelet.Container) error { note(n + " after"); return nil },
			Running:     func(context.Context, *kubelet.Container) { note(n + " running") },
			BeforeKill:  func(context.Context, *kubelet.Container) error { note(n + " kill"); return nil },
			Cleanup:     func(context.Context, types.UID) error { note(n + " clean"); return nil },
		}
	}
	inWorld(t, func(w *world) {
		w.run("metadata: {name: p}\nspec: {containers: [{name: c, command: [sleep, infinity], lifecycle: {preStop: {sleep: {seconds: 1}}}}]}")
		after(0)
		w.delete("p", 2)
		after(5 * time.Second)
		want := "a prepare b prepare a before b before a after b after a running b running a kill b kill b clean a clean"
		if got := strings.Join(log, " "); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}, hook("a"), hook("b"))
}

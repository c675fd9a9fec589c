package critest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-dev/knarr/kubelet/cri"
)

// A Setup is what the suite needs of a runtime.
type Setup struct {
	Runtime cri.Runtime
	Image   string // one that it has, with a shell
	LogDir  string // may be empty
	Cgroup  string // the parent of the sandboxes' cgroups; may be empty
}

// Test runs the suite: all that the kubelet relies on. Each part is run by in:
// synctest.Test, or for a runtime with a clock of its own a plain call.
func Test(t *testing.T, in func(*testing.T, func(*testing.T)), open func(t *testing.T) Setup) {
	for name, f := range map[string]func(*testing.T, *trial){
		"ends by itself":   endsByItself,
		"ends when asked":  endsWhenAsked,
		"is killed":        isKilled,
		"exec":             execs,
		"lists":            lists,
		"knows no unknown": knowsNoUnknown,
		"tells":            tells,
		"images":           images,
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				f(t, &trial{Setup: open(t), t: t, ctx: t.Context(), uid: "uid-" + strings.ReplaceAll(name, " ", "-")})
			})
		})
	}
}

type trial struct {
	Setup

	t   *testing.T
	ctx context.Context //nolint:containedctx // that of one test
	uid string
	cfg *runtimeapi.PodSandboxConfig
	box string
}

// sandbox makes the trial's sandbox.
func (tr *trial) sandbox() {
	tr.t.Helper()
	tr.cfg = &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "ns", Uid: tr.uid},
		Labels:       map[string]string{cri.UIDLabel: tr.uid},
		LogDirectory: tr.LogDir,
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: tr.Cgroup,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{
				Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_CONTAINER,
			}},
		},
	}
	id, err := tr.Runtime.RunSandbox(tr.ctx, tr.cfg, "")
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.box = id
	tr.t.Cleanup(func() {
		ctx := context.Background()
		if err := errors.Join(tr.Runtime.StopSandbox(ctx, id), tr.Runtime.RemoveSandbox(ctx, id)); err != nil {
			tr.t.Error(err)
		}
	})
}

// start starts a container that runs the script.
func (tr *trial) start(name, script string) string {
	tr.t.Helper()
	id, err := tr.Runtime.CreateContainer(tr.ctx, tr.box, &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: tr.Image},
		Command:  []string{"sh", "-c", script},
		Labels:   map[string]string{cri.UIDLabel: tr.uid},
		LogPath:  name + ".log",
		Linux:    &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: tr.cfg.Linux.SecurityContext.NamespaceOptions}},
	}, tr.cfg)
	if err != nil {
		tr.t.Fatal(err)
	}
	if err := tr.Runtime.StartContainer(tr.ctx, id); err != nil {
		tr.t.Fatal(err)
	}
	return id
}

// exited waits for a container's end.
func (tr *trial) exited(id string) *runtimeapi.ContainerStatus {
	tr.t.Helper()
	deadline := time.After(time.Minute)
	for {
		st, err := tr.Runtime.ContainerStatus(tr.ctx, id)
		if err != nil {
			tr.t.Fatal(err)
		}
		if st.State == runtimeapi.ContainerState_CONTAINER_EXITED {
			return st
		}
		select {
		case <-deadline:
			tr.t.Fatalf("%s is still %v", id, st.State)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func endsByItself(t *testing.T, tr *trial) {
	tr.sandbox()
	for script, want := range map[string]struct {
		code   int32
		reason string
	}{"exit 0": {0, "Completed"}, "sleep 1; exit 7": {7, "Error"}} {
		st := tr.exited(tr.start("c"+script[:1], script))
		if st.ExitCode != want.code || st.Reason != want.reason || st.StartedAt == 0 || st.FinishedAt == 0 {
			t.Errorf("%s: %v", script, st)
		}
		// A runtime may note the start of what ends at once after its end.
		if want.code == 7 && st.FinishedAt < st.StartedAt {
			t.Errorf("%s: %v", script, st)
		}
		tr.uid += "x"
		tr.sandbox()
	}
}

func endsWhenAsked(t *testing.T, tr *trial) {
	tr.sandbox()
	id := tr.start("c", "trap 'exit 3' TERM; touch /tmp/trapped; sleep 1000 & wait")
	tr.eventually(id, "cat /tmp/trapped")
	began := time.Now()
	if err := tr.Runtime.StopContainer(tr.ctx, id, 30*time.Second); err != nil {
		t.Fatal(err)
	}
	if st := tr.exited(id); st.ExitCode != 3 || time.Since(began) > 10*time.Second {
		t.Errorf("after %v: %v", time.Since(began), st)
	}
}

func isKilled(t *testing.T, tr *trial) {
	tr.sandbox()
	id := tr.start("c", "trap '' TERM; touch /tmp/trapped; sleep 1000 & wait")
	tr.eventually(id, "cat /tmp/trapped")
	began := time.Now()
	if err := tr.Runtime.StopContainer(tr.ctx, id, 2*time.Second); err != nil {
		t.Fatal(err)
	}
	if st, took := tr.exited(id), time.Since(began); st.ExitCode != killed || took < 2*time.Second || took > 20*time.Second {
		t.Errorf("after %v: %v", took, st)
	}
}

// eventually waits until a command in a container succeeds.
func (tr *trial) eventually(id, command string) {
	tr.t.Helper()
	for range 500 {
		if _, code, err := tr.Runtime.Exec(tr.ctx, id, []string{"sh", "-c", command}, 5*time.Second); err == nil && code == 0 {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	tr.t.Fatalf("%s never succeeds", command)
}

func execs(t *testing.T, tr *trial) {
	tr.sandbox()
	id := tr.start("c", "sleep 1000")
	if _, code, err := tr.Runtime.Exec(tr.ctx, id, []string{"sh", "-c", "exit 9"}, 0); code != 9 || err != nil {
		t.Errorf("exit 9 is %d, %v", code, err)
	}
	if _, _, err := tr.Runtime.Exec(tr.ctx, id, []string{"sh", "-c", "sleep 100"}, time.Second); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a command that takes too long: %v", err)
	}
}

func lists(t *testing.T, tr *trial) {
	tr.sandbox()
	id := tr.start("c", "sleep 1000")
	boxes, err := tr.Runtime.ListSandboxes(tr.ctx, tr.uid)
	if err != nil || len(boxes) != 1 || boxes[0].Id != tr.box || boxes[0].State != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("sandboxes: %v, %v", boxes, err)
	}
	list, err := tr.Runtime.ListContainers(tr.ctx, tr.uid)
	if err != nil || len(list) != 1 || list[0].Id != id || list[0].PodSandboxId != tr.box {
		t.Errorf("containers: %v, %v", list, err)
	}
	if list, err := tr.Runtime.ListContainers(tr.ctx, "none"); err != nil || len(list) != 0 {
		t.Errorf("containers of no pod: %v, %v", list, err)
	}
	if err := tr.Runtime.StopSandbox(tr.ctx, tr.box); err != nil {
		t.Fatal(err)
	}
	if st := tr.exited(id); st.ExitCode != killed {
		t.Errorf("in a stopped sandbox: %v", st)
	}
	if st, err := tr.Runtime.SandboxStatus(tr.ctx, tr.box); err != nil || st.State != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("stopped sandbox: %v, %v", st, err)
	}
}

func knowsNoUnknown(t *testing.T, tr *trial) {
	if err := tr.Runtime.StopContainer(tr.ctx, "none", time.Second); err != nil {
		t.Error(err)
	}
	if err := errors.Join(tr.Runtime.StopSandbox(tr.ctx, "none"), tr.Runtime.RemoveSandbox(tr.ctx, "none"), tr.Runtime.RemoveContainer(tr.ctx, "none")); err != nil {
		t.Error(err)
	}
	if _, err := tr.Runtime.ContainerStatus(tr.ctx, "none"); !errors.Is(err, cri.ErrNotFound) {
		t.Error(err)
	}
	if _, err := tr.Runtime.SandboxStatus(tr.ctx, "none"); !errors.Is(err, cri.ErrNotFound) {
		t.Error(err)
	}
}

func tells(t *testing.T, tr *trial) {
	ctx, cancel := context.WithCancel(tr.ctx)
	defer cancel()
	ready, seen := make(chan bool, 1), make(chan string, 100)
	ended := make(chan error, 1)
	go func() { ended <- tr.Runtime.Watch(ctx, func() { ready <- true }, func(uid string) { seen <- uid }) }()
	<-ready
	<-time.After(time.Second) // a runtime may need a moment after it has said so
	tr.sandbox()
	id := tr.start("c", "sleep 1")
	tr.exited(id)
	deadline := time.After(10 * time.Second)
	for n := 0; n < 3; { // at least the sandbox, the start and the end
		select {
		case uid := <-seen:
			if uid == tr.uid {
				n++
			}
		case err := <-ended:
			if errors.Is(err, cri.ErrUnsupported) {
				t.Skip("it tells nothing and has to be asked")
			}
			t.Fatal(err)
		case <-deadline:
			t.Fatalf("was told %d times", n)
		}
	}
}

func images(t *testing.T, tr *trial) {
	im, err := tr.Runtime.ImageStatus(tr.ctx, &runtimeapi.ImageSpec{Image: tr.Image})
	if err != nil || im == nil || im.Id == "" {
		t.Fatalf("%v, %v", im, err)
	}
	if none, err := tr.Runtime.ImageStatus(tr.ctx, &runtimeapi.ImageSpec{Image: "knarr.local/none:latest"}); none != nil || err != nil {
		t.Errorf("%v, %v", none, err)
	}
	list, err := tr.Runtime.ListImages(tr.ctx)
	if err != nil || !slices.ContainsFunc(list, func(i *runtimeapi.Image) bool { return i.Id == im.Id }) {
		t.Errorf("%v, %v", list, err)
	}
	if err := tr.Runtime.RemoveImage(tr.ctx, &runtimeapi.ImageSpec{Image: "knarr.local/none:latest"}); err != nil {
		t.Error(err)
	}
}

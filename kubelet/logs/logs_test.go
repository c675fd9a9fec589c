package logs

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite what the examples expect")

// runtime is a runtime with one container.
type runtime struct {
	path  string
	state func() runtimeapi.ContainerState
	open  func() error
}

func (r runtime) ContainerStatus(_ context.Context, req *runtimeapi.ContainerStatusRequest, _ ...grpc.CallOption) (*runtimeapi.ContainerStatusResponse, error) {
	if req.ContainerId != "1" {
		return nil, errors.New("no such container")
	}
	s := &runtimeapi.ContainerStatus{Id: req.ContainerId, LogPath: r.path}
	if r.state != nil {
		s.State = r.state()
	}
	return &runtimeapi.ContainerStatusResponse{Status: s}, nil
}

func (r runtime) ListContainers(context.Context, *runtimeapi.ListContainersRequest, ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error) {
	return &runtimeapi.ListContainersResponse{Containers: []*runtimeapi.Container{{Id: "1"}, {Id: "gone"}}}, nil
}

func (r runtime) ReopenContainerLog(context.Context, *runtimeapi.ReopenContainerLogRequest, ...grpc.CallOption) (*runtimeapi.ReopenContainerLogResponse, error) {
	return nil, r.open()
}

func running(id string) *corev1.Pod {
	return &corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
		Name: "c", ContainerID: "test://" + id, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
	}}}}
}

// TestExamples reads logs as options ask for.
// contract: LG-1
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no examples", err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) { example(t, name) })
	}
}

func example(t *testing.T, name string) {
	ar, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "0.log")
	var opts corev1.PodLogOptions
	for i, f := range ar.Files {
		switch f.Name {
		case "0.log":
			if err := os.WriteFile(log, f.Data, 0o600); err != nil {
				t.Fatal(err)
			}
		case "options.yaml":
			opts = corev1.PodLogOptions{}
			if err := yaml.UnmarshalStrict(f.Data, &opts); err != nil {
				t.Fatal(err)
			}
		case "output":
			var got strings.Builder
			r := Reader{Runtime: runtime{path: log}}
			if err := r.Read(t.Context(), running("1"), "c", &opts, &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(f.Data), mark(got.String())); diff != "" && !*update {
				t.Errorf("with %+v, -want +got:\n%s", opts, diff)
			}
			ar.Files[i].Data = []byte(mark(got.String()))
		}
	}
	if *update {
		if err := os.WriteFile(name, txtar.Format(ar), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// mark shows where an output ends inside a line.
func mark(s string) string {
	if s != "" && !strings.HasSuffix(s, "\n") {
		s += "<end>\n"
	}
	return s
}

func TestInstance(t *testing.T) {
	ended := func(id string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: id}}
	}
	waits := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
	}
	run := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	for _, c := range []struct {
		name      string
		now, last corev1.ContainerState
		previous  bool
		want      string
	}{
		{"running", run, ended("rt://old"), false, "now"},
		{"previous of running", run, ended("rt://old"), true, "old"},
		{"no previous", run, corev1.ContainerState{}, true, `previous terminated container "c" in pod "p" not found`},
		{"ended", ended("rt://now"), ended("rt://old"), false, "now"},
		{"ended before it began", ended(""), ended("rt://old"), false, "old"},
		{"never began", ended(""), corev1.ContainerState{}, false, `container "c" in pod "p" is terminated`},
		{"back-off", waits("CrashLoopBackOff"), ended("rt://old"), false, "old"},
		{"creating", waits("ContainerCreating"), corev1.ContainerState{}, false, `container "c" in pod "p" is waiting to start: ContainerCreating`},
		{"pull", waits("ErrImagePull"), corev1.ContainerState{}, false, `container "c" in pod "p" is waiting to start: image can't be pulled`},
		{"pull again", waits("ImagePullBackOff"), corev1.ContainerState{}, false, `container "c" in pod "p" is waiting to start: trying and failing to pull image`},
		{"no state", corev1.ContainerState{}, corev1.ContainerState{}, false, `container "c" in pod "p" is waiting to start - no logs yet`},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := &corev1.Pod{}
			pod.Name = "p"
			pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "c", ContainerID: "rt://now", State: c.now, LastTerminationState: c.last}}
			got, err := instance(pod, "c", c.previous)
			if err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	if _, err := instance(&corev1.Pod{}, "c", false); err == nil || !strings.Contains(err.Error(), "is not available") {
		t.Errorf("container without status: %v", err)
	}
}

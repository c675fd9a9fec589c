package stats

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"golang.org/x/tools/txtar"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var update = flag.Bool("update", false, "rewrite what the examples expect")

var (
	idA     = strings.Repeat("a", 64)
	idPause = strings.Repeat("f", 64)
)

// runtime is a runtime with one pod of one container, born at the beginning
// of 2000, and with what is left of another pod.
type runtime struct {
	old     bool // knows no statistics of pods
	asked   int
	measure func() *runtimeapi.ContainerStats
	broken  error
}

func (r *runtime) ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest, ...grpc.CallOption) (*runtimeapi.ListPodSandboxResponse, error) {
	meta := &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "ns", Uid: "u1"}
	born := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	return &runtimeapi.ListPodSandboxResponse{Items: []*runtimeapi.PodSandbox{
		{Id: "older", Metadata: meta, CreatedAt: born - 1},
		{Id: idPause, Metadata: meta, CreatedAt: born},
	}}, r.broken
}

func (r *runtime) ListContainers(context.Context, *runtimeapi.ListContainersRequest, ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error) {
	return &runtimeapi.ListContainersResponse{Containers: []*runtimeapi.Container{{
		Id: idA, PodSandboxId: idPause, Metadata: &runtimeapi.ContainerMetadata{Name: "c"},
		Image:     &runtimeapi.ImageSpec{Image: "sha256:1", UserSpecifiedImage: "busybox"},
		CreatedAt: time.Date(2000, 1, 1, 0, 0, 1, 0, time.UTC).UnixNano(),
	}}}, nil
}

func value(n uint64) *runtimeapi.UInt64Value { return &runtimeapi.UInt64Value{Value: n} }

func (r *runtime) container() *runtimeapi.ContainerStats {
	if r.measure != nil {
		return r.measure()
	}
	return &runtimeapi.ContainerStats{
		Attributes: &runtimeapi.ContainerAttributes{Id: idA, Metadata: &runtimeapi.ContainerMetadata{Name: "c"}},
		WritableLayer: &runtimeapi.FilesystemUsage{
			FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: "/images"}, UsedBytes: value(4096), InodesUsed: value(2),
		},
	}
}

func (r *runtime) ListPodSandboxStats(context.Context, *runtimeapi.ListPodSandboxStatsRequest, ...grpc.CallOption) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	if r.asked++; r.old {
		return nil, status.Error(codes.Unimplemented, "")
	}
	return &runtimeapi.ListPodSandboxStatsResponse{Stats: []*runtimeapi.PodSandboxStats{{
		Attributes: &runtimeapi.PodSandboxAttributes{Id: idPause},
		Linux: &runtimeapi.LinuxPodSandboxStats{
			Process:    &runtimeapi.ProcessUsage{ProcessCount: value(3)},
			Containers: []*runtimeapi.ContainerStats{r.container()},
			Network: &runtimeapi.NetworkUsage{Interfaces: []*runtimeapi.NetworkInterfaceUsage{
				{Name: "eth0", RxBytes: value(1), RxErrors: value(2), TxBytes: value(3), TxErrors: value(4)},
			}},
		},
	}}}, nil
}

func (r *runtime) ListContainerStats(context.Context, *runtimeapi.ListContainerStatsRequest, ...grpc.CallOption) (*runtimeapi.ListContainerStatsResponse, error) {
	return &runtimeapi.ListContainerStatsResponse{Stats: []*runtimeapi.ContainerStats{r.container()}}, nil
}

func (r *runtime) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest, ...grpc.CallOption) (*runtimeapi.ImageFsInfoResponse, error) {
	u := &runtimeapi.FilesystemUsage{FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: "/images"}, UsedBytes: value(9), InodesUsed: value(1)}
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: []*runtimeapi.FilesystemUsage{u}}, nil
}

// host is the part of an example that is files of a machine.
func host(ar *txtar.Archive) fstest.MapFS {
	m := fstest.MapFS{}
	for _, f := range ar.Files {
		if !strings.Contains(f.Name, "/") {
			continue
		}
		born := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
		if link, is := strings.CutSuffix(f.Name, "@"); is {
			m[link] = &fstest.MapFile{Data: bytes.TrimSpace(f.Data), Mode: fs.ModeSymlink, ModTime: born}
			continue
		}
		m[f.Name] = &fstest.MapFile{Data: f.Data, ModTime: born}
		for dir := filepath.Dir(f.Name); dir != "."; dir = filepath.Dir(dir) {
			m[dir] = &fstest.MapFile{Mode: fs.ModeDir, ModTime: born}
		}
	}
	return m
}

func statfs(path string) (FS, error) {
	if path == "" {
		return FS{}, errors.New("no path")
	}
	return FS{Device: 1, Capacity: 1000, Available: 500, Used: 400, Inodes: 100, InodesFree: 60}, nil
}

func section(ar *txtar.Archive, name string) *txtar.File {
	for i := range ar.Files {
		if ar.Files[i].Name == name {
			return &ar.Files[i]
		}
	}
	return &txtar.File{}
}

// TestExamples tells what hosts with each layout of cgroups use.
// contract: HT-4, HT-5, HT-6, HT-7
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no examples", err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			ar, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var p *Provider
			got := map[string]string{}
			synctest.Test(t, func(t *testing.T) {
				p = provider(host(ar), strings.TrimSpace(string(section(ar, "kubepods").Data)), &runtime{})
				sum, err := p.Summary(t.Context(), false)
				if err != nil {
					t.Fatal(err)
				}
				got["summary.json"] = indent(t, sum)
				got["spec.json"] = indent(t, p.Machine)
				got["metrics"] = metrics(t, p.Resource()) + metrics(t, p.Cadvisor())
			})
			for name, text := range got {
				f := section(ar, name)
				if diff := cmp.Diff(string(f.Data), text); diff != "" && !*update {
					t.Errorf("%s -want +got:\n%s", name, diff)
				}
				f.Data = []byte(text)
			}
			if *update {
				if err := os.WriteFile(name, txtar.Format(ar), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func provider(files fs.FS, kubepods string, r *runtime) *Provider {
	return New(Config{
		Node: "n1", Machine: ReadMachine(files, statfs), Runtime: r, Images: r, Pods: func() []*corev1.Pod { return nil },
		PodsCgroup: kubepods, Root: "/var/lib/kubelet", LogDir: "/var/log/pods", Files: files, Statfs: statfs,
	})
}

func indent(t *testing.T, v any) string {
	t.Helper()
	j, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(j) + "\n"
}

// metrics are those of a collector, without the words about them.
func metrics(t *testing.T, c prometheus.Collector) string {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	list, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var all, kept strings.Builder
	for _, f := range list {
		if _, err := expfmt.MetricFamilyToText(&all, f); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(all.String()) {
		if !strings.HasPrefix(line, "#") {
			kept.WriteString(strings.NewReplacer(idA, "<c>", idPause, "<pause>").Replace(line))
		}
	}
	return kept.String()
}

func example(t *testing.T, name string) *txtar.Archive {
	t.Helper()
	ar, err := txtar.ParseFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return ar
}

// TestRates holds that a rate is over the time between two answers, and that
// answers a moment apart are one.
func TestRates(t *testing.T) {
	files := host(example(t, "v2.txtar"))
	synctest.Test(t, func(t *testing.T) {
		r := &runtime{}
		p := provider(files, "/kubepods.slice", r)
		ask := func() (node, container uint64) {
			t.Helper()
			s, err := p.Summary(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			return *s.Node.CPU.UsageNanoCores, *s.Pods[0].Containers[0].CPU.UsageNanoCores
		}
		ask()
		files["sys/fs/cgroup/cpu.stat"].Data = []byte("usage_usec 35000000\n") // five seconds more
		if n, _ := ask(); n != 0 || r.asked != 1 {
			t.Errorf("an answer is not shared: %d, asked %d times", n, r.asked)
		}
		time.Sleep(10 * time.Second)
		if n, c := ask(); n != 500_000_000 || c != 0 {
			t.Errorf("rates %d and %d, want half a core and none", n, c)
		}
	})
}

// TestRuntimeFillsIn holds that a container whose cgroup is not to be found,
// as in a virtual machine, is measured by the runtime, be it an old one.
func TestRuntimeFillsIn(t *testing.T) {
	for _, old := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := &runtime{old: old, measure: func() *runtimeapi.ContainerStats {
				return &runtimeapi.ContainerStats{
					Attributes: &runtimeapi.ContainerAttributes{Id: idA, Metadata: &runtimeapi.ContainerMetadata{Name: "c"}},
					Cpu:        &runtimeapi.CpuUsage{Timestamp: time.Now().UnixNano(), UsageCoreNanoSeconds: value(uint64(time.Now().UnixNano() / 4))},
					Memory:     &runtimeapi.MemoryUsage{Timestamp: time.Now().UnixNano(), WorkingSetBytes: value(70), AvailableBytes: value(30)},
				}
			}}
			p := provider(host(example(t, "v2.txtar")), "/elsewhere", r)
			s, err := p.Summary(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			c := s.Pods[0].Containers[0]
			if *c.CPU.UsageNanoCores/1e6 != 250 || *c.Memory.WorkingSetBytes != 70 || *c.Memory.AvailableBytes != 30 {
				t.Errorf("old %v: %s", old, indent(t, c))
			}
			if got := metrics(t, p.Resource()); !strings.Contains(got, `container_memory_working_set_bytes{container="c",namespace="ns",pod="p"} 70`) {
				t.Error(got)
			}
		})
	}
}

func TestScrapeError(t *testing.T) {
	p := provider(host(example(t, "v2.txtar")), "/kubepods.slice", &runtime{broken: errors.New("away")})
	if got := metrics(t, p.Resource()); got != "resource_scrape_error 1\nscrape_error 1\n" {
		t.Error(got)
	}
	if _, err := p.Summary(t.Context(), false); err == nil {
		t.Error("no error")
	}
}

// TestVolumes measures files of its own.
func TestVolumes(t *testing.T) {
	root, logs := t.TempDir(), t.TempDir()
	for path, size := range map[string]int{
		root + "/pods/u1/etc-hosts":                                   10,
		root + "/pods/u1/volumes/kubernetes.io~empty-dir/scratch/f":   10000,
		root + "/pods/u1/volumes/kubernetes.io~local-volume/pv1/data": 5000,
		logs + "/ns_p_u1/c/0.log":                                     8000,
		logs + "/ns_p_u1/c/0.log.20000101-000000":                     1,
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, make([]byte, size), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	scratch := root + "/pods/u1/volumes/kubernetes.io~empty-dir/scratch/"
	if err := os.Link(scratch+"f", scratch+"same"); err != nil {
		t.Fatal(err)
	}
	p := provider(host(example(t, "v2.txtar")), "/kubepods.slice", &runtime{})
	p.Root, p.LogDir = root, logs
	pod := &corev1.Pod{}
	pod.UID, pod.Namespace = "u1", "ns"
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"}}},
		{Name: "unmounted", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{}}},
	}
	p.Pods = func() []*corev1.Pod { return []*corev1.Pod{pod} }
	s, err := p.Summary(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	vols, block := s.Pods[0].VolumeStats, func(n int) uint64 { return uint64((n + 4095) / 4096 * 4096) }
	if len(vols) != 2 {
		t.Fatal(indent(t, vols))
	}
	if got, least := *vols[0].UsedBytes, block(10000); vols[0].Name != "scratch" || got < least || got >= 2*least || *vols[0].InodesUsed != 2 {
		t.Errorf("a file with two names counts twice: %s", indent(t, vols[0]))
	}
	if vols[1].PVCRef == nil || vols[1].PVCRef.Name != "claim" || *vols[1].UsedBytes < block(5000) {
		t.Error(indent(t, vols[1]))
	}
	log := s.Pods[0].Containers[0].Logs
	if *log.UsedBytes != block(8000)+block(1) || *log.InodesUsed != 2 {
		t.Error(indent(t, log))
	}
	want := *vols[0].UsedBytes + *log.UsedBytes + block(10) + 4096 // the last is the container's own layer
	if got := *s.Pods[0].EphemeralStorage.UsedBytes; got != want {
		t.Errorf("ephemeral storage %d, want %d: that of a claim is not", got, want)
	}
	if got := metrics(t, p.Kubelet()); !strings.Contains(got, `kubelet_volume_stats_capacity_bytes{namespace="ns",persistentvolumeclaim="claim"} 1000`) {
		t.Error(got)
	}
}

func TestCapacity(t *testing.T) {
	files := host(example(t, "v1.txtar"))
	got, want := ReadMachine(files, statfs).Capacity(), map[corev1.ResourceName]string{"cpu": "2", "memory": "8000000Ki", "hugepages-2Mi": "8Mi"}
	for name, q := range want {
		if g := got[name]; g.String() != q {
			t.Errorf("%s is %s, want %s", name, &g, q)
		}
	}
	if len(got) != len(want) {
		t.Error(got)
	}
}

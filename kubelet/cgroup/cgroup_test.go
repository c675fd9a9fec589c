package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/kubelet"
)

func pod(t *testing.T, spec string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	return p
}

const (
	best       = "{containers: [{name: c}]}"
	burstable  = "{containers: [{name: c, resources: {requests: {cpu: 250m, memory: 100Mi}}}]}"
	limited    = "{containers: [{name: c, resources: {requests: {cpu: 250m}, limits: {cpu: 500m, memory: 64Mi}}}]}"
	guaranteed = "{containers: [{name: c, resources: {requests: {cpu: 1, memory: 64Mi}, limits: {cpu: 1, memory: 64Mi}}}]}"
	whole      = "{resources: {limits: {cpu: 2, memory: 1Gi}, requests: {cpu: 1}}, containers: [{name: c}]}"
)

func TestPodLimits(t *testing.T) {
	for spec, want := range map[string]limits{
		best: {shares: 2}, burstable: {shares: 256}, limited: {shares: 256, quota: 50000, memory: 64 << 20},
		guaranteed: {shares: 1024, quota: 100000, memory: 64 << 20},
		"{containers: [{name: c, resources: {requests: {cpu: 1m}, limits: {cpu: 1m}}}, {name: d, resources: {requests: {cpu: 2m}, limits: {cpu: 2m, memory: 1Mi}}}]}": {shares: 3, quota: 1000},
	} {
		if got := podLimits(pod(t, spec), 0); got != want {
			t.Errorf("%s: %+v, want %+v", spec, got, want)
		}
	}
	p := pod(t, whole)
	p.Status.QOSClass = corev1.PodQOSBurstable
	if got := podLimits(p, 7); got != (limits{shares: 1024, quota: 200000, memory: 1 << 30, pids: 7}) {
		t.Errorf("%+v", got)
	}
}

func TestResources(t *testing.T) {
	for spec, want := range map[string]string{
		best: "2 0 0", limited: "256 50000 67108864", guaranteed: "1024 100000 67108864", whole: "2048 200000 1073741824",
	} {
		p := pod(t, spec)
		r := Resources(p, &p.Spec.Containers[0])
		if got := fmt.Sprint(r.CpuShares, " ", r.CpuQuota, " ", r.MemoryLimitInBytes); got != want {
			t.Errorf("%s: %s, want %s", spec, got, want)
		}
	}
}

func TestBadness(t *testing.T) {
	critical := int32(2000001000)
	for _, tt := range []struct {
		spec     string
		priority *int32
		want     int64
	}{{best, nil, 1000}, {guaranteed, nil, -997}, {burstable, nil, 900}, {limited, nil, 999}, {best, &critical, -997}} {
		p := pod(t, tt.spec)
		p.Spec.Priority = tt.priority
		if got := badness(p, &p.Spec.Containers[0], 1000<<20); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.spec, got, tt.want)
		}
	}
	p := pod(t, "{initContainers: [{name: s, restartPolicy: Always}], containers: [{name: c, resources: {requests: {memory: 200Mi}}}, {name: d, resources: {requests: {memory: 100Mi}}}]}")
	if got := badness(p, &p.Spec.InitContainers[0], 1000<<20); got != 900 {
		t.Errorf("a sidecar: %d", got)
	}
}

func TestMounts(t *testing.T) {
	got := mounts(`24 23 0:21 / /sys/fs/cgroup rw - tmpfs tmpfs rw
25 24 0:22 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
26 24 0:23 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
27 24 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
`)
	if len(got) != 3 || got[0].dir != "/sys/fs/cgroup/cpu,cpuacct" || !got[2].unified || got[1].controllers[1] != "memory" {
		t.Errorf("%+v", got)
	}
}

// TestVersion2 has a directory stand for a host with version 2 only.
func TestVersion2(t *testing.T) {
	dir := t.TempDir()
	tree := &Tree{Root: "/knarr", mounts: []mount{{dir: dir, unified: true}}, burst: map[types.UID]int64{}}
	for _, d := range []string{"", "knarr", "knarr/kubepods", "knarr/kubepods/burstable", "knarr/kubepods/besteffort", "knarr/kubepods/burstable/podu"} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
		for _, f := range []string{"cgroup.controllers", "cgroup.subtree_control", "cpu.weight", "cpu.max", "memory.max"} {
			must(t, os.WriteFile(filepath.Join(dir, d, f), []byte(map[string]string{"cgroup.controllers": "cpu memory rdma\n"}[f]), 0o644))
		}
	}
	s := &kubelet.Sandbox{Pod: pod(t, limited), Config: &runtimeapi.PodSandboxConfig{Linux: &runtimeapi.LinuxPodSandboxConfig{}}}
	must(t, tree.Hook().Prepare(t.Context(), s))
	if s.Config.Linux.CgroupParent != "/knarr/kubepods/burstable/podu" {
		t.Error(s.Config.Linux.CgroupParent)
	}
	for file, want := range map[string]string{
		"knarr/kubepods/burstable/podu/cpu.weight": "10", "knarr/kubepods/burstable/podu/cpu.max": "50000 100000",
		"knarr/kubepods/burstable/podu/memory.max": "67108864", "knarr/kubepods/burstable/cpu.weight": "10",
		"knarr/kubepods/besteffort/cpu.weight": "1", "knarr/kubepods/besteffort/cpu.max": "max 100000",
	} {
		if b, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(b) != want {
			t.Errorf("%s is %q, %v; want %s", file, b, err, want)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestKernel makes groups on this host and removes them.
func TestKernel(t *testing.T) {
	root := fmt.Sprintf("/knarr-test-%d", os.Getpid())
	tree, err := New(root)
	if err != nil || os.Getuid() != 0 {
		t.Skip("needs root and cgroups: ", err)
	}
	s := &kubelet.Sandbox{Pod: pod(t, limited), Config: &runtimeapi.PodSandboxConfig{Linux: &runtimeapi.LinuxPodSandboxConfig{}}}
	for range 2 {
		must(t, tree.Hook().Prepare(t.Context(), s))
	}
	n := 0
	for _, m := range tree.mounts {
		if _, err := os.Stat(filepath.Join(m.dir, s.Config.Linux.CgroupParent)); err == nil {
			n++
		}
	}
	if n == 0 {
		t.Error("no group was made")
	}
	for range 2 {
		must(t, tree.Hook().Cleanup(t.Context(), "u"))
	}
	must(t, tree.Remove(t.Context()))
	for _, m := range tree.mounts {
		if _, err := os.Stat(filepath.Join(m.dir, root)); err == nil {
			t.Errorf("%s%s is left", m.dir, root)
		}
	}
}

//go:build integration

package stats

import (
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/kubelet/node/runtimetest"
)

// TestRealSummary measures this machine and a container that is busy.
func TestRealSummary(t *testing.T) {
	p := runtimetest.Start(t, "while true; do :; done")
	_, images := runtimetest.Dial(t)
	provider := New(Config{
		Node: "n", Machine: ReadMachine(os.DirFS("/"), Statfs), Runtime: p.Runtime, Images: images,
		Pods: func() []*corev1.Pod { return []*corev1.Pod{p.Pod} }, PodsCgroup: "/kubepods", Root: t.TempDir(), LogDir: p.LogDir,
	})
	s, err := provider.Summary(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	n := s.Node
	if *n.CPU.UsageNanoCores == 0 || *n.Memory.WorkingSetBytes == 0 || *n.Memory.AvailableBytes == 0 || *n.Fs.CapacityBytes == 0 || *n.Runtime.ImageFs.UsedBytes == 0 || *n.Rlimit.NumOfRunningProcesses == 0 {
		t.Errorf("node %s", indent(t, n))
	}
	found := false
	for _, ps := range s.Pods {
		if ps.PodRef.UID != string(p.UID) {
			continue
		}
		found = true
		if c := ps.Containers[0]; *c.CPU.UsageNanoCores == 0 || *c.CPU.UsageCoreNanoSeconds == 0 || *c.Memory.WorkingSetBytes == 0 || *c.Rootfs.CapacityBytes == 0 {
			t.Errorf("pod %s", indent(t, ps))
		}
	}
	if !found {
		t.Error("no such pod")
	}
}

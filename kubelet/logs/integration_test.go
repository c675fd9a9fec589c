//go:build integration

package logs

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/kubelet/node/runtimetest"
)

// TestRealRotation follows a container that prints a lot through rotations by
// a real runtime, and holds that nothing is lost and that the end is seen.
func TestRealRotation(t *testing.T) {
	const lines = 20000
	p := runtimetest.Start(t, fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); [ $((i%%500)) = 0 ] && sleep 0.1; done", lines))
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	rotator := &Rotator{Dir: p.LogDir, MaxSize: 64 << 10, MaxFiles: 3, Every: time.Second, Runtime: p.Runtime}
	done := make(chan error, 1)
	go func() { done <- rotator.Run(ctx) }()
	var got strings.Builder
	r := Reader{Runtime: p.Runtime}
	if err := r.Read(ctx, p.Pod, "c", &corev1.PodLogOptions{Follow: true}, &got); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	have := strings.Split(strings.TrimSuffix(got.String(), "\n"), "\n")
	for i, line := range have {
		if line != fmt.Sprint("line ", i) {
			t.Fatalf("line %d reads %q", i, line)
		}
	}
	if rotated, _ := filepath.Glob(p.LogPath + ".*"); len(have) != lines || len(rotated) == 0 {
		t.Errorf("%d of %d lines, rotated to %v", len(have), lines, rotated)
	}
}

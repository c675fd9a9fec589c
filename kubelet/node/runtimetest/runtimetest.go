// Package runtimetest gives tests a pod in a real container runtime: the one
// that listens at KNARR_TEST_RUNTIME, with the image KNARR_TEST_IMAGE, which
// must have a shell. Without a runtime the test is skipped.
package runtimetest

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Dial returns clients of the runtime.
func Dial(t testing.TB) (runtimeapi.RuntimeServiceClient, runtimeapi.ImageServiceClient) {
	t.Helper()
	endpoint := os.Getenv("KNARR_TEST_RUNTIME")
	if endpoint == "" {
		t.Skip("SKIPPED: KNARR_TEST_RUNTIME names no socket of a container runtime")
	}
	conn, err := grpc.NewClient("unix://"+strings.TrimPrefix(endpoint, "unix://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return runtimeapi.NewRuntimeServiceClient(conn), runtimeapi.NewImageServiceClient(conn)
}

// A Pod is a pod of one container, named c, that runs.
type Pod struct {
	*corev1.Pod

	Runtime runtimeapi.RuntimeServiceClient
	ID      string // of the container
	LogDir  string // of all pods
	LogPath string
}

// Start runs a shell script as a pod until the test ends.
func Start(t testing.TB, script string) *Pod {
	t.Helper()
	rt, _ := Dial(t)
	uid := string(uuid.NewUUID())
	labels := map[string]string{"io.kubernetes.pod.uid": uid, "io.kubernetes.pod.name": "p", "io.kubernetes.pod.namespace": "ns"}
	p := &Pod{Runtime: rt, LogDir: t.TempDir()}
	dir := filepath.Join(p.LogDir, "ns_p_"+uid)
	sandbox := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "ns", Uid: uid},
		LogDirectory: dir, Labels: labels, Linux: &runtimeapi.LinuxPodSandboxConfig{},
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := rt.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: sandbox})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := rt.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: s.PodSandboxId}); err != nil {
			t.Error(err)
		}
		if _, err := rt.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: s.PodSandboxId}); err != nil {
			t.Error(err)
		}
	})
	if err := os.MkdirAll(filepath.Join(dir, "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	labels["io.kubernetes.container.name"] = "c"
	c, err := rt.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: s.PodSandboxId, SandboxConfig: sandbox,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "c"},
			Image:    &runtimeapi.ImageSpec{Image: cmp.Or(os.Getenv("KNARR_TEST_IMAGE"), "busybox")},
			Command:  []string{"sh", "-c", script}, Labels: labels, LogPath: "c/0.log", Linux: &runtimeapi.LinuxContainerConfig{},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rt.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: c.ContainerId}); err != nil {
		t.Fatal(err)
	}
	p.ID, p.LogPath = c.ContainerId, filepath.Join(dir, "c", "0.log")
	p.Pod = &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: types.UID(uid)},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}},
		Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
			Name: "c", ContainerID: "runtime://" + p.ID, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
		}}},
	}
	return p
}

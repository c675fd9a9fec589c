//go:build integration

package run

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/kubelet/cgroup"
	"github.com/knarr-dev/knarr/kubelet/containerd"
	"github.com/knarr-dev/knarr/kubelet/cri"
	"github.com/knarr-dev/knarr/kubelet/cri/critest"
	"github.com/knarr-dev/knarr/kubelet/image"
)

// These tests run a containerd of their own, the one that KNARR_CONTAINERD
// names or the one in PATH, with the images that need no registry. They need
// root, and for networks the CNI plugins.
const cniBin = "/usr/lib/cni"

// A node is a machine with a real runtime.
type node struct {
	dir    string
	groups string
	rt     *cri.Client
}

func newNode(t *testing.T) *node {
	t.Helper()
	binary, err := exec.LookPath(cmp.Or(os.Getenv("KNARR_CONTAINERD"), "containerd"))
	if err != nil || os.Getuid() != 0 {
		t.Skipf("needs root and containerd: %v", err)
	}
	dir, err := os.MkdirTemp("", "run") //nolint:usetesting // t.TempDir's paths are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	n := &node{dir: dir, groups: fmt.Sprintf("/knarr-test-%d", os.Getpid())}
	c := containerd.Config{Binary: binary, Dir: filepath.Join(dir, "ctrd"), CNIBin: cniBin, CNIConf: filepath.Join(dir, "cni"), Sandbox: image.Pause}
	t.Cleanup(func() {
		if err := containerd.Remove(context.Background(), c); err != nil {
			t.Error(err)
		}
		tree, err := cgroup.New(n.groups)
		if err == nil {
			err = tree.Remove(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
		if err := removeDir(dir); err != nil {
			t.Error(err)
		}
	})
	if _, err := containerd.Start(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if n.rt, err = cri.Dial(c.Endpoint()); err != nil {
		t.Fatal(err)
	}
	list, err := image.Builtins("/bin/true") // the demo's program is of no interest here
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // what is there is not made again
		if err := image.Import(t.Context(), n.rt.Conn(), list); err != nil {
			t.Fatal(err)
		}
	}
	if im, err := n.rt.ListImages(t.Context()); err != nil || len(im) < len(list) {
		t.Fatalf("%v, %v", im, err)
	}
	if len(list) < 3 {
		t.Skip("needs a static busybox")
	}
	return n
}

func TestContainerd(t *testing.T) {
	n := newNode(t)
	here := func(t *testing.T, f func(*testing.T)) { f(t) }
	critest.Test(t, here, func(t *testing.T) critest.Setup {
		return critest.Setup{Runtime: n.rt, Image: image.Busybox, LogDir: t.TempDir(), Cgroup: n.groups}
	})
}

// TestForReal runs pods with everything real but the API.
func TestForReal(t *testing.T) {
	if _, err := os.Stat(filepath.Join(cniBin, "host-local")); err != nil {
		t.Skip("needs the CNI plugins: ", err)
	}
	n := newNode(t)
	if err := os.MkdirAll(filepath.Join(n.dir, "cni"), 0o755); err != nil {
		t.Fatal(err)
	}
	// Networks that lead nowhere: each pod has an address and nothing else.
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"t","plugins":[{"type":"ptp","ipMasq":false,"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.211.0.0/24"}]]}}]}`, filepath.Join(n.dir, "ipam"))
	if err := os.WriteFile(filepath.Join(n.dir, "cni", "10-t.conflist"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cm", Namespace: "ns"}, Data: map[string]string{"a": "1"}})
	ctx, cancel := context.WithCancel(t.Context())
	c := Config{NodeName: "n", Root: filepath.Join(n.dir, "root"), LogDir: filepath.Join(n.dir, "logs"), Pods: &Pods{}, IPs: func() []string { return []string{"192.0.2.1"} }, Tell: func(*corev1.Pod, string, string, string, string) {}}
	hooks, err := Hooks(ctx, c, Settings{CgroupRoot: n.groups}, n.rt, client)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- Run(ctx, c, n.rt, client, hooks) }()
	p := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(`
metadata: {name: p, namespace: ns, uid: u}
spec:
  nodeName: n
  restartPolicy: Always
  dnsPolicy: Default
  terminationGracePeriodSeconds: 30
  volumes: [{name: v, configMap: {name: cm}}, {name: m, emptyDir: {medium: Memory}}]
  initContainers:
  - {name: i, image: "`+image.Busybox+`", command: [sh, -c, "[ $(cat /v/a) = 1 ] && touch /m/ok"], volumeMounts: [{name: v, mountPath: /v}, {name: m, mountPath: /m}]}
  containers:
  - name: c
    image: "`+image.Busybox+`"
    command: [sh, -c, "trap 'exit 0' TERM; touch /ready; sleep 1000 & wait"]
    readinessProbe: {exec: {command: [cat, /ready, /m/ok]}, periodSeconds: 1}
    volumeMounts: [{name: m, mountPath: /m}]
status: {phase: Pending}
`), p); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Pods("ns").Create(ctx, p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	get := func() *corev1.Pod {
		p, err := client.CoreV1().Pods("ns").Get(ctx, "p", metav1.GetOptions{})
		if err != nil {
			return nil
		}
		return p
	}
	until(t, func() bool {
		p := get()
		return p.Status.Phase == corev1.PodRunning && p.Status.ContainerStatuses[0].Ready && strings.HasPrefix(p.Status.PodIP, "10.211.0.")
	})
	p = get()
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: time.Now()}, new(int64(30))
	if _, err := client.CoreV1().Pods("ns").Update(ctx, p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	until(t, func() bool { return get() == nil })
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("gone after %v", d)
	}
	until(t, func() bool { return len(c.Pods.List()) == 0 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within a minute")
		}
	}
}

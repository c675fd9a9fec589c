//go:build e2e

// Package e2e tries a whole cluster as a user would: with the programs in
// bin, stock kubectl and stock client-go, on a real containerd. It needs root.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// A machine may have a cluster already, so this one has other ports and
// ranges than those by default.
const (
	dataDir      = "/tmp/knarr-e2e"
	readOnlyPort = "17255"
	securePort   = "17443"
	kubeletPort  = "17250"
)

var upFlags = []string{
	"--data-dir=" + dataDir, "--secure-port=" + securePort, "--kubelet-port=" + kubeletPort, "--read-only-port=" + readOnlyPort,
	"--healthz-port=17248", "--proxy-healthz-port=17256", "--proxy-metrics-port=17249",
	"--cluster-cidr=10.245.0.0/16", "--service-cluster-ip-range=10.97.0.0/16",
}

// bin is where the programs are.
var bin string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Println("SKIPPED: these tests need root")
		return 0
	}
	var err error
	if bin, err = filepath.Abs("../../../bin"); err != nil {
		fmt.Println(err)
		return 1
	}
	if err := clean(); err != nil {
		fmt.Println("end what an earlier run left:", err)
		return 1
	}
	under = &whole{}
	if os.Getenv("KNARR_E2E_PARTS") != "" {
		under = &parts{}
	}
	if err := under.start(); err != nil {
		fmt.Println(err)
		return 1
	}
	code := m.Run()
	if code != 0 {
		tellLogs()
	}
	if err := under.end(); err != nil {
		fmt.Println(err)
		return 1
	}
	return max(code, nothingLeft())
}

// A cluster is what is tried.
type cluster interface {
	start() error
	end() error
	crash(t *testing.T)   // kills the API server, and what is in one process with it
	restart(t *testing.T) // starts it again, and waits until it serves
}

// under is the cluster under test.
var under cluster

// whole is a cluster that knarr up has started.
type whole struct{}

func (*whole) start() error {
	out, err := exec.Command(filepath.Join(bin, "knarr"), append([]string{"up"}, upFlags...)...).CombinedOutput()
	fmt.Print(string(out))
	if err != nil {
		return fmt.Errorf("knarr up: %w", err)
	}
	return nil
}

func (*whole) end() error { return clean() }

func (*whole) crash(t *testing.T) {
	t.Helper()
	kill(t, status(t).PID)
}

func (*whole) restart(t *testing.T) {
	t.Helper()
	if out, err := program(t, "knarr", append([]string{"up"}, upFlags...)...); err != nil {
		t.Fatalf("knarr up: %v\n%s", err, out)
	}
}

// clean ends the cluster, if there is one.
func clean() error {
	if _, err := os.Stat(dataDir); os.IsNotExist(err) {
		return nil
	}
	out, err := exec.Command(filepath.Join(bin, "knarr"), "down", "--data-dir="+dataDir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// tellLogs prints the end of the cluster's logs.
func tellLogs() {
	const much = 16 << 10
	logs, _ := filepath.Glob(filepath.Join(dataDir, "*.log")) // the pattern is sound
	for _, log := range logs {
		b, err := os.ReadFile(log)
		if err != nil {
			fmt.Println(err)
		}
		fmt.Printf("--- %s ends so:\n%s\n", log, b[max(0, len(b)-much):])
	}
}

// nothingLeft looks for what down must not leave: processes, mounts,
// interfaces, groups and pins.
func nothingLeft() (code int) {
	fault := func(what string) { fmt.Println("FAIL: left behind:", what); code = 1 }
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is sound
	for _, p := range procs {
		if line, err := os.ReadFile(p); err == nil && bytes.Contains(line, []byte(dataDir)) {
			fault("process " + strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || bytes.Contains(mounts, []byte(dataDir)) {
		fault("a mount")
	}
	for _, pattern := range []string{dataDir, "/sys/class/net/knarr-*", "/sys/class/net/knarr0-*", "/sys/fs/cgroup/knarr-*", "/sys/fs/cgroup/*/knarr-*", "/sys/fs/bpf/knarr-*"} {
		found, _ := filepath.Glob(pattern) // likewise
		for _, f := range found {
			fault(f)
		}
	}
	return code
}

// program runs one of the programs in bin.
func program(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, name), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(dataDir, "kubeconfig"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// kubectl runs stock kubectl, which must succeed.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := program(t, "kubectl", args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// refused runs kubectl, which must fail and say why.
func refused(t *testing.T, why string, args ...string) {
	t.Helper()
	out, err := program(t, "kubectl", args...)
	if err == nil || !strings.Contains(out, why) {
		t.Errorf("kubectl %s: %v, and not %q:\n%s", strings.Join(args, " "), err, why, out)
	}
}

// says demands that an output has something in it.
func says(t *testing.T, out string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}

// eventually calls f until it is content.
func eventually(t *testing.T, limit time.Duration, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %v", limit, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// namespace makes a namespace for a test, which begins to go with it.
func namespace(t *testing.T, name string) {
	t.Helper()
	kubectl(t, "create", "namespace", name)
	t.Cleanup(func() {
		out, err := exec.Command(filepath.Join(bin, "kubectl"), "--kubeconfig="+filepath.Join(dataDir, "kubeconfig"), "delete", "namespace", name, "--wait=false").CombinedOutput()
		if err != nil {
			t.Errorf("delete namespace: %v\n%s", err, out)
		}
	})
}

// config is how stock client-go reaches the cluster.
func config(t *testing.T) *rest.Config {
	t.Helper()
	cfg, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dataDir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// status is what knarr status says.
func status(t *testing.T) (s struct {
	PID                 int
	Kubeconfig, DataDir string
	Nodes               []struct {
		Name  string
		Ready bool
	}
},
) {
	t.Helper()
	out, err := program(t, "knarr", "status", "--data-dir="+dataDir, "-o", "json")
	if err != nil {
		t.Fatalf("knarr status: %v\n%s", err, out)
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	return s
}

// get asks by plain HTTP.
func get(t *testing.T, method, url string) (code int, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// start starts one of the programs in bin, to be ended with the test.
func start(t *testing.T, args ...string) *bufio.Reader {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(dataDir, "kubeconfig"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // it was made to end
	})
	return bufio.NewReader(out)
}

// line reads lines until one has what is wanted.
func line(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	found := make(chan error, 1)
	go func() {
		for {
			got, err := r.ReadString('\n')
			if err != nil || strings.Contains(got, want) {
				found <- err
				return
			}
		}
	}()
	select {
	case err := <-found:
		if err != nil {
			t.Fatalf("no line with %q: %v", want, err)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("no line with %q within 30s", want)
	}
}

// TestReaching reaches into pods in each way there is.
func TestReaching(t *testing.T) {
	const ns = "e2e-reach"
	namespace(t, ns)
	kubectl(t, "-n", ns, "run", "web", "--image=knarr.local/demo:latest")
	kubectl(t, "-n", ns, "run", "shell", "--image=knarr.local/busybox:latest", "--", "sleep", "3600")
	kubectl(t, "-n", ns, "run", "cat", "--image=knarr.local/busybox:latest", "--stdin", "--command", "--", "sh", "-c", "while read line; do echo heard $line; done")
	kubectl(t, "-n", ns, "wait", "--for=condition=Ready", "pod/web", "pod/shell", "pod/cat", "--timeout=60s")

	t.Run("logs", func(t *testing.T) {
		says(t, kubectl(t, "-n", ns, "logs", "web"), "web serves on")
		follow := start(t, "-n", ns, "logs", "-f", "web")
		line(t, follow, "web serves on")
		kubectl(t, "get", "--raw", "/api/v1/namespaces/"+ns+"/pods/web:8080/proxy/hello")
		line(t, follow, "GET /hello from")
	})
	t.Run("exec", func(t *testing.T) {
		says(t, kubectl(t, "-n", ns, "exec", "shell", "--", "sh", "-c", "echo out; hostname"), "out\n", "shell\n")
		out, err := program(t, "kubectl", "-n", ns, "exec", "shell", "--", "sh", "-c", "exit 7")
		if err == nil {
			t.Error("an exit status of 7 is lost")
		}
		says(t, out, "exit code 7")
		// script gives kubectl a terminal.
		cmd := exec.CommandContext(t.Context(), "script", "-qec", filepath.Join(bin, "kubectl")+" -n "+ns+" exec -it shell -- tty", "/dev/null")
		cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(dataDir, "kubeconfig"))
		terminal, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("exec -it: %v", err)
		}
		says(t, string(terminal), "/dev/pts/")
	})
	t.Run("cp", func(t *testing.T) {
		dir := t.TempDir()
		there, back := filepath.Join(dir, "there"), filepath.Join(dir, "back")
		text := strings.Repeat("some text\n", 50000)
		if err := os.WriteFile(there, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		kubectl(t, "-n", ns, "cp", there, "shell:/tmp/file")
		kubectl(t, "-n", ns, "cp", "shell:/tmp/file", back)
		if got, err := os.ReadFile(back); err != nil || string(got) != text {
			t.Errorf("%d bytes come back, %v", len(got), err)
		}
	})
	t.Run("attach", func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "kubectl"), "-n", ns, "attach", "-i", "cat")
		cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(dataDir, "kubeconfig"))
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintln(in, "a word"); err != nil {
			t.Error(err)
		}
		line(t, bufio.NewReader(out), "heard a word")
		if err := in.Close(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // how it ends depends on what comes first
	})
	t.Run("port-forward", func(t *testing.T) {
		forward := start(t, "-n", ns, "port-forward", "pod/web", "17080:8080")
		line(t, forward, "Forwarding from 127.0.0.1:17080")
		for range 3 {
			if code, body := get(t, http.MethodGet, "http://127.0.0.1:17080/"); code != http.StatusOK || body != "web\n" {
				t.Errorf("%d %q", code, body)
			}
		}
	})
	t.Run("errors", func(t *testing.T) {
		refused(t, `container nobody is not valid for pod web`, "-n", ns, "logs", "web", "-c", "nobody")
		refused(t, `pods "nothing" not found`, "-n", ns, "logs", "nothing")
	})
}

// TestWatch watches pods come and go.
func TestWatch(t *testing.T) {
	const ns = "e2e-watch"
	namespace(t, ns)
	seen := start(t, "-n", ns, "get", "pods", "-w", "--output-watch-events")
	kubectl(t, "-n", ns, "run", "one", "--image=knarr.local/demo:latest", "--", "sleep")
	line(t, seen, "ADDED")
	line(t, seen, "Running")
	kubectl(t, "-n", ns, "delete", "pod", "one", "--grace-period=1")
	line(t, seen, "DELETED")
}

// TestReadOnly asks the read-only port what it has, and for what it must not.
func TestReadOnly(t *testing.T) {
	const ns = "e2e-readonly"
	namespace(t, ns)
	kubectl(t, "-n", ns, "run", "one", "--image=knarr.local/demo:latest")
	kubectl(t, "-n", ns, "wait", "--for=condition=Ready", "pod/one", "--timeout=60s")
	base := "http://127.0.0.1:" + readOnlyPort
	for path, want := range map[string]string{
		"/healthz": "ok", "/pods": `"name":"one"`, "/spec": `"num_cores":`, "/stats/summary": `"name": "one"`,
		"/metrics": "kubelet_running_pods", "/metrics/cadvisor": `pod="one"`, "/metrics/resource": `pod="one"`,
	} {
		code, body := get(t, http.MethodGet, base+path)
		if code != http.StatusOK || !strings.Contains(strings.ReplaceAll(body, `": "`, `":"`), strings.ReplaceAll(want, `": "`, `":"`)) {
			t.Errorf("%s: %d without %s:\n%.1000s", path, code, want, body)
		}
	}
	for _, path := range []string{"/exec/" + ns + "/one/one?command=id", "/run/" + ns + "/one/one?cmd=id", "/containerLogs/" + ns + "/one/one", "/attach/" + ns + "/one/one", "/portForward/" + ns + "/one", "/configz", "/debug/pprof/"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if code, _ := get(t, method, base+path); code != http.StatusNotFound && code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, code)
			}
		}
	}
}

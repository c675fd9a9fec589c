//go:build e2e

package kills

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// A site is an API server and its etcd, both killed and started at will.
type site struct {
	t      *testing.T
	dir    string
	bin    string
	etcd   string // its address
	port   string // of the API server
	client *kubernetes.Clientset
	procs  map[string]*exec.Cmd
}

func newSite(t *testing.T) *site {
	t.Helper()
	bin, err := filepath.Abs("../../../bin")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, dir: t.TempDir(), bin: bin, etcd: "http://127.0.0.1:" + freePort(t), port: freePort(t), procs: map[string]*exec.Cmd{}}
	out, err := exec.Command(s.file("knarr"), "certs", "--dir="+s.pki(""), "--server=https://127.0.0.1:"+s.port, "--node-name=n", "--node-ip=127.0.0.1").CombinedOutput()
	if err != nil {
		t.Fatalf("knarr certs: %v: %s", err, out)
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", s.pki("admin.kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS, cfg.ContentType = -1, "application/vnd.kubernetes.protobuf"
	cfg.WarningHandler = rest.NoWarnings{}
	if s.client, err = kubernetes.NewForConfig(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for name := range s.procs {
			s.kill(name)
		}
		if t.Failed() {
			s.tellLog()
		}
	})
	for _, name := range []string{"etcd", "apiserver"} {
		s.start(name)
	}
	s.await(t.Context())
	return s
}

func (s *site) file(name string) string { return filepath.Join(s.bin, name) }
func (s *site) pki(name string) string  { return filepath.Join(s.dir, "pki", name) }

func (s *site) args(name string) []string {
	if name == "etcd" {
		return []string{
			s.file("etcd"), "--data-dir=" + filepath.Join(s.dir, "etcd"), "--listen-client-urls=" + s.etcd, "--advertise-client-urls=" + s.etcd,
			"--listen-peer-urls=http://127.0.0.1:0", "--initial-advertise-peer-urls=http://127.0.0.1:1", "--initial-cluster=default=http://127.0.0.1:1",
			"--log-level=error",
		}
	}
	return []string{
		s.file("knarr"), "apiserver", "--etcd-servers=" + s.etcd, "--secure-port=" + s.port, "--bind-address=127.0.0.1", "--service-cluster-ip-range=10.98.0.0/16",
		"--client-ca-file=" + s.pki("ca.crt"), "--tls-cert-file=" + s.pki("apiserver.crt"), "--tls-private-key-file=" + s.pki("apiserver.key"),
		"--service-account-key-file=" + s.pki("sa.pub"), "--service-account-signing-key-file=" + s.pki("sa.key"),
	}
}

// start starts a process that is not running.
func (s *site) start(name string) {
	s.t.Helper()
	log, err := os.OpenFile(filepath.Join(s.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = log.Close() }() // the process has its own
	args := s.args(name)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.procs[name] = cmd
}

// kill ends a process as a crash would.
func (s *site) kill(name string) {
	cmd := s.procs[name]
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Errorf("kill %s: %v", name, err)
	}
	_ = cmd.Wait() // it was killed
	delete(s.procs, name)
}

// await waits until the server says that it is ready.
func (s *site) await(ctx context.Context) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var code int
		err := s.client.RESTClient().Get().AbsPath("/readyz").Do(ctx).StatusCode(&code).Error()
		if err == nil && code == http.StatusOK {
			return
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("the server is not ready within a minute: %v", err)
		case <-tick.C:
		}
	}
}

// tellLog prints the end of what both have logged.
func (s *site) tellLog() {
	for _, name := range []string{"etcd", "apiserver"} {
		b, err := os.ReadFile(filepath.Join(s.dir, name+".log"))
		if err != nil {
			s.t.Error(err)
			continue
		}
		lines := strings.Split(string(b), "\n")
		s.t.Logf("%s has said at last:\n%s", name, strings.Join(lines[max(0, len(lines)-30):], "\n"))
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // nobody has connected
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

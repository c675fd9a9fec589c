package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// An authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.cert = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true}).Leaf
	return a
}

func (a *authority) sign(c *x509.Certificate) *tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(1), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if a.cert == nil {
		a.cert, a.key = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (a *authority) client(user string, groups ...string) *tls.Certificate {
	return a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: user, Organization: groups}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// streams tells what it was asked for.
type streams struct{}

func (streams) Exec(w http.ResponseWriter, _ *http.Request, pod *corev1.Pod, container string, req *runtimeapi.ExecRequest) {
	fmt.Fprintf(w, "exec %s/%s %v in=%v out=%v err=%v tty=%v", pod.Name, container, req.Cmd, req.Stdin, req.Stdout, req.Stderr, req.Tty)
}

func (streams) Attach(w http.ResponseWriter, _ *http.Request, pod *corev1.Pod, container string, req *runtimeapi.AttachRequest) {
	fmt.Fprintf(w, "attach %s/%s in=%v out=%v err=%v tty=%v", pod.Name, container, req.Stdin, req.Stdout, req.Stderr, req.Tty)
}

func (streams) PortForward(w http.ResponseWriter, _ *http.Request, pod *corev1.Pod, req *runtimeapi.PortForwardRequest) {
	fmt.Fprintf(w, "forward %s %v", pod.Name, req.Port)
}

func (streams) Run(_ context.Context, pod *corev1.Pod, container string, cmd []string) ([]byte, error) {
	return fmt.Appendf(nil, "run %s/%s %q", pod.Name, container, cmd), nil
}

// A world is a server and who may talk to it.
type world struct {
	t                        *testing.T
	ca                       *authority
	config                   Config
	secure, readOnly, health string
	reviews                  atomic.Int32 // how often the API server was asked
	sick                     atomic.Bool
}

func start(t *testing.T, change func(*Config)) *world {
	w := &world{t: t, ca: newAuthority(t)}
	reg, dir := prometheus.NewRegistry(), t.TempDir()
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "syslog"), []byte("hello"), 0o600),
		os.WriteFile(filepath.Join(dir, "..", "outside"), []byte("secret"), 0o600),
		os.Symlink("../outside", filepath.Join(dir, "link")),
	); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u1"},
		Spec: corev1.PodSpec{
			Containers:          []corev1.Container{{Name: "c"}, {Name: "console", TTY: true}},
			InitContainers:      []corev1.Container{{Name: "init"}},
			EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug"}}},
		},
	}
	w.config = Config{
		Auth:    Auth{Node: "n1", Authorities: w.ca.pool, Reviews: w.apiServer()},
		Pods:    func() []*corev1.Pod { return []*corev1.Pod{pod} },
		Running: func(context.Context) ([]*corev1.Pod, error) { return nil, nil },
		Streams: streams{},
		Logs: func(_ context.Context, pod *corev1.Pod, container string, opts *corev1.PodLogOptions, w io.Writer) error {
			if opts.Previous {
				return fmt.Errorf("previous terminated container %q in pod %q not found", container, pod.Name)
			}
			_, err := fmt.Fprintf(w, "log of %s", container)
			if opts.TailLines != nil {
				fmt.Fprintf(w, " tail %d", *opts.TailLines)
			}
			return err
		},
		Summary: func(_ context.Context, only bool) (*statsv1alpha1.Summary, error) {
			return &statsv1alpha1.Summary{Node: statsv1alpha1.NodeStats{NodeName: fmt.Sprint("only=", only)}}, nil
		},
		Spec:     func() (any, error) { return map[string]int{"num_cores": 2}, nil },
		Metrics:  map[string]prometheus.Gatherer{"": reg, "cadvisor": prometheus.NewRegistry()},
		Register: reg,
		Configz:  map[string]string{"kind": "KubeletConfiguration"},
		SyncLoop: func() error {
			if w.sick.Load() {
				return errors.New("stuck")
			}
			return nil
		},
		LogDir: dir,
	}
	if change != nil {
		change(&w.config)
	}
	w.serve()
	return w
}

func (w *world) serve() {
	var l Listeners
	for addr, to := range map[*string]*net.Listener{&w.secure: &l.Secure, &w.readOnly: &l.ReadOnly, &w.health: &l.Healthz} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			w.t.Fatal(err)
		}
		*to, *addr = ln, "http://"+ln.Addr().String()
	}
	w.secure = strings.Replace(w.secure, "http", "https", 1)
	cert := w.ca.sign(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	l.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- Serve(ctx, w.config, l) }()
	w.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
}

// apiServer knows one token, and lets users do what their name says.
func (w *world) apiServer() *fake.Clientset {
	c := fake.NewClientset()
	c.PrependReactor("create", "tokenreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		w.reviews.Add(1)
		r := a.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenReview)
		r.Status.Authenticated = r.Spec.Token == "good"
		r.Status.User = authenticationv1.UserInfo{Username: "metrics", Groups: []string{"g"}}
		return true, r, nil
	})
	c.PrependReactor("create", "subjectaccessreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		w.reviews.Add(1)
		r := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview)
		at := r.Spec.ResourceAttributes
		if r.Spec.User == "broken" {
			return true, nil, errors.New("API server is away")
		}
		r.Status.Allowed = r.Spec.User == "admin" && at.Name == "n1" && at.Resource == "nodes" ||
			r.Spec.User == at.Subresource || r.Spec.User == at.Verb
		return true, r, nil
	})
	return c
}

// ask sends a request and returns its status and answer.
func (w *world) ask(cert *tls.Certificate, token, method, url string) (int, string) {
	w.t.Helper()
	config := &tls.Config{RootCAs: w.ca.pool()}
	if cert != nil {
		config.Certificates = []tls.Certificate{*cert}
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: !strings.Contains(url, "port=")}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(w.t.Context(), method, url, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if strings.Contains(url, "port=") {
		req.Header.Set("Upgrade", "websocket")
	}
	resp, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(text))
}

// contract: HT-2
func TestSecure(t *testing.T) {
	w := start(t, func(c *Config) { c.Level = new(slog.LevelVar) })
	admin := w.ca.client("admin")
	for _, c := range []struct {
		method, path string
		code         int
		text         string // contained in the answer
	}{
		{"GET", "/healthz", 200, "ok"},
		{"GET", "/healthz/syncloop", 200, "ok"},
		{"GET", "/healthz?verbose", 200, "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed"},
		{"GET", "/pods", 200, `{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[{"metadata":{"name":"p"`},
		{"GET", "/pods/", 200, "PodList"},
		{"GET", "/runningpods/", 200, `"items":[]`},
		{"GET", "/stats/summary", 200, "only=false"},
		{"POST", "/stats/summary?only_cpu_and_memory=true", 200, "only=true"},
		{"PUT", "/stats/summary", 405, ""},
		{"GET", "/stats/", 404, ""},
		{"GET", "/metrics", 200, "kubelet_http_requests_total"},
		{"GET", "/metrics/cadvisor", 200, ""},
		{"GET", "/metrics/other", 404, ""},
		{"GET", "/configz", 200, `{"kubeletconfig":{"kind":"KubeletConfiguration"}}`},
		{"GET", "/logs/syslog", 200, "hello"},
		{"GET", "/logs/", 200, `href="syslog"`},
		{"GET", "/logs/link", 500, ""}, // leads outside
		{"GET", "/containerLogs/ns/p/c", 200, "log of c"},
		{"GET", "/containerLogs/ns/p/init?tailLines=3", 200, "log of init tail 3"},
		{"GET", "/containerLogs/ns/p/debug?tail=all&tailLines=3", 200, "log of debug"},
		{"GET", "/containerLogs/ns/p/c?previous=true", 400, `previous terminated container "c" in pod "p" not found`},
		{"GET", "/containerLogs/ns/p/x", 404, `container "x" not found in pod "p"`},
		{"GET", "/containerLogs/ns/q/c", 404, `pod "q" does not exist`},
		{"GET", "/containerLogs/ns/p/c?tailLines=-1", 422, "Invalid request."},
		{"GET", "/containerLogs/ns/p/c?sinceSeconds=1&sinceTime=2024-01-01T00:00:00Z", 422, "Invalid request."},
		{"GET", "/containerLogs/ns/p/c?limitBytes=x", 400, "Unable to decode query."},
		{"POST", "/containerLogs/ns/p/c", 405, ""},
		{"GET", "/exec/ns/p/c", 400, "you must specify at least 1 of stdin, stdout, stderr"},
		{"POST", "/exec/ns/p/c?command=ls&command=-l&output=1&error=1", 200, "exec p/c [ls -l] in=false out=true err=true tty=false"},
		{"GET", "/exec/ns/p/u1/c?command=sh&input=1&output=1&error=1&tty=1", 200, "exec p/c [sh] in=true out=true err=false tty=true"},
		{"POST", "/exec/ns/p/u2/c?output=1", 404, `pod "p" does not exist`},
		{"POST", "/attach/ns/p/console?output=1&error=1", 200, "attach p/console in=false out=true err=false tty=true"},
		{"POST", "/attach/ns/p/c?output=1&error=1&tty=1", 200, "attach p/c in=false out=true err=true tty=false"},
		{"POST", "/portForward/ns/p", 200, "forward p []"},
		{"GET", "/portForward/ns/p/u1?port=80&port=81,82", 200, "forward p [80 81 82]"},
		{"GET", "/portForward/ns/p?port=70000", 400, `"70000"`},
		{"POST", "/run/ns/p/c?cmd=ls%20-l", 200, `run p/c ["ls" "-l"]`},
		{"GET", "/run/ns/p/c", 405, ""},
		{"POST", "/checkpoint/ns/p/c", 501, "not supported"},
		{"GET", "/debug/pprof/cmdline", 200, ""},
		{"GET", "/spec", 404, ""},
		{"GET", "/nope", 404, ""},
	} {
		if code, text := w.ask(admin, "", c.method, w.secure+c.path); code != c.code || !strings.Contains(text, c.text) {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, code, text, c.code, c.text)
		}
	}
	w.sick.Store(true)
	if code, text := w.ask(nil, "", "GET", w.health+"/healthz"); code != 500 || !strings.Contains(text, "[-]syncloop failed") {
		t.Errorf("sick: %d %s", code, text)
	}
}

// contract: HT-3
func TestReadOnly(t *testing.T) {
	w := start(t, nil)
	for path, want := range map[string]int{
		"/healthz": 200, "/pods": 200, "/stats/summary": 200, "/metrics": 200, "/metrics/cadvisor": 200, "/spec": 200,
		"/exec/ns/p/c?output=1": 404, "/run/ns/p/c": 404, "/attach/ns/p/c": 404, "/portForward/ns/p": 404, "/logs/": 404,
		"/containerLogs/ns/p/c": 404, "/configz": 404, "/runningpods/": 404, "/debug/pprof/": 404, "/checkpoint/ns/p/c": 404,
		"/": 404, "/stats/": 404,
	} {
		if code, text := w.ask(nil, "", "GET", w.readOnly+path); code != want {
			t.Errorf("GET %s: %d %s, want %d", path, code, text, want)
		}
		refused := 405
		if want == 404 {
			refused = 404
		}
		if code, text := w.ask(nil, "", "POST", w.readOnly+path); code != refused {
			t.Errorf("POST %s: %d %s, want %d", path, code, text, refused)
		}
		if code, _ := w.ask(nil, "", "GET", w.health+path); path != "/healthz" && code != 404 {
			t.Errorf("the health check serves %s: %d", path, code)
		}
	}
}

// contract: HT-1
func TestWhoMayAskForWhat(t *testing.T) {
	w := start(t, nil)
	stranger := newAuthority(t).client("admin")
	serving := w.ca.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "admin"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	for _, c := range []struct {
		name         string
		cert         *tls.Certificate
		token        string
		method, path string
		want         int
	}{
		{"nobody", nil, "", "GET", "/healthz", 401},
		{"stranger", stranger, "", "GET", "/healthz", 401},
		{"server's certificate", serving, "", "GET", "/healthz", 401},
		{"wrong token", nil, "bad", "GET", "/metrics", 401},
		{"token", nil, "good", "GET", "/metrics", 200},
		{"token for something else", nil, "good", "GET", "/pods", 403},
		{"stranger with a token", stranger, "good", "GET", "/metrics", 200},
		{"narrow permission", w.ca.client("pods"), "", "GET", "/pods", 200},
		{"narrow permission below", w.ca.client("pods"), "", "GET", "/runningpods/", 200},
		{"wide permission", w.ca.client("proxy"), "", "GET", "/configz", 200},
		{"wide is not for metrics", w.ca.client("proxy"), "", "GET", "/metrics/cadvisor", 403},
		{"name that only begins alike", w.ca.client("metrics"), "", "GET", "/metricsx", 403},
		{"verb", w.ca.client("create"), "", "POST", "/run/ns/p/c?cmd=ls", 200},
		{"other verb", w.ca.client("create"), "", "GET", "/pods", 403},
		{"API server away", w.ca.client("broken"), "", "GET", "/pods", 500},
	} {
		if code, text := w.ask(c.cert, c.token, c.method, w.secure+c.path); code != c.want {
			t.Errorf("%s: %d %s, want %d", c.name, code, text, c.want)
		}
	}
	if _, text := w.ask(w.ca.client("u"), "", "GET", w.secure+"/pods"); text != "Forbidden (user=u, verb=get, resource=nodes, subresource(s)=[pods proxy])" {
		t.Error(text)
	}
	before := w.reviews.Load()
	w.ask(nil, "good", "GET", w.secure+"/metrics")
	w.ask(w.ca.client("u"), "", "GET", w.secure+"/pods")
	if n := w.reviews.Load() - before; n != 0 {
		t.Errorf("asked %d times for what was known", n)
	}
}

func TestAnonymous(t *testing.T) {
	w := start(t, func(c *Config) { c.Auth.Anonymous, c.Auth.AlwaysAllow = true, true })
	if code, _ := w.ask(nil, "", "GET", w.secure+"/pods"); code != 200 {
		t.Error(code)
	}
	if code, _ := w.ask(newAuthority(t).client("x"), "", "GET", w.secure+"/pods"); code != 401 {
		t.Errorf("credentials that are not believed are anonymous: %d", code)
	}
}

func TestNoDebug(t *testing.T) {
	w := start(t, func(c *Config) { c.NoDebug = true })
	admin := w.ca.client("admin")
	for path, want := range map[string]int{"/exec/ns/p/c?output=1": 405, "/logs/": 405, "/configz": 405, "/pods": 200} {
		if code, _ := w.ask(admin, "", "GET", w.secure+path); code != want {
			t.Errorf("%s: %d, want %d", path, code, want)
		}
	}
}

package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/kubelet"
)

// A bench has a container whose commands answer by the time since its start.
type bench struct {
	t       *testing.T
	mu      sync.Mutex
	answers map[string]func(d time.Duration) (int32, error)
	asked   []string
	results []string
	events  []string
	ending  chan struct{}
}

func run(t *testing.T, spec string, answers map[string]func(time.Duration) (int32, error), f func(*bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, answers: answers, ending: make(chan struct{})}
		began := time.Now()
		c := &kubelet.Container{Pod: &corev1.Pod{}, Spec: &corev1.Container{Name: "c"}, ID: "id", Ending: b.ending}
		if err := yaml.UnmarshalStrict([]byte(spec), c.Spec); err != nil {
			t.Fatal(err)
		}
		p := &Prober{
			Exec: func(_ context.Context, _ string, cmd []string, _ time.Duration) ([]byte, int32, error) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.asked = append(b.asked, fmt.Sprintf("%s@%v", cmd[0], time.Since(began).Seconds()))
				code, err := answers[cmd[0]](time.Since(began))
				return []byte("out"), code, err
			},
			Tell: func(_ *corev1.Pod, _, _, reason, message string) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.events = append(b.events, reason+": "+message)
			},
			Report: func(_ types.UID, _ string, kind Kind, good bool) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.results = append(b.results, fmt.Sprintf("%s %v@%v", kind, good, time.Since(began).Seconds()))
			},
		}
		h := p.Hook()
		c.Started = time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		h.Running(ctx, c)
		f(b)
		cancel()
		synctest.Wait()
	})
}

func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func good(time.Duration) (int32, error) { return 0, nil }

func badUntil(until time.Duration) func(time.Duration) (int32, error) {
	return func(d time.Duration) (int32, error) {
		if d < until {
			return 1, nil
		}
		return 0, nil
	}
}

func (b *bench) want(what string, got []string, want ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(got, want) {
		b.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestStartupComesFirst(t *testing.T) {
	run(t, `
startupProbe: {exec: {command: [start]}, periodSeconds: 2, failureThreshold: 5, successThreshold: 1}
livenessProbe: {exec: {command: [live]}, periodSeconds: 10, failureThreshold: 2, successThreshold: 1}
readinessProbe: {exec: {command: [ready]}, periodSeconds: 5, initialDelaySeconds: 3, failureThreshold: 1, successThreshold: 2}
`, map[string]func(time.Duration) (int32, error){
		"start": badUntil(5 * time.Second), "ready": good,
		"live": func(d time.Duration) (int32, error) {
			if d > 15*time.Second {
				return 1, nil
			}
			return 0, nil
		},
	}, func(b *bench) {
		after(41 * time.Second)
		b.want("asked", b.asked[:4], "start@0", "start@2", "start@4", "start@6")
		b.want("results", b.results, "Startup true@6", "Readiness true@11", "Liveness false@30")
	})
}

func TestStartupFails(t *testing.T) {
	run(t, "startupProbe: {exec: {command: [start]}, periodSeconds: 1, failureThreshold: 3}\nreadinessProbe: {exec: {command: [start]}}",
		map[string]func(time.Duration) (int32, error){"start": badUntil(time.Hour)}, func(b *bench) {
			after(time.Minute)
			b.want("results", b.results, "Startup false@3")
			b.want("events", b.events, "Unhealthy: Startup probe failed: out", "Unhealthy: Startup probe failed: out", "Unhealthy: Startup probe failed: out")
		})
}

func TestReadinessComesAndGoes(t *testing.T) {
	run(t, "readinessProbe: {exec: {command: [ready]}, periodSeconds: 1, failureThreshold: 2, successThreshold: 1}\nlivenessProbe: {exec: {command: [live]}, periodSeconds: 1}",
		map[string]func(time.Duration) (int32, error){
			"live": good,
			"ready": func(d time.Duration) (int32, error) {
				if s := int(d.Seconds()); s < 3 || s == 5 || s > 7 {
					return 1, nil
				}
				return 0, nil
			},
		}, func(b *bench) {
			after(7500 * time.Millisecond)
			b.want("results", b.results, "Readiness false@1", "Readiness true@3")
			close(b.ending) // from now on only readiness matters
			b.mu.Lock()
			b.asked = nil
			b.mu.Unlock()
			after(2 * time.Second)
			b.want("asked", b.asked, "ready@8", "ready@9")
			b.want("results", b.results, "Readiness false@1", "Readiness true@3", "Readiness false@9")
		})
}

// TestUnable has a probe that cannot be made: that says nothing of the container.
func TestUnable(t *testing.T) {
	run(t, "livenessProbe: {exec: {command: [live]}, periodSeconds: 1, failureThreshold: 1}",
		map[string]func(time.Duration) (int32, error){"live": func(d time.Duration) (int32, error) {
			if d > 5*time.Second {
				return 0, context.DeadlineExceeded
			}
			return 0, errors.New("no runtime")
		}}, func(b *bench) {
			after(1500 * time.Millisecond)
			b.want("asked", b.asked, "live@1", "live@1", "live@1")
			b.want("results", b.results)
			after(10 * time.Second)
			b.want("results", b.results, "Liveness false@6")
		})
}

// TestFound has a kubelet that starts find a container that was started long ago.
func TestFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		p := &Prober{
			Exec: func(context.Context, string, []string, time.Duration) ([]byte, int32, error) {
				asked++
				return nil, 0, nil
			},
			Report: func(_ types.UID, _ string, k Kind, _ bool) { t.Log(k) },
		}
		c := &kubelet.Container{Pod: &corev1.Pod{}, Spec: &corev1.Container{Name: "c"}, Started: time.Now().Add(-time.Hour)}
		if err := yaml.Unmarshal([]byte("startupProbe: {exec: {command: [x]}}\nlivenessProbe: {exec: {command: [x]}, periodSeconds: 10}"), c.Spec); err != nil {
			t.Fatal(err)
		}
		c.Pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", Started: new(true)}}
		ctx, cancel := context.WithCancel(t.Context())
		p.Hook().Running(ctx, c)
		after(10 * time.Second)
		if asked != 1 {
			t.Errorf("asked %d times in one period", asked)
		}
		cancel()
	})
}

// ask makes one probe of a real server.
func ask(t *testing.T, probe, ip string) (bool, string) {
	t.Helper()
	spec := &corev1.Probe{}
	if err := yaml.UnmarshalStrict([]byte(probe), spec); err != nil {
		t.Fatal(err)
	}
	c := &kubelet.Container{Pod: &corev1.Pod{Status: corev1.PodStatus{PodIP: ip}}, Spec: &corev1.Container{Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 1}}}}
	ok, said, err := (&Prober{}).once(t.Context(), c, spec)
	if err != nil {
		return false, err.Error()
	}
	return ok, said
}

func TestHTTP(t *testing.T) {
	var last *http.Request
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last = r
		switch r.URL.Path {
		case "/bad":
			w.WriteHeader(http.StatusInternalServerError)
		case "/local":
			http.Redirect(w, r, "/ok", http.StatusFound)
		case "/away":
			http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusFound)
		case "/slow":
			<-r.Context().Done()
		}
	})
	for _, s := range []*httptest.Server{httptest.NewServer(handler), httptest.NewTLSServer(handler)} {
		defer s.Close()
		scheme := strings.ToUpper(strings.Split(s.URL, ":")[0])
		ip, port, _ := net.SplitHostPort(s.Listener.Addr().String())
		for path, want := range map[string]string{
			"/ok?x=y": "true ", "/bad": "false HTTP probe failed with statuscode: 500", "/local": "true ",
			"/away": "true Probe terminated redirects, Response body: <a href=\"http://elsewhere.invalid/\">Found</a>.\n\n",
		} {
			ok, said := ask(t, fmt.Sprintf("{timeoutSeconds: 5, httpGet: {path: '%s', port: %s, scheme: %s, httpHeaders: [{name: X, value: one}, {name: Host, value: h}]}}", path, port, scheme), ip)
			if got := fmt.Sprint(ok, " ", said); got != want {
				t.Errorf("%s: %q, want %q", path, got, want)
			}
			if last.UserAgent() != "kube-probe/1.36" || last.Header.Get("X") != "one" {
				t.Errorf("asked with %v", last.Header)
			}
		}
		if ok, said := ask(t, fmt.Sprintf("{timeoutSeconds: 1, httpGet: {path: /slow, port: %s, scheme: %s}}", port, scheme), ip); ok || !strings.Contains(said, "deadline") {
			t.Errorf("slow: %v %s", ok, said)
		}
	}
	if ok, said := ask(t, "{httpGet: {port: none}}", "127.0.0.1"); ok || said != "invalid port number: none" {
		t.Errorf("%v %s", ok, said)
	}
	if ok, said := ask(t, "{httpGet: {port: web}}", "127.0.0.1"); ok || !strings.Contains(said, "connection refused") {
		t.Errorf("%v %s", ok, said)
	}
}

func TestTCPAndGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, h := grpc.NewServer(), grpchealth.NewServer()
	h.SetServingStatus("sick", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	grpc_health_v1.RegisterHealthServer(s, h)
	go func() { _ = s.Serve(l) }()
	defer s.Stop()
	port := l.Addr().(*net.TCPAddr).Port
	for probe, want := range map[string]string{
		fmt.Sprintf("{tcpSocket: {port: %d}}", port):                                 "true ",
		"{tcpSocket: {port: 1}}":                                                     "false dial tcp 127.0.0.1:1: connect: connection refused",
		fmt.Sprintf("{timeoutSeconds: 5, grpc: {port: %d}}", port):                   "true ",
		fmt.Sprintf("{timeoutSeconds: 5, grpc: {port: %d, service: sick}}", port):    `false service unhealthy (responded with "NOT_SERVING")`,
		fmt.Sprintf("{timeoutSeconds: 5, grpc: {port: %d, service: unknown}}", port): "false error: health rpc probe failed: rpc error: code = NotFound desc = unknown service",
	} {
		ok, said := ask(t, probe, "127.0.0.1")
		if got := fmt.Sprint(ok, " ", said); got != want {
			t.Errorf("%s: %q, want %q", probe, got, want)
		}
	}
}

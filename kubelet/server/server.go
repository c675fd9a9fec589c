// Package server is the kubelet's HTTP API: the secure one for the API server
// and for metrics collectors, the read-only one for what may be seen by anyone
// on the node, and the health check. It says who may ask and what for, and
// hands the question on; what it serves is worked out elsewhere.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Streams connects clients to what runs in containers. The ids in the requests
// are empty.
type Streams interface {
	Exec(w http.ResponseWriter, r *http.Request, pod *corev1.Pod, container string, req *runtimeapi.ExecRequest)
	Attach(w http.ResponseWriter, r *http.Request, pod *corev1.Pod, container string, req *runtimeapi.AttachRequest)
	PortForward(w http.ResponseWriter, r *http.Request, pod *corev1.Pod, req *runtimeapi.PortForwardRequest)
	Run(ctx context.Context, pod *corev1.Pod, container string, cmd []string) ([]byte, error)
}

// A Config is all that the server serves.
type Config struct {
	Auth Auth

	Pods    func() []*corev1.Pod // with the status that the kubelet knows
	Running func(context.Context) ([]*corev1.Pod, error)
	Streams Streams
	// Logs writes a container's log. What fails before the first byte is told to the client.
	Logs    func(ctx context.Context, pod *corev1.Pod, container string, opts *corev1.PodLogOptions, w io.Writer) error
	Summary func(ctx context.Context, onlyCPUAndMemory bool) (*statsv1alpha1.Summary, error)
	Spec    func() (any, error) // of the machine
	// Metrics are served below /metrics: by "" the kubelet's own, by "cadvisor",
	// "resource" and "probes" the others.
	Metrics  map[string]prometheus.Gatherer
	Register prometheus.Registerer // for metrics of the server itself; may be nil

	Configz  any            // the configuration in force
	SyncLoop func() error   // why pods are no longer looked after, nil where they are
	LogDir   string         // /var/log
	Level    *slog.LevelVar // set by /debug/flags/v; may be nil
	NoDebug  bool           // serves nothing that reaches into containers
}

// Listeners are where the server answers. Each but Secure may be nil.
type Listeners struct {
	Secure   net.Listener
	TLS      *tls.Config // of Secure; it asks for client certificates itself
	ReadOnly net.Listener
	Healthz  net.Listener
}

// Serve serves until ctx ends or a listener breaks. Streams outlive it.
func Serve(ctx context.Context, c Config, l Listeners) error {
	s := &server{Config: c, auth: newAuth(c.Auth), metrics: newMetrics(c.Register)}
	secure := l.TLS.Clone()
	secure.ClientAuth = tls.RequestClientCert // verified in auth, so that a bad one is a 401
	secure.NextProtos = []string{"h2", "http/1.1"}
	serving := []struct {
		l net.Listener
		h http.Handler
	}{
		{tls.NewListener(l.Secure, secure), s.metrics.count("readwrite", s.auth.guard(s.secure()))},
		{l.ReadOnly, s.metrics.count("readonly", s.readOnly())},
		{l.Healthz, s.healthz(http.NewServeMux())},
	}
	var (
		running    sync.WaitGroup
		ends       = make(chan error, len(serving))
		ctx2, stop = context.WithCancel(ctx)
	)
	defer stop()
	for _, each := range serving {
		if each.l == nil {
			continue
		}
		srv := &http.Server{
			Handler:           each.h,
			ReadHeaderTimeout: 30 * time.Second,
			IdleTimeout:       90 * time.Second,
			MaxHeaderBytes:    1 << 20,
			ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
		}
		context.AfterFunc(ctx2, func() { _ = srv.Close() })
		running.Go(func() {
			defer stop()
			if err := srv.Serve(each.l); !errors.Is(err, http.ErrServerClosed) {
				ends <- fmt.Errorf("serve on %s: %w", each.l.Addr(), err)
			}
		})
	}
	running.Wait()
	close(ends)
	return <-ends
}

type server struct {
	Config

	auth    *auth
	metrics *metrics
}

// readOnly serves what may be seen without asking who looks. Everything else
// is not there.
// contract: HT-3
func (s *server) readOnly() http.Handler {
	mux := s.healthz(http.NewServeMux())
	s.open(mux, "GET ")
	mux.HandleFunc("GET /spec", s.spec)
	mux.HandleFunc("GET /spec/", s.spec)
	return mux
}

// open serves what both servers do, with the given methods for statistics.
func (s *server) open(mux *http.ServeMux, stats string) {
	mux.HandleFunc("GET /pods", s.pods)
	mux.HandleFunc("GET /pods/{$}", s.pods)
	mux.HandleFunc(stats+"/stats/summary", s.summary)
	mux.HandleFunc(stats+"/stats/summary/{$}", s.summary)
	for name, g := range s.Metrics {
		path := "/metrics"
		if name != "" {
			path += "/" + name
		}
		// What could be gathered is served, though something could not.
		mux.Handle("GET "+path, promhttp.HandlerFor(g, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	}
}

// secure serves everything, to whom the guard before it lets through.
// contract: HT-2
func (s *server) secure() http.Handler {
	mux := s.healthz(http.NewServeMux())
	s.open(mux, "")
	debug := map[string]http.HandlerFunc{
		"GET /containerLogs/{namespace}/{pod}/{container}": s.containerLogs,
		"POST /run/{namespace}/{pod}/{container}":          s.run,
		"POST /run/{namespace}/{pod}/{uid}/{container}":    s.run,
		"GET /runningpods/":                                s.runningPods,
		"GET /configz":                                     s.configz,
		"/debug/pprof/":                                    pprof.Index,
		"/debug/pprof/cmdline":                             pprof.Cmdline,
		"/debug/pprof/profile":                             pprof.Profile,
		"/debug/pprof/symbol":                              pprof.Symbol,
		"/debug/pprof/trace":                               pprof.Trace,
		"PUT /debug/flags/v":                               s.setLevel,
		"GET /logs/":                                       s.hostLogs,
		"POST /checkpoint/{namespace}/{pod}/{container}":   s.checkpoint,
	}
	for _, method := range []string{"GET", "POST"} {
		debug[method+" /exec/{namespace}/{pod}/{container}"] = s.exec
		debug[method+" /exec/{namespace}/{pod}/{uid}/{container}"] = s.exec
		debug[method+" /attach/{namespace}/{pod}/{container}"] = s.attach
		debug[method+" /attach/{namespace}/{pod}/{uid}/{container}"] = s.attach
		debug[method+" /portForward/{namespace}/{pod}"] = s.portForward
		debug[method+" /portForward/{namespace}/{pod}/{uid}"] = s.portForward
	}
	for pattern, h := range debug {
		if s.NoDebug {
			h = disabled
		}
		mux.HandleFunc(pattern, h)
	}
	return mux
}

func disabled(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "Debug endpoints are disabled.", http.StatusMethodNotAllowed)
}

package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// Config is what a server is made of.
type Config struct {
	Client    kubernetes.Interface
	Zone      string               // cluster.local where empty
	TTL       uint32               // seconds; 30 where 0
	Service   types.NamespacedName // of the servers themselves; kube-system/kube-dns where empty
	Listen    []string             // addresses for questions
	HTTP      string               // address for health and metrics; none where empty
	Upstreams []netip.AddrPort     // where other names are asked, in this order
	Lameduck  time.Duration        // how long it goes on after it is told to end
	TCP       int                  // connections at a time; 256 where 0
	Forwards  int                  // questions to others at a time; 512 where 0
	Metrics   *Metrics             // of this server; nil for new ones
}

// A Server answers questions.
type Server struct {
	cfg      Config
	sockets  []*socket
	web      net.Listener
	watcher  *watcher
	forward  *forwarder
	answerer *answerer
	leaving  atomic.Bool
}

// New takes the addresses that the server listens on. It answers once it runs.
func New(ctx context.Context, cfg Config) (*Server, error) {
	cfg.Zone = dns.CanonicalName(cmp.Or(cfg.Zone, "cluster.local"))
	cfg.TTL = cmp.Or(cfg.TTL, 30)
	cfg.Service = cmp.Or(cfg.Service, types.NamespacedName{Namespace: "kube-system", Name: "kube-dns"})
	cfg.TCP, cfg.Forwards = cmp.Or(cfg.TCP, 256), cmp.Or(cfg.Forwards, 512)
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics()
	}
	if _, ok := dns.IsDomainName(cfg.Zone); !ok || cfg.Zone == "." {
		return nil, fmt.Errorf("%q is no name for a zone", cfg.Zone)
	}
	s := &Server{cfg: cfg}
	err := s.listen(ctx)
	if err == nil {
		err = s.assemble()
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *Server) listen(ctx context.Context) error {
	for _, address := range s.cfg.Listen {
		sock, err := listen(ctx, address)
		if err != nil {
			return fmt.Errorf("listen for questions: %w", err)
		}
		s.sockets = append(s.sockets, sock)
	}
	if len(s.sockets) == 0 {
		return errors.New("no address to listen on")
	}
	if s.cfg.HTTP == "" {
		return nil
	}
	web, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.HTTP)
	if err != nil {
		return fmt.Errorf("listen for health and metrics: %w", err)
	}
	s.web = web
	return nil
}

func (s *Server) assemble() error {
	own, err := own(s.sockets)
	if err != nil {
		return err
	}
	var upstreams []netip.AddrPort
	for _, u := range s.cfg.Upstreams {
		if own(u) {
			slog.Warn("upstream server is this one, and is not asked", "address", u)
			continue
		}
		upstreams = append(upstreams, u)
	}
	zone := &Zone{Name: s.cfg.Zone, TTL: s.cfg.TTL, Service: s.cfg.Service, Index: NewIndex()}
	// A server like this one, or the service of all of them, would ask in turn.
	self := func(a netip.AddrPort) bool { return zone.Mine(a.Addr().Unmap()) }
	s.watcher = newWatcher(s.cfg.Client, zone.Index, s.cfg.Metrics.programmed)
	s.forward = newForwarder(upstreams, s.cfg.Forwards, self, s.cfg.Metrics)
	s.answerer = &answerer{
		zone: zone, synced: s.watcher.synced, forward: s.forward, metrics: s.cfg.Metrics,
		server: "dns://:" + fmt.Sprint(s.sockets[0].addr().Port()),
	}
	return nil
}

// Addrs are the addresses that it answers on, over UDP and TCP.
func (s *Server) Addrs() (all []netip.AddrPort) {
	for _, sock := range s.sockets {
		all = append(all, sock.addr())
	}
	return all
}

// HTTP is the address of health and metrics, nil for none.
func (s *Server) HTTP() net.Addr {
	if s.web == nil {
		return nil
	}
	return s.web.Addr()
}

func (s *Server) close() (err error) {
	for _, sock := range s.sockets {
		err = errors.Join(err, sock.close())
	}
	if s.web != nil {
		err = errors.Join(err, s.web.Close())
	}
	return err
}

// grace is how long the last answers may take when the server ends.
const grace = 2 * time.Second

// Run answers questions until ctx ends, and for the lame-duck time after
// that, in which it says that it is not ready for more.
func (s *Server) Run(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	s.watcher.start(work)
	s.forward.start(work)

	handler := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) { s.answerer.serve(work, w, r) })
	var servers []*dns.Server
	for _, sock := range s.sockets {
		servers = append(servers, sock.servers(handler, s.cfg.TCP, s.cfg.Metrics.refused.Inc)...)
	}
	ended := make(chan error, len(servers)+1)
	for _, srv := range servers {
		go func() { ended <- srv.ActivateAndServe() }()
	}
	web := &http.Server{Handler: s.pages(), ReadHeaderTimeout: idleTimeout, IdleTimeout: idleTimeout}
	if s.web != nil {
		go func() { ended <- web.Serve(s.web) }()
	}
	slog.InfoContext(ctx, "answering questions", "zone", s.cfg.Zone, "addresses", s.Addrs(), "upstreams", len(s.forward.upstreams))

	err := s.wait(ctx, ended)
	last, stop := context.WithTimeout(work, grace)
	defer stop()
	for _, srv := range servers {
		_ = srv.ShutdownContext(last) // of which only lateness can come
	}
	_ = web.Shutdown(last) // likewise
	return err
}

// wait returns when the server is to end, or has.
func (s *Server) wait(ctx context.Context, ended <-chan error) error {
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	s.leaving.Store(true)
	select {
	case err := <-ended:
		return err
	case <-time.After(s.cfg.Lameduck):
		return nil
	}
}

// pages tell of health, and hold the metrics.
func (s *Server) pages() http.Handler {
	mux := http.NewServeMux()
	say := func(w http.ResponseWriter, code int, text string) {
		w.WriteHeader(code)
		fmt.Fprintln(w, text)
	}
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "OK") })
	mux.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) {
		missing := s.watcher.missing()
		slices.Sort(missing)
		switch {
		case s.leaving.Load():
			say(w, http.StatusServiceUnavailable, "about to end")
		case len(missing) > 0:
			say(w, http.StatusServiceUnavailable, "waiting for "+strings.Join(missing, ", "))
		default:
			say(w, http.StatusOK, "OK")
		}
	})
	registry := prometheus.NewRegistry()
	registry.MustRegister(s.cfg.Metrics, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, r *http.Request) {
		s.cfg.Metrics.entries.Set(float64(s.forward.memory.len()))
		metrics.ServeHTTP(w, r)
	})
	return mux
}

package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/proxy/lb"
)

// patience is how long a change may wait before the proxy counts as ill.
const patience = time.Minute

// health is whether the proxy does its work.
type health struct {
	mu      sync.Mutex
	waiting time.Time // since when something waits; zero: nothing does
	updated time.Time // zero: never
	leaving bool
}

// begin notes that there is something to do.
func (h *health) begin(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.waiting.IsZero() {
		h.waiting = now
	}
}

// synced notes that there is nothing to do any more.
func (h *health) synced(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting, h.updated = time.Time{}, now
}

// see notes how the node is.
func (h *health) see(node *corev1.Node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leaving = leaving(node)
}

// leaving tells whether the node is about to be deleted, and should get no
// new connections.
func leaving(node *corev1.Node) bool {
	for _, t := range node.Spec.Taints {
		if t.Key == "ToBeDeletedByClusterAutoscaler" {
			return true
		}
	}
	return !node.DeletionTimestamp.IsZero()
}

// A report is what health checks are told.
type report struct {
	Updated  time.Time `json:"lastUpdated"`
	Now      time.Time `json:"currentTime"`
	Eligible *bool     `json:"nodeEligible,omitempty"`

	live bool // does its work, as far as there was any yet
}

func (h *health) report(now time.Time) report {
	h.mu.Lock()
	defer h.mu.Unlock()
	return report{
		Updated: h.updated, Now: now, Eligible: new(!h.leaving),
		live: h.waiting.IsZero() || now.Sub(h.waiting) < patience,
	}
}

func (r report) ready() bool { return r.live && !r.Updated.IsZero() }

// handler answers whether the proxy is alive, and whether the node should get
// connections.
func (h *health) handler(m *metrics) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		r := h.report(time.Now())
		m.healthz.WithLabelValues(answer(w, r.ready() && *r.Eligible, r)).Inc()
	})
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		r := h.report(time.Now())
		r.Eligible = nil
		m.livez.WithLabelValues(answer(w, r.live, r)).Inc()
	})
	return mux
}

// answer says whether all is well, with details. It returns the status.
func answer(w http.ResponseWriter, well bool, details any) string {
	code := http.StatusOK
	if !well {
		code = http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	// Who asks may have gone, which is nothing to us.
	_ = json.NewEncoder(w).Encode(details)
	return fmt.Sprint(code)
}

// An endpoint is something served by HTTP.
type endpoint struct {
	address string // "" where it is not
	handler http.Handler
}

// start serves until ctx ends.
func (e endpoint) start(ctx context.Context, tasks *errgroup.Group) error {
	if e.address == "" {
		return nil
	}
	l, err := listen(ctx, e.address)
	if err != nil {
		return err
	}
	server := newServer(e.handler)
	tasks.Go(func() error {
		defer context.AfterFunc(ctx, func() { _ = server.Close() })()
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", e.address, err)
		}
		return nil
	})
	return nil
}

func newServer(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
}

// checks answer load balancers that ask whether a service has endpoints on
// the node, each service at a port of its own.
type checks struct {
	health *health
	open   map[lb.Owner]*check
}

// A check is one such port.
type check struct {
	owner  lb.Owner
	health *health
	port   uint16 // as it should be, 0: closed
	served uint16 // as it is
	server *http.Server

	mu    sync.Mutex
	ready int
}

// want notes what the owner's port should say. It holds with the next apply.
func (cs *checks) want(o lb.Owner, h *lb.Health) {
	c := cs.open[o]
	if c == nil && h == nil {
		return
	}
	if c == nil {
		c = &check{owner: o, health: cs.health}
		cs.open[o] = c
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if h == nil {
		c.port, c.ready = 0, 0
		return
	}
	c.port, c.ready = h.Port, h.Ready
}

// apply closes the ports that are not wanted, and then opens those that are.
func (cs *checks) apply(ctx context.Context) error {
	for o, c := range cs.open {
		if c.served != 0 && c.served != c.port {
			_ = c.server.Close() // the port is free, whatever it says
			c.served = 0
		}
		if c.port == 0 {
			delete(cs.open, o)
		}
	}
	var errs []error
	for _, c := range cs.open {
		if c.served == c.port {
			continue
		}
		l, err := listen(ctx, fmt.Sprintf(":%d", c.port))
		if err != nil {
			errs = append(errs, fmt.Errorf("health check of service %s/%s: %w", c.owner.Namespace, c.owner.Name, err))
			continue
		}
		c.served, c.server = c.port, newServer(c)
		server := c.server
		go func() { _ = server.Serve(l) }() // until it is closed
	}
	return errors.Join(errs...)
}

func (cs *checks) close(ctx context.Context) {
	for o := range cs.open {
		cs.want(o, nil)
	}
	_ = cs.apply(ctx) // which only closes, and so cannot fail
}

// ServeHTTP is part of http.Handler.
func (c *check) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	ready := c.ready
	c.mu.Unlock()
	type name struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	}
	healthy := c.health.report(time.Now()).ready()
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", fmt.Sprint(ready))
	answer(w, ready > 0 && healthy, struct {
		Service name `json:"service"`
		Ready   int  `json:"localEndpoints"`
		Healthy bool `json:"serviceProxyHealthy"`
	}{name{c.owner.Namespace, c.owner.Name}, ready, healthy})
}

// Package assembly puts the API server together from its parts: kinds, store,
// cache, admission, subresources and HTTP. What runs it, cmd or a test, says
// where the store is and who may do what.
package assembly

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"runtime"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/version"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/all"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/discovery"
	"github.com/knarr-dev/knarr/registry/openapi"
	"github.com/knarr-dev/knarr/registry/patch"
	"github.com/knarr-dev/knarr/registry/rest"
	"github.com/knarr-dev/knarr/registry/server"
)

// Config says what an API server works with.
type Config struct {
	Store   registry.Store
	Address string // host and port where clients reach the server
}

// A Server is an API server. Its Handler answers once Ready is closed.
type Server struct {
	Handler *server.Server
	Rest    *rest.Service
	Ready   chan struct{}
}

// New puts a server together. Run makes it go.
func New(cfg Config) (*Server, error) {
	c := cache.New(cfg.Store)
	svc := &rest.Service{
		Store: cfg.Store, Cache: c, Owners: patch.NewOwners(all.Scheme()),
		Now:      time.Now,
		NewUID:   func() types.UID { return types.UID(uuid.NewString()) },
		NameTail: nameTail,
	}
	svc.Admit = &admit.Chain{World: svc}
	for _, g := range all.Groups {
		for i := range g.Resources {
			svc.Add(&g.Resources[i])
		}
	}
	s := &Server{Rest: svc, Ready: make(chan struct{})}
	s.Handler = server.New(server.Config{
		Rest:         svc,
		Authenticate: func(*http.Request) (registry.User, bool, error) { return registry.Self(), true, nil },
		Authorize:    func(context.Context, *registry.Request) error { return nil },
	})
	s.Handler.Paths = s.paths(cfg)
	return s, nil
}

// paths are the handlers of all that is no resource.
func (s *Server) paths(cfg Config) map[string]http.Handler {
	var kinds []*apis.Definition
	for _, k := range s.Rest.Kinds() {
		kinds = append(kinds, k.Definition)
	}
	versions := discovery.Served(all.Groups, kinds)
	docs := openapi.New(versions, all.Scheme(), s.Rest.Owners.Converter, release.GitVersion)
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reg.MustRegister(server.Metrics()...)
	paths := map[string]http.Handler{
		"": s.Handler.Index(), "/version": server.Version(release), "/metrics": server.MetricsHandler(reg),
	}
	for _, more := range []map[string]http.Handler{
		s.Handler.Discovery(versions, cfg.Address), s.Handler.OpenAPI(docs), server.Health(s.checks()),
	} {
		maps.Copy(paths, more)
	}
	return paths
}

// release is the version of Kubernetes that this is.
var release = version.Info{
	Major: "1", Minor: "36", GitVersion: "v1.36.3+knarr", GitTreeState: "clean",
	EmulationMajor: "1", EmulationMinor: "36", MinCompatibilityMajor: "1", MinCompatibilityMinor: "35",
	BuildDate: "1970-01-01T00:00:00Z", GoVersion: runtime.Version(), Compiler: runtime.Compiler, Platform: runtime.GOOS + "/" + runtime.GOARCH,
}

// checks are what must be well for the server to be.
func (s *Server) checks() []server.Check {
	store := func(r *http.Request) error {
		_, err := s.Rest.Store.Revision(r.Context())
		return err
	}
	ready := func(*http.Request) error {
		select {
		case <-s.Ready:
			return nil
		default:
			return errors.New("the server is starting")
		}
	}
	fine := func(*http.Request) error { return nil }
	return []server.Check{
		{Name: "ping", Probe: fine},
		{Name: "log", Probe: fine},
		{Name: "etcd", Probe: store},
		{Name: "etcd-readiness", Probe: store, Ready: true},
		{Name: "informer-sync", Probe: ready, Ready: true},
		{Name: "poststarthook/start-system-namespaces-controller", Probe: ready},
		{Name: "poststarthook/rbac/bootstrap-roles", Probe: ready},
		{Name: "shutdown", Probe: s.Handler.Going, Ready: true},
	}
}

// Run runs the server's parts until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- s.Rest.Cache.Run(ctx) }()
	select {
	case <-s.Rest.Cache.Loaded():
		close(s.Ready)
	case err := <-ended:
		return fmt.Errorf("load the cache: %w", err)
	}
	return <-ended
}

// nameTail is five letters and digits that make a generated name, none of
// which make words or are mistaken for another.
func nameTail() string {
	const letters = "bcdfghjklmnpqrstvwxz2456789"
	b := make([]byte, 5)
	for i := range b {
		b[i] = letters[rand.IntN(len(letters))]
	}
	return string(b)
}

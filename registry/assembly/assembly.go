// Package assembly puts the API server together from its parts: kinds, store,
// cache, admission, subresources and HTTP. What runs it, cmd or a test, says
// where the store is and who may do what.
package assembly

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/version"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/all"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/aggregate"
	"github.com/knarr-dev/knarr/registry/alloc"
	"github.com/knarr-dev/knarr/registry/audit"
	"github.com/knarr-dev/knarr/registry/authn"
	"github.com/knarr-dev/knarr/registry/bootstrap"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/connect"
	"github.com/knarr-dev/knarr/registry/crd"
	"github.com/knarr-dev/knarr/registry/discovery"
	"github.com/knarr-dev/knarr/registry/encrypt"
	"github.com/knarr-dev/knarr/registry/openapi"
	"github.com/knarr-dev/knarr/registry/patch"
	"github.com/knarr-dev/knarr/registry/peers"
	"github.com/knarr-dev/knarr/registry/policy"
	"github.com/knarr-dev/knarr/registry/rest"
	"github.com/knarr-dev/knarr/registry/server"
	"github.com/knarr-dev/knarr/registry/sub"
	"github.com/knarr-dev/knarr/registry/webhook"
	"github.com/knarr-dev/knarr/registry/world"
)

// A Server is an API server. Its Handler answers once Ready is closed.
type Server struct {
	Handler *server.Server
	Rest    *rest.Service
	Ready   chan struct{}

	access  *access
	boot    *bootstrap.Bootstrap
	alloc   *alloc.Allocator // nil where services get no addresses
	peers   *peers.Peers     // likewise
	custom  *crd.Definitions
	others  *aggregate.Servers
	routing sync.Mutex // one route at a time
	address string     // where clients reach the server
	audited bool

	encrypted *encrypt.Store // nil where nothing is

	compactEvery time.Duration
}

// New puts a server together. Run makes it go.
func New(cfg Config) (*Server, error) {
	encrypted, err := encrypting(&cfg)
	if err != nil {
		return nil, err
	}
	svc := &rest.Service{
		Store: cfg.Store, Cache: cache.New(cfg.Store), Owners: patch.NewOwners(all.Scheme()),
		Now:      time.Now,
		NewUID:   func() types.UID { return types.UID(uuid.NewString()) },
		NameTail: nameTail,
	}
	addKinds(svc)
	s := &Server{Rest: svc, Ready: make(chan struct{}), encrypted: encrypted, compactEvery: cmp.Or(cfg.Compact, compactEvery)}
	if encrypted != nil {
		svc.Stale = encrypted.Stale
	}
	w := world.New(svc)
	if s.access, err = newAccess(&cfg, w, svc); err != nil {
		return nil, err
	}
	plugins, err := admit.Stock(s.admission(w), cfg.AdmissionOn, cfg.AdmissionOff)
	if err != nil {
		return nil, err
	}
	svc.Admit = &admit.Chain{World: w, Plugins: plugins}
	if err := s.keepers(&cfg); err != nil {
		return nil, err
	}
	record, err := s.auditing(&cfg)
	if err != nil {
		return nil, err
	}
	s.custom = crd.New(crd.Config{Service: svc, Changed: s.route, Call: crd.Webhooks(svc)})
	svc.Cache.Found = s.custom.Begin
	s.others = aggregate.New(aggregate.Config{Service: svc, Certificate: cfg.ProxyClient, Changed: s.route})
	s.address = cfg.Address
	s.Handler = server.New(server.Config{
		Settled: s.custom.Settled, Audit: record, Rest: svc, Actions: append(s.actions(&cfg), cfg.Actions...), MaxReads: cfg.MaxReads, MaxWrites: cfg.MaxWrites,
		Authenticate: s.access.who.Request, Authorize: s.authorize, Elsewhere: s.others.Handler,
	})
	if s.Handler.Paths, err = s.paths(&cfg); err != nil {
		return nil, err
	}
	s.route()
	return s, nil
}

// addKinds adds all kinds that are built in.
func addKinds(svc *rest.Service) {
	for _, g := range all.Groups {
		for i := range g.Resources {
			switch d := &g.Resources[i]; d.GroupResource() {
			case crd.Kind:
				svc.AddStored(d, crd.Stored, crd.DefinitionOwners())
			case aggregate.Kind:
				svc.AddStored(d, aggregate.Stored, aggregate.Owners())
			default:
				svc.Add(d)
			}
		}
	}
}

// route serves the kinds that there are now, and the documents that tell of them.
func (s *Server) route() {
	s.routing.Lock()
	defer s.routing.Unlock()
	var kinds []*apis.Definition
	for _, k := range s.Rest.Kinds() {
		kinds = append(kinds, k.Definition)
	}
	versions := discovery.With(discovery.Served(all.Groups, kinds), s.others.Versions())
	docs := openapi.New(versions, all.Scheme(), s.Rest.Owners.Converter, Release.GitVersion).With(s.others.Models())
	paths := s.Handler.Discovery(versions, s.address)
	maps.Copy(paths, s.Handler.OpenAPI(docs))
	maps.Copy(paths, s.others.Paths())
	s.Handler.Route(paths)
}

// recording is how the server tells of requests; see server.Config.
type recording = func(http.ResponseWriter, *http.Request, *registry.Request, bool) (http.ResponseWriter, func())

// auditing opens the audit log, if there is to be one.
func (s *Server) auditing(cfg *Config) (recording, error) {
	if cfg.Audit.Policy == "" {
		return nil, nil
	}
	if cfg.Audit.Log == "" {
		return nil, errors.New("an audit policy needs a log to be for")
	}
	log, err := audit.Open(cfg.Audit.Policy, cfg.Audit.Log)
	if err != nil {
		return nil, err
	}
	s.audited = true
	return log.Begin, nil
}

// admission is what the admission plugins work with.
func (s *Server) admission(w *world.World) admit.Config {
	hooks := webhook.Config{Service: s.Rest, World: w, May: s.access.may.Allows}
	policies := policy.Config{Service: s.Rest, World: w, May: s.access.may.Allows}
	return admit.Config{
		Now: s.Rest.Now, Tail: s.Rest.NameTail, Pause: pause, Roles: s.access.rbac, Quota: ledger{s.Rest},
		Ask: []admit.Plugin{policy.Mutating(policies), webhook.Mutating(hooks), policy.Validating(policies), webhook.Validating(hooks)},
		May: func(ctx context.Context, r *registry.Request) bool {
			ok, _ := s.access.may.Allows(ctx, r)
			return ok
		},
	}
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A ledger is where admission charges what is used of quotas.
type ledger struct{ svc *rest.Service }

// Charge is part of admit.Ledger.
func (l ledger) Charge(ctx context.Context, q *corev1.ResourceQuota) (bool, error) {
	k := l.svc.Kind(corev1.Resource("resourcequotas"))
	rev, err := strconv.ParseInt(q.ResourceVersion, 10, 64)
	if err != nil {
		return false, err
	}
	stored := q.DeepCopy()
	stored.ResourceVersion = ""
	value, err := k.Main().Wire.Encode(stored)
	if err != nil {
		return false, err
	}
	_, err = l.svc.Store.Commit(ctx, registry.Op{Key: registry.Path(k.Definition, q.Namespace, q.Name), Old: rev, Value: value})
	if _, changed := errors.AsType[*registry.Conflict](err); changed {
		// Who tries again is to see what has changed.
		return false, l.svc.Cache.Fresh(ctx)
	}
	return err == nil, err
}

// keepers sets up what looks after the server's own objects.
func (s *Server) keepers(cfg *Config) error {
	if cfg.Host == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find the name of this machine: %w", err)
		}
		cfg.Host = host
	}
	s.boot = bootstrap.New(bootstrap.Config{
		Service: s.Rest, Host: cfg.Host, Address: cfg.Address, Hold: uuid.NewString(), MaxOps: cfg.MaxOps,
		Authentication: s.access.published(cfg),
	})
	if len(cfg.Services.Ranges) == 0 {
		return nil
	}
	s.alloc = alloc.New(s.Rest, alloc.Config{Ranges: cfg.Services.Ranges, Ports: cfg.Services.Ports})
	s.peers = peers.New(s.Rest, peers.Config{
		Service: s.alloc.First(), NodePort: cfg.Services.Node,
		Address: cfg.Services.Advertise.Addr(), Port: int32(cfg.Services.Advertise.Port()),
	})
	return nil
}

// actions are what the server does rather than stores.
func (s *Server) actions(cfg *Config) []sub.Action {
	a := s.access
	tokens := &sub.Tokens{
		Service: s.Rest, Signer: a.signer, Audiences: a.audiences, Most: cfg.Accounts.MaxLife, NewID: uuid.NewString,
		Extended: !cfg.Accounts.NoExtension,
	}
	all := append(sub.Reviews(a.who, a.may, a.audiences, s.Rest.Now), tokens.Action())
	all = append(all, sub.Bindings(s.Rest)...)
	all = append(all, connect.Actions(connect.Config{Service: s.Rest, Kubelets: cfg.Kubelets, Authorize: s.authorize})...)
	return append(all, sub.Evictions(s.Rest), sub.ComponentStatuses(sub.Components(s.Rest.Store)))
}

// paths are the handlers of all that is no resource.
func (s *Server) paths(cfg *Config) (map[string]http.Handler, error) {
	issuer, uri := cfg.Accounts.Issuers[0], cfg.Accounts.KeysURI
	if uri == "" {
		uri = "https://" + cfg.Address + authn.KeysPath
	}
	tokens, err := authn.Discovery(issuer, uri, s.access.keys)
	if err != nil {
		return nil, err
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reg.MustRegister(server.Metrics()...)
	paths := map[string]http.Handler{
		"": s.Handler.Index(), "/version": server.Version(Release), "/metrics": server.MetricsHandler(reg),
	}
	for _, more := range []map[string]http.Handler{server.Health(s.checks()), tokens, cfg.Paths} {
		maps.Copy(paths, more)
	}
	return paths, nil
}

// Release is the version of Kubernetes that this is.
var Release = version.Info{
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
	checks := []server.Check{
		{Name: "ping", Probe: fine},
		{Name: "log", Probe: fine},
		{Name: "etcd", Probe: store},
		{Name: "etcd-readiness", Probe: store, Ready: true},
		{Name: "informer-sync", Probe: ready, Ready: true},
		{Name: "poststarthook/start-system-namespaces-controller", Probe: ready},
		{Name: "poststarthook/rbac/bootstrap-roles", Probe: ready},
		{Name: "shutdown", Probe: s.Handler.Going, Ready: true},
	}
	if s.encrypted != nil {
		checks = append(checks, server.Check{Name: "kms-providers", Probe: func(*http.Request) error { return s.encrypted.Well() }})
	}
	return checks
}

// Run runs the server's parts until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	parts, ctx := errgroup.WithContext(ctx)
	if s.encrypted != nil {
		parts.Go(func() error { return s.encrypted.Run(ctx) })
	}
	parts.Go(func() error { return s.Rest.Cache.Run(ctx) })
	parts.Go(func() error {
		select {
		case <-s.Rest.Cache.Loaded():
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.start(ctx); err != nil {
			return fmt.Errorf("start the API server: %w", err)
		}
		close(s.Ready)
		return nil
	})
	parts.Go(s.after(ctx, s.custom.Run))
	parts.Go(s.after(ctx, s.others.Run))
	parts.Go(s.after(ctx, s.boot.Run))
	parts.Go(s.after(ctx, func(ctx context.Context) error {
		return compact(ctx, s.Rest.Store, s.compactEvery, s.Rest.Cache.Compacted)
	}))
	if s.alloc != nil {
		parts.Go(s.after(ctx, s.alloc.Run))
		parts.Go(s.after(ctx, s.peers.Run))
	}
	return parts.Wait()
}

// start makes what must be there before anybody is served.
func (s *Server) start(ctx context.Context) error {
	if s.encrypted != nil {
		if err := s.encrypted.Ready(ctx); err != nil {
			return err
		}
	}
	if err := s.boot.Ensure(ctx); err != nil {
		return err
	}
	if s.alloc == nil {
		return nil
	}
	if err := s.alloc.Start(ctx); err != nil {
		return err
	}
	return s.peers.Start(ctx)
}

// after runs a part once the server is ready.
func (s *Server) after(ctx context.Context, run func(context.Context) error) func() error {
	return func() error {
		select {
		case <-s.Ready:
			return run(ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
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

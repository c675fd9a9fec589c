// Package aggregate puts other servers behind this one: it follows the
// APIServices in the cache, sees whether the servers that they name are there,
// passes requests on to them and finds out what they serve. It also has an
// APIService stand for each version of a custom kind; those of what is built
// in are made by package bootstrap.
package aggregate

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/rest"
)

// Config is what Servers are made of.
type Config struct {
	Service *rest.Service

	// Certificate returns what this server shows to the others, by which they
	// know that it may say who its users are; nil for nothing.
	Certificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error)

	// Changed is called when other documents are served than before.
	Changed func()
}

// Servers are all other servers behind this one. Several servers may follow
// the same APIServices. Use New, then Run.
type Servers struct {
	Config

	kind, definitions *rest.Kind
	remotes           atomic.Pointer[map[schema.GroupVersion]*remote] // nil for none
	workers           sync.WaitGroup

	// What follows belongs to Run.
	known   map[string]*apiregistrationv1.APIService
	defined map[string]*apiextensionsv1.CustomResourceDefinition
	dirty   map[string]bool // APIServices to look at
	began   bool            // those that were there at the start have been looked at
}

// New returns the servers behind this one.
func New(cfg Config) *Servers {
	definitions := apiextensionsv1.Resource("customresourcedefinitions")
	return &Servers{
		Config: cfg, kind: cfg.Service.Kind(Kind), definitions: cfg.Service.Kind(definitions),
		known: map[string]*apiregistrationv1.APIService{}, defined: map[string]*apiextensionsv1.CustomResourceDefinition{},
		dirty: map[string]bool{},
	}
}

// Handler passes requests for a group version on; nil where it is served here.
func (s *Servers) Handler(gv schema.GroupVersion) http.Handler {
	if all := s.remotes.Load(); all != nil {
		if r := (*all)[gv]; r != nil {
			return r
		}
	}
	return nil
}

// again is how long something that did not work is left alone.
const again = time.Second

// Run follows the APIServices until ctx ends. The cache must have been loaded.
func (s *Servers) Run(ctx context.Context) error {
	defer s.workers.Wait()
	for ctx.Err() == nil {
		if err := s.follow(ctx); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "the watch of APIServices has ended", "err", err)
		}
	}
	return ctx.Err()
}

func (s *Servers) follow(ctx context.Context) error {
	services, err := s.kind.Objects.Watch(ctx, cache.Selection{}, 0, true)
	if err != nil {
		return err
	}
	defer services.Close()
	definitions, err := s.definitions.Objects.Watch(ctx, cache.Selection{}, 0, true)
	if err != nil {
		return err
	}
	defer definitions.Close()
	s.begin(ctx, services.Initial, definitions.Initial)
	for {
		s.settle(ctx)
		var retry <-chan time.Time
		if len(s.dirty) > 0 {
			retry = time.After(again)
		}
		select {
		case <-services.Ready():
		case <-definitions.Ready():
		case <-retry:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := each(services, func(o *cache.Object, gone bool) { s.see(ctx, o, gone) }); err != nil {
			return err
		}
		if err := each(definitions, func(o *cache.Object, gone bool) { s.define(ctx, o, gone) }); err != nil {
			return err
		}
	}
}

// begin sees all that there is when a watch begins.
func (s *Servers) begin(ctx context.Context, services, definitions []*cache.Object) {
	for name := range s.known {
		s.dirty[name] = true
	}
	clear(s.known)
	clear(s.defined)
	for _, o := range services {
		s.see(ctx, o, false)
	}
	for _, o := range definitions {
		s.define(ctx, o, false)
	}
}

// each takes the events that wait.
func each(w *cache.Watcher, see func(o *cache.Object, gone bool)) error {
	events, _, err := w.Take()
	for _, e := range events {
		see(e.Object, e.Type == cache.Deleted)
	}
	return err
}

// see notes an APIService that is new, has changed or is gone.
func (s *Servers) see(ctx context.Context, o *cache.Object, gone bool) {
	s.dirty[o.Name()] = true
	if gone {
		delete(s.known, o.Name())
		return
	}
	obj, err := s.kind.Decode(o)
	if err != nil {
		slog.ErrorContext(ctx, "an APIService cannot be read", "obj", "APIService/"+o.Name(), "err", err)
		return
	}
	s.known[o.Name()] = obj.(*apiregistrationv1.APIService)
}

// define notes a definition, likewise.
func (s *Servers) define(ctx context.Context, o *cache.Object, gone bool) {
	mark := func(c *apiextensionsv1.CustomResourceDefinition) {
		for _, v := range c.Spec.Versions {
			s.dirty[v.Name+"."+c.Spec.Group] = true
		}
	}
	if was := s.defined[o.Name()]; was != nil {
		mark(was)
	}
	delete(s.defined, o.Name())
	if gone {
		return
	}
	obj, err := s.definitions.Decode(o)
	if err != nil {
		slog.ErrorContext(ctx, "a definition cannot be read", "obj", "CustomResourceDefinition/"+o.Name(), "err", err)
		return
	}
	c := obj.(*apiextensionsv1.CustomResourceDefinition)
	s.defined[o.Name()] = c
	mark(c)
}

// settle looks at what has changed. What cannot be put right stays dirty.
func (s *Servers) settle(ctx context.Context) {
	var failed []string
	changed := false
	for name := range s.dirty {
		changed = s.route(ctx, name) || changed
		if err := s.keep(ctx, name); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "keep an APIService", "obj", "APIService/"+name, "err", err)
			failed = append(failed, name)
		}
	}
	clear(s.dirty)
	for _, name := range failed {
		s.dirty[name] = true
	}
	s.began = true
	if changed {
		s.Changed()
	}
}

// Package assembly puts the API server together from its parts: kinds, store,
// cache, admission, subresources and HTTP. What runs it, cmd or a test, says
// where the store is and who may do what.
package assembly

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/apis/all"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/cache"
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
	s.Handler.Paths = s.Handler.Discovery(all.Groups, cfg.Address)
	return s, nil
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

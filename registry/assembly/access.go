package assembly

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/authn"
	"github.com/knarr-dev/knarr/registry/authz"
	"github.com/knarr-dev/knarr/registry/bootstrap"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/inproc"
	"github.com/knarr-dev/knarr/registry/rest"
	"github.com/knarr-dev/knarr/registry/server"
	"github.com/knarr-dev/knarr/registry/world"
)

// access is who may do what.
type access struct {
	who       *authn.Chain
	may       authz.Authorizer
	rbac      *authz.RBAC
	signer    *authn.Signer
	keys      *authn.Keys
	audiences []string
	clients   *authn.Bundle // nil where certificates are not looked at
	proxies   *authn.Bundle // nil where there is no proxy
}

func newAccess(cfg *Config, w *world.World, svc *rest.Service) (*access, error) {
	a := &access{audiences: cfg.Accounts.Audiences}
	if len(a.audiences) == 0 {
		a.audiences = cfg.Accounts.Issuers
	}
	a.who = &authn.Chain{Anonymous: !cfg.NoAnonymous}
	if err := a.certificates(cfg); err != nil {
		return nil, err
	}
	if cfg.TokenFile != "" {
		tokens, err := authn.ReadTokenFile(cfg.TokenFile, a.audiences)
		if err != nil {
			return nil, err
		}
		a.who.Tokens = append(a.who.Tokens, tokens)
	}
	if err := a.accounts(cfg, w, svc); err != nil {
		return nil, err
	}
	return a, a.authorize(cfg, w, svc)
}

func (a *access) certificates(cfg *Config) (err error) {
	if cfg.ClientCA != "" {
		if a.clients, err = authn.ReadBundle(cfg.ClientCA); err != nil {
			return err
		}
		a.who.Clients = authn.NewClients(a.clients)
	}
	if cfg.Proxy.CA != "" {
		if a.proxies, err = authn.ReadBundle(cfg.Proxy.CA); err != nil {
			return err
		}
		a.who.Proxy = &authn.Proxy{Authority: a.proxies, Names: cfg.Proxy.Names, Headers: cfg.Proxy.Headers}
	}
	return nil
}

// accounts sets up the tokens of service accounts.
func (a *access) accounts(cfg *Config, w *world.World, svc *rest.Service) (err error) {
	c := &cfg.Accounts
	if len(c.Issuers) == 0 {
		return errors.New("service accounts need an issuer of their tokens")
	}
	switch {
	case c.Signer != nil:
		a.signer, err = authn.NewSigner(c.Signer, c.Issuers[0])
	case c.SigningKey != "":
		a.signer, err = authn.ReadSigner(c.SigningKey, c.Issuers[0])
	default:
		err = errors.New("service accounts need a key that signs their tokens")
	}
	if err != nil {
		return err
	}
	if a.keys, err = authn.ReadKeys(c.Keys...); err != nil {
		return err
	}
	if err := a.keys.Add(a.signer.Public()); err != nil {
		return err
	}
	a.who.Tokens = append(a.who.Tokens, &authn.ServiceAccounts{
		Issuers: c.Issuers, Audiences: a.audiences, Keys: a.keys, Objects: w, Now: svc.Now,
		Used: func(ctx context.Context, namespace, name, day string) { used(ctx, svc, namespace, name, day) },
	})
	return nil
}

// used notes at a secret when the token in it was used last. It is of no
// consequence to the request if that cannot be.
func used(ctx context.Context, svc *rest.Service, namespace, name, day string) {
	ctx = registry.WithRequest(ctx, &registry.Request{User: registry.Self()})
	call := &rest.Call{Namespace: namespace, Name: name, Manager: "kube-apiserver"}
	_, _ = svc.Kind(schema.GroupResource{Resource: "secrets"}).Edit(ctx, call, func(obj apis.Object) error {
		labels := obj.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[authn.LastUsed] = day
		obj.SetLabels(labels)
		return nil
	})
}

// authorize sets up the modes of authorization.
func (a *access) authorize(cfg *Config, w *world.World, svc *rest.Service) error {
	objects := func(group, plural string) *cache.Kind {
		return svc.Kind(schema.GroupResource{Group: group, Resource: plural}).Objects
	}
	a.rbac = authz.NewRBAC(authz.Kinds{
		ClusterRoles: objects(rbacv1.GroupName, "clusterroles"), ClusterRoleBindings: objects(rbacv1.GroupName, "clusterrolebindings"),
		Roles: objects(rbacv1.GroupName, "roles"), RoleBindings: objects(rbacv1.GroupName, "rolebindings"),
	})
	a.rbac.Await = w.Await
	modes := cfg.Modes
	if modes == nil {
		modes = []string{"Node", "RBAC"}
	}
	all := authz.Union{authz.Masters{}}
	for _, mode := range modes {
		switch mode {
		case "Node":
			all = append(all, authz.NewNodes(authz.NodeKinds{
				Pods: objects(corev1.GroupName, "pods"), Volumes: objects(corev1.GroupName, "persistentvolumes"),
				Attachments: objects(storagev1.GroupName, "volumeattachments"), Slices: objects(resourcev1.GroupName, "resourceslices"),
			}, bootstrap.NodeRules()))
		case "RBAC":
			all = append(all, a.rbac)
		case "AlwaysAllow":
			all = append(all, authz.Always{})
			// As upstream: where everything is allowed, not everybody is.
			a.who.Anonymous = false
		default:
			return fmt.Errorf("there is no authorization mode %q: use Node, RBAC or AlwaysAllow", mode)
		}
	}
	a.may = all
	return nil
}

// public are the paths that anybody may look at before the roles are there
// that say so.
var public = []string{"/healthz", "/livez", "/readyz", "/version"}

// authorize returns nil where a request may be done, and else the error that
// the client gets.
func (s *Server) authorize(ctx context.Context, r *registry.Request) error {
	select {
	case <-s.Ready:
	default:
		return s.early(r)
	}
	ok, why := s.access.may.Allows(ctx, r)
	if s.audited {
		decision := "forbid"
		if ok {
			decision = "allow"
		}
		r.Annotate("authorization.k8s.io/decision", decision)
		r.Annotate("authorization.k8s.io/reason", why)
	}
	if !ok {
		return server.Denied(r, why)
	}
	return nil
}

// early decides about a request while the server is starting.
func (s *Server) early(r *registry.Request) error {
	if !r.Resource && slices.ContainsFunc(public, func(p string) bool { return r.Path == p || strings.HasPrefix(r.Path, p+"/") }) {
		return nil
	}
	unavailable := apierrors.NewServiceUnavailable("the server is starting")
	unavailable.ErrStatus.Details = &metav1.StatusDetails{RetryAfterSeconds: 1}
	select {
	case <-s.Rest.Cache.Loaded():
		if r.User.In(registry.SystemMasters) {
			return nil
		}
	default:
	}
	return unavailable
}

// As returns what a client of user, in this process, sends its requests by.
func (s *Server) As(user registry.User) http.RoundTripper {
	return &inproc.Transport{Handler: s.Handler, User: user}
}

// published is what servers behind this one must know to find out who sends
// a request.
func (a *access) published(cfg *Config) func() map[string]string {
	return func() map[string]string {
		data := map[string]string{}
		if a.clients != nil {
			data["client-ca-file"] = string(a.clients.PEM())
		}
		if a.proxies == nil {
			return data
		}
		data["requestheader-client-ca-file"] = string(a.proxies.PEM())
		h := cfg.Proxy.Headers
		for key, list := range map[string][]string{
			"allowed-names": cfg.Proxy.Names, "username-headers": h.User, "uid-headers": h.UID,
			"group-headers": h.Group, "extra-headers-prefix": h.Extra,
		} {
			if list == nil {
				list = []string{}
			}
			text, err := json.Marshal(list)
			if err != nil {
				panic(err) // strings always encode
			}
			data["requestheader-"+key] = string(text)
		}
		return data
	}
}

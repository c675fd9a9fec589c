package aggregate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"sync/atomic"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/transport"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/knarr-dev/knarr/apis/apiregistration"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/connect"
)

// A remote is another server that serves a group version.
type remote struct {
	*Servers

	service   *apiregistrationv1.APIService // as it was when the remote was made
	gv        schema.GroupVersion
	transport *http.Transport
	broken    error // why there can be no transport
	stop      context.CancelFunc

	seen  atomic.Pointer[seen]
	found atomic.Pointer[findings]
	look  chan struct{} // that what it serves may be asked for now
}

// seen remembers what an APIService says, which is not to be read with every
// request.
type seen struct {
	object    *cache.Object
	available bool
}

// route makes requests for a group version go where its APIService says, and
// reports whether that is elsewhere than before.
func (s *Servers) route(ctx context.Context, name string) bool {
	all := map[schema.GroupVersion]*remote{}
	if now := s.remotes.Load(); now != nil {
		maps.Copy(all, *now)
	}
	var old *remote
	for _, r := range all {
		if r.service.Name == name {
			old = r
		}
	}
	now := s.known[name]
	elsewhere := now != nil && now.Spec.Service != nil
	switch {
	case old == nil && !elsewhere:
		return false
	case old != nil && elsewhere && old.service.UID == now.UID && apiequality.Semantic.DeepEqual(old.service.Spec, now.Spec):
		old.kick()
		return false
	case old != nil:
		old.stop()
		delete(all, old.gv)
	}
	if elsewhere {
		r := s.remote(ctx, now)
		all[r.gv] = r
	}
	if len(all) == 0 {
		s.remotes.Store(nil)
		return true
	}
	s.remotes.Store(&all)
	return true
}

// remote begins to look after what serves an APIService.
func (s *Servers) remote(ctx context.Context, service *apiregistrationv1.APIService) *remote {
	r := &remote{
		Servers: s, service: service, gv: schema.GroupVersion{Group: service.Spec.Group, Version: service.Spec.Version},
		look: make(chan struct{}, 1),
	}
	ref := service.Spec.Service
	security := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: ref.Name + "." + ref.Namespace + ".svc",
		InsecureSkipVerify: service.Spec.InsecureSkipTLSVerify, GetClientCertificate: s.Certificate,
	}
	if len(service.Spec.CABundle) > 0 {
		security.RootCAs = x509.NewCertPool()
		if !security.RootCAs.AppendCertsFromPEM(service.Spec.CABundle) {
			r.broken = errors.New("unable to load root certificates: unable to parse bytes as PEM block")
		}
	}
	r.transport = connect.NewTransport(security)
	r.found.Store(&findings{stale: true})
	ctx, r.stop = context.WithCancel(ctx)
	s.workers.Go(func() { r.watch(ctx) })
	s.workers.Go(func() { r.learn(ctx) })
	return r
}

// kick has the remote be asked what it serves, if that is not known.
func (r *remote) kick() {
	select {
	case r.look <- struct{}{}:
	default:
	}
}

// available reports whether the APIService says so now, which any client may
// have been told just now.
func (r *remote) available() bool {
	o := r.kind.Objects.Get(r.service.Name)
	if o == nil {
		return false
	}
	if known := r.seen.Load(); known != nil && known.object == o {
		return known.available
	}
	obj, err := r.kind.Decode(o)
	if err != nil {
		return false
	}
	c := apiregistration.Available(obj.(*apiregistrationv1.APIService))
	known := &seen{o, c != nil && c.Status == apiregistrationv1.ConditionTrue}
	r.seen.Store(known)
	return known.available
}

// host is where the remote is reached.
func (r *remote) host(ctx context.Context) (string, error) {
	ref := r.service.Spec.Service
	return connect.Address(ctx, r.Service, ref.Namespace, ref.Name, *ref.Port)
}

// ServeHTTP is part of http.Handler: it passes a request on as its user's.
func (r *remote) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	const away = "service unavailable" // which clients know by its code
	if !r.available() {
		http.Error(w, away, http.StatusServiceUnavailable)
		return
	}
	if r.broken != nil {
		http.Error(w, r.broken.Error(), http.StatusInternalServerError)
		return
	}
	host, err := r.host(req.Context())
	if err != nil {
		http.Error(w, away, http.StatusServiceUnavailable)
		return
	}
	to := &url.URL{Scheme: "https", Host: host, Path: req.URL.Path, RawQuery: req.URL.Query().Encode()}
	out := req.Clone(req.Context())
	out.URL, out.Host = to, to.Host
	as(out, registry.RequestOf(req.Context()).User)
	if err := connect.Forward(w, out, to, r.transport); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

// as makes a request be the user's, in the words of a front proxy.
func as(req *http.Request, user registry.User) {
	req.Header.Del("Authorization") // a token of ours is nothing for another server
	transport.SetAuthProxyHeaders(req, user.Name, user.UID, user.Groups, user.Extra)
}

package aggregate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/knarr-dev/knarr/apis/apiregistration"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/cache"
)

// Of the looks at whether a remote is there.
const (
	checkEvery  = 30 * time.Second // while it is
	checkSoon   = time.Second      // when it is not, doubled each time up to checkEvery
	checkWithin = 5 * time.Second
	checkTries  = 5 // of which one must work: not all endpoints need be well
)

// A verdict is whether a remote is there, and why not.
type verdict struct {
	status          apiregistrationv1.ConditionStatus
	reason, message string
}

func missing(reason, format string, args ...any) verdict {
	return verdict{apiregistrationv1.ConditionFalse, reason, fmt.Sprintf(format, args...)}
}

func unclear(reason, format string, args ...any) verdict {
	return verdict{apiregistrationv1.ConditionUnknown, reason, fmt.Sprintf(format, args...)}
}

// watch keeps the condition of the APIService until ctx ends.
func (r *remote) watch(ctx context.Context) {
	defer r.transport.CloseIdleConnections()
	for ctx.Err() == nil {
		if err := r.follow(ctx); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "the watch of an APIService's service has ended", "obj", "APIService/"+r.service.Name, "err", err)
		}
	}
}

// follow looks whenever the service or its endpoints change, and now and then.
func (r *remote) follow(ctx context.Context) error {
	ref := r.service.Spec.Service
	service, err := r.Service.Kind(corev1.Resource("services")).Objects.Watch(ctx, cache.Selection{
		Namespace: ref.Namespace, Fields: fields.OneTermEqualSelector("metadata.name", ref.Name),
	}, 0, false)
	if err != nil {
		return err
	}
	defer service.Close()
	endpoints, err := r.Service.Kind(discoveryv1.Resource("endpointslices")).Objects.Watch(ctx, r.endpoints(), 0, false)
	if err != nil {
		return err
	}
	defer endpoints.Close()
	wait := checkSoon
	for {
		v := r.check(ctx)
		well := v.status == apiregistrationv1.ConditionTrue
		if well {
			wait = checkEvery
		}
		if err := r.tell(ctx, v); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "write whether an APIService is available", "obj", "APIService/"+r.service.Name, "err", err)
			wait = checkSoon
		}
		changed, err := idle(ctx, wait, service, endpoints)
		if err != nil {
			return err
		}
		if wait = min(2*wait, checkEvery); changed || well {
			wait = checkSoon
		}
	}
}

// idle waits until one of two watchers has something to tell, but not longer
// than is said, and reports whether one has.
func idle(ctx context.Context, most time.Duration, a, b *cache.Watcher) (bool, error) {
	end := time.NewTimer(most)
	defer end.Stop()
	select {
	case <-end.C:
		return false, nil
	case <-a.Ready():
	case <-b.Ready():
	case <-ctx.Done():
		return false, ctx.Err()
	}
	_, _, first := a.Take()
	_, _, second := b.Take()
	return true, errors.Join(first, second)
}

// endpoints selects the slices of the remote's service.
func (r *remote) endpoints() cache.Selection {
	ref := r.service.Spec.Service
	return cache.Selection{
		Namespace: ref.Namespace, Labels: labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: ref.Name}),
	}
}

// tell writes a verdict down, if it is another than before.
func (r *remote) tell(ctx context.Context, v verdict) error {
	put := func(s *apiregistrationv1.APIService) bool {
		return apiregistration.SetAvailable(s, v.status, v.reason, v.message, r.now())
	}
	if o := r.kind.Objects.Get(r.service.Name); o != nil {
		obj, err := r.kind.Decode(o)
		if s, ok := obj.(*apiregistrationv1.APIService); err == nil && ok && !put(s) {
			return nil
		}
	}
	return r.rewrite(ctx, r.service, func(now *apiregistrationv1.APIService) {
		if now.Spec.Service != nil {
			put(now)
		}
	})
}

// check finds out whether the remote is there.
func (r *remote) check(ctx context.Context) verdict {
	ref := r.service.Spec.Service
	obj, err := r.Service.Lookup(ctx, corev1.Resource("services"), ref.Namespace, ref.Name)
	service, ok := obj.(*corev1.Service)
	switch {
	case apierrors.IsNotFound(err):
		return missing("ServiceNotFound", "service/%s in %q is not present", ref.Name, ref.Namespace)
	case err != nil || !ok:
		return unclear("ServiceAccessError", "service/%s in %q cannot be checked due to: %v", ref.Name, ref.Namespace, err)
	}
	if service.Spec.Type == corev1.ServiceTypeClusterIP {
		if v := r.reachable(ctx, service); v != nil {
			return *v
		}
	}
	if err := r.probe(ctx); err != nil {
		return missing("FailedDiscoveryCheck", "%v", err)
	}
	return verdict{apiregistrationv1.ConditionTrue, "Passed", "all checks passed"}
}

// reachable tells what keeps a service from having endpoints for the remote,
// nil where it has some.
func (r *remote) reachable(ctx context.Context, service *corev1.Service) *verdict {
	ref := r.service.Spec.Service
	at := slices.IndexFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == *ref.Port })
	if at < 0 {
		return new(missing("ServicePortError", "service/%s in %q is not listening on port %d", ref.Name, ref.Namespace, *ref.Port))
	}
	port := service.Spec.Ports[at].Name
	list, err := r.Service.Kind(discoveryv1.Resource("endpointslices")).Objects.List(ctx, cache.Query{Selection: r.endpoints()})
	if err != nil {
		return new(unclear("EndpointsAccessError", "service/%s in %q cannot be checked due to: %v", ref.Name, ref.Namespace, err))
	}
	if len(list.Objects) == 0 {
		return new(missing("EndpointsNotFound", "cannot find endpointslices for service/%s in %q", ref.Name, ref.Namespace))
	}
	for _, o := range list.Objects {
		obj, err := o.Decode()
		if slice, ok := obj.(*discoveryv1.EndpointSlice); err == nil && ok && serves(slice, port) {
			return nil
		}
	}
	return new(missing("MissingEndpoints", "endpointslices for service/%s in %q have no addresses with port name %q", ref.Name, ref.Namespace, port))
}

// serves reports whether a slice has an endpoint that is ready at a port.
func serves(s *discoveryv1.EndpointSlice, port string) bool {
	ready := func(e discoveryv1.Endpoint) bool { return e.Conditions.Ready == nil || *e.Conditions.Ready }
	named := func(p discoveryv1.EndpointPort) bool { return p.Name != nil && *p.Name == port && p.Port != nil }
	return slices.ContainsFunc(s.Endpoints, ready) && slices.ContainsFunc(s.Ports, named)
}

// probe asks the remote for what every server must have.
func (r *remote) probe(ctx context.Context) (err error) {
	if r.broken != nil {
		return r.broken
	}
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	path := "/apis/" + r.gv.String()
	if r.gv.Group == "" {
		path = "/api/" + r.gv.Version
	}
	for range checkTries {
		var resp *http.Response
		resp, err = r.get(ctx, path, asker, nil)
		if err != nil {
			at := path
			if failed, ok := errors.AsType[*url.Error](err); ok {
				at = failed.URL
			}
			err = fmt.Errorf("failing or missing response from %v: %w", at, err)
		} else {
			_ = resp.Body.Close() // its code is enough
			if resp.StatusCode/100 == 2 {
				return nil
			}
			err = fmt.Errorf("failing or missing response from %[1]v: bad status from %[1]v: %[2]d", resp.Request.URL, resp.StatusCode)
		}
		r.transport.CloseIdleConnections() // so that the next may come to another endpoint
		if ctx.Err() != nil {
			break
		}
	}
	return err
}

// asker is who asks remotes for the server itself.
var asker = registry.User{Name: "system:kube-aggregator", Groups: []string{registry.SystemMasters}}

// get asks the remote for a path.
func (r *remote) get(ctx context.Context, path string, user registry.User, header http.Header) (*http.Response, error) {
	host, err := r.host(ctx)
	if err != nil {
		return nil, err
	}
	to := url.URL{Scheme: "https", Host: host, Path: path}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, header)
	as(req, user)
	client := &http.Client{Transport: r.transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return client.Do(req)
}

// maxDocument bounds what a remote may tell of itself.
const maxDocument = 64 << 20

// read is the whole body of an answer.
func read(resp *http.Response) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument))
	if err == nil && len(text) == maxDocument {
		err = fmt.Errorf("the answer to %s is too long", resp.Request.URL)
	}
	return text, err
}

package connect

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/proxy"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/cache"
)

// A target is what a proxy's client means by a name: NAME, NAME:PORT or
// SCHEME:NAME:PORT.
type target struct{ scheme, name, port string }

func targetOf(req *registry.Request, what string) (target, error) {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(req.Name)
	if !ok {
		return target{}, apierrors.NewBadRequest(fmt.Sprintf("invalid %s request %q", what, req.Name))
	}
	return target{scheme, name, port}, nil
}

// behind is the path behind the subresource, at the other end.
func behind(r *http.Request, req *registry.Request) string {
	p := strings.Join(req.Parts, "/")
	if p == "" && !strings.HasSuffix(r.URL.Path, "/") {
		return ""
	}
	p = path.Join("/", p)
	if strings.HasSuffix(r.URL.Path, "/") && !strings.HasSuffix(p, "/") {
		p += "/"
	}
	return p
}

// podProxy passes a request on to a pod.
// contract: SR-11
func (c *connector) podProxy(w http.ResponseWriter, r *http.Request, req *registry.Request) error {
	p := behind(r, req)
	if err := c.review(r.Context(), req, &corev1.PodProxyOptions{Path: p}); err != nil {
		return err
	}
	t, err := targetOf(req, "pod")
	if err != nil {
		return err
	}
	pod, err := c.pod(r.Context(), req.Namespace, t.name)
	if err != nil {
		return err
	}
	ip := podIP(pod)
	if addr, err := netip.ParseAddr(ip); err != nil || !addr.IsGlobalUnicast() {
		return apierrors.NewBadRequest("address not allowed")
	}
	if t.port == "" {
		t.port = firstPort(pod)
	}
	host := ip
	switch {
	case t.port != "":
		host = net.JoinHostPort(ip, t.port)
	case strings.Contains(ip, ":"):
		host = "[" + ip + "]"
	}
	return Forward(w, r, &url.URL{Scheme: t.scheme, Host: host, Path: p}, c.outside)
}

func podIP(pod *corev1.Pod) string {
	if len(pod.Status.PodIPs) > 0 {
		return pod.Status.PodIPs[0].IP
	}
	return pod.Status.PodIP
}

// firstPort is the first port that any container declares.
func firstPort(pod *corev1.Pod) string {
	for _, c := range pod.Spec.Containers {
		if len(c.Ports) > 0 {
			return strconv.Itoa(int(c.Ports[0].ContainerPort))
		}
	}
	return ""
}

// serviceProxy passes a request on to an endpoint of a service.
func (c *connector) serviceProxy(w http.ResponseWriter, r *http.Request, req *registry.Request) error {
	p := behind(r, req)
	if err := c.review(r.Context(), req, &corev1.ServiceProxyOptions{Path: p}); err != nil {
		return err
	}
	t, err := targetOf(req, "service")
	if err != nil {
		return err
	}
	host, err := c.endpoint(r.Context(), req, t)
	if err != nil {
		return err
	}
	return Forward(w, r, &url.URL{Scheme: t.scheme, Host: host, Path: p}, c.outside)
}

// endpoint is the address of an endpoint of a service that is ready, any of them.
func (c *connector) endpoint(ctx context.Context, req *registry.Request, t target) (string, error) {
	obj, err := c.Lookup(ctx, corev1.Resource("services"), req.Namespace, t.name)
	if err != nil {
		return "", err
	}
	port, err := portName(obj.(*corev1.Service), t.port)
	if err != nil {
		return "", err
	}
	list, err := c.Kind(discoveryv1.Resource("endpointslices")).Objects.List(ctx, cache.Query{Selection: cache.Selection{
		Namespace: req.Namespace, Labels: labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: t.name}),
	}})
	if err != nil {
		return "", err
	}
	if len(list.Objects) == 0 {
		return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", t.name))
	}
	for _, i := range rand.Perm(len(list.Objects)) {
		obj, err := list.Objects[i].Decode()
		if err != nil {
			return "", err
		}
		if host := c.ready(ctx, obj.(*discoveryv1.EndpointSlice), port); host != "" {
			return host, nil
		}
	}
	return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", req.Name))
}

// portName is the name of the service's port that is called by name or number.
func portName(svc *corev1.Service, port string) (string, error) {
	n, err := strconv.ParseInt(port, 10, 64)
	if err != nil {
		return port, nil //nolint:nilerr // a name
	}
	for _, p := range svc.Spec.Ports {
		if int64(p.Port) == n {
			return p.Name, nil
		}
	}
	return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", n, svc.Name))
}

// ready is the address of an endpoint in a slice that is ready, empty where
// there is none at the port.
func (c *connector) ready(ctx context.Context, slice *discoveryv1.EndpointSlice, port string) string {
	at := slices.IndexFunc(slice.Ports, func(p discoveryv1.EndpointPort) bool {
		name := ""
		if p.Name != nil {
			name = *p.Name
		}
		return name == port && p.Port != nil
	})
	if at < 0 {
		return ""
	}
	for _, i := range rand.Perm(len(slice.Endpoints)) {
		e := &slice.Endpoints[i]
		if e.Conditions.Ready != nil && !*e.Conditions.Ready {
			continue
		}
		if err := c.genuine(ctx, slice.Namespace, e); err != nil {
			slog.DebugContext(ctx, "pass over an endpoint", "obj", "EndpointSlice/"+slice.Namespace+"/"+slice.Name, "err", err)
			continue
		}
		return net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*slice.Ports[at].Port)))
	}
	return ""
}

// genuine tells whether an endpoint is a pod of the namespace: else who may
// write endpoints could have the server send requests to anywhere.
func (c *connector) genuine(ctx context.Context, namespace string, e *discoveryv1.Endpoint) error {
	ref := e.TargetRef
	if ref == nil || ref.Namespace != namespace || len(e.Addresses) == 0 {
		return fmt.Errorf("%v is no pod of the namespace", e.Addresses)
	}
	pod, err := c.pod(ctx, namespace, ref.Name)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(pod.Status.PodIPs, func(ip corev1.PodIP) bool { return ip.IP == e.Addresses[0] }) {
		return fmt.Errorf("%s is not the address of pod %s", e.Addresses[0], ref.Name)
	}
	return nil
}

// nodeProxy passes a request on to a node: to its kubelet, or to another port.
// contract: SR-12
func (c *connector) nodeProxy(w http.ResponseWriter, r *http.Request, req *registry.Request) error {
	p := behind(r, req)
	if err := c.review(r.Context(), req, &corev1.NodeProxyOptions{Path: p}); err != nil {
		return err
	}
	t, err := targetOf(req, "node")
	if err != nil {
		return err
	}
	k, err := c.nodeKubelet(r.Context(), t.name)
	if err != nil {
		return err
	}
	if t.port == "" || t.port == k.port {
		return Forward(w, r, k.at(p, nil), k.transport)
	}
	if err := proxyable(r.Context(), k.host); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return Forward(w, r, &url.URL{Scheme: t.scheme, Host: net.JoinHostPort(k.host, t.port), Path: p}, c.outside)
}

// proxyable tells whether a host is one that others can reach as well: not
// what listens on this machine only.
func proxyable(ctx context.Context, host string) error {
	addrs, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return err
	}
	if len(addrs) == 0 {
		return fmt.Errorf("no addresses for hostname %q", host)
	}
	for _, a := range addrs {
		if !a.IP.IsGlobalUnicast() {
			return fmt.Errorf("address not allowed")
		}
	}
	return nil
}

// Forward passes a request on, and what comes back with links in it made to
// lead through the proxy again. An error means that nothing was answered yet.
func Forward(w http.ResponseWriter, r *http.Request, to *url.URL, transport http.RoundTripper) error {
	var f refusal
	h := proxy.NewUpgradeAwareHandler(to, transport, true, false, &f)
	h.ServeHTTP(lasting(r.Context(), w, func() {}), r)
	return f.refused()
}

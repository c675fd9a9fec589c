// Package connect is the subresources that lead out of the server: to the
// kubelets, for logs, commands and ports of pods, and through proxies to what
// pods, services and nodes serve. It finds out where a request is to go and
// whether it may, and passes bytes; what they mean is for both ends to know.
package connect

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/all"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/rest"
	"github.com/knarr-dev/knarr/registry/sub"
)

// A Config is what the actions work with.
type Config struct {
	Service  *rest.Service
	Kubelets Kubelets

	// Authorize returns nil where a request may be done, else why not.
	Authorize func(ctx context.Context, r *registry.Request) error
}

// Actions are the subresources that connect.
func Actions(cfg Config) []sub.Action {
	c := &connector{
		Service: cfg.Service, authorize: cfg.Authorize, kubelets: newKubelets(cfg.Kubelets), outside: NewTransport(unverified()),
	}
	pods, services, nodes := corev1.Resource("pods"), corev1.Resource("services"), corev1.Resource("nodes")
	return []sub.Action{
		{Resource: pods, Sub: "log", Serve: c.log},
		{Resource: pods, Sub: "exec", Serve: c.exec},
		{Resource: pods, Sub: "attach", Serve: c.attach},
		{Resource: pods, Sub: "portforward", Serve: c.portForward},
		{Resource: pods, Sub: "proxy", Serve: c.podProxy},
		{Resource: services, Sub: "proxy", Serve: c.serviceProxy},
		{Resource: nodes, Sub: "proxy", Serve: c.nodeProxy},
	}
}

type connector struct {
	*rest.Service

	authorize func(context.Context, *registry.Request) error
	kubelets  *kubelets
	outside   *http.Transport // to pods and services, which know nothing of our certificates
}

// review lets admission look at a connection that is to be made.
func (c *connector) review(ctx context.Context, req *registry.Request, opts runtime.Object) error {
	gvr := schema.GroupVersionResource{Group: req.Group, Version: req.Version, Resource: req.Plural}
	gvks, _, err := all.Scheme().ObjectKinds(opts)
	if err != nil {
		return err
	}
	opts.GetObjectKind().SetGroupVersionKind(gvks[0])
	r := &admit.Request{
		Operation: admit.Connect, Kind: c.Kind(gvr.GroupResource()).Definition, Sub: req.Sub, Namespace: req.Namespace, Name: req.Name,
		Connects: opts, User: req.User, Resource: gvr, Sent: gvks[0],
	}
	if err := c.Admit.Mutate(ctx, r); err != nil {
		return err
	}
	return c.Admit.Validate(ctx, r)
}

// Lookup is the service's, but shows at least what any client has been told
// was written: who sees a pod running asks for its log at once.
func (c *connector) Lookup(ctx context.Context, gr schema.GroupResource, namespace, name string) (apis.Object, error) {
	if err := c.Cache.Fresh(ctx); err != nil {
		return nil, err
	}
	return c.Service.Lookup(ctx, gr, namespace, name)
}

// pod is the pod with the given name.
func (c *connector) pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	obj, err := c.Lookup(ctx, corev1.Resource("pods"), namespace, name)
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Pod), nil
}

// kubelet is how to reach the kubelet that runs a pod.
func (c *connector) kubelet(ctx context.Context, pod *corev1.Pod) (*kubelet, error) {
	if pod.Spec.NodeName == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", pod.Name))
	}
	k, err := c.nodeKubelet(ctx, pod.Spec.NodeName)
	if apierrors.IsNotFound(err) {
		// As upstream: it is of the pod that something is wanted.
		return nil, apierrors.NewNotFound(corev1.Resource("pods"), pod.Spec.NodeName)
	}
	return k, err
}

func (c *connector) nodeKubelet(ctx context.Context, name string) (*kubelet, error) {
	obj, err := c.Lookup(ctx, corev1.Resource("nodes"), "", name)
	if err != nil {
		return nil, err
	}
	return c.kubelets.of(obj.(*corev1.Node))
}

// choose is the container of pod that a client means by name, "" for the
// only one.
func choose(pod *corev1.Pod, name string) (string, error) {
	var names []string
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		names = append(names, c.Name)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		names = append(names, c.Name)
	}
	switch {
	case name != "" && slices.Contains(names, name):
		return name, nil
	case name != "":
		return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name))
	case len(pod.Spec.Containers) == 1:
		return pod.Spec.Containers[0].Name, nil
	}
	return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s, choose one of: %v", pod.Name, names))
}

// A query reads the options of a subresource. The first thing that cannot be
// read is kept as err.
type query struct {
	values map[string][]string
	err    error
}

func (q *query) text(name string) string {
	if v := q.values[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// truth is true for anything given but false and 0, as upstream.
func (q *query) truth(name string) bool {
	v := q.values[name]
	return len(v) > 0 && v[0] != "0" && !strings.EqualFold(v[0], "false")
}

func (q *query) number(name string) *int64 {
	v := q.values[name]
	if len(v) == 0 {
		return nil
	}
	n, err := strconv.ParseInt(v[0], 10, 64)
	q.failed(err)
	return &n
}

func (q *query) time(name string) *metav1.Time {
	text := strings.Trim(q.text(name), `"`)
	if text == "" {
		return nil
	}
	t, err := time.Parse(time.RFC3339, text)
	q.failed(err)
	return &metav1.Time{Time: t}
}

func (q *query) failed(err error) {
	if q.err == nil && err != nil {
		q.err = apierrors.NewBadRequest(err.Error())
	}
}

// unexplained is an error as the stock server tells it that has made none of
// its own of it.
func unexplained(err error) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: err.Error(),
	}}
}

// leaf refuses a path that goes on behind a subresource that has none below it.
func leaf(req *registry.Request) error {
	if len(req.Parts) == 0 {
		return nil
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
		Message: "the server could not find the requested resource", Details: &metav1.StatusDetails{},
	}}
}

// A refusal keeps what goes wrong before an answer has begun.
type refusal struct{ err error }

// Error is part of proxy.ErrorResponder.
func (f *refusal) Error(_ http.ResponseWriter, _ *http.Request, err error) { f.err = err }

// refused is the error for the client, nil where it has been answered.
func (f *refusal) refused() error {
	if _, ok := f.err.(apierrors.APIStatus); ok || f.err == nil {
		return f.err
	}
	return unexplained(f.err)
}

// A taker is an answer whose connection may be taken over, which libraries
// ask the writer itself for.
type taker struct {
	http.ResponseWriter

	taken func(net.Conn) net.Conn
}

// lasting makes a connection that is taken over end with ctx. cancel is
// called when it is closed.
func lasting(ctx context.Context, w http.ResponseWriter, cancel context.CancelFunc) *taker {
	return &taker{w, func(conn net.Conn) net.Conn {
		c := &takenConn{Conn: conn, closed: cancel}
		context.AfterFunc(ctx, func() { _ = c.Conn.Close() }) // it was open only to pass bytes
		return c
	}}
}

// Unwrap lets http.ResponseController reach what else the writer can do.
func (t *taker) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// Hijack is part of http.Hijacker.
func (t *taker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	return t.taken(conn), rw, nil
}

// Flush is part of http.Flusher.
func (t *taker) Flush() {
	_ = http.NewResponseController(t.ResponseWriter).Flush() // a writer that cannot is flushed at the end
}

// A takenConn tells when it is closed, which it is gently.
type takenConn struct {
	net.Conn

	once   sync.Once
	closed context.CancelFunc
}

// Close is part of net.Conn.
func (c *takenConn) Close() error {
	defer c.closed()
	c.once.Do(func() { linger(c.Conn) })
	return c.Conn.Close()
}

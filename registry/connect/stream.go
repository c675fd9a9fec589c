package connect

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/knarr-dev/knarr/registry"
)

// ends are those of a process that a client wants to have.
type ends struct{ stdin, stdout, stderr, tty bool }

func endsOf(q *query) ends {
	return ends{stdin: q.truth("stdin"), stdout: q.truth("stdout"), stderr: q.truth("stderr"), tty: q.truth("tty")}
}

// A session is with a process in a container.
type session struct {
	ends

	verb      string // of the kubelet's path
	container string // "" for the only one
	command   []string
}

// query is the session as kubelets read it.
func (s *session) query() url.Values {
	v := url.Values{}
	for name, is := range map[string]bool{"input": s.stdin, "output": s.stdout, "error": s.stderr, "tty": s.tty} {
		if is {
			v.Set(name, "1")
		}
	}
	if s.command != nil {
		v["command"] = s.command
	}
	return v
}

// exec runs a command in a container.
// contract: SR-8
func (c *connector) exec(w http.ResponseWriter, r *http.Request, req *registry.Request) error {
	q := &query{values: r.URL.Query()}
	s := &session{endsOf(q), "exec", q.text("container"), q.values["command"]}
	if err := c.allowed(r.Context(), req, &corev1.PodExecOptions{
		Stdin: s.stdin, Stdout: s.stdout, Stderr: s.stderr, TTY: s.tty, Container: s.container, Command: s.command,
	}); err != nil {
		return err
	}
	return c.process(w, r, req, s)
}

// attach connects to what runs in a container.
func (c *connector) attach(w http.ResponseWriter, r *http.Request, req *registry.Request) error {
	q := &query{values: r.URL.Query()}
	s := &session{endsOf(q), "attach", q.text("container"), nil}
	if err := c.allowed(r.Context(), req, &corev1.PodAttachOptions{
		Stdin: s.stdin, Stdout: s.stdout, Stderr: s.stderr, TTY: s.tty, Container: s.container,
	}); err != nil {
		return err
	}
	return c.process(w, r, req, s)
}

// allowed decides whether a stream may be opened. That it is asked for by GET,
// as WebSockets must, does not make it something that who may only look may do.
func (c *connector) allowed(ctx context.Context, req *registry.Request, opts runtime.Object) error {
	if err := leaf(req); err != nil {
		return err
	}
	if req.Verb != "create" {
		err := c.authorize(ctx, &registry.Request{
			User: req.User, Verb: "create", Path: req.Path, Resource: true, Group: req.Group, Version: req.Version,
			Plural: req.Plural, Sub: req.Sub, Namespace: req.Namespace, Name: req.Name, Agent: req.Agent,
		})
		if err != nil {
			return err
		}
	}
	return c.review(ctx, req, opts)
}

// process connects a client to a process in a container.
func (c *connector) process(w http.ResponseWriter, r *http.Request, req *registry.Request, s *session) error {
	pod, err := c.pod(r.Context(), req.Namespace, req.Name)
	if err != nil {
		return err
	}
	container, err := choose(pod, s.container)
	if err != nil {
		return err
	}
	k, err := c.kubelet(r.Context(), pod)
	if err != nil {
		return err
	}
	at := k.at(fmt.Sprintf("/%s/%s/%s/%s", s.verb, pod.Namespace, pod.Name, container), s.query())
	if wsstream.IsWebSocketRequestWithStreamCloseProtocol(r) && !k.sockets {
		translate(w, r, at, k.transport, s.ends)
		return nil
	}
	return passOn(w, r, at, k.transport)
}

// portForward connects a client to ports of a pod.
// contract: SR-10
func (c *connector) portForward(w http.ResponseWriter, r *http.Request, req *registry.Request) error {
	opts := &corev1.PodPortForwardOptions{}
	var ports []string
	for _, text := range r.URL.Query()["ports"] {
		q := &query{values: map[string][]string{"ports": {text}}}
		n := q.number("ports")
		if q.err != nil {
			return q.err
		}
		opts.Ports = append(opts.Ports, int32(*n))
		ports = append(ports, strconv.FormatInt(*n, 10))
	}
	if err := c.allowed(r.Context(), req, opts); err != nil {
		return err
	}
	pod, err := c.pod(r.Context(), req.Namespace, req.Name)
	if err != nil {
		return err
	}
	k, err := c.kubelet(r.Context(), pod)
	if err != nil {
		return err
	}
	to := url.Values{}
	if len(ports) > 0 {
		to.Set("port", strings.Join(ports, ","))
	}
	at := k.at(fmt.Sprintf("/portForward/%s/%s", pod.Namespace, pod.Name), to)
	if wsstream.IsWebSocketRequestWithTunnelingProtocol(r) && !k.sockets {
		return tunnel(w, r, at, k.transport)
	}
	return passOn(w, r, at, k.transport)
}

package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-dev/knarr/kubelet"
)

const (
	version = "1.36" // of Kubernetes, for those who are asked
	maxBody = 10 << 10
	maxHops = 10
)

// once makes a probe. An error is that it could not be made.
func (p *Prober) once(ctx context.Context, c *kubelet.Container, spec *corev1.Probe) (good bool, said string, err error) {
	limit := max(time.Duration(spec.TimeoutSeconds)*time.Second, time.Second)
	ip := c.Pod.Status.PodIP
	switch {
	case spec.Exec != nil:
		return p.exec(ctx, c, spec.Exec.Command, limit)
	case spec.HTTPGet != nil:
		req, err := Request(ctx, spec.HTTPGet, c.Spec, ip, "kube-probe/"+version)
		if err != nil {
			return false, "", err
		}
		good, said = get(req, limit)
		return good, said, nil
	case spec.TCPSocket != nil:
		port, err := number(spec.TCPSocket.Port, c.Spec)
		if err != nil {
			return false, "", err
		}
		good, said = connect(ctx, spec.TCPSocket.Host, ip, port, limit)
		return good, said, nil
	case spec.GRPC != nil:
		good, said = health(ctx, net.JoinHostPort(ip, strconv.Itoa(int(spec.GRPC.Port))), spec.GRPC.Service, limit)
		return good, said, nil
	}
	return false, "", fmt.Errorf("missing probe handler for %s_%s(%s):%s", c.Pod.Name, c.Pod.Namespace, c.Pod.UID, c.Spec.Name)
}

// exec asks by a command. Of the container's variables it knows those that are
// written out in its specification.
func (p *Prober) exec(ctx context.Context, c *kubelet.Container, command []string, limit time.Duration) (good bool, said string, err error) {
	expanded := make([]string, 0, len(command))
	for _, word := range command {
		expanded = append(expanded, kubelet.Expand(word, func(name string) (string, bool) {
			for _, e := range c.Spec.Env {
				if e.Name == name && e.ValueFrom == nil {
					return e.Value, true
				}
			}
			return "", false
		}))
	}
	out, code, err := p.Exec(ctx, c.ID, expanded, limit)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return false, fmt.Sprintf("command timed out: %q timed out after %v", strings.Join(expanded, " "), limit), nil
	case err != nil:
		return false, "", err
	case code != 0:
		return false, string(out[:min(len(out), maxBody)]), nil
	}
	return true, "", nil
}

// Request is the request that an action of a container's describes. Where it
// names no host it is for ip.
func Request(ctx context.Context, a *corev1.HTTPGetAction, c *corev1.Container, ip, agent string) (*http.Request, error) {
	port, err := number(a.Port, c)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(a.Path)
	if err != nil {
		u = &url.URL{Path: a.Path} // as upstream: then it is no more than a path
	}
	host := a.Host
	if host == "" {
		host = ip
	}
	u.Scheme, u.Host = strings.ToLower(string(a.Scheme)), net.JoinHostPort(host, strconv.Itoa(port))
	if u.Scheme == "" {
		u.Scheme = "http"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	for _, h := range a.HTTPHeaders {
		req.Header.Add(h.Name, h.Value)
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header.Set("User-Agent", agent)
	}
	if _, ok := req.Header["Accept"]; !ok {
		req.Header.Set("Accept", "*/*")
	} else if req.Header.Get("Accept") == "" {
		req.Header.Del("Accept") // an empty one asks for none
	}
	req.Host = req.Header.Get("Host")
	return req, nil
}

// number is a port's number, which may stand under a name in the container's
// specification.
func number(port intstr.IntOrString, c *corev1.Container) (int, error) {
	n := port.IntValue()
	if port.Type == intstr.String {
		for _, p := range c.Ports {
			if p.Name == port.StrVal {
				n = int(p.ContainerPort)
			}
		}
	}
	if n <= 0 || n > 65535 {
		return 0, fmt.Errorf("invalid port number: %v", port.String())
	}
	return n, nil
}

// Client asks containers: it trusts any certificate, uses no proxy, keeps no
// connection, and follows a redirect only to the host that it began with.
var Client = &http.Client{
	Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // as upstream: what is asked is whether there is an answer
		DisableKeepAlives: true, DisableCompression: true,
	},
	CheckRedirect: func(req *http.Request, via []*http.Request) error {
		switch {
		case req.URL.Hostname() != via[0].URL.Hostname():
			return http.ErrUseLastResponse
		case len(via) >= maxHops:
			return fmt.Errorf("stopped after %d redirects", maxHops)
		}
		return nil
	},
}

func get(req *http.Request, limit time.Duration) (good bool, said string) {
	ctx, cancel := context.WithTimeout(req.Context(), limit)
	defer cancel()
	resp, err := Client.Do(req.WithContext(ctx))
	if err != nil {
		return false, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	switch {
	case err != nil:
		return false, err.Error()
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return true, fmt.Sprintf("Probe terminated redirects, Response body: %s", body)
	case resp.StatusCode >= 200 && resp.StatusCode < 300:
		return true, ""
	}
	return false, fmt.Sprintf("HTTP probe failed with statuscode: %d", resp.StatusCode)
}

func connect(ctx context.Context, host, ip string, port int, limit time.Duration) (good bool, said string) {
	if host == "" {
		host = ip
	}
	d := net.Dialer{Timeout: limit}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return false, err.Error()
	}
	_ = conn.Close() // it was there
	return true, ""
}

// health asks by gRPC's own protocol for that.
func health(ctx context.Context, addr string, service *string, limit time.Duration) (good bool, said string) {
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent("kube-probe/"+version), grpc.WithNoProxy())
	if err != nil {
		return false, err.Error()
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req := &grpc_health_v1.HealthCheckRequest{}
	if service != nil {
		req.Service = *service
	}
	resp, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, req)
	switch status.Code(err) {
	case codes.OK:
	case codes.Unimplemented:
		return false, fmt.Sprintf("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): %v", err)
	case codes.DeadlineExceeded:
		return false, fmt.Sprintf("timeout: health rpc did not complete within %v", limit)
	case codes.Unavailable:
		return false, fmt.Sprintf("error: failed to connect service %q within %v: %v", addr, limit, err)
	default:
		return false, fmt.Sprintf("error: health rpc probe failed: %v", err)
	}
	if st := resp.GetStatus(); st != grpc_health_v1.HealthCheckResponse_SERVING {
		return false, fmt.Sprintf("service unhealthy (responded with %q)", st.String())
	}
	return true, ""
}

// Package hook calls webhooks: it finds out where one is, trusts whom its
// configuration trusts, posts to it and reads its answer. What is said to one,
// and what its answer means, is for its callers to know.
package hook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/registry/connect"
	"github.com/knarr-dev/knarr/registry/rest"
)

// maxAnswer is the most bytes of an answer, so that none can fill memory.
const maxAnswer = 64 << 20

// A Target says where a webhook is: at a URL, or behind a service of the
// cluster.
type Target struct {
	URL      *string
	Service  *Service
	CABundle []byte // who vouches for it, in PEM; empty for those that the system trusts
}

// A Service is a service that a webhook is behind, and where there.
type Service struct {
	Namespace, Name string
	Path            *string
	Port            *int32 // 443 where nil
}

// A Hook is a webhook. It keeps connections open until it is closed.
type Hook struct {
	to     *url.URL
	client *http.Client
	idle   func()
}

// New returns the webhook at a target. One in the cluster is reached by its
// service's address, which is looked up for each connection.
func New(svc *rest.Service, t Target) (*Hook, error) {
	security := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(bytes.TrimSpace(t.CABundle)) > 0 {
		security.RootCAs = x509.NewCertPool()
		if !security.RootCAs.AppendCertsFromPEM(t.CABundle) {
			return nil, errors.New("unable to load root certificates: no valid certificate authority data seen")
		}
	}
	// HTTP/1 only: there a connection whose other end is gone is given up with
	// the first request that it fails.
	transport := &http.Transport{
		TLSClientConfig: security, Proxy: http.ProxyFromEnvironment, IdleConnTimeout: idleTime, MaxIdleConnsPerHost: maxIdle,
	}
	to := &url.URL{Scheme: "https"}
	switch s := t.Service; {
	case t.URL != nil:
		var err error
		if to, err = url.Parse(*t.URL); err != nil {
			return nil, fmt.Errorf("unparsable webhook URL: %w", err)
		}
	case s != nil:
		port := int32(443)
		if s.Port != nil {
			port = *s.Port
		}
		security.ServerName = s.Name + "." + s.Namespace + ".svc"
		to.Host = net.JoinHostPort(security.ServerName, strconv.Itoa(int(port)))
		if s.Path != nil {
			to.Path = *s.Path
		}
		transport.Proxy = nil
		transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			host, err := connect.Address(ctx, svc, s.Namespace, s.Name, port)
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{}).DialContext(ctx, network, host)
		}
	default:
		return nil, errors.New("webhook configuration must have either service or URL")
	}
	return &Hook{to: to, idle: transport.CloseIdleConnections, client: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// What is kept of connections that nothing is sent by: how long, and how many.
const (
	idleTime = 30 * time.Second
	maxIdle  = 16
)

// Close closes the connections that are not in use.
func (h *Hook) Close() { h.idle() }

// Post sends a question, as JSON, and reads the answer. It ends with ctx; the
// webhook is told that it is given so long.
func (h *Hook) Post(ctx context.Context, timeout time.Duration, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	to := *h.to
	query := to.Query()
	query.Set("timeout", timeout.String())
	to.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, */*")
	resp, err := h.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // it was read
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return apierrors.NewGenericServerResponse(resp.StatusCode, http.MethodPost, schema.GroupResource{}, "", string(bytes.TrimSpace(text)), 0, true)
	}
	return json.Unmarshal(text, answer)
}

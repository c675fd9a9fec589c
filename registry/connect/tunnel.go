package connect

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gorilla/websocket"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	protocol "k8s.io/apimachinery/pkg/util/portforward"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// tunnel connects a client that sends SPDY inside of a WebSocket to a kubelet,
// which gets it bare.
func tunnel(w http.ResponseWriter, r *http.Request, at *url.URL, transport http.RoundTripper) error {
	var offered []string
	for _, p := range websocket.Subprotocols(r) {
		if inner, ok := strings.CutPrefix(p, protocol.WebsocketsSPDYTunnelingPrefix); ok && strings.HasSuffix(inner, protocol.KubernetesSuffix) {
			offered = append(offered, inner)
		}
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	conn, resp, err := upgrade(ctx, at, transport, offered)
	if err != nil {
		return unexplained(err)
	}
	defer func() { _ = conn.Close() }() // it was open only to pass bytes
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() { _ = resp.Body.Close() }() // it was only read
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return notUpgraded(w, resp)
	}
	chosen := resp.Header.Get(httpstream.HeaderProtocolVersion)
	if !slices.Contains(offered, chosen) {
		return unexplained(fmt.Errorf("unable to upgrade: the kubelet speaks %q, not one of %q", chosen, offered))
	}
	up := websocket.Upgrader{
		Subprotocols: []string{protocol.WebsocketsSPDYTunnelingPrefix + chosen},
		CheckOrigin:  func(*http.Request) bool { return true }, // who asks has shown credentials, and not a cookie
	}
	socket, err := up.Upgrade(lasting(ctx, w, cancel), r, nil)
	if err != nil {
		slog.DebugContext(ctx, "accept a web socket", "err", err) // the client has been told
		return nil
	}
	client := portforward.NewTunnelingConnection("client", socket)
	defer func() { _ = client.Close() }() // likewise
	join(ctx, client, conn)
	return nil
}

// upgrade asks the kubelet for a SPDY connection. What it says may be that
// there is none.
func upgrade(ctx context.Context, at *url.URL, transport http.RoundTripper, protocols []string) (net.Conn, *http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.String(), nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set(httpstream.HeaderConnection, httpstream.HeaderUpgrade)
	req.Header.Set(httpstream.HeaderUpgrade, spdy.HeaderSpdy31)
	req.Header[httpstream.HeaderProtocolVersion] = protocols
	conn, err := proxy.DialURL(ctx, at, transport)
	if err != nil {
		return nil, nil, fmt.Errorf("error dialing backend: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := req.Write(conn); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("error sending request: %w", err), conn.Close())
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, req)
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return &begun{conn, in}, resp, nil
}

// A begun connection has been read from already.
type begun struct {
	net.Conn

	in *bufio.Reader
}

// Read is part of net.Conn.
func (b *begun) Read(p []byte) (int, error) { return b.in.Read(p) }

// notUpgraded passes on what the kubelet says instead of upgrading.
func notUpgraded(w http.ResponseWriter, resp *http.Response) error {
	if resp.StatusCode < http.StatusBadRequest {
		return unexplained(fmt.Errorf("invalid upgrade response: status code %d", resp.StatusCode))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxText))
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(body) // nobody is left to tell
	return nil
}

// join passes bytes both ways until one of the ends has no more.
func join(ctx context.Context, a, b net.Conn) {
	done := make(chan error, 2)
	pass := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		done <- err
	}
	go pass(a, b)
	go pass(b, a)
	if err := <-done; err != nil {
		slog.DebugContext(ctx, "pass bytes of a port", "err", err)
	}
}

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
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/streaming/pkg/httpstream"
)

// passOn gives a connection that is to be upgraded to the kubelet as it is.
func passOn(w http.ResponseWriter, r *http.Request, at *url.URL, transport http.RoundTripper) error {
	if !httpstream.IsUpgradeRequest(r) {
		return apierrors.NewBadRequest("Upgrade request required")
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	out := r.Clone(ctx)
	out.URL, out.Host, out.Body, out.ContentLength = at, at.Host, nil, 0
	utilnet.AppendForwardedForHeader(out)
	kubelet, resp, err := upgrade(ctx, out, transport)
	if err != nil {
		return unexplained(err)
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	defer func() { _ = kubelet.Close() }()   // it was open only to pass bytes
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return notUpgraded(w, resp)
	}
	conn, rw, err := lasting(ctx, w, cancel).Hijack()
	if err != nil {
		return unexplained(fmt.Errorf("error hijacking connection: %w", err))
	}
	client := &begun{conn, rw.Reader}
	defer func() { _ = client.Close() }() // likewise
	if err := resp.Write(client); err != nil {
		slog.DebugContext(ctx, "pass on an upgrade", "err", err)
		return nil
	}
	join(ctx, client, kubelet)
	return nil
}

// upgrade sends a request for another protocol. The answer may be that there
// is none. The connection ends with ctx.
func upgrade(ctx context.Context, req *http.Request, transport http.RoundTripper) (net.Conn, *http.Response, error) {
	conn, err := proxy.DialURL(ctx, req.URL, transport)
	if err != nil {
		return nil, nil, fmt.Errorf("error dialing backend: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() }) // it is open only to pass bytes
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

// join passes bytes both ways until the client goes, or the server has no
// more. A server that takes nothing may still have something to say.
func join(ctx context.Context, client, server net.Conn) {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, err := io.Copy(server, client)
		if err != nil {
			slog.DebugContext(ctx, "pass on what a client sends", "err", err)
			_, _ = io.Copy(io.Discard, client) // until it sees that nobody listens
		}
		_ = server.Close() // which ends the other direction
	}()
	if _, err := io.Copy(client, server); err != nil {
		slog.DebugContext(ctx, "pass on what a kubelet sends", "err", err)
	}
	_ = client.Close() // it was open only to pass bytes
	<-gone
}

// lingerFor is how long a client may take to close its end of a connection.
const lingerFor = 3 * time.Second

// linger lets a client read all that it was sent. To close a connection while
// there is something in it that was not read breaks it, and what is under way
// to the client is lost: with it, how its command has ended.
func linger(conn net.Conn) {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || conn.SetReadDeadline(time.Now().Add(lingerFor)) != nil {
		return
	}
	_, _ = io.Copy(io.Discard, conn) // until the client has closed its end
}

package connect

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gorilla/websocket"
	protocol "k8s.io/apimachinery/pkg/util/portforward"
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
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.String(), nil)
	if err != nil {
		return unexplained(err)
	}
	req.Header.Set(httpstream.HeaderConnection, httpstream.HeaderUpgrade)
	req.Header.Set(httpstream.HeaderUpgrade, spdy.HeaderSpdy31)
	req.Header[httpstream.HeaderProtocolVersion] = offered
	kubelet, resp, err := upgrade(ctx, req, transport)
	if err != nil {
		return unexplained(err)
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	defer func() { _ = kubelet.Close() }()   // it was open only to pass bytes
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
	join(ctx, client, kubelet)
	return nil
}

package connect

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Kubelets say how the server reaches the kubelets.
type Kubelets struct {
	Addresses []corev1.NodeAddressType // of a node, the best first; nil for the stock server's order
	TLS       *tls.Config              // nil to show no certificate and believe any
}

var stockAddresses = []corev1.NodeAddressType{
	corev1.NodeHostName, corev1.NodeInternalDNS, corev1.NodeInternalIP, corev1.NodeExternalDNS, corev1.NodeExternalIP,
}

// stockPort is that of kubelets that do not say theirs.
const stockPort = 10250

// kubelets reaches all nodes' kubelets with few connections.
type kubelets struct {
	addresses []corev1.NodeAddressType
	transport *http.Transport
	trusting  *http.Transport // believes any certificate
}

func newKubelets(cfg Kubelets) *kubelets {
	k := &kubelets{addresses: cfg.Addresses}
	if k.addresses == nil {
		k.addresses = stockAddresses
	}
	if cfg.TLS == nil {
		cfg.TLS = unverified()
	}
	k.transport = NewTransport(cfg.TLS.Clone())
	trusting := cfg.TLS.Clone()
	trusting.InsecureSkipVerify, trusting.RootCAs = true, nil
	k.trusting = NewTransport(trusting)
	return k
}

// unverified is TLS without a look at who is at the other end.
func unverified() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
}

// Of connections to other machines.
const (
	dialTime  = 30 * time.Second
	shakeTime = 10 * time.Second
	idleTime  = 90 * time.Second
	pingAfter = 30 * time.Second // of silence, so that one to a machine that is gone is not used forever
	pongTime  = 15 * time.Second
)

// NewTransport returns what reaches other machines. The configuration is its
// own from then on.
func NewTransport(cfg *tls.Config) *http.Transport {
	// Who upgrades a connection reads the configuration while it is in use:
	// with these in it already, the transport does not write to it.
	cfg.NextProtos = []string{"h2", "http/1.1"}
	return &http.Transport{
		DialContext:     (&net.Dialer{Timeout: dialTime, KeepAlive: dialTime}).DialContext,
		TLSClientConfig: cfg, TLSHandshakeTimeout: shakeTime, IdleConnTimeout: idleTime, MaxIdleConnsPerHost: 8,
		ForceAttemptHTTP2: true, HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pongTime},
	}
}

// A kubelet is the way to one.
type kubelet struct {
	host, port string
	sockets    bool // it can be given WebSocket connections as they are

	*kubelets
}

// contract: SR-14
func (k *kubelets) of(node *corev1.Node) (*kubelet, error) {
	host := ""
	for _, want := range k.addresses {
		for _, a := range node.Status.Addresses {
			if host == "" && a.Type == want {
				host = a.Address
			}
		}
	}
	if host == "" {
		return nil, unexplained(fmt.Errorf("no preferred addresses found; known addresses: %v", node.Status.Addresses))
	}
	port := node.Status.DaemonEndpoints.KubeletEndpoint.Port
	if port <= 0 {
		port = stockPort
	}
	return &kubelet{
		host: host, port: strconv.Itoa(int(port)), kubelets: k,
		sockets: slices.Contains(node.Status.DeclaredFeatures, "ExtendWebSocketsToKubelet"),
	}, nil
}

// at is the URL of a path at the kubelet.
func (k *kubelet) at(path string, query url.Values) *url.URL {
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(k.host, k.port), Path: path, RawQuery: query.Encode()}
}

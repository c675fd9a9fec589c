package connect_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"k8s.io/apimachinery/pkg/util/httpstream" //nolint:staticcheck // client-go has its dialers speak of it
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// dialers are the ways in which clients forward ports.
var dialers = map[string]func(c *cluster, pod string) (httpstream.Dialer, error){
	"spdy": func(c *cluster, pod string) (httpstream.Dialer, error) {
		transport, upgrader, err := spdy.RoundTripperFor(c.config)
		return spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, c.subresource(pod, "portforward", nil)), err
	},
	"tunnel": func(c *cluster, pod string) (httpstream.Dialer, error) {
		return portforward.NewSPDYOverWebsocketDialer(c.subresource(pod, "portforward", nil), c.config)
	},
}

// say sends a line to a port of this machine and returns what comes back.
func say(t *testing.T, port uint16, line string) (string, error) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprintln(conn, line); err != nil {
		t.Fatal(err)
	}
	return bufio.NewReader(conn).ReadString('\n')
}

// contract: SR-10
func TestPortForward(t *testing.T) {
	c := start(t)
	c.pod("p", nil, "c")
	for name, dialer := range dialers {
		d, err := dialer(c, "p")
		if err != nil {
			t.Fatal(err)
		}
		stop, ready := make(chan struct{}), make(chan struct{})
		f, err := portforward.New(d, []string{"0:8080", "0:1"}, stop, ready, io.Discard, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- f.ForwardPorts() }()
		select {
		case <-ready:
		case err := <-ended:
			t.Fatalf("%s: %v", name, err)
		}
		ports, err := f.GetPorts()
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"one", "two"} { // more connections than one
			if got, err := say(t, ports[0].Local, word); got != "p:8080 says "+word+"\n" || err != nil {
				t.Errorf("%s: %q %v", name, got, err)
			}
		}
		if got, err := say(t, ports[1].Local, "x"); err == nil {
			t.Errorf("%s: %q from where nobody listens", name, got)
		}
		close(stop)
		// An error of one port ends them all, which may come to light first.
		if err := <-ended; err != nil && !errors.Is(err, portforward.ErrLostConnectionToPod) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The old way has the ports in the URL, and two channels for each.
func TestPortForwardBySocket(t *testing.T) {
	c := start(t)
	c.pod("p", nil, "c")
	conn, err := c.socket("/api/v1/namespaces/default/pods/p/portforward?ports=80", "v4.channel.k8s.io")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.WriteMessage(2, []byte("\x00hello\n")); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for range 3 { // each channel begins with its port
		_, got, err = conn.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
	}
	if string(got) != "\x00p:80 says hello\n" {
		t.Errorf("got %q", got)
	}
	if last := c.kubelet.last(); last != "websocket /portForward/default/p?port=80" {
		t.Errorf("the kubelet was asked for %s", last)
	}
	if _, err := c.socket("/api/v1/namespaces/default/pods/p/portforward", "SPDY/3.1+unknown.k8s.io"); err == nil {
		t.Error("a protocol that the kubelet does not speak is spoken")
	}
}

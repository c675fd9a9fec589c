package connect_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/assembly"
	"github.com/knarr-dev/knarr/registry/registrytest"
)

// page has links of all kinds, and lies where the server finds it at /page.
const page = `<html><a href="/path/x">x</a><img src="image.png"><form action="/post"></form><a href="http://other.example/">o</a></html>`

// backend is what a pod serves. It is at an address of this machine that
// others can reach too, as pods' are.
func backend(t *testing.T, encrypted bool) (host string, port int32) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, page)
	})
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/there", http.StatusFound) })
	mux.HandleFunc("/socket", func(w http.ResponseWriter, r *http.Request) {
		conn, err := (&websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		kind, b, err := conn.ReadMessage()
		if err != nil {
			return
		}
		_ = conn.WriteMessage(kind, append([]byte("echo "), b...))
	})
	mux.HandleFunc("/peers", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, len(r.TLS.PeerCertificates)) })
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewEncoder(w).Encode(r.Header); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL, body)
	})
	s := httptest.NewUnstartedServer(mux)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(address(t), "0"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	if s.Listener = l; encrypted {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	at := l.Addr().(*net.TCPAddr)
	return at.IP.String(), int32(at.Port)
}

// address is one of this machine's that is not only its own.
func address(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	t.Skip("this machine has no address but loopback's, and the server refuses to be a proxy to that")
	return ""
}

// late is a store whose news come when held is let go.
type late struct {
	registry.Store

	held  sync.RWMutex
	asked chan struct{} // gets one when a server asks how new the store is
}

func (l *late) Watch(ctx context.Context, w registry.Watch, tell func(registry.Batch) error) error {
	return l.Store.Watch(ctx, w, func(b registry.Batch) error {
		l.held.RLock()
		defer l.held.RUnlock()
		return tell(b)
	})
}

func (l *late) Revision(ctx context.Context) (int64, error) {
	select {
	case l.asked <- struct{}{}:
	default:
	}
	return l.Store.Revision(ctx)
}

// What a client was told that it has written counts, though the server has
// not heard of it from the store.
func TestFresh(t *testing.T) {
	store := &late{asked: make(chan struct{}, 1)}
	c := start(t, registrytest.With(func(cfg *assembly.Config) { store.Store, cfg.Store = cfg.Store, store }))
	ip, port := backend(t, false)
	pod := c.served("p", "", port)
	c.get("/api/v1/namespaces/default/pods/p") // the server knows it
	store.held.Lock()
	letGo := sync.OnceFunc(store.held.Unlock)
	defer letGo()
	pod.Status.PodIP, pod.Status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
	if _, err := c.CoreV1().Pods("default").UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	for len(store.asked) > 0 {
		<-store.asked
	}
	answered := make(chan string, 1)
	go func() { answered <- c.get("/api/v1/namespaces/default/pods/p/proxy/x") }()
	select {
	case <-store.asked:
		letGo()
	case got := <-answered:
		t.Fatalf("answered without asking: %s", got)
	}
	if got := <-answered; got != "GET /x " {
		t.Errorf("got %s", got)
	}
}

// An answer is all that comes back.
type answer struct {
	code   int
	header http.Header
	body   string
}

// do sends a request as it is, and follows nothing.
func (c *cluster) do(method, path, body string, header ...string) answer {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.URL+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.config.BearerToken)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	resp, err := client.RoundTrip(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// told is the code and the message of a Status, or the body.
func (a answer) told() string {
	var status metav1.Status
	if json.Unmarshal([]byte(a.body), &status) == nil && status.Message != "" {
		a.body = string(status.Reason) + ": " + status.Message
	}
	return fmt.Sprint(a.code, " ", a.body)
}

// served makes a pod with an address and a port.
func (c *cluster) served(name, ip string, port int32) *corev1.Pod {
	return c.pod(name, func(p *corev1.Pod) {
		p.Labels = map[string]string{"app": name}
		p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}, {Name: "d", Image: "i", Ports: []corev1.ContainerPort{{ContainerPort: port}}}}
		if ip != "" {
			p.Status.PodIP, p.Status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
		}
	})
}

// contract: SR-11
func TestPodProxy(t *testing.T) {
	c := start(t)
	ip, port := backend(t, false)
	_, safe := backend(t, true)
	c.served("p", ip, port)
	c.served("local", "127.0.0.1", port)
	c.served("none", "", port)
	const pods = "/api/v1/namespaces/default/pods/"
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		body := ""
		if method == "POST" || method == "PUT" || method == "PATCH" {
			body = "text"
		}
		want := "200 " + method + " /a/b/?q=1 " + body
		if got := c.do(method, pods+"p/proxy/a/b/?q=1", body).told(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if a := c.do("HEAD", pods+"p/proxy/a", ""); a.code != 200 {
		t.Errorf("HEAD: %d", a.code)
	}
	for _, x := range []struct{ method, path, want string }{
		{"GET", fmt.Sprintf("p:%d/proxy/", port), "200 GET / "},
		{"GET", fmt.Sprintf("http:p:%d/proxy/x", port), "200 GET /x "},
		{"GET", fmt.Sprintf("https:p:%d/proxy/x", safe), "200 GET /x "},
		{"POST", "p/proxy", "200 POST / "},
		{"GET", "a:b:c:d/proxy/", `400 BadRequest: invalid pod request "a:b:c:d"`},
		{"GET", "missing/proxy/", `404 NotFound: pods "missing" not found`},
		{"GET", "local/proxy/", "400 BadRequest: address not allowed"},
		{"GET", "none/proxy/", "400 BadRequest: address not allowed"},
		{"GET", "p:1/proxy/", "503 ServiceUnavailable: error trying to reach service: dial tcp " + ip + ":1: connect: connection refused"},
	} {
		if got := c.do(x.method, pods+x.path, "").told(); got != x.want {
			t.Errorf("%s %s: got %q, want %q", x.method, x.path, got, x.want)
		}
	}
	a := c.do("GET", pods+"p/proxy?q=1", "")
	if at := a.header.Get("Location"); a.code != 301 || at != pods+"p/proxy/?q=1" {
		t.Errorf("without a slash: %d to %q", a.code, at)
	}
	a = c.do("GET", pods+"p/proxy/away", "")
	if at := a.header.Get("Location"); a.code != 302 || at != pods+"p/proxy/there" {
		t.Errorf("redirect: %d to %q", a.code, at)
	}
	html := c.do("GET", pods+"p/proxy/page", "").body
	want := strings.NewReplacer("/path/x", pods+"p/proxy/path/x", "/post", pods+"p/proxy/post").Replace(page)
	if html != want {
		t.Errorf("links:\n got %s\nwant %s", html, want)
	}
}

// What lets a client in here is no business of who is behind the proxy.
func TestProxyHeaders(t *testing.T) {
	c := start(t)
	ip, port := backend(t, false)
	c.served("p", ip, port)
	body := c.do("GET", "/api/v1/namespaces/default/pods/p/proxy/headers", "", "X-Mine", "1",
		"Impersonate-User", "someone", "Impersonate-Group", "system:masters").body
	var h http.Header
	if err := json.Unmarshal([]byte(body), &h); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	for _, name := range []string{"Authorization", "Impersonate-User", "Impersonate-Group"} {
		if h.Get(name) != "" {
			t.Errorf("%s is passed on", name)
		}
	}
	if h.Get("X-Mine") != "1" || h.Get("X-Forwarded-For") != "127.0.0.1" || h.Get("X-Forwarded-Uri") != "/api/v1/namespaces/default/pods/p/proxy/headers" {
		t.Errorf("headers: %v", h)
	}
}

func TestProxySocket(t *testing.T) {
	c := start(t)
	ip, port := backend(t, false)
	c.served("p", ip, port)
	conn, err := c.socket("/api/v1/namespaces/default/pods/p/proxy/socket")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, b, err := conn.ReadMessage(); string(b) != "echo hello" || err != nil {
		t.Errorf("%q %v", b, err)
	}
}

// slice makes an endpoint slice of a service.
func (c *cluster) slice(name string, ports []discoveryv1.EndpointPort, endpoints ...discoveryv1.Endpoint) {
	c.t.Helper()
	_, err := c.DiscoveryV1().EndpointSlices("default").Create(c.t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{GenerateName: name + "-", Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: ports, Endpoints: endpoints,
	}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
}

func endpoint(pod, ip string, ready bool) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{
		Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: pod},
	}
}

func TestServiceProxy(t *testing.T) {
	c := start(t)
	ip, port := backend(t, false)
	_, safe := backend(t, true)
	c.served("p", ip, port)
	c.served("elsewhere", "192.0.2.7", port)
	for name, ports := range map[string][]corev1.ServicePort{
		"many": {{Name: "plain", Port: 80}, {Name: "safe", Port: 443}}, "one": {{Port: 80}}, "empty": {{Port: 80}}, "forged": {{Port: 80}},
		"unready": {{Port: 80}},
	} {
		_, err := c.CoreV1().Services("default").Create(t.Context(), &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{ClusterIP: "None", Ports: ports},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	unready := endpoint("elsewhere", "192.0.2.7", false)
	c.slice("many", []discoveryv1.EndpointPort{{Name: new("plain"), Port: &port}, {Name: new("safe"), Port: &safe}}, endpoint("p", ip, true), unready)
	c.slice("many", []discoveryv1.EndpointPort{{Name: new("plain"), Port: &port}}, unready)
	c.slice("one", []discoveryv1.EndpointPort{{Name: new(""), Port: &port}}, endpoint("p", ip, true))
	c.slice("unready", []discoveryv1.EndpointPort{{Name: new(""), Port: &port}}, unready)
	// Nobody's pod is there, or one that has another address.
	nobody := endpoint("p", ip, true)
	nobody.TargetRef = nil
	c.slice("forged", []discoveryv1.EndpointPort{{Name: new(""), Port: &port}}, nobody, endpoint("elsewhere", ip, true), endpoint("gone", ip, true))
	const services = "/api/v1/namespaces/default/services/"
	for _, x := range []struct{ path, want string }{
		{"one/proxy/x?q=1", "200 GET /x?q=1 "},
		{"one:80/proxy/x", "200 GET /x "},
		{"many:plain/proxy/x", "200 GET /x "},
		{"many:80/proxy/x", "200 GET /x "},
		{"https:many:safe/proxy/x", "200 GET /x "},
		{"https:many:443/proxy/x", "200 GET /x "},
		{"many/proxy/x", `503 ServiceUnavailable: no endpoints available for service "many"`},
		{"many:other/proxy/x", `503 ServiceUnavailable: no endpoints available for service "many:other"`},
		{"many:81/proxy/x", `503 ServiceUnavailable: no service port 81 found for service "many"`},
		{"empty/proxy/x", `503 ServiceUnavailable: no endpoints available for service "empty"`},
		{"unready/proxy/x", `503 ServiceUnavailable: no endpoints available for service "unready"`},
		{"forged/proxy/x", `503 ServiceUnavailable: no endpoints available for service "forged"`},
		{"missing/proxy/x", `404 NotFound: services "missing" not found`},
		{"ftp:one:80/proxy/x", `400 BadRequest: invalid service request "ftp:one:80"`},
	} {
		for range 3 { // whichever endpoint it is
			if got := c.do("GET", services+x.path, "").told(); got != x.want {
				t.Errorf("%s: got %q, want %q", x.path, got, x.want)
			}
		}
	}
}

// contract: SR-12
func TestNodeProxy(t *testing.T) {
	c := start(t)
	ip, port := backend(t, false)
	node := c.node("far", 10250)
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: ip}}
	if _, err := c.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	own := strconv.Itoa(c.kubelet.Listener.Addr().(*net.TCPAddr).Port)
	for _, x := range []struct{ path, want string }{
		{"n/proxy/stats/summary?x=1", "200 GET /stats/summary?x=1"},
		{"https:n:" + own + "/proxy/configz", "200 GET /configz"},
		{"http:far:" + strconv.Itoa(int(port)) + "/proxy/x", "200 GET /x "},
		{"http:n:1/proxy/x", "400 BadRequest: address not allowed"}, // 127.0.0.1
		{"missing/proxy/x", `404 NotFound: nodes "missing" not found`},
	} {
		if got := c.do("GET", "/api/v1/nodes/"+x.path, "").told(); got != x.want {
			t.Errorf("%s: got %q, want %q", x.path, got, x.want)
		}
	}
}

package aggregate_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	certutil "k8s.io/client-go/util/cert"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregator "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset/typed/apiregistration/v1"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/assembly"
	"github.com/knarr-dev/knarr/registry/registrytest"
)

// A pair is a certificate that is its own authority.
type pair struct {
	pem []byte
	tls tls.Certificate
}

var (
	serving = sync.OnceValue(func() pair { return certify("api.default.svc") })
	front   = sync.OnceValue(func() pair { return certify("front-proxy-client") })
)

func certify(name string) pair {
	cert, key, err := certutil.GenerateSelfSignedCertKey(name, nil, nil)
	if err != nil {
		panic(err)
	}
	c, err := tls.X509KeyPair(cert, key)
	if err != nil {
		panic(err)
	}
	return pair{cert, c}
}

// at is the address of the service that remotes are behind: any on loopback,
// so that no service proxy is needed.
const at = "127.0.0.5"

// remote runs another server.
func remote(t testing.TB, h http.Handler) *net.TCPAddr {
	t.Helper()
	l, err := net.Listen("tcp", at+":0")
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	if err := s.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	s.Listener = l
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{Certificates: []tls.Certificate{serving().tls}, ClientAuth: tls.RequestClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	t.Cleanup(s.CloseClientConnections)
	return l.Addr().(*net.TCPAddr)
}

// toys is a server of toys.example.com/v1, which answers what it is asked.
type toys struct {
	mu    sync.Mutex
	v2    string // its OpenAPI document
	old   bool   // it knows no aggregated discovery
	seen  *http.Request
	hang  string // a path that it does not answer
	plain []metav1.APIResource
}

func newToys() *toys {
	return &toys{
		v2:    `{"swagger":"2.0","info":{"title":"toys","version":"1"},"paths":{"/apis/toys.example.com/v1/toys":{"get":{"responses":{"200":{"description":"OK","schema":{"$ref":"#/definitions/com.example.Toy"}}}}},"/version":{"get":{"responses":{"200":{"description":"OK","schema":{"$ref":"#/definitions/com.example.Other"}}}}}},"definitions":{"com.example.Toy":{"type":"object"},"com.example.Other":{"type":"object"}}}`,
		plain: []metav1.APIResource{{Name: "toys", SingularName: "toy", Namespaced: true, Kind: "Toy", Verbs: metav1.Verbs{"get", "list", "watch"}}, {Name: "toys/status", Namespaced: true, Kind: "Toy", Verbs: metav1.Verbs{"get"}}},
	}
}

func (s *toys) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	hang, v2, old := s.hang, s.v2, s.old
	s.mu.Unlock()
	if hang != "" && strings.HasPrefix(r.URL.Path, hang) {
		<-r.Context().Done()
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/apis/toys.example.com/v1":
		_ = json.NewEncoder(w).Encode(&metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: "toys.example.com/v1", APIResources: s.plain})
	case "/apis":
		if old {
			fmt.Fprint(w, `{"kind":"APIGroupList","apiVersion":"v1","groups":[]}`)
			return
		}
		w.Header().Set("Content-Type", "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList")
		fmt.Fprint(w, `{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2beta1","items":[{"metadata":{"name":"toys.example.com"},"versions":[{"version":"v1","resources":[{"resource":"toys","responseKind":{"group":"toys.example.com","version":"v1","kind":"Toy"},"scope":"Namespaced","singularResource":"toy","verbs":["get","list","watch"]}]}]}]}`)
	case "/openapi/v2":
		fmt.Fprint(w, v2)
	case "/apis/toys.example.com/v1/namespaces/default/toys":
		s.mu.Lock()
		s.seen = r.Clone(context.WithoutCancel(r.Context()))
		s.mu.Unlock()
		if r.URL.Query().Get("watch") != "" {
			fmt.Fprint(w, `{"type":"ADDED","object":{"apiVersion":"toys.example.com/v1","kind":"Toy","metadata":{"name":"a"}}}`+"\n")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		fmt.Fprint(w, `{"kind":"ToyList","apiVersion":"toys.example.com/v1","metadata":{},"items":[]}`)
	case "/apis/toys.example.com/v1/namespaces/default/toys/a/talk":
		talk(w, r)
	default:
		http.NotFound(w, r)
	}
}

// talk sends back in capitals what it is sent, by a protocol of its own.
func talk(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer func() { _ = conn.Close() }() // it was open only to talk
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("X-Remote-User"))
	line, _ := rw.ReadString('\n')
	fmt.Fprint(conn, strings.ToUpper(line))
}

// world is a server with what its tests need.
type world struct {
	*registrytest.Server

	cfg  *rest.Config
	kube kubernetes.Interface
	apis aggregator.APIServiceInterface
}

func start(t testing.TB, opts ...registrytest.Option) *world {
	t.Helper()
	opts = append(opts, registrytest.Services("127.0.0.0/24"), registrytest.With(func(c *assembly.Config) {
		c.ProxyClient = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return new(front().tls), nil }
	}))
	w := &world{Server: registrytest.Run(t, opts...)}
	w.cfg = w.Client(registrytest.Admin)
	w.kube = kubernetes.NewForConfigOrDie(w.cfg)
	w.apis = aggregator.NewForConfigOrDie(w.cfg).APIServices()
	return w
}

// serve puts a service before a remote, and an endpoint that only stands for one.
func (w *world) serve(t testing.TB, port int) {
	t.Helper()
	_, err := w.kube.CoreV1().Services("default").Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "api"},
		Spec:       corev1.ServiceSpec{ClusterIP: at, Ports: []corev1.ServicePort{{Port: int32(port)}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.endpoints(t, "1.2.3.4")
}

func (w *world) endpoints(t testing.TB, ips ...string) {
	t.Helper()
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "api", Labels: map[string]string{discoveryv1.LabelServiceName: "api"}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: new(""), Port: new(int32(443))}},
	}
	for _, ip := range ips {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{ip}})
	}
	c := w.kube.DiscoveryV1().EndpointSlices("default")
	_ = c.Delete(t.Context(), "api", metav1.DeleteOptions{})
	if _, err := c.Create(t.Context(), slice, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) register(t testing.TB, port int, ca []byte) {
	t.Helper()
	_, err := w.apis.Create(t.Context(), &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: "v1.toys.example.com"},
		Spec: apiregistrationv1.APIServiceSpec{
			Group: "toys.example.com", Version: "v1", GroupPriorityMinimum: 2000, VersionPriority: 10, CABundle: ca,
			Service: &apiregistrationv1.ServiceReference{Namespace: "default", Name: "api", Port: new(int32(port))},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// condition waits until the condition has a reason, and returns its message.
func (w *world) condition(t testing.TB, reason string) (message string) {
	t.Helper()
	var have any
	await(t, func() string { return fmt.Sprintf("reason %s, but it is %+v", reason, have) }, func() bool {
		s, err := w.apis.Get(t.Context(), "v1.toys.example.com", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range s.Status.Conditions {
			have, message = c, c.Message
			if c.Reason == reason {
				return true
			}
		}
		return false
	})
	return message
}

func await(t testing.TB, what func() string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.After(20 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("no %s", what())
		}
	}
}

func text(s string) func() string { return func() string { return s } }

var toy = schema.GroupVersionResource{Group: "toys.example.com", Version: "v1", Resource: "toys"}

func ask(ctx context.Context, w *world) error {
	_, err := dynamic.NewForConfigOrDie(w.cfg).Resource(toy).Namespace("default").List(ctx, metav1.ListOptions{})
	return err
}

// TestLocal: there is an APIService for each version that the server serves,
// also while a definition says that there is one.
func TestLocal(t *testing.T) {
	w := start(t)
	s, err := w.apis.Get(t.Context(), "v1.apps", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := s.Status.Conditions
	if len(c) != 1 || c[0].Reason != "Local" || c[0].LastTransitionTime.IsZero() || s.Labels["kube-aggregator.kubernetes.io/automanaged"] != "onstart" {
		t.Errorf("v1.apps is %+v", s)
	}
	crds := dynamic.NewForConfigOrDie(w.cfg).Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	if _, err := crds.Create(t.Context(), definition(t), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	const name = "v1.toys.example.com"
	there := func() bool {
		s, err = w.apis.Get(t.Context(), name, metav1.GetOptions{})
		return err == nil
	}
	await(t, text("APIService of a definition"), there)
	if s.Labels["kube-aggregator.kubernetes.io/automanaged"] != "true" || s.Spec.GroupPriorityMinimum != 1000 || s.Spec.VersionPriority != 100 || s.Status.Conditions[0].Reason != "Local" {
		t.Errorf("%s is %+v", name, s)
	}
	uid := s.UID
	if err := w.apis.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, text("other APIService after one was deleted"), func() bool { return there() && s.UID != uid })
	if err := crds.Delete(t.Context(), "toys.toys.example.com", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, text("end of the APIService with its definition"), func() bool { return !there() && apierrors.IsNotFound(err) })
}

// TestAvailability: the condition says what keeps a remote from being served.
func TestAvailability(t *testing.T) {
	w := start(t)
	port := remote(t, newToys()).Port
	w.register(t, port, serving().pem)
	if got, want := w.condition(t, "ServiceNotFound"), `service/api in "default" is not present`; got != want {
		t.Errorf("message %q, want %q", got, want)
	}
	if err := ask(t.Context(), w); !apierrors.IsServiceUnavailable(err) || !strings.Contains(err.Error(), "the server is currently unable to handle the request") {
		t.Errorf("while it is away: %v", err)
	}
	w.serve(t, port)
	if got := w.condition(t, "Passed"); got != "all checks passed" {
		t.Errorf("message %q", got)
	}
	if err := ask(t.Context(), w); err != nil {
		t.Error(err)
	}
	w.endpoints(t)
	if got, want := w.condition(t, "MissingEndpoints"), `endpointslices for service/api in "default" have no addresses with port name ""`; got != want {
		t.Errorf("message %q, want %q", got, want)
	}
	if err := ask(t.Context(), w); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("without endpoints: %v", err)
	}
	s, err := w.apis.Get(t.Context(), "v1.toys.example.com", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.Spec.CABundle = front().pem // which has not signed the remote's certificate
	if _, err := w.apis.Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.endpoints(t, "1.2.3.4")
	if got := w.condition(t, "FailedDiscoveryCheck"); !strings.Contains(got, "failing or missing response from https://"+at) || !strings.Contains(got, "x509") {
		t.Errorf("message %q", got)
	}
	if err := w.apis.Delete(t.Context(), "v1.toys.example.com", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, text("404 at the end"), func() bool { return apierrors.IsNotFound(ask(t.Context(), w)) })
}

// TestIdentity: a request is passed on as its user's, in words that only this
// server can say.
func TestIdentity(t *testing.T) {
	w, s := start(t, registrytest.TLS), newToys()
	port := remote(t, s).Port
	w.serve(t, port)
	w.register(t, port, serving().pem)
	w.condition(t, "Passed")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.URL+"/apis/toys.example.com/v1/namespaces/default/toys?limit=5", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{
		"Authorization": {"Bearer admin"}, "X-Remote-User": {"somebody"}, "X-Remote-Group": {"any"}, "X-Remote-Extra-A": {"b"},
		"Impersonate-User": {"jane"}, "Impersonate-Group": {"system:masters"}, "Impersonate-Uid": {"7"}, "Impersonate-Extra-Hair": {"red"},
	}
	resp, err := insecure().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "ToyList") {
		t.Fatalf("%s: %s", resp.Status, body)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.seen.Header
	if h.Get("Authorization") != "" || h.Get("Impersonate-User") != "" {
		t.Errorf("credentials were passed on: %v", h)
	}
	if got := h["X-Remote-User"]; !slices.Equal(got, []string{"jane"}) {
		t.Errorf("user %v", got)
	}
	if got := h["X-Remote-Group"]; !slices.Equal(got, []string{"system:masters", "system:authenticated"}) {
		t.Errorf("groups %v", got)
	}
	if h.Get("X-Remote-Uid") != "7" || h.Get("X-Remote-Extra-Hair") != "red" || h.Get("X-Remote-Extra-A") != "" {
		t.Errorf("headers %v", h)
	}
	if s.seen.URL.RawQuery != "limit=5" {
		t.Errorf("query %q", s.seen.URL.RawQuery)
	}
	leaf, err := x509.ParseCertificate(front().tls.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if certs := s.seen.TLS.PeerCertificates; len(certs) == 0 || !certs[0].Equal(leaf) {
		t.Error("the remote was not shown the certificate of the front proxy")
	}
}

func insecure() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
}

// TestForbidden: what a user may not do is not passed on.
func TestForbidden(t *testing.T) {
	w, s := start(t), newToys()
	port := remote(t, s).Port
	w.serve(t, port)
	w.register(t, port, serving().pem)
	w.condition(t, "Passed")
	w.cfg = w.Client(registry.User{Name: "jane"})
	if err := ask(t.Context(), w); !apierrors.IsForbidden(err) {
		t.Errorf("a request that is not allowed: %v", err)
	}
}

// TestStreams: watches and upgraded connections pass.
func TestStreams(t *testing.T) {
	w := start(t, registrytest.TLS)
	port := remote(t, newToys()).Port
	w.serve(t, port)
	w.register(t, port, serving().pem)
	w.condition(t, "Passed")
	events, err := dynamic.NewForConfigOrDie(w.cfg).Resource(toy).Namespace("default").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-events.ResultChan():
		if e.Type != "ADDED" {
			t.Errorf("event %+v", e)
		}
	case <-time.After(10 * time.Second):
		t.Error("no event")
	}
	events.Stop()

	conn, err := tls.Dial("tcp", strings.TrimPrefix(w.URL, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // it was open only to talk
	fmt.Fprintf(conn, "GET /apis/toys.example.com/v1/namespaces/default/toys/a/talk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\nConnection: Upgrade\r\nUpgrade: talk\r\n\r\n")
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // likewise
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Upgrade") != "admin" {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	fmt.Fprint(conn, "hello\n")
	if line, err := in.ReadString('\n'); err != nil || line != "HELLO\n" {
		t.Errorf("%q: %v", line, err)
	}
}

// resources are what aggregated discovery tells of a group, and whether all
// was to be had.
func resources(t testing.TB, w *world) ([]string, error) {
	t.Helper()
	_, lists, err := discovery.NewDiscoveryClientForConfigOrDie(w.cfg).ServerGroupsAndResources()
	var names []string
	for _, l := range lists {
		if l.GroupVersion == "toys.example.com/v1" {
			for _, r := range l.APIResources {
				names = append(names, r.Kind+" "+r.Name)
			}
		}
	}
	return names, err
}

// TestDocuments: what a remote serves is told with what this server does.
func TestDocuments(t *testing.T) {
	for _, old := range []bool{false, true} {
		t.Run(fmt.Sprintf("old=%v", old), func(t *testing.T) {
			w, s := start(t), newToys()
			s.old = old
			port := remote(t, s).Port
			w.serve(t, port)
			w.register(t, port, serving().pem)
			w.condition(t, "Passed")
			want := []string{"Toy toys"}
			if old {
				want = append(want, "Toy toys/status")
			}
			var have []string
			await(t, func() string { return fmt.Sprintf("discovery of %v, but of %v", want, have) }, func() bool {
				var err error
				have, err = resources(t, w)
				return err == nil && slices.Equal(have, want)
			})
			groups, err := w.kube.Discovery().ServerGroups()
			if err != nil {
				t.Fatal(err)
			}
			if last := groups.Groups[len(groups.Groups)-1]; last.Name != "toys.example.com" || groups.Groups[1].Name != "apiregistration.k8s.io" {
				t.Errorf("the last group is %s, the first %s", last.Name, groups.Groups[1].Name)
			}
			const path = "/apis/toys.example.com/v1/toys"
			doc := ""
			await(t, func() string { return path + " in the OpenAPI document, which has " + fmt.Sprint(len(doc)) + " bytes" }, func() bool {
				text, err := w.kube.Discovery().RESTClient().Get().AbsPath("/openapi/v2").SetHeader("Accept", "application/json").DoRaw(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				doc = string(text)
				return strings.Contains(doc, path)
			})
			if strings.Contains(doc, "com.example.Other") || !strings.Contains(doc, "com.example.Toy") || !strings.Contains(doc, "/api/v1/pods") {
				t.Error("the document is not that of both servers, or has more than the paths need")
			}
			v3, err := w.kube.Discovery().OpenAPIV3().Paths()
			if err != nil {
				t.Fatal(err)
			}
			made, ok := v3["apis/toys.example.com/v1"]
			if !ok {
				t.Fatal("no v3 document")
			}
			if text, err := made.Schema("application/json"); err != nil || !strings.Contains(string(text), `"openapi":"3.0`) || !strings.Contains(string(text), path) {
				t.Errorf("the v3 document is %s: %v", text, err)
			}
		})
	}
}

// TestRubbish: a remote that answers rubbish, or nothing, spoils nothing but
// what it is to serve.
func TestRubbish(t *testing.T) {
	w, s := start(t), newToys()
	s.v2 = `{"swagger":"2.0","paths":{"/apis/toys.example.com/v1/toys":{"get":{"parameters":[{"in":"nowhere"}]}}}}`
	s.plain = nil
	port := remote(t, s).Port
	w.serve(t, port)
	w.register(t, port, serving().pem)
	w.condition(t, "Passed")
	await(t, text("discovery"), func() bool {
		names, err := resources(t, w)
		return err == nil && len(names) == 1
	})
	// The bytes of protobuf are made of what is parsed, and so show whether it could be.
	if _, err := w.kube.Discovery().OpenAPISchema(); err != nil {
		t.Error(err)
	}
	s.mu.Lock()
	s.hang = "/"
	s.mu.Unlock()
	w.endpoints(t, "1.2.3.5") // so that it is looked at again
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := w.kube.CoreV1().Pods("default").List(ctx, metav1.ListOptions{}); err != nil {
		t.Errorf("while the remote hangs: %v", err)
	}
	if _, err := w.kube.Discovery().ServerGroups(); err != nil {
		t.Errorf("while the remote hangs: %v", err)
	}
	w.condition(t, "FailedDiscoveryCheck")
	await(t, text("word that discovery is not whole"), func() bool {
		_, err := resources(t, w)
		return discovery.IsGroupDiscoveryFailedError(err)
	})
}

// Package registrytest runs a whole API server in the process of a test: on
// a store in memory, reached without a network unless that is asked for.
package registrytest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/assembly"
	"github.com/knarr-dev/knarr/registry/etcd"
	"github.com/knarr-dev/knarr/registry/memory"
)

// Admin may do everything.
var Admin = registry.User{Name: "admin", Groups: []string{registry.SystemMasters}}

// A Server is a running API server.
type Server struct {
	*assembly.Server

	Config assembly.Config
	URL    string // "" where it is not reached by TLS
	tls    rest.TLSClientConfig
}

// An Option changes how a server is run.
type Option func(t testing.TB, s *settings)

type settings struct {
	assembly.Config

	tls    bool
	header time.Duration // how long a client may take for a request's headers; 0 for as ever
}

// TLS has the server reached by TLS on a local port.
func TLS(_ testing.TB, s *settings) { s.tls = true }

// HeaderTime gives clients so long to send the headers of a request.
func HeaderTime(d time.Duration) Option {
	return func(_ testing.TB, s *settings) { s.header = d }
}

// Etcd puts the server on an etcd in this process, with its data on disk.
func Etcd(t testing.TB, s *settings) {
	db, err := etcd.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	s.Store, s.MaxOps = db.Store(), 4096
}

// Services gives services addresses of a range.
func Services(cidr string) Option {
	return func(_ testing.TB, s *settings) {
		s.Config.Services.Ranges = append(s.Config.Services.Ranges, netip.MustParsePrefix(cidr))
	}
}

// With lets change change what the server is made of.
func With(change func(*assembly.Config)) Option {
	return func(_ testing.TB, s *settings) { change(&s.Config) }
}

// Start runs a server until the test ends and returns how its administrator
// reaches it. The test fails if the server leaves goroutines behind.
func Start(t testing.TB, opts ...Option) *rest.Config { return Run(t, opts...).Client(Admin) }

// adminToken is the administrator's where the server is reached by TLS.
const adminToken = "admin"

// Run is Start for who wants more of the server than its client side.
func Run(t testing.TB, opts ...Option) *Server {
	t.Helper()
	set := settings{Config: assembly.Config{
		Store: memory.New(), Address: "127.0.0.1:6443", Host: "test",
		Accounts: assembly.Accounts{Issuers: []string{"https://kubernetes.default.svc"}, Signer: signer()},
	}}
	for _, o := range opts {
		o(t, &set)
	}
	if set.tls && set.TokenFile == "" {
		set.TokenFile = filepath.Join(t.TempDir(), "tokens.csv")
		line := fmt.Sprintf("%s,%s,,%s\n", adminToken, Admin.Name, registry.SystemMasters)
		if err := os.WriteFile(set.TokenFile, []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server, err := assembly.New(set.Config)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Server: server, Config: set.Config}
	s.run(t)
	if set.tls {
		s.listen(t, set.header)
	}
	return s
}

// signer signs the tokens of all tests: to make a key takes time.
var signer = sync.OnceValue(func() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
})

func (s *Server) run(t testing.TB) {
	servers.add(1)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Server.Run(ctx) }()
	t.Cleanup(func() {
		s.Handler.Stop()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the API server ended: %v", err)
		}
		servers.add(-1)
		servers.check(t)
	})
	select {
	case <-s.Ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("the API server does not start: %v", err)
	}
}

func (s *Server) listen(t testing.TB, header time.Duration) {
	listener := httptest.NewUnstartedServer(nil)
	listener.Config = s.Handler.HTTP()
	listener.Config.ReadHeaderTimeout = cmp.Or(header, listener.Config.ReadHeaderTimeout)
	listener.EnableHTTP2 = true
	listener.StartTLS()
	t.Cleanup(listener.Close)
	t.Cleanup(s.Handler.Stop) // before: watches do not end by themselves
	s.URL = listener.URL
	s.tls = rest.TLSClientConfig{Insecure: true}
}

// Client returns how a user reaches the server.
func (s *Server) Client(user registry.User) *rest.Config {
	cfg := &rest.Config{QPS: -1}
	if s.URL == "" {
		cfg.Host, cfg.Transport = "http://knarr", s.As(user)
		return cfg
	}
	cfg.Host, cfg.BearerToken, cfg.TLSClientConfig = s.URL, adminToken, s.tls
	if user.Name != Admin.Name {
		cfg.Impersonate = rest.ImpersonationConfig{UserName: user.Name, UID: user.UID, Groups: user.Groups, Extra: user.Extra}
	}
	return cfg
}

// servers counts those that run, so that the last to end can tell whether
// anything of them is left.
var servers count

type count struct {
	mu sync.Mutex
	n  int
}

func (c *count) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += n
}

func (c *count) none() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n == 0
}

// patience is how long goroutines may take to end.
const patience = 10 * time.Second

// check fails the test where goroutines of a server go on though no server
// does.
func (c *count) check(t testing.TB) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for {
		left := leftover()
		if len(left) == 0 || !c.none() {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Errorf("the API server has left %d goroutines:\n%s", len(left), strings.Join(left, "\n\n"))
			return
		}
	}
}

// leftover are the stacks of goroutines that run the server's code.
func leftover() (stacks []string) {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	for stack := range bytes.SplitSeq(buf, []byte("\n\n")) {
		ours := bytes.Contains(stack, []byte("knarr/registry/"))
		test := bytes.Contains(stack, []byte("registrytest.")) || bytes.Contains(stack, []byte("testing.tRunner"))
		if ours && !test {
			stacks = append(stacks, string(stack))
		}
	}
	return stacks
}

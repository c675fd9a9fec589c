package parts

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/knarr-dev/knarr/ctrl/engine"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/inproc"
)

// A Door is the way by which a part reaches the API server, as the user that
// the part is and as the service accounts that it acts for.
type Door struct {
	// Informers are shared by all parts that have the same Door.
	Informers informers.SharedInformerFactory

	handler http.Handler // of the server, where it is in this process

	own *rest.Config
	as  func(account string) *rest.Config

	mu      sync.Mutex
	clients map[string]kubernetes.Interface
	metas   map[string]metadata.Interface
}

// newDoor returns the door that own and as lead through. It shares the
// informers of another one, unless that is nil.
func newDoor(own *rest.Config, as func(account string) *rest.Config, shared *Door) (*Door, error) {
	d := &Door{own: own, as: as, clients: map[string]kubernetes.Interface{}, metas: map[string]metadata.Interface{}}
	client, err := d.make("")
	if err != nil {
		return nil, err
	}
	if shared != nil {
		d.Informers = shared.Informers
		return d, nil
	}
	d.Informers = informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(engine.Trim))
	return d, nil
}

// settings are those of all clients: the server's limits protect it, not the
// clients' own, and protobuf costs both sides the least.
func settings(c *rest.Config) *rest.Config {
	c.QPS, c.Burst = -1, 0
	c.ContentType, c.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	c.DisableCompression = true
	return c
}

// InProcess is the door to a server of this process, as the given user. It
// shares the informers of another one, unless that is nil.
func InProcess(handler http.Handler, shared *Door, user, agent string, groups ...string) (*Door, error) {
	config := func(u registry.User, agent string) *rest.Config {
		return settings(&rest.Config{Host: "http://in-process", UserAgent: agent, Transport: &inproc.Transport{Handler: handler, User: u}})
	}
	own := registry.User{Name: user, Groups: append(groups, registry.Authenticated)}
	d, err := newDoor(config(own, agent), func(account string) *rest.Config {
		return config(registry.User{
			Name:   "system:serviceaccount:kube-system:" + account,
			Groups: []string{"system:serviceaccounts", "system:serviceaccounts:kube-system", registry.Authenticated},
		}, agent+"/"+account)
	}, shared)
	if err == nil {
		d.handler = handler
	}
	return d, err
}

// As is another door to the same server of this process, for another user. It
// shares the informers.
func (d *Door) As(user, agent string, groups ...string) (*Door, error) {
	return InProcess(d.handler, d, user, agent, groups...)
}

// FromKubeconfig is the door that a kubeconfig describes. The accounts that
// the part acts for have tokens that it asks the server for.
func FromKubeconfig(path, agent string) (*Door, error) {
	if path == "" {
		return nil, errors.New("--kubeconfig is needed: it says where the API server is, and who this is")
	}
	own, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	settings(own)
	own.UserAgent = agent
	var d *Door
	d, err = newDoor(own, func(account string) *rest.Config {
		cfg := rest.AnonymousClientConfig(own)
		cfg.UserAgent = agent + "/" + account
		cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return &accountTokens{next: next, account: account, client: d.Client}
		})
		return cfg
	}, nil)
	return d, err
}

// Client returns the client that acts as a service account of kube-system,
// or as the part itself where account is "".
func (d *Door) Client(account string) kubernetes.Interface {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.clients[account]; c != nil {
		return c
	}
	c, err := d.make(account)
	if err != nil {
		// The part's own client was made of the same settings.
		panic(fmt.Sprintf("client for account %s: %v", account, err))
	}
	return c
}

func (d *Door) make(account string) (kubernetes.Interface, error) {
	c, err := kubernetes.NewForConfig(d.config(account))
	if err != nil {
		return nil, err
	}
	d.clients[account] = c
	return c, nil
}

func (d *Door) config(account string) *rest.Config {
	if account == "" {
		return d.own
	}
	return d.as(account)
}

// Metadata is Client for the metadata of all kinds.
func (d *Door) Metadata(account string) metadata.Interface {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.metas[account]; c != nil {
		return c
	}
	c, err := metadata.NewForConfig(metadata.ConfigFor(d.config(account)))
	if err != nil {
		panic(fmt.Sprintf("metadata client for account %s: %v", account, err)) // as in Client
	}
	d.metas[account] = c
	return c
}

// Discovery tells what the server serves.
func (d *Door) Discovery() discovery.DiscoveryInterface { return d.Client("").Discovery() }

// accountTokens sends requests with the token of a service account, which it
// asks for when the last is near its end.
type accountTokens struct {
	next    http.RoundTripper
	account string
	client  func(account string) kubernetes.Interface

	mu    sync.Mutex
	token string
	until time.Time
}

// RoundTrip is part of http.RoundTripper.
func (t *accountTokens) RoundTrip(r *http.Request) (*http.Response, error) {
	token, err := t.get(r.Context())
	if err != nil {
		return nil, fmt.Errorf("token of service account %s: %w", t.account, err)
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+token)
	return t.next.RoundTrip(r)
}

func (t *accountTokens) get(ctx context.Context) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Now().Before(t.until) {
		return t.token, nil
	}
	accounts := t.client("").CoreV1().ServiceAccounts(metav1.NamespaceSystem)
	want := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(3600))}}
	got, err := accounts.CreateToken(ctx, t.account, want, metav1.CreateOptions{})
	if apierrors.IsNotFound(err) {
		made := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: t.account}}
		if _, err = accounts.Create(ctx, made, metav1.CreateOptions{}); err == nil || apierrors.IsAlreadyExists(err) {
			got, err = accounts.CreateToken(ctx, t.account, want, metav1.CreateOptions{})
		}
	}
	if err != nil {
		return "", err
	}
	now := time.Now()
	t.token = got.Status.Token
	t.until = now.Add(got.Status.ExpirationTimestamp.Sub(now) * 4 / 5)
	return t.token, nil
}

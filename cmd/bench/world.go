package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/knarr-dev/knarr/registry/etcd"
)

// A world is an API server, its etcd and the plain handler, and who may use
// them.
type world struct {
	options

	dir   string
	store *etcd.Store // on the same etcd
	api   *endpoint
	plain *endpoint
	procs []*process

	passing atomic.Int64 // pods that have been made in the namespace spare
}

// An endpoint is a server that can be asked.
type endpoint struct {
	*process

	url string
	tls *tls.Config
}

// create starts a world, which must be closed.
func create(ctx context.Context, o options) (*world, error) {
	w := &world{options: o}
	if err := w.begin(ctx); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// begin starts everything and waits until it serves.
func (w *world) begin(ctx context.Context) (err error) {
	if w.dir, err = os.MkdirTemp("", "knarr-bench-"); err != nil {
		return err
	}
	if err := w.certs(ctx); err != nil {
		return err
	}
	etcdURL, err := w.startEtcd(ctx)
	if err != nil {
		return err
	}
	if w.api, err = w.serve("apiserver", func(at string) []string { return w.apiserver(at, "--etcd-servers="+etcdURL) }); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	w.plain, err = w.serve("plain", func(at string) []string {
		return []string{self, "plain", "-listen=" + at, "-etcd=" + etcdURL, "-cert=" + w.pki("apiserver.crt"), "-key=" + w.pki("apiserver.key")}
	})
	if err != nil {
		return err
	}
	for _, e := range []*endpoint{w.api, w.plain} {
		if err := e.wait(ctx, func() error { return e.ready(ctx) }); err != nil {
			return err
		}
	}
	return w.furnish(ctx)
}

// close ends everything and leaves nothing of it.
func (w *world) close() error {
	var errs []error
	if w.store != nil {
		errs = append(errs, w.store.Close())
	}
	for _, p := range slices.Backward(w.procs) {
		errs = append(errs, p.stop())
	}
	return errors.Join(append(errs, os.RemoveAll(w.dir))...)
}

// pki is a file of credentials.
func (w *world) pki(name string) string { return filepath.Join(w.dir, "pki", name) }

// certs makes the credentials.
func (w *world) certs(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, filepath.Join(w.bin, "knarr"), "certs", "--dir="+filepath.Join(w.dir, "pki"), "--node-name=bench").CombinedOutput()
	if err != nil {
		return fmt.Errorf("knarr certs: %w\n%s", err, out)
	}
	return nil
}

// startEtcd starts etcd and waits until it can be used.
func (w *world) startEtcd(ctx context.Context) (url string, err error) {
	client, err := address()
	if err != nil {
		return "", err
	}
	peer, err := address()
	if err != nil {
		return "", err
	}
	url = "http://" + client
	p, err := launch(w.dir, "etcd", filepath.Join(w.bin, "etcd"), "--data-dir="+filepath.Join(w.dir, "etcd"), "--log-level=warn",
		"--listen-client-urls="+url, "--advertise-client-urls="+url, "--listen-peer-urls=http://"+peer)
	if err != nil {
		return "", err
	}
	w.procs = append(w.procs, p)
	if err := p.wait(ctx, func() error { return reachable(client) }); err != nil {
		return "", err
	}
	if w.store, err = etcd.Dial([]string{url}, nil); err != nil {
		return "", err
	}
	return url, p.wait(ctx, func() error {
		_, err := w.store.Revision(ctx)
		return err
	})
}

func reachable(addr string) error {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err
	}
	return c.Close()
}

// apiserver is how the API server is run to serve at an address.
func (w *world) apiserver(at string, more ...string) []string {
	host, port, _ := net.SplitHostPort(at) // as address has made it
	return append([]string{
		filepath.Join(w.bin, "knarr"), "apiserver", "--bind-address=" + host, "--secure-port=" + port,
		"--client-ca-file=" + w.pki("ca.crt"), "--tls-cert-file=" + w.pki("apiserver.crt"), "--tls-private-key-file=" + w.pki("apiserver.key"),
		"--service-account-key-file=" + w.pki("sa.pub"), "--service-account-signing-key-file=" + w.pki("sa.key"),
		"--kubelet-client-certificate=" + w.pki("apiserver-kubelet-client.crt"), "--kubelet-client-key=" + w.pki("apiserver-kubelet-client.key"),
		"--kubelet-certificate-authority=" + w.pki("ca.crt"),
	}, more...)
}

// serve starts a server at a free address.
func (w *world) serve(name string, args func(at string) []string) (*endpoint, error) {
	at, err := address()
	if err != nil {
		return nil, err
	}
	e := &endpoint{url: "https://" + at}
	if e.tls, err = w.credentials(); err != nil {
		return nil, err
	}
	if e.process, err = launch(w.dir, name, args(at)...); err != nil {
		return nil, err
	}
	w.procs = append(w.procs, e.process)
	return e, nil
}

// credentials are the administrator's.
func (w *world) credentials() (*tls.Config, error) {
	ca, err := os.ReadFile(w.pki("ca.crt"))
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(w.pki("admin.crt"), w.pki("admin.key"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, Certificates: []tls.Certificate{pair}}, nil
}

// ready asks the endpoint whether it is.
func (e *endpoint) ready(ctx context.Context) error {
	c := e.client()
	defer c.CloseIdleConnections()
	return e.do(ctx, c, call{path: "/readyz"}, nil)
}

// client is one with a connection of its own, as programs apart have.
func (e *endpoint) client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:    e.tls.Clone(),
		ForceAttemptHTTP2:  true,
		DisableCompression: true, // else the measure would be of gzip
		MaxConnsPerHost:    1,
	}}
}

// furnish makes where pods go, namespaces and nodes, and the account that they
// run under, which a controller would make.
func (w *world) furnish(ctx context.Context) error {
	c := w.api.client()
	defer c.CloseIdleConnections()
	make := func(path, name string) error {
		body := fmt.Appendf(nil, `{"metadata":{"name":%q}}`, name)
		return w.api.do(ctx, c, call{method: http.MethodPost, path: path, sent: jsonMedia, body: body, want: http.StatusCreated}, nil)
	}
	for _, ns := range []string{crowd, watched, spare} {
		if err := errors.Join(make("/api/v1/namespaces", ns), make("/api/v1/namespaces/"+ns+"/serviceaccounts", "default")); err != nil {
			return err
		}
	}
	for i := 0; i < w.objects; i += nodeShare {
		if err := make("/api/v1/nodes", nodeName(i)); err != nil {
			return err
		}
	}
	return nil
}

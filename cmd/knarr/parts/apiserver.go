// Package parts runs the parts of a cluster: the API server, the scheduler,
// the controllers, the kubelet and the service proxy, each from options that
// flags with the stock components' names set. What runs them all in one
// process fills in the same options.
package parts

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/kubelet/certs"
	"github.com/knarr-dev/knarr/registry/alloc"
	"github.com/knarr-dev/knarr/registry/assembly"
	"github.com/knarr-dev/knarr/registry/authn"
	"github.com/knarr-dev/knarr/registry/connect"
	"github.com/knarr-dev/knarr/registry/etcd"
	"github.com/knarr-dev/knarr/registry/server"
)

// An APIServer is the options of the API server.
type APIServer struct {
	EtcdOptions
	KubeletOptions

	BindAddress, AdvertiseAddress string
	SecurePort                    int
	CertFile, KeyFile, CertDir    string
	ServiceRange, NodePorts       string
	Issuers, AccountKeys          []string
	SigningKey                    string
	ProxyCert, ProxyKey           string       // shown to servers behind this one
	Listener                      net.Listener // opened already; else SecurePort is
	Assembly                      assembly.Config

	anonymous, privileged bool
	maxTokenLife          time.Duration
	extendTokens          bool
}

// EtcdOptions say where everything is kept.
type EtcdOptions struct {
	EtcdServers               []string
	EtcdCA, EtcdCert, EtcdKey string
	EtcdDir                   string // for an etcd in this process, where there are no EtcdServers
}

// KubeletOptions say how kubelets are reached.
type KubeletOptions struct {
	KubeletCert, KubeletKey, KubeletCA string
	KubeletAddresses                   []string // types, in order of preference
}

// Flags adds the flags that set the options.
func (o *APIServer) Flags(fs *pflag.FlagSet) {
	a := &o.Assembly
	fs.StringSliceVar(&o.EtcdServers, "etcd-servers", nil, "etcd servers to connect to (scheme://host:port), comma separated; an etcd in this process where there are none")
	fs.StringVar(&o.EtcdCA, "etcd-cafile", "", "authorities that sign etcd's certificates")
	fs.StringVar(&o.EtcdCert, "etcd-certfile", "", "certificate to show to etcd")
	fs.StringVar(&o.EtcdKey, "etcd-keyfile", "", "key of the certificate to show to etcd")
	fs.StringVar(&o.EtcdDir, "data-dir", "/var/lib/knarr/etcd", "directory of the etcd in this process, where there are no --etcd-servers")
	fs.StringVar(&o.BindAddress, "bind-address", "0.0.0.0", "address to serve on")
	fs.StringVar(&o.AdvertiseAddress, "advertise-address", "", "address that the rest of the cluster reaches this server at; found out where empty")
	fs.IntVar(&o.SecurePort, "secure-port", 6443, "port to serve HTTPS on")
	fs.StringVar(&o.CertFile, "tls-cert-file", "", "certificate to serve with; made in --cert-dir where there is none")
	fs.StringVar(&o.KeyFile, "tls-private-key-file", "", "key of --tls-cert-file")
	fs.StringVar(&o.CertDir, "cert-dir", "/var/run/kubernetes", "directory for a certificate that is made")
	fs.StringVar(&a.ClientCA, "client-ca-file", "", "authorities: who shows a certificate of theirs is the user that it names")
	fs.StringVar(&a.TokenFile, "token-auth-file", "", "file of tokens and the users that they stand for, in CSV")
	fs.BoolVar(&o.anonymous, "anonymous-auth", true, "let requests without credentials in as system:anonymous")
	fs.StringSliceVar(&a.Modes, "authorization-mode", []string{"Node", "RBAC"}, "what authorizes requests, in order: Node, RBAC, AlwaysAllow")
	fs.StringVar(&o.ServiceRange, "service-cluster-ip-range", "10.96.0.0/16", "range of addresses for services; one for each family, comma separated")
	fs.StringVar(&o.NodePorts, "service-node-port-range", "30000-32767", "range of ports for services of type NodePort")
	fs.StringSliceVar(&o.Issuers, "service-account-issuer", []string{"https://kubernetes.default.svc.cluster.local"}, "issuer of service account tokens; the first signs, all are believed")
	fs.StringSliceVar(&o.AccountKeys, "service-account-key-file", nil, "public keys by which tokens are verified")
	fs.StringVar(&o.SigningKey, "service-account-signing-key-file", "", "private key that signs tokens")
	fs.StringSliceVar(&a.Accounts.Audiences, "api-audiences", nil, "audiences of tokens for this server; the issuer where there are none")
	fs.DurationVar(&o.maxTokenLife, "service-account-max-token-expiration", 0, "longest life of a token that is asked for; 0 for any")
	fs.BoolVar(&o.extendTokens, "service-account-extend-token-expiration", true, "let tokens in pods live for a year though they ask for less")
	fs.StringVar(&o.KubeletCert, "kubelet-client-certificate", "", "certificate to show to kubelets")
	fs.StringVar(&o.KubeletKey, "kubelet-client-key", "", "key of --kubelet-client-certificate")
	fs.StringVar(&o.KubeletCA, "kubelet-certificate-authority", "", "authorities that sign kubelets' certificates; they are not verified where there are none")
	fs.StringSliceVar(&o.KubeletAddresses, "kubelet-preferred-address-types", []string{"Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"}, "which of a node's addresses to try, in order")
	fs.StringSliceVar(&a.AdmissionOn, "enable-admission-plugins", nil, "admission plugins besides those that are on by default")
	fs.StringSliceVar(&a.AdmissionOff, "disable-admission-plugins", nil, "admission plugins of those that are on by default to do without")
	fs.StringVar(&a.Audit.Policy, "audit-policy-file", "", "what to write down of requests; nothing where empty")
	fs.StringVar(&a.Audit.Log, "audit-log-path", "", "file to write it to, - for standard output")
	fs.StringVar(&a.Encrypt.File, "encryption-provider-config", "", "how to encrypt objects in etcd, an EncryptionConfiguration; not at all where empty")
	fs.BoolVar(&a.Encrypt.Reload, "encryption-provider-config-automatic-reload", false, "read --encryption-provider-config again when it changes")
	fs.DurationVar(&a.Compact, "etcd-compaction-interval", 5*time.Minute, "how long etcd keeps history at least; it keeps up to twice as much")
	fs.IntVar(&a.MaxReads, "max-requests-inflight", 400, "most requests that read at once")
	fs.IntVar(&a.MaxWrites, "max-mutating-requests-inflight", 200, "most requests that write at once")
	fs.BoolVar(&o.privileged, "allow-privileged", true, "let containers be privileged; false is refused, as pod security does that better")
	o.proxyFlags(fs)
}

// proxyFlags adds the flags about a proxy in front of the server, and about
// the server as one in front of others.
func (o *APIServer) proxyFlags(fs *pflag.FlagSet) {
	p := &o.Assembly.Proxy
	fs.StringVar(&o.ProxyCert, "proxy-client-cert-file", "", "certificate to show to servers behind this one, by which they believe who its users are")
	fs.StringVar(&o.ProxyKey, "proxy-client-key-file", "", "key of --proxy-client-cert-file")
	fs.StringVar(&p.CA, "requestheader-client-ca-file", "", "authorities that sign the certificate of a proxy that says who its users are")
	fs.StringSliceVar(&p.Names, "requestheader-allowed-names", nil, "names that the proxy's certificate may have; any where there are none")
	fs.StringSliceVar(&p.Headers.User, "requestheader-username-headers", []string{"X-Remote-User"}, "headers with the user's name")
	fs.StringSliceVar(&p.Headers.UID, "requestheader-uid-headers", nil, "headers with the user's UID")
	fs.StringSliceVar(&p.Headers.Group, "requestheader-group-headers", []string{"X-Remote-Group"}, "headers with the user's groups")
	fs.StringSliceVar(&p.Headers.Extra, "requestheader-extra-headers-prefix", []string{"X-Remote-Extra-"}, "how headers begin that have more about the user")
}

// A Running API server.
type Running struct {
	Server *assembly.Server
	URL    string // by which this machine reaches it
}

// Run serves until ctx ends. It calls ready once the server answers.
func (o *APIServer) Run(ctx context.Context, ready func(Running)) error {
	if err := o.complete(); err != nil {
		return err
	}
	tlsConfig, err := o.serving()
	if err != nil {
		return err
	}
	failed, stop, err := o.store(ctx)
	if err != nil {
		return err
	}
	defer stop()
	s, err := assembly.New(o.Assembly) //nolint:contextcheck // its webhooks that convert are asked while objects are decoded, for no request
	if err != nil {
		return err
	}
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return s.Run(ctx) })
	parts.Go(func() error {
		select {
		case err := <-failed:
			return fmt.Errorf("etcd has failed: %w", err)
		case <-ctx.Done():
			return nil
		}
	})
	parts.Go(func() error { return o.serve(ctx, s.Handler, tlsConfig) })
	parts.Go(func() error {
		select {
		case <-s.Ready:
			ready(Running{s, "https://" + o.Listener.Addr().String()})
		case <-ctx.Done():
		}
		return nil
	})
	if err := parts.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Main runs the API server as a process of its own.
func (o *APIServer) Main(ctx context.Context) error {
	return o.Run(ctx, func(r Running) { slog.InfoContext(ctx, "the API server is ready", "url", r.URL) })
}

// complete makes the assembly's configuration of the flags.
func (o *APIServer) complete() error {
	if !o.privileged {
		return errors.New("--allow-privileged=false is not supported: label namespaces with pod-security.kubernetes.io/enforce instead")
	}
	a := &o.Assembly
	a.NoAnonymous = !o.anonymous
	a.Accounts.Issuers, a.Accounts.Keys, a.Accounts.SigningKey = o.Issuers, o.AccountKeys, o.SigningKey
	a.Accounts.MaxLife, a.Accounts.NoExtension = o.maxTokenLife, !o.extendTokens
	for text := range strings.SplitSeq(o.ServiceRange, ",") {
		r, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return fmt.Errorf("--service-cluster-ip-range: %w", err)
		}
		a.Services.Ranges = append(a.Services.Ranges, r.Masked())
	}
	var err error
	if a.Services.Ports, err = alloc.ParsePortRange(o.NodePorts); err != nil {
		return fmt.Errorf("--service-node-port-range: %w", err)
	}
	advertise, err := o.advertise()
	if err != nil {
		return err
	}
	at := netip.AddrPortFrom(advertise, uint16(o.SecurePort))
	a.Address = at.String()
	if advertise.IsLoopback() {
		// As upstream: an endpoint there is invalid, and a server for tests needs none.
		slog.Warn("pods cannot reach the API server at a loopback address, so the service kubernetes has no endpoint", "advertise", advertise)
	} else {
		a.Services.Advertise = at
	}
	if o.ProxyCert != "" {
		pair, err := certs.Files(o.ProxyCert, o.ProxyKey)
		if err != nil {
			return fmt.Errorf("--proxy-client-cert-file: %w", err)
		}
		a.ProxyClient = pair.Call
	}
	a.Kubelets, err = o.kubelets()
	return err
}

// kubelets is how the server reaches the kubelets.
func (o *APIServer) kubelets() (k connect.Kubelets, err error) {
	known := []corev1.NodeAddressType{
		corev1.NodeHostName, corev1.NodeInternalDNS, corev1.NodeInternalIP, corev1.NodeExternalDNS, corev1.NodeExternalIP,
	}
	for _, text := range o.KubeletAddresses {
		if !slices.Contains(known, corev1.NodeAddressType(text)) {
			return k, fmt.Errorf("--kubelet-preferred-address-types: %s is none of %v", text, known)
		}
		k.Addresses = append(k.Addresses, corev1.NodeAddressType(text))
	}
	// As upstream: without authorities there is nothing to verify by.
	k.TLS = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: o.KubeletCA == ""}
	if o.KubeletCA != "" {
		pool, err := authn.ReadBundle(o.KubeletCA)
		if err != nil {
			return k, fmt.Errorf("--kubelet-certificate-authority: %w", err)
		}
		k.TLS.RootCAs = pool.Pool()
	}
	if o.KubeletCert != "" {
		pair, err := certs.Files(o.KubeletCert, o.KubeletKey)
		if err != nil {
			return k, fmt.Errorf("--kubelet-client-certificate: %w", err)
		}
		k.TLS.GetClientCertificate = pair.Call
	}
	return k, nil
}

// advertise is the address that others reach the server at.
func (o *APIServer) advertise() (netip.Addr, error) {
	for _, text := range []string{o.AdvertiseAddress, o.BindAddress} {
		if text == "" {
			continue
		}
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("%s is no address: %w", text, err)
		}
		if !ip.IsUnspecified() {
			return ip, nil
		}
	}
	return HostAddress()
}

// store opens the etcd to keep everything in.
func (o *APIServer) store(ctx context.Context) (failed <-chan error, stop func(), err error) {
	if len(o.EtcdServers) == 0 {
		e, err := etcd.Start(ctx, o.EtcdDir)
		if err != nil {
			return nil, nil, err
		}
		o.Assembly.Store, o.Assembly.MaxOps = e.Store(), etcd.MaxOps
		return e.Failed(), e.Close, nil
	}
	tlsConfig, err := o.etcdTLS()
	if err != nil {
		return nil, nil, err
	}
	s, err := etcd.Dial(o.EtcdServers, tlsConfig)
	if err != nil {
		return nil, nil, err
	}
	o.Assembly.Store = s
	return nil, func() {
		if err := s.Close(); err != nil {
			slog.WarnContext(ctx, "close etcd client", "err", err)
		}
	}, nil
}

// etcdTLS is how to speak to an etcd elsewhere, nil for without TLS.
func (o *APIServer) etcdTLS() (*tls.Config, error) {
	if o.EtcdCA == "" && o.EtcdCert == "" {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.EtcdCA != "" {
		pool, err := authn.ReadBundle(o.EtcdCA)
		if err != nil {
			return nil, fmt.Errorf("--etcd-cafile: %w", err)
		}
		cfg.RootCAs = pool.Pool()
	}
	if o.EtcdCert != "" {
		pair, err := certs.Files(o.EtcdCert, o.EtcdKey)
		if err != nil {
			return nil, fmt.Errorf("--etcd-certfile: %w", err)
		}
		cfg.GetClientCertificate = pair.Call
	}
	return cfg, nil
}

// serving is the server's end of TLS.
func (o *APIServer) serving() (*tls.Config, error) {
	pair, err := certs.Files(o.CertFile, o.KeyFile)
	if o.CertFile == "" {
		pair, err = certs.SelfSigned(o.CertDir, "apiserver", "localhost", "127.0.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
	}
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		GetCertificate: pair.Serve, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		ClientAuth: tls.RequestClientCert, // verified by authentication, so that a bad one is a 401
	}, nil
}

func (o *APIServer) serve(ctx context.Context, h *server.Server, cfg *tls.Config) error {
	if o.Listener == nil {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(o.BindAddress, fmt.Sprint(o.SecurePort)))
		if err != nil {
			return err
		}
		o.Listener = l
	}
	srv := h.HTTP()
	srv.TLSConfig = cfg
	return h.Running(ctx, srv, func() error { return srv.ServeTLS(o.Listener, "", "") })
}

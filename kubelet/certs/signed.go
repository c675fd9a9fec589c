package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/certificate"
)

// A Request is for a certificate that the cluster signs for a node, in the
// name of which it calls and serves.
type Request struct {
	Node string
	Dir  string // where it is kept, as kubelet-client-current.pem or kubelet-server-current.pem
	// Client calls the API server as the certificate at hand allows, with a
	// bootstrap token where that is nil.
	Client func(current *tls.Certificate) (kubernetes.Interface, error)
	// Addresses are what a serving certificate is for. Where it is nil the
	// request is for a client certificate.
	Addresses func() []corev1.NodeAddress
}

// Signed is a certificate that is renewed long before it ends.
type Signed struct{ manager certificate.Manager }

// Sign keeps a certificate, asking for one where there is none, and for the
// next until ctx ends. It does not wait for the first.
// contract: N-6
func Sign(ctx context.Context, r Request) (*Signed, error) {
	c := certificate.Config{
		ClientsetFn: r.Client,
		SignerName:  certificatesv1.KubeAPIServerClientKubeletSignerName,
		GetUsages:   certificate.DefaultKubeletClientGetUsages,
		GetTemplate: r.template,
		Ctx:         &ctx,
	}
	name := "kubelet-client"
	if r.Addresses != nil {
		name = "kubelet-server"
		c.SignerName, c.GetUsages = certificatesv1.KubeletServingSignerName, certificate.DefaultKubeletServingGetUsages
	}
	store, err := certificate.NewFileStore(name, r.Dir, r.Dir, "", "")
	if err != nil {
		return nil, fmt.Errorf("keep %s certificate: %w", name, err)
	}
	c.CertificateStore = store
	m, err := certificate.NewManager(&c)
	if err != nil {
		return nil, fmt.Errorf("keep %s certificate: %w", name, err)
	}
	m.Start()
	return &Signed{m}, nil
}

// template is what is asked for, nil while a server has no address yet.
func (r Request) template() *x509.CertificateRequest {
	t := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:" + r.Node, Organization: []string{"system:nodes"}}}
	if r.Addresses == nil {
		return t
	}
	for _, a := range r.Addresses() {
		if ip := net.ParseIP(a.Address); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, a.Address)
		}
	}
	if len(t.IPAddresses)+len(t.DNSNames) == 0 {
		return nil
	}
	return t
}

// Wait returns when there is a certificate.
func (s *Signed) Wait(ctx context.Context) error {
	// The manager tells nobody; a look costs nothing and ends with the first.
	for s.manager.Current() == nil {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for a certificate to be signed: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

var errUnsigned = errors.New("no certificate has been signed for this node yet")

func (s *Signed) current() (*tls.Certificate, error) {
	if c := s.manager.Current(); c != nil {
		return c, nil
	}
	return nil, errUnsigned
}

// Serve is for tls.Config.GetCertificate.
func (s *Signed) Serve(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.current() }

// Call is for tls.Config.GetClientCertificate.
func (s *Signed) Call(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return s.current() }

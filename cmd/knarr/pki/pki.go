// Package pki makes what the parts of a cluster trust each other by: the
// authorities, the certificates, the keys of service accounts and the
// kubeconfigs, as files of one directory. What is there is kept; what is
// missing, damaged or nearing its end is made anew. Servers read the files
// again when they change, so that nothing needs a restart.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// How long things last. A certificate is renewed when a third of its life is
// left, an authority is meant to outlive the machine.
const (
	lifeOfCA   = 10 * 365 * 24 * time.Hour
	lifeOfLeaf = 365 * 24 * time.Hour
	backdate   = 5 * time.Minute // for clocks that are behind
)

// A Certificate says what a certificate is to be for.
type Certificate struct {
	Name   string // of its files: Name.crt and Name.key
	CA     string // the name of the authority that signs it
	User   string // CN
	Groups []string
	Server bool     // else for a client
	Hosts  []string // names and addresses of a server
}

// A Dir is a directory of certificates. Now tells the time.
type Dir struct {
	Path string
	Now  func() time.Time
}

// Cert and Key are the paths of a certificate's files.
func (d *Dir) Cert(name string) string { return filepath.Join(d.Path, name+".crt") }

// Key is the path of a private key.
func (d *Dir) Key(name string) string { return filepath.Join(d.Path, name+".key") }

// Public is the path of a public key.
func (d *Dir) Public(name string) string { return filepath.Join(d.Path, name+".pub") }

// Authority makes the authority called name, unless it is there.
func (d *Dir) Authority(name string) error {
	if _, _, err := d.load(name); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		// Everything hangs from an authority: it is not replaced behind anybody's back.
		return fmt.Errorf("read authority %s: %w (move it away to have a new one made)", d.Cert(name), err)
	}
	now := d.Now()
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(lifeOfCA),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
		IsCA:     true, BasicConstraintsValid: true, DNSNames: []string{name},
	}
	return d.issue(name, template, nil, nil)
}

// Ensure makes the certificate that c says, unless there is a good one. It
// reports whether it has made one.
func (d *Dir) Ensure(c Certificate) (made bool, err error) {
	ca, key, err := d.load(c.CA)
	if err != nil {
		return false, fmt.Errorf("read authority %s: %w", d.Cert(c.CA), err)
	}
	if have, _, err := d.load(c.Name); err == nil && d.good(have, ca, c) {
		return false, nil
	}
	now := d.Now()
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: c.User, Organization: c.Groups},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(lifeOfLeaf),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if c.Server {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		template.DNSNames, template.IPAddresses = split(c.Hosts)
	}
	return true, d.issue(c.Name, template, ca, key)
}

// good reports whether a certificate is what c says and not near its end.
func (d *Dir) good(have, ca *x509.Certificate, c Certificate) bool {
	left := have.NotAfter.Sub(d.Now())
	if left < have.NotAfter.Sub(have.NotBefore)/3 || have.CheckSignatureFrom(ca) != nil {
		return false
	}
	if have.Subject.CommonName != c.User || !slices.Equal(have.Subject.Organization, c.Groups) {
		return false
	}
	names, ips := split(c.Hosts)
	for _, n := range names {
		if !slices.Contains(have.DNSNames, n) {
			return false
		}
	}
	for _, ip := range ips {
		if !slices.ContainsFunc(have.IPAddresses, ip.Equal) {
			return false
		}
	}
	return true
}

// split parts names from addresses.
func split(hosts []string) (names []string, ips []net.IP) {
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			ips = append(ips, ip)
		} else {
			names = append(names, h)
		}
	}
	return names, ips
}

// issue makes a key and a certificate of it, signed by ca or by itself.
func (d *Dir) issue(name string, template, ca *x509.Certificate, signer crypto.Signer) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if ca == nil {
		ca, signer = template, key
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, key.Public(), signer)
	if err != nil {
		return fmt.Errorf("sign %s: %w", name, err)
	}
	if err := d.writeKey(name, key); err != nil {
		return err
	}
	return d.write(d.Cert(name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// Signer makes the key pair called name, unless it is there.
func (d *Dir) Signer(name string) error {
	if _, err := d.loadKey(name); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read key %s: %w (move it away to have a new one made)", d.Key(name), err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := d.writeKey(name, key); err != nil {
		return err
	}
	return d.write(d.Public(name), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
}

func (d *Dir) writeKey(name string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return d.write(d.Key(name), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// write replaces a file in one go, so that nobody reads half of it.
func (d *Dir) write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // there only where something failed
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(tmp.Name(), path)
}

// load reads a certificate and its key.
func (d *Dir) load(name string) (*x509.Certificate, crypto.Signer, error) {
	data, err := os.ReadFile(d.Cert(name))
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, nil, errors.New("no PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, err
	}
	key, err := d.loadKey(name)
	return cert, key, err
}

func (d *Dir) loadKey(name string) (crypto.Signer, error) {
	data, err := os.ReadFile(d.Key(name))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("no PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T does not sign", key)
	}
	return signer, nil
}

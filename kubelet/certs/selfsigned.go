package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// selfSignedLife is a year, as stock. It is made anew after two thirds of it.
const selfSignedLife = 365 * 24 * time.Hour

// SelfSigned is the pair NAME.crt and NAME.key in dir, made if it is not there
// and, if it was made here, again before it ends. It is for hosts, which are
// names or addresses.
func SelfSigned(dir, name string, hosts ...string) (*Pair, error) {
	cert, key := filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	renew := func() error {
		if err := makeSelfSigned(cert, key, hosts, time.Now()); err != nil {
			return fmt.Errorf("make certificate %s: %w", cert, err)
		}
		return nil
	}
	if _, err := os.Stat(cert); os.IsNotExist(err) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		if err := renew(); err != nil {
			return nil, err
		}
	}
	p, err := Files(cert, key)
	if err != nil {
		return nil, err
	}
	c, err := p.get()
	if err != nil {
		return nil, err
	}
	if c.Leaf.Issuer.String() == c.Leaf.Subject.String() { // else somebody has put it there
		p.renew = renew
	}
	return p, nil
}

func makeSelfSigned(cert, key string, hosts []string, now time.Time) error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: fmt.Sprintf("%s@%d", hosts[0], now.Unix())},
		NotBefore:    now.Add(-time.Hour), // for clocks that are behind
		NotAfter:     now.Add(selfSignedLife),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA:         true, BasicConstraintsValid: true, // so that a client can be told to trust it
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, private.Public(), private)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	// The key goes first: a pair that does not fit together is not taken up.
	if err := replace(key, "PRIVATE KEY", pkcs8, 0o600); err != nil {
		return err
	}
	return replace(cert, "CERTIFICATE", der, 0o644)
}

// replace writes a PEM file that is there whole or not at all.
func replace(path, kind string, der []byte, mode os.FileMode) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

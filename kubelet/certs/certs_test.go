package certs

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// made makes a pair of files that seem to have been written at the given time.
func made(t *testing.T, dir, host string, at time.Time) (cert, key string) {
	t.Helper()
	cert, key = filepath.Join(dir, "a.crt"), filepath.Join(dir, "a.key")
	if err := makeSelfSigned(cert, key, []string{host}, at); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{cert, key} {
		if err := os.Chtimes(f, at, at); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// handshake is the name on the certificate with which p serves.
func handshake(t *testing.T, p *Pair) string {
	t.Helper()
	ours, theirs := net.Pipe()
	defer func() { _ = ours.Close() }()
	go func() { _ = tls.Server(theirs, &tls.Config{GetCertificate: p.Serve}).Handshake() }() // the client tells
	c := tls.Client(ours, &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return c.ConnectionState().PeerCertificates[0].DNSNames[0]
}

func TestFilesAreReadAgain(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	cert, key := made(t, dir, "first", now.Add(-time.Minute))
	p, err := Files(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if got := handshake(t, p); got != "first" {
		t.Errorf("serves %s", got)
	}
	if err := os.WriteFile(cert, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := handshake(t, p); got != "first" {
		t.Errorf("with a broken file serves %s", got)
	}
	made(t, dir, "second", now)
	if got := handshake(t, p); got != "second" {
		t.Errorf("after a change serves %s", got)
	}
	if _, err := Files(cert+"x", key); err == nil {
		t.Error("a missing file is no error")
	}
}

func TestSelfSignedIsMadeKeptAndRenewed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	p, err := SelfSigned(dir, "kubelet", "node", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.current()
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(c.Leaf)
	for _, name := range []string{"node", "127.0.0.1"} {
		if _, err := c.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: pool}); err != nil {
			t.Error(err)
		}
	}
	again, err := SelfSigned(dir, "kubelet", "node", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if k, err := again.current(); err != nil || !k.Leaf.Equal(c.Leaf) {
		t.Errorf("a second start made another certificate (%v)", err)
	}

	// The last third of its life has begun.
	past := time.Now().Add(-selfSignedLife * 7 / 10)
	if err := makeSelfSigned(filepath.Join(dir, "kubelet.crt"), filepath.Join(dir, "kubelet.key"), []string{"old"}, past); err != nil {
		t.Fatal(err)
	}
	if got := handshake(t, again); got != "node" {
		t.Errorf("serves the certificate of %q", got)
	}
	if info, err := os.Stat(filepath.Join(dir, "kubelet.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key %v %v", info, err)
	}
}

func TestAuthorities(t *testing.T) {
	dir := t.TempDir()
	cert, _ := made(t, dir, "first", time.Now().Add(-time.Minute))
	p, err := Authorities(cert)
	if err != nil {
		t.Fatal(err)
	}
	before := p.Current()
	made(t, dir, "second", time.Now())
	if p.Current().Equal(before) {
		t.Error("authorities are not read again")
	}
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	if p.Current() == nil {
		t.Error("no authorities while the file is away")
	}
}

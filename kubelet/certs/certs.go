// Package certs keeps the certificates with which the kubelet serves and
// calls. A certificate that changes on disk is taken up at the next handshake;
// nothing watches the files in between. Who signs certificates is no concern
// of this package, but for the self-signed one that it makes where none is given.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// A file is what has been read from files, and is read again when they change.
type file[T any] struct {
	paths []string
	read  func() (T, error)

	mu    sync.Mutex
	stamp []time.Time
	value T
}

// get is the newest value that could be read. Files that are half written
// leave the value as it was.
func (f *file[T]) get() (T, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	stamp := make([]time.Time, len(f.paths))
	changed := f.stamp == nil
	for i, path := range f.paths {
		info, err := os.Stat(path)
		if err == nil {
			stamp[i] = info.ModTime()
		}
		changed = changed || !stamp[i].Equal(f.stamp[i])
	}
	if !changed {
		return f.value, nil
	}
	value, err := f.read()
	if err != nil {
		if f.stamp != nil {
			return f.value, nil
		}
		return value, err
	}
	f.value, f.stamp = value, stamp
	return value, nil
}

// A Pair is a certificate with its key, as TLS asks for it at each handshake.
type Pair struct {
	file[*tls.Certificate]

	renew func() error // makes the files anew, nil where they are someone else's
}

// Files is the pair in two PEM files. It is an error if they are not there now.
func Files(cert, key string) (*Pair, error) {
	p := &Pair{file: file[*tls.Certificate]{paths: []string{cert, key}}}
	p.read = func() (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(cert, key)
		return &c, err
	}
	if _, err := p.get(); err != nil {
		return nil, fmt.Errorf("load certificate %s: %w", cert, err)
	}
	return p, nil
}

// current is the pair, made anew if it is ours and in the last third of its life.
func (p *Pair) current() (*tls.Certificate, error) {
	c, err := p.get()
	if err != nil || p.renew == nil || !old(c.Leaf, time.Now()) {
		return c, err
	}
	if err := p.renew(); err != nil {
		return nil, err
	}
	return p.get()
}

func old(c *x509.Certificate, now time.Time) bool {
	life := c.NotAfter.Sub(c.NotBefore)
	return now.After(c.NotAfter.Add(-life / 3))
}

// Serve is for tls.Config.GetCertificate.
func (p *Pair) Serve(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.current() }

// Call is for tls.Config.GetClientCertificate.
func (p *Pair) Call(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return p.current() }

// A Pool is the authorities in one PEM file.
type Pool struct{ file[*x509.CertPool] }

// Authorities is the pool in a PEM file. It is an error if it is not there now.
func Authorities(path string) (*Pool, error) {
	p := &Pool{file[*x509.CertPool]{paths: []string{path}}}
	p.read = func() (*x509.CertPool, error) {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(data) {
			return nil, errors.New("no certificate in it")
		}
		return pool, nil
	}
	if _, err := p.get(); err != nil {
		return nil, fmt.Errorf("load authorities %s: %w", path, err)
	}
	return p, nil
}

// Current is the pool as it stands in the file.
func (p *Pool) Current() *x509.CertPool {
	pool, _ := p.get() // the first read has succeeded, so an older pool is at hand
	return pool
}

package authn

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// A Bundle is the certificates of authorities in a file, read anew when the
// file changes.
type Bundle struct {
	path string

	mu    sync.Mutex
	next  time.Time // when to look at the file again
	stamp stamp
	pem   []byte
	pool  *x509.CertPool
}

// stamp tells one state of a file from another.
type stamp struct {
	changed time.Time
	size    int64
}

// lookEvery is how long a change of a file may go unseen.
const lookEvery = time.Second

// ReadBundle reads the certificates in a PEM file, of which there must be some.
func ReadBundle(path string) (*Bundle, error) {
	b := &Bundle{path: path}
	if err := b.read(); err != nil {
		return nil, err
	}
	return b, nil
}

// Pool is the certificates as they are now: another value after a change.
func (b *Bundle) Pool() *x509.CertPool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.look()
	return b.pool
}

// PEM is the text of the file.
func (b *Bundle) PEM() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.look()
	return b.pem
}

// look reads the file if it has changed. A file that cannot be read now
// leaves things as they were: it may be in the middle of being replaced.
func (b *Bundle) look() {
	now := time.Now()
	if now.Before(b.next) {
		return
	}
	b.next = now.Add(lookEvery)
	info, err := os.Stat(b.path)
	if err == nil && (stamp{info.ModTime(), info.Size()}) == b.stamp {
		return
	}
	if err == nil {
		err = b.read()
	}
	if err != nil {
		slog.Warn("certificates stay as they were", "path", b.path, "err", err)
	}
}

func (b *Bundle) read() error {
	info, err := os.Stat(b.path)
	if err != nil {
		return fmt.Errorf("read certificates: %w", err)
	}
	pem, err := os.ReadFile(b.path)
	if err != nil {
		return fmt.Errorf("read certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return fmt.Errorf("read certificates: there are none in %s", b.path)
	}
	b.stamp, b.pem, b.pool = stamp{info.ModTime(), info.Size()}, pem, pool
	return nil
}

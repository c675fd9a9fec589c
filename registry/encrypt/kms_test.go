package encrypt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/memory"
)

// A plugin is a KMS that encrypts by keys that are their own names.
type plugin struct {
	kmsapi.UnimplementedKeyManagementServiceServer

	mu        sync.Mutex
	key       string
	health    string
	decrypted int // how often it was asked to decrypt
}

func (p *plugin) set(key, health string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.key, p.health = key, health
}

func (p *plugin) Status(context.Context, *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &kmsapi.StatusResponse{Version: "v2", Healthz: p.health, KeyId: p.key}, nil
}

func cipherOf(key string) cipher {
	c, err := newGCM([]byte(strings.Repeat(key[:1], 32)))
	if err != nil {
		panic(err)
	}
	return c
}

func (p *plugin) Encrypt(ctx context.Context, r *kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	out, err := cipherOf(p.key).seal(ctx, p.key, r.Plaintext)
	return &kmsapi.EncryptResponse{Ciphertext: out, KeyId: p.key, Annotations: map[string][]byte{"by.example.com": []byte("test"), "a.example.com": {}}}, err
}

func (p *plugin) Decrypt(ctx context.Context, r *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.decrypted++
	if string(r.Annotations["by.example.com"]) != "test" {
		return nil, errors.New("the annotations are not those of the encryption")
	}
	out, _, err := cipherOf(r.KeyId).open(ctx, r.KeyId, r.Ciphertext)
	return &kmsapi.DecryptResponse{Plaintext: out}, err
}

func serve(t *testing.T, socket string) *plugin {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	p := &plugin{key: "1", health: "ok"}
	srv := grpc.NewServer()
	kmsapi.RegisterKeyManagementServiceServer(srv, p)
	go func() { _ = srv.Serve(l) }() // until Stop
	t.Cleanup(srv.Stop)
	return p
}

func byKMS(socket string) string {
	return config(fmt.Sprintf("- resources: [secrets]\n  providers:\n  - kms: {apiVersion: v2, name: vault, endpoint: 'unix://%s', timeout: 2s}\n  - identity: {}\n", socket))
}

func TestKMS(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "kms.sock")
	p := serve(t, socket)
	under := memory.New()
	s := open(t, under, byKMS(socket))
	defer s.rules.Load().close()
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		put(t, s, fmt.Sprint(key, i), "what nobody reads")
	}
	if stored := get(t, under, key+"0"); !strings.HasPrefix(stored, "k8s:enc:kms:v2:vault:") || strings.Contains(stored, "nobody") {
		t.Errorf("stored %q", stored)
	}
	// Another server, or this one started anew.
	again := open(t, under, byKMS(socket))
	defer again.rules.Load().close()
	if err := again.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if value := get(t, again, fmt.Sprint(key, i)); value != "what nobody reads" {
			t.Errorf("read %q", value)
		}
		if stale, err := again.Stale(t.Context(), fmt.Sprint(key, i)); err != nil || stale {
			t.Errorf("what another server wrote with the same key is stale, %v", err)
		}
	}
	if p.decrypted != 1 {
		t.Errorf("the plugin was asked %d times, want once for all", p.decrypted)
	}
	// The plugin has a new key.
	p.set("2", "ok")
	if err := again.check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stale, err := again.Stale(t.Context(), key+"0"); err != nil || !stale {
		t.Errorf("what was written with the old key is not stale, %v", err)
	}
	put(t, again, key+"0", "it")
	if stale, err := again.Stale(t.Context(), key+"0"); err != nil || stale {
		t.Errorf("written anew it is stale, %v", err)
	}
	if value := get(t, s, key+"0"); value != "it" {
		t.Errorf("the other server reads %q", value)
	}
}

func TestKMSThatIsNotWell(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "kms.sock")
	s := open(t, memory.New(), strings.Replace(byKMS(socket), "2s", "50ms", 1))
	e := s.rules.Load().plugins[0]
	defer s.rules.Load().close()
	if err := s.check(t.Context()); err == nil || s.Well() == nil {
		t.Errorf("a plugin that is not there is well: %v, %v", err, s.Well())
	}
	_, err := s.Commit(t.Context(), registry.Op{Key: key, Value: []byte("it")})
	if err == nil || !strings.Contains(err.Error(), "KMS provider vault has no key") {
		t.Errorf("a write without a key: %v", err)
	}
	p := serve(t, socket)
	e.timeout = kmsTimeout
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, s, key, "it")
	p.set("1", "sealed")
	if err := s.check(t.Context()); err == nil || s.Well().Error() != "kmsv2 Provider vault is not healthy, error: got unexpected healthz status: sealed" {
		t.Errorf("a plugin that says it is not well: %v, %v", err, s.Well())
	}
	put(t, s, key, "it") // for a while
	now := e.now
	e.now = func() time.Time { return now().Add(2 * kmsGood) }
	_, err = s.Commit(t.Context(), registry.Op{Key: key, Old: registry.Unchecked, Value: []byte("it")})
	if err == nil || !strings.Contains(err.Error(), "the key of KMS provider vault expired at ") {
		t.Errorf("a write with a key that nobody vouches for: %v", err)
	}
	if value := get(t, s, key); value != "it" {
		t.Errorf("read %q", value)
	}
}

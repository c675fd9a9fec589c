package encrypt

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	kmsapi "k8s.io/kms/apis/v2"
)

// When a KMS is asked how it is: sooner where it was not well. For how long
// what it has said is good for writes.
const (
	kmsWell = time.Minute
	kmsIll  = 10 * time.Second
	kmsGood = 3 * time.Minute
)

// An envelope is the cipher by a KMS plugin. It encrypts values with keys
// made of a seed of its own, and stores with each value the seed as the
// plugin encrypts it. The plugin is asked to decrypt a seed once.
type envelope struct {
	name    string
	timeout time.Duration
	conn    *grpc.ClientConn
	plugin  kmsapi.KeyManagementServiceClient
	now     func() time.Time

	mu    sync.Mutex
	state state
	err   error           // of the last time the plugin was asked, nil where it is well
	known map[string]gcms // by the encrypted form of what they are made of
}

// A state is what values are encrypted with now.
type state struct {
	seed  gcms
	sent  sealed // without its data
	until time.Time
}

func newEnvelope(cfg *kms) (*envelope, error) {
	path := strings.TrimPrefix(cfg.Endpoint, "unix://")
	if name, ok := strings.CutPrefix(path, "/@"); ok {
		path = "@" + name // an abstract socket
	}
	target := "unix:" + path
	if name, ok := strings.CutPrefix(path, "@"); ok {
		target = "unix-abstract:" + name
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		return nil, fmt.Errorf("KMS provider %s: %w", cfg.Name, err)
	}
	e := &envelope{
		name: cfg.Name, timeout: kmsTimeout, conn: conn, plugin: kmsapi.NewKeyManagementServiceClient(conn),
		now: time.Now, known: map[string]gcms{},
	}
	if cfg.Timeout != nil {
		e.timeout = cfg.Timeout.Duration
	}
	return e, nil
}

// run asks the plugin how it is until ctx ends, and then leaves it.
func (e *envelope) run(ctx context.Context) {
	defer func() { _ = e.conn.Close() }() // there is nothing to lose
	for {
		wait := kmsWell
		if err := e.check(ctx); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "the KMS is not well", "provider", e.name, "err", err)
			wait = kmsIll
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// check asks the plugin how it is, and takes a new seed where it has a new key.
func (e *envelope) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	next, err := e.next(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil {
		e.state = next
		e.known[next.sent.id()] = next.seed
	}
	e.err = err
	return err
}

// next is the state after the present one.
func (e *envelope) next(ctx context.Context) (state, error) {
	s, err := e.plugin.Status(ctx, &kmsapi.StatusRequest{})
	switch {
	case err != nil:
		return state{}, fmt.Errorf("failed to perform status section of the healthz check for KMS Provider %s, error: %w", e.name, err)
	case s.Healthz != "ok":
		return state{}, fmt.Errorf("got unexpected healthz status: %s", s.Healthz)
	case s.Version != "v2" && s.Version != "v2beta1":
		return state{}, fmt.Errorf("expected KMSv2 API version v2, got %s", s.Version)
	}
	e.mu.Lock()
	now := e.state
	e.mu.Unlock()
	until := e.now().Add(kmsGood)
	if now.sent.keyID == s.KeyId && s.KeyId != "" {
		now.until = until
		return now, nil
	}
	seed := make([]byte, 32)
	_, _ = rand.Read(seed) // never fails
	r, err := e.plugin.Encrypt(ctx, &kmsapi.EncryptRequest{Plaintext: seed, Uid: uuid.NewString()})
	if err != nil {
		return state{}, fmt.Errorf("failed to encrypt DEK, error: %w", err)
	}
	next := state{
		seed: gcms{seed: seed}, until: until,
		sent: sealed{keyID: r.KeyId, source: r.Ciphertext, annotations: r.Annotations, kind: seeded},
	}
	if err := next.sent.validate(); err != nil {
		return state{}, err
	}
	if r.KeyId != s.KeyId {
		return state{}, errors.New("the plugin encrypts with another key than it says is its own")
	}
	return next, nil
}

// well is nil where the plugin was well when it was asked last.
func (e *envelope) well() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return fmt.Errorf("kmsv2 Provider %s is not healthy, error: %w", e.name, e.err)
	}
	return nil
}

func (e *envelope) seal(ctx context.Context, key string, value []byte) ([]byte, error) {
	e.mu.Lock()
	now, ill := e.state, e.err
	e.mu.Unlock()
	switch {
	case now.sent.keyID == "" && ill != nil:
		return nil, fmt.Errorf("KMS provider %s has no key: %w", e.name, ill)
	case now.sent.keyID == "":
		return nil, fmt.Errorf("KMS provider %s has no key yet", e.name)
	case e.now().After(now.until):
		return nil, fmt.Errorf("the key of KMS provider %s expired at %s", e.name, now.until.Format(time.RFC3339))
	}
	data, err := now.seed.seal(ctx, key, value)
	if err != nil {
		return nil, err
	}
	out := now.sent
	out.data = data
	return out.marshal(), nil
}

func (e *envelope) open(ctx context.Context, key string, stored []byte) ([]byte, bool, error) {
	var in sealed
	if err := in.unmarshal(stored); err != nil {
		return nil, false, err
	}
	with, err := e.decrypter(ctx, &in)
	if err != nil {
		return nil, false, err
	}
	value, err := with.open(ctx, key, in.data)
	if err != nil {
		return nil, false, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return value, in.keyID != e.state.sent.keyID || in.kind != seeded, nil
}

// decrypter is what decrypts the data of a value.
func (e *envelope) decrypter(ctx context.Context, in *sealed) (gcms, error) {
	id := in.id()
	e.mu.Lock()
	known, ok := e.known[id]
	e.mu.Unlock()
	if ok {
		return known, nil
	}
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	r, err := e.plugin.Decrypt(ctx, &kmsapi.DecryptRequest{
		Ciphertext: in.source, Uid: uuid.NewString(), KeyId: in.keyID, Annotations: in.annotations,
	})
	if err != nil {
		return gcms{}, fmt.Errorf("failed to decrypt DEK, error: %w", err)
	}
	with := gcms{seed: r.Plaintext}
	if in.kind == keyed {
		with.whole, err = newGCM(r.Plaintext)
	}
	if err != nil {
		return gcms{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.known[id] = with
	return with, nil
}

// gcms is AES in GCM mode with a key of its own for each value, made of a
// seed and of what stands before the value; or, as stock servers before 1.29
// wrote it, with one for all.
type gcms struct {
	seed  []byte
	whole cipher
}

const infoLen = 32

func (g gcms) with(info []byte) (cipher, error) {
	key, err := hkdf.Expand(sha256.New, g.seed, string(info), 32)
	if err != nil {
		return nil, err
	}
	return newGCM(key)
}

func (g gcms) seal(ctx context.Context, key string, value []byte) ([]byte, error) {
	info := make([]byte, infoLen)
	_, _ = rand.Read(info) // never fails
	c, err := g.with(info)
	if err != nil {
		return nil, err
	}
	out, err := c.seal(ctx, key, value)
	return append(info, out...), err
}

func (g gcms) open(ctx context.Context, key string, stored []byte) ([]byte, error) {
	if g.whole != nil {
		value, _, err := g.whole.open(ctx, key, stored)
		return value, err
	}
	if len(stored) < infoLen {
		return nil, errShort
	}
	c, err := g.with(stored[:infoLen])
	if err != nil {
		return nil, err
	}
	value, _, err := c.open(ctx, key, stored[infoLen:])
	return value, err
}

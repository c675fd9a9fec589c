package encrypt

import (
	"bytes"
	"context"
	"crypto/aes"
	gocipher "crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"

	"golang.org/x/crypto/nacl/secretbox"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
)

// A cipher makes of a value what is stored of it, and back. Where it can, it
// binds a value to its key in the store, so that it is good nowhere else.
type cipher interface {
	seal(ctx context.Context, key string, value []byte) ([]byte, error)

	// open also tells whether seal would do it with another key by now.
	open(ctx context.Context, key string, stored []byte) (value []byte, stale bool, err error)
}

// The texts of stock Kubernetes for what cannot be opened.
var (
	errShort     = errors.New("the stored data was shorter than the required size")
	errBlocks    = errors.New("the stored data is not a multiple of the block size")
	errPadded    = errors.New("invalid PKCS7 data (empty or not padded)")
	errPadding   = errors.New("invalid padding on input")
	errBox       = errors.New("output array was not large enough for encryption")
	errEncrypted = errors.New("identity transformer tried to read encrypted data")
	errNoPrefix  = errors.New("no matching prefix found")
)

// A named cipher is one whose values begin with its name.
type named struct {
	prefix string
	cipher
}

// A choice seals with its first cipher, and opens with whichever the stored
// value names. Names may be there twice, for keys that are being replaced.
type choice struct {
	all  []named
	none error // where none fits
}

func (c *choice) seal(ctx context.Context, key string, value []byte) ([]byte, error) {
	first := c.all[0]
	sealed, err := first.cipher.seal(ctx, key, value)
	if err != nil || first.prefix == "" {
		return sealed, err
	}
	return append([]byte(first.prefix), sealed...), nil
}

func (c *choice) open(ctx context.Context, key string, stored []byte) ([]byte, bool, error) {
	var errs []error
	for i, n := range c.all {
		sealed, fits := bytes.CutPrefix(stored, []byte(n.prefix))
		if !fits {
			continue
		}
		value, stale, err := n.cipher.open(ctx, key, sealed)
		if err == nil {
			return value, stale || i > 0, nil
		}
		if n.prefix != "" {
			errs = append(errs, err)
		}
	}
	if err := utilerrors.Reduce(utilerrors.NewAggregate(errs)); err != nil {
		return nil, false, err
	}
	return nil, false, c.none
}

// plain is the cipher that is none.
type plain struct{}

// sealedPrefix begins all values that are encrypted. No other value does: an
// object begins with k8s and a zero, or with a brace.
const sealedPrefix = "k8s:enc:"

func (plain) seal(_ context.Context, _ string, value []byte) ([]byte, error) { return value, nil }

func (plain) open(_ context.Context, _ string, stored []byte) ([]byte, bool, error) {
	if bytes.HasPrefix(stored, []byte(sealedPrefix)) {
		return nil, false, errEncrypted
	}
	return stored, false, nil
}

// cbc is AES in CBC mode with padding as in PKCS 7, after its random vector.
type cbc struct{ block gocipher.Block }

func newCBC(secret []byte) (cipher, error) {
	block, err := aes.NewCipher(secret)
	return cbc{block}, err
}

func (c cbc) seal(_ context.Context, _ string, value []byte) ([]byte, error) {
	pad := aes.BlockSize - len(value)%aes.BlockSize
	out := make([]byte, aes.BlockSize, aes.BlockSize+len(value)+pad)
	_, _ = rand.Read(out) // never fails
	out = append(append(out, value...), bytes.Repeat([]byte{byte(pad)}, pad)...)
	gocipher.NewCBCEncrypter(c.block, out[:aes.BlockSize]).CryptBlocks(out[aes.BlockSize:], out[aes.BlockSize:])
	return out, nil
}

func (c cbc) open(_ context.Context, _ string, stored []byte) ([]byte, bool, error) {
	if len(stored) < aes.BlockSize {
		return nil, false, errShort
	}
	vector, sealed := stored[:aes.BlockSize], stored[aes.BlockSize:]
	switch {
	case len(sealed)%aes.BlockSize != 0:
		return nil, false, errBlocks
	case len(sealed) == 0:
		return nil, false, errPadded
	}
	value := make([]byte, len(sealed))
	gocipher.NewCBCDecrypter(c.block, vector).CryptBlocks(value, sealed)
	pad := int(value[len(value)-1])
	if pad == 0 || pad > len(value) {
		return nil, false, errPadded
	}
	value, padding := value[:len(value)-pad], value[len(value)-pad:]
	for _, b := range padding {
		if int(b) != pad {
			return nil, false, errPadding
		}
	}
	return value, false, nil
}

// gcm is AES in GCM mode, after its random nonce, bound to the key.
type gcm struct{ aead gocipher.AEAD }

func newGCM(secret []byte) (cipher, error) {
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	aead, err := gocipher.NewGCM(block)
	return gcm{aead}, err
}

func (g gcm) seal(_ context.Context, key string, value []byte) ([]byte, error) {
	nonce := make([]byte, g.aead.NonceSize(), g.aead.NonceSize()+len(value)+g.aead.Overhead())
	_, _ = rand.Read(nonce) // never fails
	return g.aead.Seal(nonce, nonce, value, []byte(key)), nil
}

func (g gcm) open(_ context.Context, key string, stored []byte) ([]byte, bool, error) {
	if len(stored) < g.aead.NonceSize() {
		return nil, false, errShort
	}
	value, err := g.aead.Open(nil, stored[:g.aead.NonceSize()], stored[g.aead.NonceSize():], []byte(key))
	return value, false, err
}

// box is XSalsa20 and Poly1305, after the random nonce.
type box struct{ secret [32]byte }

const boxNonce = 24

func newBox(secret []byte) (cipher, error) {
	if len(secret) != 32 {
		return nil, fmt.Errorf("expected key size 32 for secretbox provider, got %v", len(secret))
	}
	return &box{[32]byte(secret)}, nil
}

func (b *box) seal(_ context.Context, _ string, value []byte) ([]byte, error) {
	var nonce [boxNonce]byte
	_, _ = rand.Read(nonce[:]) // never fails
	return secretbox.Seal(nonce[:], value, &nonce, &b.secret), nil
}

func (b *box) open(_ context.Context, _ string, stored []byte) ([]byte, bool, error) {
	if len(stored) < boxNonce+secretbox.Overhead {
		return nil, false, errShort
	}
	value, ok := secretbox.Open(nil, stored[boxNonce:], (*[boxNonce]byte)(stored), &b.secret)
	if !ok {
		return nil, false, errBox
	}
	return value, false, nil
}

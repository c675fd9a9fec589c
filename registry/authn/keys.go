package authn

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"k8s.io/client-go/util/keyutil"
)

// Keys are the public keys that tokens of service accounts are checked by:
// that of the one who signs now, and those of who did before or will.
type Keys struct {
	all []key
}

type key struct {
	id     string
	alg    jose.SignatureAlgorithm
	public crypto.PublicKey
}

// algorithms are those that tokens may be signed by.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, jose.ES512}

// ReadKeys reads the public keys in PEM files; a private key counts as its
// public half.
func ReadKeys(paths ...string) (*Keys, error) {
	k := &Keys{}
	for _, path := range paths {
		found, err := keyutil.PublicKeysFromFile(path)
		if err != nil {
			return nil, fmt.Errorf("read keys of tokens: %w", err)
		}
		for _, public := range found {
			if err := k.Add(public); err != nil {
				return nil, fmt.Errorf("read keys of tokens in %s: %w", path, err)
			}
		}
	}
	return k, nil
}

// Add adds a public key, if it is not there yet.
func (k *Keys) Add(public crypto.PublicKey) error {
	if private, ok := public.(crypto.Signer); ok {
		public = private.Public()
	}
	alg, err := algorithmOf(public)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(der)
	id := base64.RawURLEncoding.EncodeToString(sum[:])
	if !slices.ContainsFunc(k.all, func(o key) bool { return o.id == id }) {
		k.all = append(k.all, key{id, alg, public})
	}
	return nil
}

func algorithmOf(public crypto.PublicKey) (jose.SignatureAlgorithm, error) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return jose.RS256, nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return jose.ES256, nil
		case elliptic.P384():
			return jose.ES384, nil
		case elliptic.P521():
			return jose.ES512, nil
		}
	}
	return "", fmt.Errorf("a %T cannot sign tokens: use RSA, or ECDSA on P-256, P-384 or P-521", public)
}

// named are the keys called id, all where a token does not say.
func (k *Keys) named(id string) (found []key) {
	for _, key := range k.all {
		if id == "" || key.id == id {
			found = append(found, key)
		}
	}
	return found
}

// algorithms are those of the keys, each once.
func (k *Keys) algorithms() (names []string) {
	for _, key := range k.all {
		if !slices.Contains(names, string(key.alg)) {
			names = append(names, string(key.alg))
		}
	}
	slices.Sort(names)
	return names
}

// A Signer makes the tokens of service accounts.
type Signer struct {
	issuer  string
	private crypto.Signer
	jose    jose.Signer
}

// ReadSigner reads the private key in a PEM file, with which tokens are
// signed in the issuer's name.
func ReadSigner(path, issuer string) (*Signer, error) {
	private, err := keyutil.PrivateKeyFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("read key to sign tokens: %w", err)
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("read key to sign tokens: a %T cannot sign", private)
	}
	return NewSigner(signer, issuer)
}

// NewSigner returns a signer with a private key, RSA or ECDSA.
func NewSigner(private crypto.Signer, issuer string) (*Signer, error) {
	var keys Keys
	if err := keys.Add(private.Public()); err != nil {
		return nil, err
	}
	with := jose.SigningKey{Algorithm: keys.all[0].alg, Key: jose.JSONWebKey{Key: private, KeyID: keys.all[0].id}}
	signer, err := jose.NewSigner(with, nil)
	if err != nil {
		return nil, fmt.Errorf("sign tokens: %w", err)
	}
	return &Signer{issuer: issuer, private: private, jose: signer}, nil
}

// Public is the key that checks what the signer has signed.
func (s *Signer) Public() crypto.PublicKey { return s.private.Public() }

// Sign makes a token that claims c in the issuer's name.
func (s *Signer) Sign(c Claims) (string, error) {
	c.Issuer = s.issuer
	payload, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	signed, err := s.jose.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return signed.CompactSerialize()
}

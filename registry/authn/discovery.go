package authn

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/go-jose/go-jose/v4"
)

// Where others find out how to check tokens.
const (
	ConfigurationPath = "/.well-known/openid-configuration"
	KeysPath          = "/openid/v1/jwks"
)

// keysLast is for how long others may keep the keys, as upstream.
const keysLast = "public, max-age=3600"

// Discovery returns handlers, by path, of the documents by which others can
// check the tokens that issuer has signed. keysURI is where they find
// KeysPath. There are none for an issuer that is no https URL: nobody could
// find the documents by it.
func Discovery(issuer, keysURI string, keys *Keys) (map[string]http.Handler, error) {
	u, err := url.Parse(issuer)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, nil //nolint:nilerr // an issuer may be any text
	}
	config, err := json.Marshal(struct {
		Issuer     string   `json:"issuer"`
		KeysURI    string   `json:"jwks_uri"`
		Responses  []string `json:"response_types_supported"`
		Subjects   []string `json:"subject_types_supported"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}{issuer, keysURI, []string{"id_token"}, []string{"public"}, keys.algorithms()})
	if err != nil {
		return nil, err
	}
	var set jose.JSONWebKeySet
	for _, k := range keys.all {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.public, KeyID: k.id, Algorithm: string(k.alg), Use: "sig"})
	}
	jwks, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("encode keys of tokens: %w", err)
	}
	return map[string]http.Handler{
		ConfigurationPath: document("application/json", config),
		KeysPath:          document("application/jwk-set+json", jwks),
	}, nil
}

func document(media string, body []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", media)
		w.Header().Set("Cache-Control", keysLast)
		_, _ = w.Write(body) // nobody is left to tell
	})
}

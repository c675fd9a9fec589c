package encrypt

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/memory"
	"github.com/knarr-dev/knarr/registry/storetest"
)

var resources = Resources{
	"secrets": {Resource: "secrets"}, "configmaps": {Resource: "configmaps"}, "services/specs": {Resource: "services"},
	"events": {Resource: "events"}, "serviceaccounts": {Resource: "serviceaccounts"}, "services/endpoints": {Resource: "endpoints"},
	"namespaces": {Resource: "namespaces"}, "deployments": {Group: "apps", Resource: "deployments"},
}

// secretOf is a key of 32 bytes, all the same, as a file has it.
func secretOf(c string) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(c, 32)))
}

func config(rules string) string {
	return "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n" + rules
}

// forSecrets is a configuration of secrets with the providers given, each as
// the name of a cipher, a colon, and its keys by letter.
func forSecrets(providers ...string) string {
	rule := "- resources: [secrets]\n  providers:\n"
	for _, p := range providers {
		name, letters, _ := strings.Cut(p, ":")
		rule += "  - " + name + ":"
		if letters == "" {
			rule += " {}\n"
			continue
		}
		rule += "\n      keys:\n"
		for c := range strings.SplitSeq(letters, "") {
			rule += fmt.Sprintf("      - {name: %s, secret: %s}\n", c, secretOf(c))
		}
	}
	return config(rule)
}

func file(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "encryption.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, under registry.Store, text string) *Store {
	s, err := Open(under, file(t, text), resources, true)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const key = "/registry/secrets/default/a"

func put(t *testing.T, s registry.Store, key, value string) {
	if _, err := s.Commit(t.Context(), registry.Op{Key: key, Old: registry.Unchecked, Value: []byte(value)}); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, s registry.Store, key string) string {
	r, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(r.Value)
}

// A store that encrypts is a store as any other.
func TestStore(t *testing.T) {
	all := config(fmt.Sprintf("- resources: ['*.*']\n  providers: [{aesgcm: {keys: [{name: a, secret: %s}]}}]\n", secretOf("a")))
	storetest.Run(t, func(t *testing.T) registry.Store {
		s, err := Open(memory.New(), file(t, all), Resources{"/a": {Resource: "a"}, "/b": {Resource: "b"}}, false)
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestStoredAsUpstream(t *testing.T) {
	for _, c := range []struct{ provider, prefix string }{
		{"aescbc:a", "k8s:enc:aescbc:v1:a:"}, {"aesgcm:a", "k8s:enc:aesgcm:v1:a:"}, {"secretbox:a", "k8s:enc:secretbox:v1:a:"}, {"identity", "k8s\x00what nobody reads"},
	} {
		under := memory.New()
		s := open(t, under, forSecrets(c.provider))
		put(t, s, key, "k8s\x00what nobody reads")
		put(t, s, "/registry/configmaps/default/a", "plain")
		if stored := get(t, under, key); !strings.HasPrefix(stored, c.prefix) || c.provider != "identity" && strings.Contains(stored, "nobody") {
			t.Errorf("%s: stored %q", c.provider, stored)
		}
		if stored := get(t, under, "/registry/configmaps/default/a"); stored != "plain" {
			t.Errorf("%s: a config map is stored as %q", c.provider, stored)
		}
		if value := get(t, s, key); value != "k8s\x00what nobody reads" {
			t.Errorf("%s: read %q", c.provider, value)
		}
	}
}

func TestEncryptedByResource(t *testing.T) {
	s := open(t, memory.New(), config(fmt.Sprintf(`
- resources: [events, configmaps.example.com]
  providers: [{identity: {}}]
- resources: [secrets]
  providers: [{secretbox: {keys: [{name: one, secret: %[1]s}]}}]
- resources: ['*.apps']
  providers: [{secretbox: {keys: [{name: apps, secret: %[1]s}]}}]
- resources: ['*.']
  providers: [{secretbox: {keys: [{name: core, secret: %[1]s}]}}]
- resources: ['*.*']
  providers: [{secretbox: {keys: [{name: all, secret: %[1]s}]}}]
`, secretOf("x"))))
	for key, want := range map[string]string{
		"secrets/default/a": "one", "deployments/default/a": "apps", "services/specs/default/a": "core", "ranges/servicenodeports": "",
		"masterleases/10.0.0.1": "", "example.com/things/default/a": "all", "example.com/configmaps/default/a": "", "events/default/a": "",
	} {
		put(t, s, "/registry/"+key, "it")
		stored := get(t, s.Store, "/registry/"+key)
		if want == "" && stored != "it" || want != "" && !strings.HasPrefix(stored, boxPrefix+want+":") {
			t.Errorf("%s is stored as %q, want it by key %q", key, stored, want)
		}
	}
}

// What a stock server has stored with testdata/stock.yaml and the plugin of
// these tests, whose values are by key in testdata/stock.txt.
func TestStoredByStock(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "kms.sock")
	serve(t, socket)
	rules, err := os.ReadFile("testdata/stock.yaml")
	if err != nil {
		t.Fatal(err)
	}
	values, err := os.ReadFile("testdata/stock.txt")
	if err != nil {
		t.Fatal(err)
	}
	under := memory.New()
	s := open(t, under, strings.ReplaceAll(string(rules), "SOCKET", socket))
	defer s.rules.Load().close()
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(values)) {
		key, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		value, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		put(t, under, key, string(value))
		if got := get(t, s, key); !strings.HasPrefix(got, "k8s\x00") {
			t.Errorf("%s is read as %q", key, got)
		}
		if stale, err := s.Stale(t.Context(), key); err != nil || stale {
			t.Errorf("%s is stale, %v", key, err)
		}
	}
}

func TestWrongKeys(t *testing.T) {
	for _, c := range []struct{ wrote, reads, want string }{
		{"aescbc:a", "aescbc:b", "no matching key was found for the provided AES transformer"},
		{"aesgcm:a", "aescbc:a", "no matching prefix found"},
		{"aesgcm:a", "identity", "no matching prefix found"},
		{"secretbox:a", "secretbox:b", "no matching key was found for the provided Secretbox transformer"},
		{"identity", "aesgcm:a", "no matching prefix found"},
	} {
		under := memory.New()
		put(t, open(t, under, forSecrets(c.wrote)), key, "it")
		s := open(t, under, forSecrets(c.reads))
		want := fmt.Sprintf("unable to transform key %q: %s", key, c.want)
		if _, err := s.Get(t.Context(), key); err == nil || err.Error() != want {
			t.Errorf("%s read by %s: %v, want %s", c.wrote, c.reads, err, want)
		}
		if _, err := s.List(t.Context(), registry.Query{Prefix: "/registry/"}); err == nil || err.Error() != want {
			t.Errorf("%s listed by %s: %v, want %s", c.wrote, c.reads, err, want)
		}
	}
	// A value is good at its own key only.
	under := memory.New()
	s := open(t, under, forSecrets("aesgcm:a"))
	put(t, s, key, "it")
	put(t, under, key+"2", get(t, under, key))
	if _, err := s.Get(t.Context(), key+"2"); err == nil || !strings.Contains(err.Error(), "message authentication failed") {
		t.Errorf("a value from another key: %v", err)
	}
}

func TestRotation(t *testing.T) {
	under := memory.New()
	s := open(t, under, forSecrets("identity"))
	put(t, s, key, "it")
	for _, step := range []struct {
		file  string
		stale bool
	}{
		{forSecrets("aescbc:a", "identity"), true},
		{forSecrets("aescbc:ab"), false},
		{forSecrets("aescbc:ba"), true},
		{forSecrets("secretbox:a", "aescbc:b"), true},
		{forSecrets("secretbox:a"), false},
		{forSecrets("identity", "secretbox:a"), true},
		{forSecrets("identity"), false},
	} {
		if err := os.WriteFile(s.file, []byte(step.file), 0o600); err != nil {
			t.Fatal(err)
		}
		if changed, err := s.reload(t.Context()); err != nil || !changed {
			t.Fatalf("reload: %v, %v of\n%s", changed, err, step.file)
		}
		if value := get(t, s, key); value != "it" {
			t.Errorf("read %q", value)
		}
		if stale, err := s.Stale(t.Context(), key); err != nil || stale != step.stale {
			t.Errorf("stale is %v, %v with\n%s", stale, err, step.file)
		}
		put(t, s, key, "it")
		if stale, err := s.Stale(t.Context(), key); err != nil || stale {
			t.Errorf("written anew it is stale: %v", err)
		}
	}
	if stored := get(t, under, key); stored != "it" {
		t.Errorf("in the end %q is stored", stored)
	}
}

// A file that is bad leaves everything as it was.
func TestBadFileWhileRunning(t *testing.T) {
	under := memory.New()
	s := open(t, under, forSecrets("aescbc:a"))
	put(t, s, key, "it")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		if err := os.WriteFile(s.file, []byte(forSecrets("nothing")), 0o600); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		wait(t, 2*reloadEvery)
		if value := get(t, s, key); value != "it" {
			t.Errorf("read %q", value)
		}
		if err := os.WriteFile(s.file, []byte(forSecrets("secretbox:a", "aescbc:a")), 0o600); err != nil {
			t.Fatal(err)
		}
		wait(t, 2*reloadEvery)
		if stale, err := s.Stale(t.Context(), key); err != nil || !stale {
			t.Errorf("the new file was not read: %v, %v", stale, err)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestBadFiles(t *testing.T) {
	short := base64.StdEncoding.EncodeToString([]byte("short"))
	for text, want := range map[string]string{
		"":                                     "it is empty",
		"x":                                    "cannot unmarshal",
		"{apiVersion: v1, kind: Secret}":       `it is of kind "Secret", version "v1"`,
		config("- resources: []\n"):            "[resources[0].resources: Required value: at least one resources[0].resources is required, resources[0].providers: Required value",
		config("  []\n"):                       "resources: Required value: at least one resources is required",
		forSecrets("rot13:a"):                  `unknown field "resources[0].providers[0].rot13"`,
		forSecrets("identity") + "  more: 1\n": `unknown field "resources[0].more"`,
		config("- {resources: ['*'], providers: [{identity: {}}]}"):                                                          "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
		config("- {resources: ['secrets', '*.'], providers: [{identity: {}}]}"):                                              "using overlapping resources such as 'secrets' and '*.'",
		config("- {resources: [secrets, secrets], providers: [{identity: {}}]}"):                                             "the same resource cannot be specified multiple times",
		config("- {resources: [Secrets], providers: [{identity: {}}]}"):                                                      "resource name should not contain capital letters",
		config("- {resources: [events.events.k8s.io], providers: [{identity: {}}]}"):                                         "Use 'events' instead",
		config("- {resources: [secrets.*], providers: [{identity: {}}]}"):                                                    "encrypting the same resource across groups is not supported",
		config("- {resources: [secrets], providers: [{}]}"):                                                                  "provider does not contain any of the expected providers",
		config("- {resources: [secrets], providers: [{identity: {}, aescbc: {keys: []}}]}"):                                  "more than one provider specified in a single element",
		config("- {resources: [secrets], providers: [{aescbc: {keys: []}}]}"):                                                "resources[0].providers[0].aescbc.keys: Required value: at least one keys is required",
		config("- {resources: [secrets], providers: [{aescbc: {keys: [{name: a, secret: '!'}]}}]}"):                          `resources[0].providers[0].aescbc.keys[0].secret: Invalid value: "REDACTED": secrets must be base64 encoded`,
		config("- {resources: [secrets], providers: [{aesgcm: {keys: [{name: a, secret: " + short + "}]}}]}"):                "secret is not of the expected length, got 5, expected one of [16 24 32]",
		config("- {resources: [secrets], providers: [{secretbox: {keys: [{secret: " + secretOf("a") + "}]}}]}"):              "name is a mandatory field for a key",
		config("- {resources: ['*.*'], providers: [{identity: {}}]}\n- {resources: [secrets], providers: [{identity: {}}]}"): `resource "secrets" is masked by earlier rule "*.*"`,
		config("- {resources: [secrets], providers: [{kms: {name: a, endpoint: 'unix:///x'}}]}"):                             "KMSv1 is deprecated and not supported. Use KMSv2 instead.",
		config("- {resources: [secrets], providers: [{kms: {apiVersion: v2, name: 'a:b', endpoint: 'http://x'}}]}"):          `[resources[0].providers[0].kms.name: Invalid value: "a:b": invalid KMS provider name a:b, must not contain ':', resources[0].providers[0].kms.endpoint: Invalid value: "http://x": unsupported scheme "http" for KMS provider, only unix is supported]`,
	} {
		path := file(t, text)
		_, err := Open(memory.New(), path, resources, false)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "encryption configuration "+path+": ") {
			t.Errorf("%s\n%v\nwant %s", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), short) {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
	if _, err := Open(memory.New(), "/nowhere", resources, false); err == nil || !strings.Contains(err.Error(), "read encryption configuration: open /nowhere") {
		t.Errorf("a file that is not there: %v", err)
	}
}

// What nobody can decrypt any more is told as it is where it is past, and
// else ends the watch.
func TestWatchAfterKeyIsGone(t *testing.T) {
	under := memory.New()
	put(t, open(t, under, forSecrets("aesgcm:a")), key, "it")
	s := open(t, under, forSecrets("aesgcm:b"))
	enough := errors.New("enough")
	for _, past := range []bool{true, false} {
		err := s.Watch(t.Context(), registry.Watch{Prefix: "/registry/", After: 1, Prev: past}, func(b registry.Batch) error {
			if len(b.Changes) == 0 {
				return nil
			}
			return enough
		})
		if past != errors.Is(err, enough) {
			t.Errorf("past %v: %v", past, err)
		}
	}
}

// wait lets the bubble's time go on.
func wait(t *testing.T, d time.Duration) {
	select {
	case <-time.After(d):
		synctest.Wait()
	case <-t.Context().Done():
	}
}

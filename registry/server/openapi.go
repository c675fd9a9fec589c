package server

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/knarr-dev/knarr/registry/openapi"
)

// The media types of OpenAPI documents in protobuf; the second of each is
// the one that parsers accept.
var (
	v2Types = []string{"application/json", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"}
	v3Types = []string{"application/json", "application/com.github.proto-openapi.spec.v3.v1.0+protobuf", "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"}
)

// keepFor is how long a document that was made is kept: clients come in
// bursts, and between them the memory is worth more than the time.
const keepFor = 5 * time.Minute

// kept are documents that were made, each for a while.
type kept struct {
	mu   sync.Mutex
	docs map[string]*document
}

type document struct {
	tag  string
	text []byte
}

// get returns the document at key, made anew where it has another tag.
func (k *kept) get(key, tag string, make func() ([]byte, error)) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if d := k.docs[key]; d != nil && d.tag == tag {
		return d.text, nil
	}
	text, err := make()
	if err != nil || text == nil {
		return nil, err
	}
	d := &document{tag, text}
	k.docs[key] = d
	time.AfterFunc(keepFor, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.docs[key] == d {
			delete(k.docs, key)
		}
	})
	return text, nil
}

// OpenAPI returns the handlers of the OpenAPI documents, for Config.Paths.
func (s *Server) OpenAPI(docs *openapi.Documents) map[string]http.Handler {
	serve := func(types []string, tag func(r *http.Request) string, make func(r *http.Request, protobuf bool) ([]byte, error)) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			a := &answer{s: s, w: w, r: r}
			media, ok := documentType(r, types)
			if !ok {
				a.fail(notAcceptable(types))
				return
			}
			etag := `"` + tag(r) + `"`
			w.Header().Set("Vary", "Accept")
			w.Header().Set("Etag", etag)
			if r.Header.Get("If-None-Match") == etag {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			doc, err := s.documents.get(r.URL.Path+" "+media, etag, func() ([]byte, error) { return make(r, media != types[0]) })
			if err != nil {
				a.fail(err)
				return
			}
			if doc == nil {
				http.NotFound(w, r)
				return
			}
			a.body(http.StatusOK, media, doc)
		})
	}
	whole := func(*http.Request) string { return docs.Tag() }
	at := func(r *http.Request) string { return strings.TrimPrefix(r.URL.Path, "/openapi/v3/") }
	one := func(r *http.Request) string { return docs.TagOf(at(r)) }
	v3 := serve(v3Types, one, func(r *http.Request, protobuf bool) ([]byte, error) { return docs.V3(at(r), protobuf) })
	return map[string]http.Handler{
		"/openapi/v2": serve(v2Types, whole, func(_ *http.Request, protobuf bool) ([]byte, error) { return docs.V2(protobuf) }),
		"/openapi/v3": serve(v3Types[:1], whole, func(*http.Request, bool) ([]byte, error) { return docs.Index() }),
		"/openapi/v3/": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if hash := r.URL.Query().Get("hash"); hash != "" {
				tag := one(r)
				if tag == "" {
					http.NotFound(w, r)
					return
				}
				if hash != tag {
					http.Redirect(w, r, r.URL.Path+"?hash="+tag, http.StatusMovedPermanently)
					return
				}
				w.Header().Set("Cache-Control", "public, immutable")
				w.Header().Set("Expires", time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
			}
			v3.ServeHTTP(w, r)
		}),
	}
}

// documentType is which of types the client likes best.
func documentType(r *http.Request, types []string) (string, bool) {
	all := accepts(r)
	if len(all) == 0 {
		return types[0], true
	}
	for _, a := range all {
		if media, ok := a.of(types); ok {
			if media == types[len(types)-1] && len(types) > 1 {
				media = types[1]
			}
			return media, true
		}
	}
	return "", false
}

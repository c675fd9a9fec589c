// Package serve is a registry that only hands out: what is in a store, by the
// protocol that container runtimes pull with. It stands in for the registries
// that the images' names begin with: a runtime that has it as a mirror says
// in each request which of them it means.
package serve

import (
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/knarr-dev/knarr/conformance/images/store"
)

// home is the registry that is meant where a request does not say.
const home = "registry.k8s.io"

// A Registry hands out a store's images, and those of private repositories
// only to who knows the password.
type Registry struct {
	Store          *store.Store
	Private        []string // repositories, as gcr.io/private/image
	User, Password string
}

// ServeHTTP answers /v2/, and below it manifests and blobs.
func (g *Registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	path, v2 := strings.CutPrefix(r.URL.Path, "/v2/")
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "this registry is read only")
	case v2 && path == "", r.URL.Path == "/v2":
		w.WriteHeader(http.StatusOK)
	case v2:
		g.image(w, r, path)
	default:
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "not a registry's path")
	}
}

// image serves NAME/manifests/REFERENCE and NAME/blobs/DIGEST.
func (g *Registry) image(w http.ResponseWriter, r *http.Request, path string) {
	parts := strings.Split(path, "/")
	if len(parts) < 3 {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "no such repository")
		return
	}
	repository := g.repository(r.URL.Query().Get("ns"), strings.Join(parts[:len(parts)-2], "/"))
	if !g.may(repository, r) {
		w.Header().Set("WWW-Authenticate", `Basic realm="knarr"`)
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return
	}
	what, reference := parts[len(parts)-2], parts[len(parts)-1]
	switch what {
	case "manifests":
		g.manifest(w, r, repository, reference)
	case "blobs":
		g.blob(w, r, repository, reference)
	default:
		refuse(w, http.StatusNotFound, "UNSUPPORTED", "only manifests and blobs are served")
	}
}

// repository is the full name of what is asked for: of the registry that the
// request stands for, else with the registry in the path, else of home.
func (g *Registry) repository(registry, path string) string {
	switch {
	case registry != "":
		return registry + "/" + path
	case g.Store.Has(path):
		return path
	default:
		return home + "/" + path
	}
}

func (g *Registry) may(repository string, r *http.Request) bool {
	for _, p := range g.Private {
		if p != repository {
			continue
		}
		user, password, _ := r.BasicAuth()
		return subtle.ConstantTimeCompare([]byte(user), []byte(g.User))&subtle.ConstantTimeCompare([]byte(password), []byte(g.Password)) == 1
	}
	return true
}

func (g *Registry) manifest(w http.ResponseWriter, r *http.Request, repository, reference string) {
	desc, err := g.Store.Find(repository, reference)
	if err != nil {
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "no "+reference+" in "+repository)
		return
	}
	w.Header().Set("Content-Type", string(desc.MediaType))
	g.send(w, r, desc.Digest)
}

func (g *Registry) blob(w http.ResponseWriter, r *http.Request, repository, digest string) {
	hash, err := v1.NewHash(digest)
	if err != nil || !g.Store.Holds(repository, hash) {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", "no "+digest+" in "+repository)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	g.send(w, r, hash)
}

func (g *Registry) send(w http.ResponseWriter, r *http.Request, hash v1.Hash) {
	f, err := os.Open(g.Store.Blob(hash))
	if err != nil {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", err.Error())
		return
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		refuse(w, http.StatusInternalServerError, "UNKNOWN", err.Error())
		return
	}
	w.Header().Set("Docker-Content-Digest", hash.String())
	w.Header().Set("ETag", `"`+hash.String()+`"`)
	http.ServeContent(w, r, "", info.ModTime(), f)
}

// refuse answers as a registry does, so that runtimes show the reason.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The client is gone where this fails, and nothing is owed to it.
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}

package aggregate

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"time"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kube-openapi/pkg/aggregator"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/knarr-dev/knarr/registry/discovery"
	"github.com/knarr-dev/knarr/registry/openapi"
)

// Of the questions what a remote serves.
const (
	learnEvery  = time.Minute
	learnSoon   = 500 * time.Millisecond // after one has failed, doubled each time up to learnEvery
	listWithin  = 5 * time.Second
	modelWithin = time.Minute
)

// findings are what is known of what a remote serves. They are never changed.
type findings struct {
	resources []apidiscoveryv2.APIResourceDiscovery
	stale     bool // it could not be asked when it last should have been

	swagger *spec.Swagger // of the group version only; nil for none
	tag     string        // changes where swagger does
	v3      string        // where the v3 document is, as the remote tells; "" for nowhere
}

// learn asks the remote what it serves until ctx ends, and tells of changes.
// It is of no concern to others how long that takes.
func (r *remote) learn(ctx context.Context) {
	wait := learnSoon
	for ctx.Err() == nil {
		err := r.list(ctx)
		if err == nil {
			err = r.model(ctx)
		}
		pause := learnEvery
		if err != nil {
			slog.DebugContext(ctx, "ask what is served for an APIService", "obj", "APIService/"+r.service.Name, "err", err)
			pause, wait = wait, min(2*wait, learnEvery)
		} else {
			wait = learnSoon
		}
		next := time.NewTimer(pause)
		select {
		case <-next.C:
		case <-r.look:
			wait = learnSoon
		case <-ctx.Done():
		}
		next.Stop()
	}
}

// note remembers what was found, and tells where it is something new.
func (r *remote) note(ctx context.Context, f findings) {
	was := r.found.Load()
	r.found.Store(&f)
	same := was.stale == f.stale && was.tag == f.tag && was.v3 == f.v3
	if (!same || !apiequality.Semantic.DeepEqual(was.resources, f.resources)) && ctx.Err() == nil {
		r.Changed()
	}
}

// errAway is that of a remote that nobody is to be sent to.
var errAway = errors.New("the APIService is not available")

// list finds out what the remote serves of the group version. Where it does
// not tell, that stays as it was.
func (r *remote) list(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, listWithin)
	defer cancel()
	f := *r.found.Load()
	resources, err := r.resources(ctx)
	if f.stale = err != nil; err == nil {
		f.resources = resources
	}
	r.note(context.WithoutCancel(ctx), f)
	return err
}

// aggregated are the forms of the document that has all groups in it.
const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList," +
	"application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"

func (r *remote) resources(ctx context.Context) ([]apidiscoveryv2.APIResourceDiscovery, error) {
	if !r.available() {
		return nil, errAway
	}
	var all apidiscoveryv2.APIGroupDiscoveryList
	code, text, err := r.document(ctx, "/apis", aggregated)
	switch {
	case err != nil:
		return nil, err
	case code == http.StatusServiceUnavailable:
		return nil, errAway
	case code == http.StatusOK && json.Unmarshal(text, &all) == nil && all.Kind == "APIGroupDiscoveryList":
		return discovery.Resources(&all, r.gv), nil
	}
	var old metav1.APIResourceList
	path := "/apis/" + r.gv.String()
	if code, text, err = r.document(ctx, path, "application/json"); err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		return nil, fmt.Errorf("%s is answered by %d", path, code)
	}
	if err := json.Unmarshal(text, &old); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return discovery.OfList(&old), nil
}

// model finds out by which documents of OpenAPI the remote describes the
// group version. A document that cannot be read is as none.
func (r *remote) model(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, modelWithin)
	defer cancel()
	f := *r.found.Load()
	var index struct {
		Paths map[string]struct {
			URL string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	code, text, err := r.document(ctx, "/openapi/v3", "application/json")
	if err != nil {
		return err
	}
	f.v3 = ""
	if code == http.StatusOK && json.Unmarshal(text, &index) == nil {
		f.v3 = index.Paths["apis/"+r.gv.String()].URL
	}
	if code, text, err = r.document(ctx, "/openapi/v2", "application/json"); err != nil {
		return err
	}
	tag := fmt.Sprintf("%X", sha256.Sum256(text))
	switch {
	case code != http.StatusOK:
		f.swagger, f.tag = nil, ""
	case tag != f.tag:
		f.tag = tag
		if f.swagger, err = part(text, "/apis/"+r.gv.String()+"/"); err != nil {
			slog.WarnContext(ctx, "the OpenAPI document of an APIService cannot be used", "obj", "APIService/"+r.service.Name, "err", err)
		}
	}
	r.note(context.WithoutCancel(ctx), f)
	return nil
}

// part is what a document says of the paths below one. What would spoil the
// document that it is to be a part of is an error.
func part(text []byte, below string) (s *spec.Swagger, err error) {
	defer func() {
		if v := recover(); v != nil {
			s, err = nil, fmt.Errorf("%v", v) // the library holds that what it reads is sound
		}
	}()
	whole := &spec.Swagger{}
	if err := whole.UnmarshalJSON(text); err != nil {
		return nil, err
	}
	if whole.Paths == nil {
		return nil, errors.New("it has no paths")
	}
	s = aggregator.FilterSpecByPathsWithoutSideEffects(whole, []string{below})
	if text, err = json.Marshal(s); err != nil {
		return nil, err
	}
	if _, err := openapi_v2.ParseDocument(text); err != nil {
		return nil, err
	}
	return s, aggregator.MergeSpecsIgnorePathConflictRenamingDefinitionsAndParameters(&spec.Swagger{}, s)
}

// document is an answer of the remote, whatever its code.
func (r *remote) document(ctx context.Context, path, accept string) (code int, text []byte, err error) {
	resp, err := r.get(ctx, path, asker, http.Header{"Accept": {accept}})
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }() // it was read
	text, err = read(resp)
	return resp.StatusCode, text, err
}

// Versions are the group versions that other servers serve.
func (s *Servers) Versions() (all []discovery.Version) {
	for _, r := range s.sorted() {
		f, of := r.found.Load(), &r.service.Spec
		all = append(all, discovery.Version{GroupVersion: r.gv, Remote: &discovery.Remote{
			Priority: discovery.Priority{Group: of.GroupPriorityMinimum, Version: of.VersionPriority}, Resources: f.resources, Stale: f.stale,
		}})
	}
	return all
}

// Models are the OpenAPI documents of other servers.
func (s *Servers) Models() (all []openapi.Remote) {
	for _, r := range s.sorted() {
		f := r.found.Load()
		all = append(all, openapi.Remote{GroupVersion: r.gv, V2: f.swagger, Tag: f.tag, V3: f.v3})
	}
	return all
}

// Paths are the handlers of what other servers tell of themselves.
func (s *Servers) Paths() map[string]http.Handler {
	paths := map[string]http.Handler{}
	for _, r := range s.sorted() {
		paths["/apis/"+r.gv.String()] = r
		if r.found.Load().v3 != "" {
			paths["/openapi/v3/apis/"+r.gv.String()] = r
		}
	}
	return paths
}

// sorted are the remotes in the order of their names.
func (s *Servers) sorted() (all []*remote) {
	if now := s.remotes.Load(); now != nil {
		all = slices.SortedFunc(maps.Values(*now), func(a, b *remote) int { return cmp.Compare(a.service.Name, b.service.Name) })
	}
	return all
}

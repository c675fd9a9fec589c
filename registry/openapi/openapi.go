package openapi

import (
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/aggregator"
	"k8s.io/kube-openapi/pkg/openapiconv"
	"k8s.io/kube-openapi/pkg/validation/spec"
	smd "sigs.k8s.io/structured-merge-diff/v6/schema"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry/discovery"
)

// Documents are the OpenAPI documents of what is served. Use New.
type Documents struct {
	versions []discovery.Version
	scheme   *runtime.Scheme
	convert  func() managedfields.TypeConverter
	release  string
	tag      string
	tags     map[string]string // by path of a v3 document
	merges   func() map[string]*smd.Map
	remotes  []Remote
}

// Remote is what another server tells of a group version that it serves.
type Remote struct {
	schema.GroupVersion

	V2  *spec.Swagger // nil for nothing
	Tag string        // changes where V2 does
	V3  string        // URL of the v3 document; "" where there is none but what follows from V2
}

func (r *Remote) made() bool { return r.V3 == "" && r.V2 != nil }

// New returns the documents of versions, whose types scheme knows and whose
// lists merge as convert knows. Release is the server's own version.
func New(versions []discovery.Version, scheme *runtime.Scheme, convert func() managedfields.TypeConverter, release string) *Documents {
	versions = slices.DeleteFunc(slices.Clone(versions), func(v discovery.Version) bool { return v.Remote != nil })
	d := &Documents{versions: versions, scheme: scheme, convert: convert, release: release, tags: map[string]string{}}
	// What is served follows from the program and its kinds: their names
	// stand for the documents, which then need not be made to be told apart.
	whole := sha512.New()
	for _, v := range d.versions {
		sum := sha512.New()
		fmt.Fprintln(sum, release)
		for _, k := range v.Kinds {
			fmt.Fprintln(sum, v.String(), k.Kind, k.Plural)
			if k.Custom != nil {
				fmt.Fprintln(sum, k.Scope, k.Custom.Singular, k.Custom.List, k.Custom.Digest, len(k.Subs), k.Scale != nil)
			}
		}
		tag := sum.Sum(nil)
		d.tags[path(v.GroupVersion)] = fmt.Sprintf("%X", tag)
		whole.Write(tag)
	}
	d.tag = fmt.Sprintf("%X", whole.Sum(nil))
	d.merges = sync.OnceValue(d.readMerges)
	return d
}

// With adds what other servers tell.
func (d *Documents) With(remotes []Remote) *Documents {
	for _, r := range remotes {
		if r.made() {
			d.tags[path(r.GroupVersion)] = r.Tag
		}
		d.tag = fmt.Sprintf("%X", sha512.Sum512([]byte(d.tag+r.String()+r.Tag+r.V3)))
	}
	d.remotes = remotes
	return d
}

// Tag changes when any of the documents does, and TagOf when the v3 document
// at a path does.
func (d *Documents) Tag() string { return d.tag }

// TagOf is empty where there is no document.
func (d *Documents) TagOf(path string) string { return d.tags[path] }

// Paths are the paths of the v3 documents, below /openapi/v3.
func (d *Documents) Paths() (paths []string) {
	for _, v := range d.versions {
		paths = append(paths, path(v.GroupVersion))
	}
	for _, r := range d.remotes {
		if r.made() {
			paths = append(paths, path(r.GroupVersion))
		}
	}
	return paths
}

func path(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "api/" + gv.Version
	}
	return "apis/" + gv.String()
}

// readMerges reads how fields merge from the schema that apply goes by.
func (d *Documents) readMerges() map[string]*smd.Map {
	all := map[string]*smd.Map{}
	converter := d.convert()
	for _, v := range d.versions {
		for _, k := range v.Kinds {
			obj := k.New()
			obj.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
			typed, err := converter.ObjectToTyped(obj)
			if err != nil {
				continue // a review is not applied
			}
			for _, t := range typed.Schema().Types {
				if t.Map != nil {
					all[t.Name] = t.Map
				}
			}
			return all // every value knows the whole schema
		}
	}
	return all
}

// swagger builds the v2 document of versions.
func (d *Documents) swagger(versions []discovery.Version, v3 bool) *spec.Swagger {
	out := &spec.Swagger{}
	out.Swagger = "2.0"
	out.Info = &spec.Info{InfoProps: spec.InfoProps{Title: "Kubernetes", Version: d.release}}
	token := &spec.SecurityScheme{}
	token.Type, token.Name, token.In, token.Description = "apiKey", "authorization", "header", "Bearer Token authentication"
	out.SecurityDefinitions = spec.SecurityDefinitions{"BearerToken": token}
	out.Security = []map[string][]string{{"BearerToken": {}}}
	out.Paths = &spec.Paths{Paths: map[string]spec.PathItem{}}
	out.Definitions = spec.Definitions{}
	for _, v := range versions {
		doc := &doc{
			schemas: schemas{defs: out.Definitions, merges: d.merges()},
			gv:      v.GroupVersion, new: d.scheme.New, paths: out.Paths.Paths, v3: v3, customs: map[string]*apis.Definition{},
		}
		for _, k := range v.Kinds {
			doc.kind(k)
		}
	}
	return out
}

// V2 is the v2 document of everything, in JSON or in protobuf.
func (d *Documents) V2(protobuf bool) ([]byte, error) {
	all := d.swagger(d.versions, false)
	for _, r := range d.remotes {
		if r.V2 == nil {
			continue
		}
		if err := aggregator.MergeSpecsIgnorePathConflictRenamingDefinitionsAndParameters(all, r.V2); err != nil {
			slog.Warn("an OpenAPI document of another server cannot be merged", "version", r.String(), "err", err)
		}
	}
	text, err := json.Marshal(all)
	if err != nil || !protobuf {
		return text, err
	}
	doc, err := openapi_v2.ParseDocument(text)
	if err != nil {
		return nil, fmt.Errorf("openapi v2: %w", err)
	}
	return proto.Marshal(doc)
}

// V3 is the v3 document at one of Paths, in JSON or in protobuf; nil where
// there is none.
func (d *Documents) V3(at string, protobuf bool) ([]byte, error) {
	swagger := d.at(at)
	if swagger == nil {
		return nil, nil
	}
	text, err := json.Marshal(openapiconv.ConvertV2ToV3(swagger))
	if err != nil || !protobuf {
		return text, err
	}
	doc, err := openapi_v3.ParseDocument(text)
	if err != nil {
		return nil, fmt.Errorf("openapi v3 of %s: %w", at, err)
	}
	return proto.Marshal(doc)
}

// at is what there is to tell at a path of v3, nil for nothing.
func (d *Documents) at(at string) *spec.Swagger {
	if i := slices.IndexFunc(d.versions, func(v discovery.Version) bool { return path(v.GroupVersion) == at }); i >= 0 {
		return d.swagger(d.versions[i:i+1], true)
	}
	if i := slices.IndexFunc(d.remotes, func(r Remote) bool { return r.made() && path(r.GroupVersion) == at }); i >= 0 {
		return d.remotes[i].V2
	}
	return nil
}

// Index is the document that leads to those of v3.
func (d *Documents) Index() ([]byte, error) {
	type link struct {
		URL string `json:"serverRelativeURL"`
	}
	links := map[string]link{}
	for _, p := range d.Paths() {
		links[p] = link{"/openapi/v3/" + p + "?hash=" + d.tags[p]}
	}
	for _, r := range d.remotes {
		if r.V3 != "" {
			links[path(r.GroupVersion)] = link{r.V3}
		}
	}
	return json.Marshal(map[string]any{"paths": links})
}

package server

import (
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/knarr-dev/knarr/registry/discovery"
)

// Discovery returns the handlers of the discovery documents, for Config.Paths.
// The address is where clients reach the server.
func (s *Server) Discovery(versions []discovery.Version, address string) map[string]http.Handler {
	var core, named []discovery.Version
	list := &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
	paths := map[string]http.Handler{}
	for _, v := range versions {
		if v.Group == "" {
			core = append(core, v)
		} else {
			named = append(named, v)
		}
		if v.Remote == nil { // else the other server tells itself
			paths[versionPath(v)] = s.document(v.List())
		}
	}
	for _, g := range discovery.ByGroup(named) {
		group := discovery.Group(g)
		list.Groups = append(list.Groups, group)
		group.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
		paths["/apis/"+group.Name] = s.document(&group)
	}
	legacy := &metav1.APIVersions{
		TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"},
		ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{{ClientCIDR: "0.0.0.0/0", ServerAddress: address}},
	}
	paths["/api"] = s.aggregated(s.document(legacy), core)
	paths["/apis"] = s.aggregated(s.document(list), named)
	return paths
}

func versionPath(v discovery.Version) string {
	if v.Group == "" {
		return "/api/" + v.Version
	}
	return "/apis/" + v.String()
}

// document serves one of the old documents.
func (s *Server) document(doc runtime.Object) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := &answer{s: s, w: w, r: r}
		var err error
		if a.f, err = negotiate(r, offer{media: everyMedia}); err != nil {
			a.fail(err)
			return
		}
		a.send(http.StatusOK, doc)
	})
}

// aggregatedType is what clients ask the aggregated documents as.
const aggregatedType = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

// aggregated serves the aggregated document to those who ask for it.
func (s *Server) aggregated(old http.Handler, versions []discovery.Version) http.Handler {
	doc, err := json.Marshal(discovery.Aggregate(versions))
	if err != nil {
		panic(err) // plain data always encodes
	}
	doc = append(doc, '\n')
	etag := fmt.Sprintf("%q", strings.ToUpper(fmt.Sprintf("%x", sha512.Sum512(doc))))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Vary", "Accept")
		if !wantsAggregated(r) {
			old.ServeHTTP(w, r)
			return
		}
		h.Set("Cache-Control", "public")
		h.Set("Etag", etag)
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		(&answer{s: s, w: w, r: r}).body(http.StatusOK, aggregatedType, doc)
	})
}

// wantsAggregated reports whether the aggregated document is the first that
// the client accepts of those there are.
func wantsAggregated(r *http.Request) bool {
	for _, a := range accepts(r) {
		if _, ok := a.of(everyMedia); !ok {
			continue
		}
		switch {
		case a.params["as"] == "":
			return false
		case a.params["g"] == "apidiscovery.k8s.io" && a.params["v"] == "v2" && a.params["as"] == "APIGroupDiscoveryList":
			return true
		}
	}
	return false
}

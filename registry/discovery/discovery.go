// Package discovery tells clients what a server serves: the old documents, a
// list a group version, and the aggregated ones. They are computed from the
// definitions; package server sends them.
package discovery

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"slices"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"github.com/knarr-dev/knarr/apis"
)

// A Version is what one group version serves.
type Version struct {
	schema.GroupVersion

	Kinds  []*apis.Definition
	Remote *Remote // nil for what this server serves itself
}

// Served sorts kinds by the group versions that they are served in, in the
// order of groups.
func Served(groups []apis.Group, kinds []*apis.Definition) (versions []Version) {
	for _, g := range groups {
		v := Version{GroupVersion: g.GroupVersion}
		for _, d := range kinds {
			viewed := slices.ContainsFunc(d.Views, func(view apis.View) bool { return view.GroupVersion == g.GroupVersion })
			if d.GroupVersion() == g.GroupVersion || viewed {
				v.Kinds = append(v.Kinds, d)
			}
		}
		slices.SortFunc(v.Kinds, func(a, b *apis.Definition) int { return cmp.Compare(a.Plural, b.Plural) })
		if len(v.Kinds) > 0 {
			versions = append(versions, v)
		}
	}
	return append(versions, custom(groups, kinds)...)
}

// custom are the group versions of custom kinds, in the order of the names of
// their groups, and in each the most stable and newest first.
func custom(groups []apis.Group, kinds []*apis.Definition) (versions []Version) {
	for _, d := range kinds {
		if d.Custom == nil || !d.Custom.Known || slices.ContainsFunc(groups, func(g apis.Group) bool { return g.GroupVersion == d.GroupVersion() }) {
			continue
		}
		i := slices.IndexFunc(versions, func(v Version) bool { return v.GroupVersion == d.GroupVersion() })
		if i < 0 {
			i = len(versions)
			versions = append(versions, Version{GroupVersion: d.GroupVersion()})
		}
		versions[i].Kinds = append(versions[i].Kinds, d)
	}
	slices.SortFunc(versions, func(a, b Version) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), version.CompareKubeAwareVersionStrings(b.Version, a.Version))
	})
	for _, v := range versions {
		slices.SortFunc(v.Kinds, func(a, b *apis.Definition) int { return cmp.Compare(a.Plural, b.Plural) })
	}
	return versions
}

// verbs are those that a kind is asked with, in upstream's order.
func verbs(d *apis.Definition) []string {
	switch {
	case d.Custom == nil:
		return slices.Sorted(slices.Values(d.Verbs))
	case d.Custom.Ending:
		return []string{"delete", "deletecollection", "get", "list", "watch"}
	}
	return []string{"delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"}
}

// A subresource is one row below a kind.
type subresource struct {
	name  string
	kind  schema.GroupVersionKind
	verbs []string
}

// subresources are those of a kind, by name.
func subresources(d *apis.Definition) (all []subresource) {
	edit := []string{"get", "patch", "update"}
	for _, s := range d.Subs {
		verbs := s.Verbs
		if verbs == nil {
			verbs = edit
		}
		all = append(all, subresource{s.Name, schema.GroupVersionKind{Kind: d.Kind}, verbs})
	}
	for _, a := range d.Acts {
		all = append(all, subresource{a.Name, a.Kind, a.Verbs})
	}
	if d.Scale != nil {
		all = append(all, subresource{"scale", autoscalingv1.SchemeGroupVersion.WithKind("Scale"), edit})
	}
	for i := range all {
		all[i].verbs = slices.Sorted(slices.Values(all[i].verbs))
	}
	if d.Custom == nil { // of which upstream tells in the order that they stand here
		slices.SortFunc(all, func(a, b subresource) int { return cmp.Compare(a.name, b.name) })
	}
	return all
}

// elsewhere is gv where it is another group version than home, else empty.
func elsewhere(gv, home schema.GroupVersion) schema.GroupVersion {
	if gv == home {
		return schema.GroupVersion{}
	}
	return gv
}

// List is the old document of a group version.
func (v *Version) List() *metav1.APIResourceList {
	l := &metav1.APIResourceList{
		TypeMeta:     metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
		GroupVersion: v.String(), APIResources: []metav1.APIResource{},
	}
	if v.Group == "" {
		l.APIVersion = "" // as upstream, whose core document has none
	}
	for _, d := range v.Kinds {
		r := metav1.APIResource{
			Name: d.Plural, SingularName: d.Singular(), Namespaced: d.Scope == apis.Namespaced, Kind: d.Kind,
			Verbs: verbs(d), ShortNames: d.Short, Categories: d.Categories,
		}
		if d.Stored() {
			r.StorageVersionHash = storageHash(d)
		}
		l.APIResources = append(l.APIResources, r)
		for _, s := range subresources(d) {
			gv := elsewhere(s.kind.GroupVersion(), v.GroupVersion)
			l.APIResources = append(l.APIResources, metav1.APIResource{
				Name: d.Plural + "/" + s.name, Namespaced: d.Scope == apis.Namespaced,
				Group: gv.Group, Version: gv.Version, Kind: s.kind.Kind, Verbs: s.verbs,
			})
		}
	}
	return l
}

// storageHash identifies the version that a kind is stored in, as upstream.
func storageHash(d *apis.Definition) string {
	stored := d.Version
	if d.Custom != nil {
		stored = d.Custom.Storage
	}
	sum := sha256.Sum256([]byte(d.Group + "/" + stored + "/" + d.Kind))
	return base64.StdEncoding.EncodeToString(sum[:8])
}

// Group is the old document of a group, whose versions come most wanted first.
func Group(versions []Version) metav1.APIGroup {
	g := metav1.APIGroup{Name: versions[0].Group}
	for _, v := range versions {
		g.Versions = append(g.Versions, metav1.GroupVersionForDiscovery{GroupVersion: v.String(), Version: v.Version})
	}
	g.PreferredVersion = g.Versions[0]
	return g
}

// ByGroup gathers the versions of each group, groups in their order.
func ByGroup(versions []Version) (groups [][]Version) {
	for _, v := range versions {
		i := slices.IndexFunc(groups, func(g []Version) bool { return g[0].Group == v.Group })
		if i < 0 {
			groups = append(groups, []Version{v})
		} else {
			groups[i] = append(groups[i], v)
		}
	}
	return groups
}

// Aggregate is the one document of the given versions.
func Aggregate(versions []Version) *apidiscoveryv2.APIGroupDiscoveryList {
	l := &apidiscoveryv2.APIGroupDiscoveryList{
		TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: apidiscoveryv2.SchemeGroupVersion.String()},
		Items:    []apidiscoveryv2.APIGroupDiscovery{},
	}
	for _, g := range ByGroup(versions) {
		item := apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: g[0].Group}}
		for _, v := range g {
			item.Versions = append(item.Versions, v.aggregate())
		}
		l.Items = append(l.Items, item)
	}
	return l
}

func (v *Version) aggregate() apidiscoveryv2.APIVersionDiscovery {
	out := apidiscoveryv2.APIVersionDiscovery{Version: v.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
	if v.Remote != nil {
		out.Resources = v.Remote.Resources
		if v.Remote.Stale {
			out.Freshness = apidiscoveryv2.DiscoveryFreshnessStale
		}
		return out
	}
	for _, d := range v.Kinds {
		r := apidiscoveryv2.APIResourceDiscovery{
			Resource: d.Plural, ResponseKind: &metav1.GroupVersionKind{Kind: d.Kind}, Scope: apidiscoveryv2.ScopeNamespace,
			SingularResource: d.Singular(), Verbs: verbs(d),
			ShortNames: d.Short, Categories: d.Categories,
		}
		if d.Scope == apis.Cluster {
			r.Scope = apidiscoveryv2.ScopeCluster
		}
		if d.Custom != nil { // of which upstream says all
			r.ResponseKind.Group, r.ResponseKind.Version = v.Group, v.Version
		}
		for _, s := range subresources(d) {
			gv := elsewhere(s.kind.GroupVersion(), v.GroupVersion)
			if d.Custom != nil && gv.Empty() {
				gv = v.GroupVersion
			}
			r.Subresources = append(r.Subresources, apidiscoveryv2.APISubresourceDiscovery{
				Subresource:  s.name,
				ResponseKind: &metav1.GroupVersionKind{Group: gv.Group, Version: gv.Version, Kind: s.kind.Kind},
				Verbs:        s.verbs,
			})
		}
		out.Resources = append(out.Resources, r)
	}
	return out
}

package discovery

import (
	"cmp"
	"slices"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
)

// Remote is what another server serves of a group version.
type Remote struct {
	Priority

	Resources []apidiscoveryv2.APIResourceDiscovery
	Stale     bool // it could not be asked, so that there may be more
}

// A Priority is where a group stands among groups, and a version in its
// group; what has more comes first.
type Priority struct{ Group, Version int32 }

// Custom is the priority of kinds that are defined by definitions.
var Custom = Priority{1000, 100}

// builtIn are the stock server's priorities of what it serves itself.
var builtIn = map[schema.GroupVersion]Priority{
	{Group: "", Version: "v1"}:                             {18000, 1},
	{Group: "apps", Version: "v1"}:                         {17800, 15},
	{Group: "events.k8s.io", Version: "v1"}:                {17750, 15},
	{Group: "authentication.k8s.io", Version: "v1"}:        {17700, 15},
	{Group: "authorization.k8s.io", Version: "v1"}:         {17600, 15},
	{Group: "autoscaling", Version: "v2"}:                  {17500, 30},
	{Group: "autoscaling", Version: "v1"}:                  {17500, 15},
	{Group: "batch", Version: "v1"}:                        {17400, 15},
	{Group: "certificates.k8s.io", Version: "v1"}:          {17300, 15},
	{Group: "networking.k8s.io", Version: "v1"}:            {17200, 15},
	{Group: "policy", Version: "v1"}:                       {17100, 15},
	{Group: "rbac.authorization.k8s.io", Version: "v1"}:    {17000, 15},
	{Group: "storage.k8s.io", Version: "v1"}:               {16800, 15},
	{Group: "admissionregistration.k8s.io", Version: "v1"}: {16700, 15},
	{Group: "apiextensions.k8s.io", Version: "v1"}:         {16700, 15},
	{Group: "scheduling.k8s.io", Version: "v1"}:            {16600, 15},
	{Group: "coordination.k8s.io", Version: "v1"}:          {16500, 15},
	{Group: "node.k8s.io", Version: "v1"}:                  {16300, 15},
	{Group: "discovery.k8s.io", Version: "v1"}:             {16200, 15},
	{Group: "resource.k8s.io", Version: "v1"}:              {16200, 21},
	{Group: "flowcontrol.apiserver.k8s.io", Version: "v1"}: {16100, 21},
}

// BuiltIn is the priority of a group version that is built in. False is for
// one that is not, and for that of APIServices, which always comes first.
func BuiltIn(gv schema.GroupVersion) (Priority, bool) {
	p, ok := builtIn[gv]
	return p, ok
}

// priority is where a version stands.
func (v *Version) priority() Priority {
	if v.Remote != nil {
		return v.Remote.Priority
	}
	if p, ok := BuiltIn(v.GroupVersion); ok {
		return p
	}
	if v.Group == "apiregistration.k8s.io" {
		return Priority{20001, 1} // more than any other can have
	}
	return Custom
}

// With adds what other servers serve, which counts where a version is served
// by this one too, and puts all in order.
func With(versions, remote []Version) []Version {
	if len(remote) == 0 {
		return versions
	}
	all := slices.DeleteFunc(slices.Clone(versions), func(v Version) bool {
		return slices.ContainsFunc(remote, func(r Version) bool { return r.GroupVersion == v.GroupVersion })
	})
	groups := ByGroup(append(all, remote...))
	for _, g := range groups {
		slices.SortStableFunc(g, func(a, b Version) int {
			return cmp.Or(cmp.Compare(b.priority().Version, a.priority().Version), version.CompareKubeAwareVersionStrings(b.Version, a.Version))
		})
	}
	slices.SortStableFunc(groups, func(a, b []Version) int {
		return cmp.Or(cmp.Compare(highest(b), highest(a)), cmp.Compare(name(a), name(b)))
	})
	return slices.Concat(groups...)
}

// highest is where a group stands of whose versions one has most.
func highest(group []Version) (most int32) {
	for _, v := range group {
		most = max(most, v.priority().Group)
	}
	return most
}

// name is that of the APIService of a group's first version.
func name(group []Version) string { return group[0].Version + "." + group[0].Group }

// Resources are those of a group version in an aggregated document.
func Resources(all *apidiscoveryv2.APIGroupDiscoveryList, gv schema.GroupVersion) (found []apidiscoveryv2.APIResourceDiscovery) {
	for _, g := range all.Items {
		for _, v := range g.Versions {
			if g.Name == gv.Group && v.Version == gv.Version {
				found = v.Resources
			}
		}
	}
	for i := range found {
		r := &found[i]
		if r.ResponseKind == nil {
			r.ResponseKind = &metav1.GroupVersionKind{} // old clients do not live without
		}
		for j := range r.Subresources {
			if r.Subresources[j].ResponseKind == nil {
				r.Subresources[j].ResponseKind = &metav1.GroupVersionKind{}
			}
		}
	}
	return found
}

// OfList is what an old document of a group version tells, as an aggregated
// one does.
func OfList(l *metav1.APIResourceList) (all []apidiscoveryv2.APIResourceDiscovery) {
	at := map[string]int{}
	of := func(r *metav1.APIResource) *apidiscoveryv2.APIResourceDiscovery {
		name, _, _ := strings.Cut(r.Name, "/")
		i, known := at[name]
		if !known {
			i = len(all)
			at[name] = i
			scope := apidiscoveryv2.ScopeCluster
			if r.Namespaced {
				scope = apidiscoveryv2.ScopeNamespace
			}
			all = append(all, apidiscoveryv2.APIResourceDiscovery{Resource: name, Scope: scope})
		}
		return &all[i]
	}
	for i := range l.APIResources {
		r := &l.APIResources[i]
		kind := &metav1.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind}
		into := of(r)
		if _, sub, is := strings.Cut(r.Name, "/"); is {
			into.Subresources = append(into.Subresources, apidiscoveryv2.APISubresourceDiscovery{Subresource: sub, ResponseKind: kind, Verbs: r.Verbs})
			continue
		}
		into.ResponseKind, into.Verbs, into.SingularResource = kind, r.Verbs, r.SingularName
		into.ShortNames, into.Categories = r.ShortNames, r.Categories
	}
	return all
}

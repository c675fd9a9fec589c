package authz

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/needs"
)

// NodeKinds are the kinds that tell what nodes need.
type NodeKinds struct{ Pods, Volumes, Attachments, Slices *cache.Kind }

// Nodes allows nodes what they need: what their rules say, and of secrets,
// volumes and the like only what pods on them refer to.
type Nodes struct {
	rules *ruleset
	kinds followers

	mu sync.RWMutex
	g  *graph
}

// NewNodes returns an authorizer of nodes that goes by the objects of kinds.
// It must not be asked before the cache is loaded.
func NewNodes(k NodeKinds, rules []rbacv1.PolicyRule) *Nodes {
	n := &Nodes{g: newGraph(), rules: compile(&role{rules: rules})}
	owned := func(kind *cache.Kind, plural string) *follower {
		return &follower{
			kind: kind, put: n.g.putOwned(plural),
			drop: func(o *cache.Object) { delete(n.g.owned, thing{plural, o.Key}) },
			wipe: func() { n.g.wipeOwned(plural) },
		}
	}
	n.kinds = followers{
		{kind: k.Pods, put: n.g.putPod, drop: n.g.dropPod, wipe: func() { clear(n.g.pods); clear(n.g.uses) }},
		{kind: k.Volumes, put: n.g.putVolume, drop: n.g.dropVolume, wipe: func() { clear(n.g.volumes); clear(n.g.secrets) }},
		owned(k.Attachments, attachments), owned(k.Slices, deviceSlices),
	}
	return n
}

// Plurals of things that belong to a node.
const (
	attachments  = "volumeattachments"
	deviceSlices = "resourceslices"
)

// Close ends the following of pods and volumes.
func (n *Nodes) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kinds.close()
}

// NodeName is the node that a user is, false for a user that is none. The
// name is empty for one that says to be a node and not which.
func NodeName(u *registry.User) (name string, ok bool) {
	name, ok = strings.CutPrefix(u.Name, "system:node:")
	return name, ok && u.In("system:nodes")
}

func (n *Nodes) current(ctx context.Context) {
	n.mu.RLock()
	behind := n.kinds.behind()
	n.mu.RUnlock()
	if !behind {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.kinds.catchUp(ctx); err != nil {
		slog.ErrorContext(ctx, "read what nodes need", "err", err)
	}
}

// Allows is part of Authorizer.
func (n *Nodes) Allows(ctx context.Context, r *registry.Request) (bool, string) {
	node, ok := NodeName(&r.User)
	switch {
	case !ok:
		return false, ""
	case node == "":
		return false, fmt.Sprintf("unknown node for user %q", r.User.Name)
	}
	if r.Resource {
		if decide := limited[r.Plural]; decide != nil && r.Group == limitedGroups[r.Plural] {
			n.current(ctx)
			n.mu.RLock()
			defer n.mu.RUnlock()
			return decide(n.g, node, r)
		}
	}
	return n.rules.allows(r) != nil, ""
}

// Rules is part of Authorizer. What a node may do depends on its pods.
func (*Nodes) Rules(_ context.Context, u *registry.User, _ string) Rules {
	if _, ok := NodeName(u); !ok {
		return Rules{}
	}
	return Rules{Incomplete: true, Faults: []string{"node authorizer does not support user rule resolution"}}
}

// limited are the kinds of which a node may not do to all objects what it
// may do to some.
var limited = map[string]func(g *graph, node string, r *registry.Request) (bool, string){
	"secrets":                readsNeeded(needs.Secret),
	"configmaps":             readsNeeded(needs.ConfigMap),
	"persistentvolumeclaims": claims,
	"persistentvolumes":      gets(func(g *graph, node string, r *registry.Request) bool { return g.mounts(node, r.Name) }),
	"resourceclaims":         gets(needed(needs.ResourceClaim)),
	attachments:              gets(owns),
	"serviceaccounts":        accounts,
	"leases":                 leases,
	"csinodes":               csiNodes,
	deviceSlices:             resourceSlices,
	"nodes":                  nodes,
	"pods":                   pods,
}

// limitedGroups are the groups of the limited kinds that are not core.
var limitedGroups = map[string]string{
	"resourceclaims": "resource.k8s.io", attachments: "storage.k8s.io", "leases": "coordination.k8s.io",
	"csinodes": "storage.k8s.io", deviceSlices: "resource.k8s.io",
}

// related tells whether the request's object has to do with a node.
type related func(g *graph, node string, r *registry.Request) bool

func needed(kind string) related {
	return func(g *graph, node string, r *registry.Request) bool {
		return g.leads(node, needs.Ref{Kind: kind, Namespace: r.Namespace, Name: r.Name})
	}
}

func owns(g *graph, node string, r *registry.Request) bool {
	return g.owned[thing{r.Plural, r.Name}] == node
}

func runs(g *graph, node string, r *registry.Request) bool {
	return g.runs(node, registry.Key(r.Namespace, r.Name))
}

func when(ok related, g *graph, node string, r *registry.Request) (bool, string) {
	switch {
	case r.Name == "":
		return false, "No Object name found"
	case !ok(g, node, r):
		return false, fmt.Sprintf("no relationship found between node '%s' and this object", node)
	}
	return true, ""
}

func gets(ok related) func(g *graph, node string, r *registry.Request) (bool, string) {
	return func(g *graph, node string, r *registry.Request) (bool, string) {
		switch {
		case r.Verb != "get":
			return false, "can only get individual resources of this type"
		case r.Sub != "":
			return false, "cannot get subresource"
		}
		return when(ok, g, node, r)
	}
}

func readsNeeded(kind string) func(g *graph, node string, r *registry.Request) (bool, string) {
	return func(g *graph, node string, r *registry.Request) (bool, string) {
		switch {
		case r.Verb != "get" && r.Verb != "list" && r.Verb != "watch":
			return false, "can only read resources of this type"
		case r.Sub != "":
			return false, "cannot read subresource"
		case r.Namespace == "":
			return false, "can only read namespaced object of this type"
		}
		return when(needed(kind), g, node, r)
	}
}

func claims(g *graph, node string, r *registry.Request) (bool, string) {
	if r.Sub != "status" {
		return gets(needed(needs.Claim))(g, node, r)
	}
	if r.Verb != "update" && r.Verb != "patch" {
		return false, "can only get/update/patch this type"
	}
	return when(needed(needs.Claim), g, node, r)
}

func accounts(g *graph, node string, r *registry.Request) (bool, string) {
	switch {
	case r.Verb == "get" && r.Sub == "":
		return readsNeeded(needs.ServiceAccount)(g, node, r)
	case r.Verb != "create" || r.Name == "":
		return false, "can only create tokens for individual service accounts"
	case r.Sub != "token":
		return false, "can only create token subresource of serviceaccount"
	}
	return when(needed(needs.ServiceAccount), g, node, r)
}

// ownVerb tells what a node may do to what is called like itself. Whether it
// creates that and nothing else is for admission to see.
func ownVerb(verb string) bool {
	switch verb {
	case "get", "create", "update", "patch", "delete":
		return true
	}
	return false
}

func leases(_ *graph, node string, r *registry.Request) (bool, string) {
	switch {
	case !ownVerb(r.Verb):
		return false, "can only get, create, update, patch, or delete a node lease"
	case r.Namespace != corev1.NamespaceNodeLease:
		return false, fmt.Sprintf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
	case r.Verb != "create" && r.Name != node:
		return false, "can only access node lease with the same name as the requesting node"
	}
	return true, ""
}

func csiNodes(_ *graph, node string, r *registry.Request) (bool, string) {
	switch {
	case !ownVerb(r.Verb):
		return false, "can only get, create, update, patch, or delete a CSINode"
	case r.Sub != "":
		return false, "cannot authorize CSINode subresources"
	case r.Verb != "create" && r.Name != node:
		return false, "can only access CSINode with the same name as the requesting node"
	}
	return true, ""
}

func resourceSlices(g *graph, node string, r *registry.Request) (bool, string) {
	if r.Sub != "" {
		return false, "cannot authorize ResourceSlice subresources"
	}
	switch r.Verb {
	case "create":
		return true, ""
	case "get", "update", "patch", "delete":
		return when(owns, g, node, r)
	case "watch", "list", "deletecollection":
		if selects(r.Fields, "spec.nodeName", node) {
			return true, ""
		}
		return false, "can only list/watch/deletecollection resourceslices with nodeName field selector"
	}
	return false, "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection"
}

func nodes(_ *graph, node string, r *registry.Request) (bool, string) {
	switch r.Sub + "/" + r.Verb {
	case "/create", "/update", "/patch", "status/update", "status/patch":
		return true, "" // which node's, admission sees to
	case "/get", "/list", "/watch":
		switch r.Name {
		case node:
			return true, ""
		case "":
			return false, fmt.Sprintf("node '%s' cannot read all nodes, only its own Node object", node)
		}
		return false, fmt.Sprintf("node '%s' cannot read '%s', only its own Node object", node, r.Name)
	}
	return false, ""
}

func pods(g *graph, node string, r *registry.Request) (bool, string) {
	switch r.Sub + "/" + r.Verb {
	case "/create", "/delete", "status/update", "status/patch", "eviction/create":
		return true, "" // of which pods, admission sees to
	case "/get":
		return when(runs, g, node, r)
	case "/list", "/watch":
		switch {
		case selects(r.Fields, "spec.nodeName", node):
			return true, ""
		case r.Name != "":
			return when(runs, g, node, r)
		}
		return false, "can only list/watch pods with spec.nodeName field selector"
	}
	return false, ""
}

// selects reports whether a field selector asks for one value of a field.
func selects(selector, field, value string) bool {
	sel, err := fields.ParseSelector(selector)
	if err != nil {
		return false
	}
	for _, q := range sel.Requirements() {
		if q.Field == field && q.Value == value && (q.Operator == selection.Equals || q.Operator == selection.DoubleEquals) {
			return true
		}
	}
	return false
}

// Package gc knows who owns whom among all objects of the cluster, and
// decides what must go when an owner goes. It holds no more of an object than
// that takes, and asks no server: package ctrl/engine/sweep feeds it what it
// watches and does what it decides.
package gc

import (
	"maps"
	"slices"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// A Resource is one kind of object. Objects of one kind share a pointer to it.
type Resource struct {
	schema.GroupVersionResource

	Kind       string
	Namespaced bool
	Verbs      []string
}

// An Object is what the graph is told of one.
type Object struct {
	*Resource

	UID             types.UID
	Namespace, Name string
	Revision        string
	Owners          []metav1.OwnerReference
	Finalizers      []string
	Deleting        bool
}

// ObjectOf is what the graph needs of an object of resource r.
func ObjectOf(r *Resource, m metav1.Object) Object {
	return Object{
		Resource: r, UID: m.GetUID(), Namespace: m.GetNamespace(), Name: m.GetName(), Revision: m.GetResourceVersion(),
		Owners: m.GetOwnerReferences(), Finalizers: m.GetFinalizers(), Deleting: m.GetDeletionTimestamp() != nil,
	}
}

// Foreground and orphan deletion, by their finalizers.
func (o *Object) foreground() bool {
	return o.Deleting && slices.Contains(o.Finalizers, metav1.FinalizerDeleteDependents)
}

func (o *Object) orphans() bool {
	return o.Deleting && slices.Contains(o.Finalizers, metav1.FinalizerOrphanDependents)
}

// newer reports whether o is a later state than that of revision rev.
func (o *Object) newer(rev string) bool {
	a, errA := strconv.ParseInt(o.Revision, 10, 64)
	b, errB := strconv.ParseInt(rev, 10, 64)
	return errA != nil || errB != nil || a > b
}

// A state is what is known of a node.
type state uint8

const (
	unseen state = iota // only named by its dependents
	seen
	gone
)

// A node is an object, or a name that others give as their owner.
type node struct {
	Object

	state   state
	answers map[int]Answer // what the server said of each owner that it was asked about
	// done is the revision at which its deletion, or a change of it, was
	// asked for: until it is newer there is nothing more to ask.
	done       string
	dependents map[types.UID]*node
}

// A Graph is all objects and their owners. It is not safe for concurrent use.
type Graph struct {
	nodes     map[types.UID]*node
	resources map[*Resource]map[types.UID]bool
	spaces    map[string]map[*Resource]*Content
	suspects  map[types.UID]bool
}

// New is an empty graph.
func New() *Graph {
	return &Graph{
		nodes: map[types.UID]*node{}, resources: map[*Resource]map[types.UID]bool{},
		spaces: map[string]map[*Resource]*Content{}, suspects: map[types.UID]bool{},
	}
}

// Suspects returns, once, the objects about which Next may have something
// new to say.
func (g *Graph) Suspects() []types.UID {
	out := slices.Collect(maps.Keys(g.suspects))
	clear(g.suspects)
	return out
}

// Len is the number of objects that were seen.
func (g *Graph) Len() (n int) {
	for _, of := range g.resources {
		n += len(of)
	}
	return n
}

// Suspect has the object of that UID among the next Suspects.
func (g *Graph) Suspect(uid types.UID) { g.suspects[uid] = true }

// Put tells of an object that is new or has changed.
func (g *Graph) Put(o Object) {
	n := g.nodes[o.UID]
	if n == nil {
		n = &node{}
		g.nodes[o.UID] = n
	}
	had := n.Object
	if n.state == seen {
		if !o.newer(had.Revision) {
			return
		}
		g.tally(&had, -1)
	}
	sameOwners := n.state == seen && slices.EqualFunc(had.Owners, o.Owners, equalRefs)
	n.Object, n.state = o, seen
	g.tally(&o, 1)
	if g.resources[o.Resource] == nil {
		g.resources[o.Resource] = map[types.UID]bool{}
	}
	g.resources[o.Resource][o.UID] = true
	if !sameOwners {
		g.link(n, had.Owners)
	}
	if o.Deleting && (o.foreground() || o.orphans()) {
		g.Suspect(o.UID)
		if !had.foreground() {
			g.suspectDependents(n)
		}
	}
	if had.Deleting != o.Deleting {
		g.suspectOwners(n) // a foreground deletion may wait for it
	}
}

func equalRefs(a, b metav1.OwnerReference) bool {
	return a.UID == b.UID && a.Name == b.Name && a.Kind == b.Kind && a.APIVersion == b.APIVersion && blocks(&a) == blocks(&b)
}

func blocks(r *metav1.OwnerReference) bool {
	return r.BlockOwnerDeletion != nil && *r.BlockOwnerDeletion
}

// link makes n a dependent of its owners, and of those alone.
func (g *Graph) link(n *node, had []metav1.OwnerReference) {
	for _, r := range had {
		g.unlink(r.UID, n.UID)
	}
	n.answers = nil
	look := false
	for i := range n.Owners {
		r := &n.Owners[i]
		owner := g.nodes[r.UID]
		if owner == nil {
			owner = &node{Object: Object{UID: r.UID}}
			g.nodes[r.UID] = owner
		}
		if owner.dependents == nil {
			owner.dependents = map[types.UID]*node{}
		}
		owner.dependents[n.UID] = n
		look = look || owner.state != seen || owner.foreground() || !matches(n, r, owner)
		if owner.orphans() || owner.foreground() {
			g.Suspect(owner.UID)
		}
	}
	if look || len(had) > 0 {
		g.Suspect(n.UID)
	}
}

func (g *Graph) unlink(owner, dependent types.UID) {
	o := g.nodes[owner]
	if o == nil {
		return
	}
	delete(o.dependents, dependent)
	if o.state == seen {
		if o.Deleting {
			g.Suspect(owner)
		}
	} else if len(o.dependents) == 0 {
		delete(g.nodes, owner) // nobody asks for it any more
	}
}

// Drop tells that the object of that UID is no more.
func (g *Graph) Drop(uid types.UID) {
	n := g.nodes[uid]
	if n == nil {
		return
	}
	if n.state == seen {
		g.tally(&n.Object, -1)
		delete(g.resources[n.Resource], uid)
		g.suspectOwners(n)
	}
	for _, r := range n.Owners {
		g.unlink(r.UID, uid)
	}
	n.Object, n.state, n.answers = Object{UID: uid}, gone, nil
	g.suspectDependents(n)
	if len(n.dependents) == 0 {
		delete(g.nodes, uid)
	}
}

// Replace tells all objects of r that there are.
func (g *Graph) Replace(r *Resource, all []Object) {
	left := maps.Clone(g.resources[r])
	for _, o := range all {
		delete(left, o.UID)
		g.Put(o)
	}
	for uid := range left {
		g.Drop(uid)
	}
}

func (g *Graph) suspectDependents(n *node) {
	for uid := range n.dependents {
		g.Suspect(uid)
	}
}

func (g *Graph) suspectOwners(n *node) {
	for i := range n.Owners {
		if o := g.nodes[n.Owners[i].UID]; o != nil && o.Deleting {
			g.Suspect(o.UID)
		}
	}
}

// Content is what there is of one resource in one namespace.
type Content struct {
	Count      int
	Alive      int            // of them those not being deleted
	Finalizers map[string]int // how many have each
}

// In is what there is in namespace ns, and not the caller's to change.
func (g *Graph) In(ns string) map[*Resource]*Content { return g.spaces[ns] }

func (g *Graph) tally(o *Object, by int) {
	if o.Namespace == "" {
		return
	}
	space := g.spaces[o.Namespace]
	if space == nil {
		space = map[*Resource]*Content{}
		g.spaces[o.Namespace] = space
	}
	c := space[o.Resource]
	if c == nil {
		c = &Content{}
		space[o.Resource] = c
	}
	c.Count += by
	if !o.Deleting {
		c.Alive += by
	}
	for _, f := range o.Finalizers {
		if c.Finalizers == nil {
			c.Finalizers = map[string]int{}
		}
		if c.Finalizers[f] += by; c.Finalizers[f] == 0 {
			delete(c.Finalizers, f)
		}
	}
	if c.Count == 0 {
		if delete(space, o.Resource); len(space) == 0 {
			delete(g.spaces, o.Namespace)
		}
	}
}

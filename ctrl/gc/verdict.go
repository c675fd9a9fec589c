package gc

import (
	"cmp"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A Deed is what is to be done with an object.
type Deed string

// The deeds. All hold for the revision of the object that was seen, no other.
const (
	Nothing   Deed = "nothing"
	Ask       Deed = "ask"       // the server, whether the owners Refs are there; then tell by Answer
	Delete    Deed = "delete"    // with Policy
	SetOwners Deed = "setowners" // to Refs
	Release   Deed = "release"   // take Finalizer away
	Each      Deed = "each"      // look at every one of Others first
	Wait      Deed = "wait"      // until all kinds have been listed
)

// A Verdict is what the graph wants done about one object.
type Verdict struct {
	Deed
	Object

	Refs      []metav1.OwnerReference
	Policy    metav1.DeletionPropagation
	Finalizer string
	Others    []types.UID
}

// Next decides about the object of that UID. Where complete is not yet true,
// as long as not all kinds have been listed, it waits with what dependents
// unseen could speak against.
func (g *Graph) Next(uid types.UID, complete bool) Verdict {
	n := g.nodes[uid]
	switch {
	case n == nil || n.state != seen || n.done == n.Revision:
		return Verdict{Deed: Nothing}
	case slices.ContainsFunc(n.Owners, g.orphaning):
		v := n.verdict(SetOwners)
		v.Refs = slices.DeleteFunc(slices.Clone(n.Owners), g.orphaning)
		return v
	case n.orphans():
		return g.orphan(n, complete)
	case n.foreground():
		return g.foreground(n, complete)
	case n.Deleting || len(n.Owners) == 0:
		return n.verdict(Nothing)
	}
	return g.weigh(n)
}

// Did notes that the deed of v is done, so that it is not done again before
// its effect is seen.
func (g *Graph) Did(v *Verdict) {
	if n := g.nodes[v.UID]; n != nil && n.Revision == v.Revision {
		n.done = v.Revision
	}
}

// An Answer is what the server says of an owner.
type Answer uint8

// The answers. One that is there but was not seen yet needs no note: it will be.
const (
	Absent Answer = iota + 1 // there is none of that name and UID
	Kept                     // there can be none, and the reference is to be left alone
)

// Answer notes what the server said to an Ask about an owner of the object of
// that UID, which is to be looked at again then.
func (g *Graph) Answer(uid types.UID, ref metav1.OwnerReference, a Answer) {
	n := g.nodes[uid]
	if n == nil {
		return
	}
	for i := range n.Owners {
		if equalRefs(n.Owners[i], ref) {
			if n.answers == nil {
				n.answers = map[int]Answer{}
			}
			n.answers[i] = a
			g.Suspect(uid)
		}
	}
}

func (n *node) verdict(d Deed) Verdict { return Verdict{Deed: d, Object: n.Object} }

// orphan lets the dependents of n go their own ways, and then n.
func (g *Graph) orphan(n *node, complete bool) Verdict {
	if !complete {
		return n.verdict(Wait)
	}
	var heirs []types.UID
	for uid, d := range n.dependents {
		if d.state == seen && d != n {
			heirs = append(heirs, uid)
		}
	}
	if len(heirs) > 0 {
		v := n.verdict(Each)
		v.Others = slices.Sorted(slices.Values(heirs))
		return v
	}
	v := n.verdict(Release)
	v.Finalizer = metav1.FinalizerOrphanDependents
	return v
}

// foreground lets n go when no dependent that blocks it is left. One that
// itself waits for n to go does not count: none of such a circle could ever
// be the first.
func (g *Graph) foreground(n *node, complete bool) Verdict {
	if !complete {
		return n.verdict(Wait)
	}
	var blocking []types.UID
	for _, uid := range slices.Sorted(maps.Keys(n.dependents)) {
		if d := n.dependents[uid]; d.state == seen && d.blocks(n.UID) && !waitsFor(d, n, map[*node]bool{}) {
			blocking = append(blocking, uid)
		}
	}
	if len(blocking) == 0 {
		v := n.verdict(Release)
		v.Finalizer = metav1.FinalizerDeleteDependents
		return v
	}
	v := n.verdict(Each)
	v.Others = blocking
	return v
}

// waitsFor reports whether d is deleted in the foreground and will not go
// before n.
func waitsFor(d, n *node, been map[*node]bool) bool {
	if d == n {
		return true
	}
	if been[d] || !d.foreground() {
		return false
	}
	been[d] = true
	for _, next := range d.dependents {
		if next.state == seen && next.blocks(d.UID) && waitsFor(next, n, been) {
			return true
		}
	}
	return false
}

func (n *node) blocks(owner types.UID) bool {
	return slices.ContainsFunc(n.Owners, func(r metav1.OwnerReference) bool { return r.UID == owner && blocks(&r) })
}

// weigh decides about an object by its owners: one that stands keeps it; those
// that are no more, or wait for it to go, are taken from it or take it along.
func (g *Graph) weigh(n *node) Verdict {
	var solid, unsure []metav1.OwnerReference
	waiting := false
	for i := range n.Owners {
		r := n.Owners[i]
		owner := g.nodes[r.UID]
		switch {
		case n.answers[i] == Absent:
		case n.answers[i] == Kept:
			solid = append(solid, r)
		case !matches(n, &r, owner), owner.state == unseen:
			unsure = append(unsure, r)
		case owner.state == gone:
		case owner.foreground() && blocks(&r):
			waiting = true
		default:
			solid = append(solid, r)
		}
	}
	v := n.verdict(Nothing)
	switch {
	case len(unsure) > 0:
		v.Deed, v.Refs = Ask, unsure
	case len(solid) == len(n.Owners):
	case len(solid) > 0:
		v.Deed, v.Refs = SetOwners, solid
	default:
		v.Deed, v.Policy = Delete, n.policy(waiting)
	}
	return v
}

// orphaning reports whether the owner that r names is deleted and leaves what
// it owns behind.
func (g *Graph) orphaning(r metav1.OwnerReference) bool {
	owner := g.nodes[r.UID]
	return owner != nil && owner.state == seen && owner.orphans()
}

// matches reports whether ref, as n means it, can name owner. What is named
// from another namespace, or as another kind, is not what has that UID.
func matches(n *node, ref *metav1.OwnerReference, owner *node) bool {
	if owner == nil || owner.state != seen {
		return true // nothing speaks against it yet
	}
	sameSpace := owner.Namespace == "" || owner.Namespace == n.Namespace
	return sameSpace && owner.Kind == ref.Kind && owner.Name == ref.Name
}

// policy is how n is deleted. Its own finalizers tell how its deleter wants
// it; an owner that waits for it wants it gone with all that depends on it.
func (n *node) policy(waiting bool) metav1.DeletionPropagation {
	switch {
	case slices.Contains(n.Finalizers, metav1.FinalizerOrphanDependents):
		return metav1.DeletePropagationOrphan
	case slices.Contains(n.Finalizers, metav1.FinalizerDeleteDependents), waiting && len(n.dependents) > 0:
		return metav1.DeletePropagationForeground
	}
	return metav1.DeletePropagationBackground
}

// Strangers are the owners of the object of that UID that have the UID of
// something in another namespace, or of another kind: mistakes of whoever
// wrote them.
func (g *Graph) Strangers(uid types.UID) (out []metav1.OwnerReference) {
	n := g.nodes[uid]
	if n == nil {
		return nil
	}
	for i := range n.Owners {
		if !matches(n, &n.Owners[i], g.nodes[n.Owners[i].UID]) {
			out = append(out, n.Owners[i])
		}
	}
	slices.SortFunc(out, func(a, b metav1.OwnerReference) int { return cmp.Compare(a.UID, b.UID) })
	return out
}

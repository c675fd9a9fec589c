package endpointslice

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/ctrl"
)

// changes is what becomes of the slices of one service. All but the same are
// copies.
type changes struct{ create, update, remove, same []*discoveryv1.EndpointSlice }

func (c *changes) add(o changes) {
	c.create, c.update = append(c.create, o.create...), append(c.update, o.update...)
	c.remove, c.same = append(c.remove, o.remove...), append(c.same, o.same...)
}

// A group is the endpoints that have ports in common, and the slices there
// are for them.
type group struct {
	blank *discoveryv1.EndpointSlice // what a slice of the group looks like, without endpoints
	want  []discoveryv1.Endpoint
	have  []*discoveryv1.EndpointSlice
}

// groups sorts slices and endpoints by their ports.
type groups map[string]*group

func (gs groups) of(key string, blank func() *discoveryv1.EndpointSlice) *group {
	if gs[key] == nil {
		gs[key] = &group{blank: blank()}
	}
	return gs[key]
}

// fit changes as few slices as it can: endpoints stay where they are, new ones
// go first where something changes anyway, then where they fill a slice best.
func (gs groups) fit(most int) (out changes) {
	for _, key := range slices.Sorted(maps.Keys(gs)) {
		out.add(gs[key].fit(most))
	}
	out.reuse()
	return out
}

func (g *group) fit(most int) (out changes) {
	left := map[string]discoveryv1.Endpoint{}
	for _, e := range g.want {
		left[endpointKey(&e)] = e
	}
	slices.SortFunc(g.have, func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	for _, s := range g.have {
		next := g.next(s, left)
		switch next {
		case nil:
			out.remove = append(out.remove, s)
		case s:
			out.same = append(out.same, s)
		default:
			out.update = append(out.update, next)
		}
	}
	rest := make([]discoveryv1.Endpoint, 0, len(left))
	for _, k := range slices.Sorted(maps.Keys(left)) {
		rest = append(rest, left[k])
	}
	g.place(rest, most, &out)
	return out
}

// next is s with what is wanted of its endpoints: itself where nothing
// changes, nil where none is wanted. What it has it takes from left.
func (g *group) next(s *discoveryv1.EndpointSlice, left map[string]discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	var keep []discoveryv1.Endpoint
	changed := !dressed(s, g.blank)
	for i := range s.Endpoints {
		key := endpointKey(&s.Endpoints[i])
		e, wanted := left[key]
		if !wanted {
			changed = true
			continue
		}
		delete(left, key)
		e.Hints = s.Endpoints[i].Hints // decided about later
		changed = changed || !reflect.DeepEqual(e, s.Endpoints[i])
		keep = append(keep, e)
	}
	switch {
	case len(keep) == 0:
		return nil
	case !changed:
		return s
	}
	return g.dress(s, keep)
}

// dress is a copy of s that looks as blank does, with those endpoints.
func (g *group) dress(s *discoveryv1.EndpointSlice, endpoints []discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	c := s.DeepCopy()
	c.Labels, c.OwnerReferences = maps.Clone(g.blank.Labels), g.blank.OwnerReferences
	if g.blank.Annotations != nil {
		c.Annotations = maps.Clone(g.blank.Annotations)
	}
	c.Ports, c.Endpoints = g.blank.Ports, endpoints
	return c
}

// dressed reports whether s needs no dress; annotations count only where
// blank has a say in them.
func dressed(s, blank *discoveryv1.EndpointSlice) bool {
	return maps.Equal(s.Labels, blank.Labels) && ownedBy(s, blank.OwnerReferences[0].UID) &&
		(blank.Annotations == nil || maps.Equal(s.Annotations, blank.Annotations))
}

func ownedBy(s *discoveryv1.EndpointSlice, uid types.UID) bool {
	return slices.ContainsFunc(s.OwnerReferences, func(r metav1.OwnerReference) bool { return r.UID == uid })
}

// place finds room for rest.
func (g *group) place(rest []discoveryv1.Endpoint, most int, out *changes) {
	slices.SortStableFunc(out.update, func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(len(b.Endpoints), len(a.Endpoints)) })
	for _, s := range out.update {
		n := min(len(rest), max(0, most-len(s.Endpoints)))
		s.Endpoints, rest = append(s.Endpoints, rest[:n]...), rest[n:]
	}
	for len(rest) > 0 {
		if i := bestFit(out.same, len(rest), most); i >= 0 {
			s := g.dress(out.same[i], append(slices.Clone(out.same[i].Endpoints), rest...))
			out.same = slices.Delete(slices.Clone(out.same), i, i+1)
			out.update = append(out.update, s)
			return
		}
		n := min(len(rest), most)
		s := g.blank.DeepCopy()
		s.Endpoints, rest = rest[:n:n], rest[n:]
		out.create = append(out.create, s)
	}
}

// bestFit is the fullest slice with room for n more, -1 where there is none.
func bestFit(ss []*discoveryv1.EndpointSlice, n, most int) int {
	best := -1
	for i, s := range ss {
		if len(s.Endpoints)+n <= most && n < most && (best < 0 || len(s.Endpoints) > len(ss[best].Endpoints)) {
			best = i
		}
	}
	return best
}

// reuse turns pairs of a slice to remove and one to create into updates.
func (c *changes) reuse() {
	c.remove = slices.DeleteFunc(c.remove, func(old *discoveryv1.EndpointSlice) bool {
		i := slices.IndexFunc(c.create, func(s *discoveryv1.EndpointSlice) bool {
			return s.AddressType == old.AddressType && ownedBy(old, s.OwnerReferences[0].UID)
		})
		if i < 0 {
			return false
		}
		g := group{blank: c.create[i]}
		c.update = append(c.update, g.dress(old, c.create[i].Endpoints))
		c.create = slices.Delete(c.create, i, i+1)
		return true
	})
}

// hold keeps the place of slices where there are none to be: with an empty
// one, which may be there already.
func (c *changes) hold(blank *discoveryv1.EndpointSlice) {
	for i, s := range c.remove {
		if len(s.Endpoints) == 0 && len(s.Ports) == 0 && dressed(s, blank) {
			c.remove, c.same = slices.Delete(c.remove, i, i+1), append(c.same, s)
			return
		}
	}
	c.create = append(c.create, blank)
	c.reuse()
}

// actions is c as a plan. A service that is being deleted gets no new slices:
// they would race with the garbage collector.
func (c *changes) actions(leaving bool, failed func(error) []ctrl.Action) (do []ctrl.Action) {
	for _, s := range c.create {
		if !leaving {
			do = append(do, ctrl.Action{Verb: ctrl.Create, Obj: s, Pace: ctrl.AtOnce, Else: failed})
		}
	}
	for _, s := range c.update {
		do = append(do, ctrl.Action{Verb: ctrl.Update, Obj: s, Pace: ctrl.AtOnce, Else: failed})
	}
	for _, s := range c.remove {
		do = append(do, ctrl.Action{Verb: ctrl.Delete, Obj: s, Pace: ctrl.AtOnce, Else: failed})
	}
	return do
}

// endpointKey is what makes e the same endpoint though it changes.
func endpointKey(e *discoveryv1.Endpoint) string {
	b := &strings.Builder{}
	for _, a := range e.Addresses {
		b.WriteString(a + " ")
	}
	if e.Hostname != nil {
		b.WriteString("#" + *e.Hostname)
	}
	if e.TargetRef != nil {
		b.WriteString("@" + e.TargetRef.Namespace + "/" + e.TargetRef.Name)
	}
	return b.String()
}

// portsKey is alike for the same ports in any order, in one address family.
func portsKey(ports []discoveryv1.EndpointPort, family discoveryv1.AddressType) string {
	texts := make([]string, 0, len(ports)+1)
	for _, p := range ports {
		t := deref((*string)(p.Protocol)) + "/" + deref(p.Name) + "/" + deref(p.AppProtocol)
		if p.Port != nil {
			t += ":" + strconv.Itoa(int(*p.Port))
		}
		texts = append(texts, t)
	}
	slices.Sort(texts)
	return string(family) + " " + strings.Join(texts, " ")
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

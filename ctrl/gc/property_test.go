package gc_test

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/ctrl/gc"
)

// A server keeps objects as an API server does, and tells of changes later,
// each kind in its own order.
type server struct {
	*rand.Rand

	t       *testing.T
	graph   *gc.Graph
	objects map[types.UID]gc.Object
	news    map[*gc.Resource][]func()
	rev     int
}

// TestNobodyLosesAnOwner lets chance make and delete objects that own one
// another, in circles too, and carry out verdicts in any order: nothing that
// has a living owner is ever deleted, and in the end nothing is left over.
func TestNobodyLosesAnOwner(t *testing.T) {
	for seed := range int64(300) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := &server{
				Rand: rand.New(rand.NewSource(seed)), t: t, graph: gc.New(),
				objects: map[types.UID]gc.Object{}, news: map[*gc.Resource][]func(){},
			}
			for range 120 {
				switch s.Intn(4) {
				case 0:
					s.create()
				case 1:
					s.userDeletes()
				case 2:
					s.deliver(1)
				default:
					s.collect()
				}
			}
			for range 200 {
				s.deliver(1000)
				s.collect()
			}
			s.check()
		})
	}
}

func (s *server) pick() (gc.Object, bool) {
	var uids []types.UID
	for uid := range s.objects {
		uids = append(uids, uid)
	}
	slices.Sort(uids)
	if len(uids) == 0 {
		return gc.Object{}, false
	}
	return s.objects[uids[s.Intn(len(uids))]], true
}

func (s *server) create() {
	s.rev++
	o := gc.Object{Resource: kinds[[]string{"Pod", "Set"}[s.Intn(2)]], Namespace: "shop", Name: fmt.Sprintf("o%d", s.rev)}
	o.UID = types.UID(o.Name)
	for range s.Intn(3) {
		if owner, ok := s.pick(); ok {
			o.Owners = append(o.Owners, metav1.OwnerReference{
				APIVersion: "v1", Kind: owner.Kind, Name: owner.Name, UID: owner.UID, BlockOwnerDeletion: new(s.Intn(2) == 0),
			})
		}
	}
	s.store(o)
	if back, ok := s.pick(); ok && s.Intn(4) == 0 && !back.Deleting { // close a circle
		back.Owners = append(slices.Clone(back.Owners), metav1.OwnerReference{APIVersion: "v1", Kind: o.Kind, Name: o.Name, UID: o.UID, BlockOwnerDeletion: new(true)})
		s.store(back)
	}
}

func (s *server) store(o gc.Object) {
	s.rev++
	o.Revision = fmt.Sprint(s.rev)
	if o.Deleting && len(o.Finalizers) == 0 {
		delete(s.objects, o.UID)
		s.news[o.Resource] = append(s.news[o.Resource], func() { s.graph.Drop(o.UID) })
		return
	}
	s.objects[o.UID] = o
	s.news[o.Resource] = append(s.news[o.Resource], func() { s.graph.Put(o) })
}

func (s *server) userDeletes() {
	if o, ok := s.pick(); ok && !o.Deleting {
		s.remove(o, []metav1.DeletionPropagation{
			metav1.DeletePropagationOrphan, metav1.DeletePropagationForeground, metav1.DeletePropagationBackground,
		}[s.Intn(3)])
	}
}

func (s *server) remove(o gc.Object, how metav1.DeletionPropagation) {
	o.Deleting, o.Finalizers = true, nil
	switch how {
	case metav1.DeletePropagationOrphan:
		o.Finalizers = []string{metav1.FinalizerOrphanDependents}
	case metav1.DeletePropagationForeground:
		o.Finalizers = []string{metav1.FinalizerDeleteDependents}
	case metav1.DeletePropagationBackground:
	}
	s.store(o)
}

func (s *server) deliver(n int) {
	for _, name := range []string{"Pod", "Set"} {
		r := kinds[name]
		n := min(n, len(s.news[r]))
		for _, tell := range s.news[r][:n] {
			tell()
		}
		s.news[r] = s.news[r][n:]
	}
}

func (s *server) collect() {
	suspects := s.graph.Suspects()
	slices.Sort(suspects)
	s.Shuffle(len(suspects), func(i, j int) { suspects[i], suspects[j] = suspects[j], suspects[i] })
	for _, uid := range suspects {
		v := s.graph.Next(uid, true)
		now, there := s.objects[v.UID]
		current := there && now.Revision == v.Revision
		switch v.Deed {
		case gc.Nothing:
			continue
		case gc.Ask:
			for _, r := range v.Refs {
				if owner, ok := s.objects[r.UID]; !ok || owner.Kind != r.Kind {
					s.graph.Answer(v.UID, r, gc.Absent)
				}
			}
			s.graph.Suspect(v.UID)
			continue
		case gc.Each:
			for _, o := range v.Others {
				s.graph.Suspect(o)
			}
			continue
		case gc.Delete:
			if current {
				s.mayGo(now)
				s.remove(now, v.Policy)
			}
		case gc.SetOwners:
			if current {
				now.Owners = v.Refs
				s.store(now)
			}
		case gc.Release:
			if current {
				now.Finalizers = slices.DeleteFunc(slices.Clone(now.Finalizers), func(f string) bool { return f == v.Finalizer })
				s.store(now)
			}
		}
		s.graph.Did(&v)
	}
}

// mayGo fails where an owner of o stands.
func (s *server) mayGo(o gc.Object) {
	for _, r := range o.Owners {
		if owner, ok := s.objects[r.UID]; ok && !owner.Deleting {
			s.t.Fatalf("%s is deleted though %s owns it", o.Name, owner.Name)
		}
	}
}

func (s *server) check() {
	for _, o := range s.objects {
		if o.Deleting {
			s.t.Errorf("%s hangs: %v owned by %v", o.Name, o.Finalizers, o.Owners)
		}
		stands := len(o.Owners) == 0
		for _, r := range o.Owners {
			_, ok := s.objects[r.UID]
			stands = stands || ok
		}
		if !stands {
			s.t.Errorf("%s is left though its owners %v are gone", o.Name, o.Owners)
		}
	}
}

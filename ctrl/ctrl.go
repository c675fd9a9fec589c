// Package ctrl is the vocabulary of controllers: what one reads, what it
// decides and what it asks to be done. Nothing here does I/O; the engine,
// package ctrl/engine, gathers inputs and carries out plans.
//
// It also holds what more than one controller knows: when a pod counts as
// ready, who owns an object, how orphans are claimed.
package ctrl

import (
	"cmp"
	"reflect"
	"slices"
	"time"

	"github.com/knarr-dev/knarr/apis"
)

// A Controller drives the objects of one kind to what they ask for. Its
// whole judgement is Decide, which sees nothing but its argument.
type Controller[T apis.Object, In any] struct {
	Name    string  // as kube-controller-manager's --controllers has it
	Account string  // the service account it acts as; Name where empty
	Source  string  // what its events come from; Name where empty
	Own     Filter  // which T it holds in memory
	Reads   []Read  // other kinds that it looks at, or T for an index of it
	Writes  []Write // what a plan may touch; the engine refuses all else
	Workers int     // one where 0

	// Heeds says which T are worth a look when they change; all where nil.
	Heeds func(T) bool

	Gather func(World, T) In
	Decide func(In) Plan
}

// Erase hides the types of c from the engine and the tests.
func (c Controller[T, In]) Erase() Erased {
	kind := reflect.TypeFor[T]()
	self := Read{Kind: kind, Where: c.Own, Wakes: c.wakeSelf}
	return Erased{
		Name: c.Name, Account: cmp.Or(c.Account, c.Name), Source: cmp.Or(c.Source, c.Name),
		Kind: kind, Workers: max(1, c.Workers),
		Reads: append([]Read{self}, c.Reads...), Writes: c.Writes,
		Decide: func(w World, obj apis.Object) Plan { return c.Decide(c.Gather(w, obj.(T))) },
	}
}

// An Overseer looks after the cluster as a whole: it has one key, decided
// about at the start, whenever a Read wakes it and when its plan says so.
type Overseer[In any] struct {
	Name    string
	Account string
	Source  string
	Reads   []Read
	Writes  []Write

	Gather func(World) In
	Decide func(In) Plan
}

// Erase hides the types of o from the engine and the tests.
func (o Overseer[In]) Erase() Erased {
	return Erased{
		Name: o.Name, Account: cmp.Or(o.Account, o.Name), Source: cmp.Or(o.Source, o.Name),
		Workers: 1, Reads: o.Reads, Writes: o.Writes,
		Decide: func(w World, _ apis.Object) Plan { return o.Decide(o.Gather(w)) },
	}
}

// An Erased controller is what the engine runs. Kind is nil for an Overseer,
// whose Decide is called with no object.
type Erased struct {
	Name, Account, Source string

	Kind    reflect.Type
	Workers int
	Reads   []Read
	Writes  []Write
	Decide  func(World, apis.Object) Plan
}

// Mends reports whether a plan of e may do what a says.
func (e *Erased) Mends(a Action) bool {
	if a.Verb == Event || a.Verb == Warn {
		return true
	}
	kind := reflect.TypeOf(a.Obj)
	return slices.ContainsFunc(e.Writes, func(w Write) bool {
		return reflect.TypeOf(w.Kind) == kind && slices.Contains(w.Verbs, a.Verb)
	})
}

// A Key names one object of a controller's kind; an Overseer has only Key{}.
type Key struct{ Namespace, Name string }

func (k Key) String() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + "/" + k.Name
}

// KeyOf is the key of obj.
func KeyOf(obj apis.Object) Key { return Key{obj.GetNamespace(), obj.GetName()} }

// A Filter narrows a kind to the objects that are worth holding in memory.
type Filter struct {
	Namespace string // every one where empty
	Field     string // a field selector
}

// A Read is a kind that a controller looks at, and whom a change of it wakes.
type Read struct {
	Kind  reflect.Type
	Where Filter
	By    []*Index // the indexes that its Gather and Wakes use, besides by namespace

	// Wakes tells whom a change concerns: old is nil where obj is new, and
	// obj where old is gone. A nil Wakes is a kind that wakes nobody.
	Wakes func(w World, old, obj apis.Object) []Key
}

// Watch reads kind T. Either argument of wakes may be the nil T.
func Watch[T apis.Object](wakes func(w World, old, obj T) []Key, by ...*Index) Read {
	r := Read{Kind: reflect.TypeFor[T](), By: by}
	if wakes != nil {
		r.Wakes = func(w World, old, obj apis.Object) []Key { return wakes(w, as[T](old), as[T](obj)) }
	}
	return r
}

// Only narrows r to what f lets through.
func (r Read) Only(f Filter) Read {
	r.Where = f
	return r
}

// A Write is what a controller may do to a kind.
type Write struct {
	Kind  apis.Object
	Verbs []Verb
}

// May is a Write.
func May(kind apis.Object, verbs ...Verb) Write { return Write{kind, verbs} }

// A Plan is what is to be done about one object, in order.
type Plan struct {
	Do    []Action
	After time.Duration // when to look again though nothing changed; 0 for never
	Memo  any           // what World.Memo is to be the next time; lost with the process
}

// Soonest is the shorter of two times to wait, 0 standing for no need to.
func Soonest(a, b time.Duration) time.Duration {
	if a <= 0 || b > 0 && b < a {
		return b
	}
	return a
}

func (c Controller[T, In]) wakeSelf(_ World, old, obj apis.Object) []Key {
	if obj == nil {
		return []Key{KeyOf(old)} // to forget it
	}
	if c.Heeds != nil && !c.Heeds(obj.(T)) && (old == nil || !c.Heeds(old.(T))) {
		return nil
	}
	return []Key{KeyOf(obj)}
}

// as is obj as a T, the nil T where there is no object.
func as[T apis.Object](obj apis.Object) T {
	t, _ := obj.(T)
	return t
}

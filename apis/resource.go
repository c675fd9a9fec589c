// Package apis says what each kind of API object is: its names, its defaults,
// what makes it valid and how it prints. It does no I/O.
//
// One Resource value is all there is to a kind. The packages below declare
// them, one package a group; registry serves whatever is declared here.
package apis

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Object is what every k8s.io/api type already is.
type Object interface {
	runtime.Object
	metav1.Object
}

// Scope tells whether names are unique in a namespace or in the cluster.
type Scope bool

// The scopes.
const (
	Namespaced Scope = false
	Cluster    Scope = true
)

// A Resource declares one kind, T being a pointer to its k8s.io/api type.
// Only Plural is required: a hook left nil does nothing.
//
// On create old is the zero T, so one hook serves both create and update.
type Resource[T Object] struct {
	Plural     string
	Short      []string
	Categories []string
	Scope      Scope
	Verbs      []string // where they are not all of AllVerbs
	StoredAt   string   // the path under /registry/ where it is not Plural
	Deprecated string   // what clients are warned of with every answer

	Default  func(obj T)
	Prepare  func(obj, old T)
	Validate func(obj, old T) field.ErrorList
	Warn     func(obj, old T) []string

	// Name tells what is wrong with a name, or with a generateName prefix;
	// where nil a name is a DNS subdomain.
	Name func(name string, prefix bool) []string

	// Spec is the part whose change raises metadata.generation; a kind
	// without it has no generation.
	Spec func(obj T) any

	// Subs are the subresources that edit a part of the object; Acts those
	// that do something else, as pods/binding does. What an Act does is in
	// registry/sub, whose test holds the two lists equal.
	Subs  []Sub[T]
	Acts  []Act
	Scale *Scale[T]

	Fields  map[string]func(obj T) string // field selectors besides metadata.name and .namespace
	Indexed string                        // the one of Fields that most watchers select by
	Columns []Column[T]
	Views   []View

	Lifetime Lifetime[T]
}

// A Lifetime says how objects of a kind come and go where that is special.
type Lifetime[T Object] struct {
	TTL             time.Duration // after which the store forgets an object; 0 for never
	UpsertsOnUpdate bool          // a PUT of what is not there creates it
	NeedsVersion    bool          // an update must name the resourceVersion it replaces
	ReturnsDeleted  bool          // DELETE answers with the object rather than a Status
	OrphansDefault  bool          // dependents are orphaned where DELETE does not say
	OrphansWarning  string        // what DELETE warns of where it does not say

	// Grace is how many seconds obj is given between being asked to go and
	// going; asked is what the client wants, nil where it did not say.
	Grace func(obj T, asked *int64) int64

	// Held reports whether something other than metadata.finalizers keeps an
	// object that was asked to go. Leave marks one that has just been asked.
	Held  func(obj T) bool
	Leave func(obj T)
}

// A Sub is a subresource that edits a part of the object. What it may not
// edit is named by Keeps and put back from the stored object before the
// hooks of the kind run; the fields so kept are never owned through it.
type Sub[T Object] struct {
	Name  string
	Verbs []string // where they are not get, patch and update
	Keeps []string // JSON paths: "spec", "metadata.labels"

	// Edit carries the permitted change over from obj to a copy of old,
	// where paths do not say it. With it set Keeps is not used.
	Edit func(into, obj T)

	// Prepare, Validate and Warn stand in for those of the kind where not nil.
	Prepare  func(obj, old T)
	Validate func(obj, old T) field.ErrorList
	Warn     func(obj, old T) []string

	// Stamp writes down the time of what changed, where the kind keeps it.
	Stamp func(obj, old T, now metav1.Time)
}

// An Act is a subresource that does something: its name, the kind it takes
// or gives, and the verbs it is asked with.
type Act struct {
	Name  string
	Kind  schema.GroupVersionKind
	Verbs []string
}

// A Scale tells where a kind keeps how many of something it wants and has.
type Scale[T Object] struct {
	Wanted   func(obj T) *int32 // the field in the spec
	Has      func(obj T) int32
	Selector func(obj T) string

	// Want sets how many are wanted, and Path is the JSON path of that, both
	// where Wanted does not point into an object's spec.replicas.
	Want func(obj T, n int32)
	Path string
}

// A View serves the kind in one more group or version: the same stored
// object in other clothes. Of the kinds at GA only Event and
// HorizontalPodAutoscaler have one.
type View struct {
	schema.GroupVersion

	New  func() Object
	Fill func(view, stored Object) // view from stored
	Read func(stored, view Object) // stored from view

	// Validate stands in for the kind's where the view has rules of its own.
	// It sees what is to be stored.
	Validate func(obj, old Object) field.ErrorList

	// Fields gives the view's name of each of the kind's field selectors.
	Fields map[string]string
}

// A Column is one cell of the table that kubectl get prints: a string, an
// int64 or a bool. The columns Name and Age need no mention: Name comes first,
// and Age before the first Wide one, unless a column of that name stands
// elsewhere. Age without a Cell means that the kind does not print it.
type Column[T Object] struct {
	Name string
	Type string // string where empty
	Wide bool   // only with -o wide
	Cell func(obj T, now time.Time) any

	// What a custom kind says of its columns besides.
	Format, Description string
	Priority            int32 // where it is more than that of Wide
}

// A Group is the resources of one API group and version.
type Group struct {
	schema.GroupVersion

	Resources []Definition
}

// AllVerbs are the verbs of a stored kind, in the order of discovery.
var AllVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

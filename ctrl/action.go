package ctrl

import (
	"fmt"
	"reflect"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/apis"
)

// An Action is one write, one check or one event.
type Action struct {
	Verb  Verb
	Obj   apis.Object // with the revision that was seen; an Update of an older one fails
	Sub   string      // the subresource to update or patch, if any
	Note  string      // of an Event or Warn: "Reason: message"
	Patch string      // of a Patch: strategic merge, as JSON

	// Of a Delete. It always holds for the UID of Obj only.
	Exact  bool                       // and for the revision of Obj only
	Policy metav1.DeletionPropagation // the kind's own where empty
	Grace  *int64                     // the object's own where nil

	// Pace lets neighbours that have the same one go at the same time.
	Pace Pace

	// Then is what follows at once on success, told the object as the
	// server has it now. Else is what follows on failure, before the plan
	// stops: a condition, an event. Both may be nil.
	Then func(done apis.Object) []Action
	Else func(error) []Action
}

// A Verb is what an Action does with its object.
type Verb string

// The verbs. The engine takes for done a Delete or a Patch of what is not
// there, and a Create in a namespace that is being deleted.
const (
	Create       Verb = "create"
	Update       Verb = "update"
	UpdateStatus Verb = "update-status"
	Patch        Verb = "patch"
	Delete       Verb = "delete"
	Event        Verb = "event"
	Warn         Verb = "warn" // an event of type Warning

	// Check asks the server itself, past all caches, whether Obj is there
	// with its UID and not being deleted. The plan stops where it is not.
	Check Verb = "check"
	// CheckGone asks the server whether nothing has the name of Obj.
	CheckGone Verb = "check-gone"
)

// A Pace is how fast a run of like actions goes.
type Pace uint8

// The paces.
const (
	InTurn    Pace = iota // one after the other
	SlowStart             // 1, 2, 4, … at a time as long as all goes well
	AtOnce                // all
)

// Tell is an event about obj. The format begins with "Reason: ".
func Tell(obj apis.Object, format string, args ...any) Action {
	return Action{Verb: Event, Obj: obj, Note: fmt.Sprintf(format, args...)}
}

// Complain is a warning about obj. The format begins with "Reason: ".
func Complain(obj apis.Object, format string, args ...any) Action {
	return Action{Verb: Warn, Obj: obj, Note: fmt.Sprintf(format, args...)}
}

func (a Action) String() string {
	verb := string(a.Verb)
	if a.Sub != "" {
		verb += " " + a.Sub + " of"
	}
	kind := strings.ToLower(reflect.TypeOf(a.Obj).Elem().Name())
	name := a.Obj.GetName()
	if name == "" {
		name = a.Obj.GetGenerateName() + "*"
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s %s %s", verb, kind, Key{a.Obj.GetNamespace(), name}, a.Note))
}

// Package ctrltest runs the examples of a controller: txtar files of a world
// in YAML and the plan that the controller makes of it, in text.
//
// A file is a script. A section "objects.yaml" adds objects to the world, or
// replaces those of the same name; "gone" removes what it names, one
// "kind namespace/name" a line; "now" sets the time; "key" says which object
// is decided about, where it is not the first of the controller's kind; and
// each section "plan" is what the controller decides then. What it decides is
// done to the world before the script goes on, and the controller looked at
// once more: it must then want nothing. One that gets there in several looks
// has a section "plans" of all of them.
package ctrltest

import (
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
)

var update = flag.Bool("update", false, "rewrite the plans of the examples")

// Run runs the examples that match glob, each as a test of its own.
func Run(t *testing.T, c ctrl.Erased, glob string) {
	files, err := filepath.Glob(glob)
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples in %s: %v", glob, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { example(t, &c, file) })
	}
}

func example(t *testing.T, c *ctrl.Erased, file string) {
	script, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, ctrl: c, World: NewWorld(), now: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)}
	for i, f := range script.Files {
		text := string(f.Data)
		switch f.Name {
		case "now":
			if s.now, err = time.Parse(time.RFC3339, strings.TrimSpace(text)); err != nil {
				t.Fatal(err)
			}
		case "key":
			ns, name, _ := strings.Cut(strings.TrimSpace(text), "/")
			s.key = &ctrl.Key{Namespace: ns, Name: name}
		case "objects.yaml":
			if err := s.Load(text); err != nil {
				t.Fatal(err)
			}
		case "gone":
			for line := range strings.Lines(text) {
				s.gone(strings.TrimSpace(line))
			}
		case "plan", "plans":
			got := s.step(f.Name == "plans")
			if *update {
				script.Files[i].Data = []byte(got)
			} else if diff := cmp.Diff(text, got); diff != "" {
				t.Errorf("plan differs (-want +got):\n%s", diff)
			}
		default:
			t.Fatalf("section %q is not known", f.Name)
		}
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(script), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A stage is where one example plays.
type stage struct {
	*World

	t    *testing.T
	ctrl *ctrl.Erased
	now  time.Time
	key  *ctrl.Key
	memo any
}

// mostLooks is after how many a controller will never be content.
const mostLooks = 10

// step lets the controller decide, does what it wants, and checks that it is
// content then, or lets it decide again until it is.
func (s *stage) step(several bool) string {
	plan := s.decide()
	text := s.describe(plan)
	for looks := 1; ; looks++ {
		for _, a := range plan.Do {
			s.perform(a)
		}
		if plan = s.decide(); len(plan.Do) == 0 {
			return text
		}
		if !several || looks == mostLooks {
			s.t.Errorf("in the world that it wanted it still wants:\n%s", s.describe(plan))
			return text
		}
		text += "next look:\n" + s.describe(plan)
	}
}

func (s *stage) decide() ctrl.Plan {
	obj := s.subject()
	if s.ctrl.Kind != nil && obj == nil {
		return ctrl.Plan{}
	}
	before := s.Clone()
	plan := s.ctrl.Decide(ctrl.World{Now: s.now, Memo: s.memo, Seen: declared{s.World, s.ctrl, s.t}}, obj)
	if diff := cmp.Diff(before.objects, s.objects); diff != "" {
		s.t.Errorf("a decision changes what it looks at:\n%s", diff)
	}
	s.memo = plan.Memo
	return plan
}

// subject is the object to decide about, nil for an Overseer.
func (s *stage) subject() apis.Object {
	for _, o := range s.objects {
		if reflect.TypeOf(o) == s.ctrl.Kind && (s.key == nil || *s.key == ctrl.KeyOf(o)) {
			if s.key == nil { // it stays the one, though others come before it
				key := ctrl.KeyOf(o)
				s.key = &key
			}
			return o
		}
	}
	return nil
}

func (s *stage) perform(a ctrl.Action) {
	if !s.ctrl.Mends(a) {
		s.t.Errorf("%v is not among the Writes of %s", a, s.ctrl.Name)
	}
	done, err := s.Perform(a, s.now)
	if err != nil {
		s.t.Errorf("%v: %v", a, err)
		return
	}
	if a.Then != nil && done != nil {
		for _, next := range a.Then(done) {
			s.perform(next)
		}
	}
}

// declared is the world as the controller's Reads allow it to be seen.
type declared struct {
	*World

	ctrl *ctrl.Erased
	t    *testing.T
}

func (d declared) Get(kind reflect.Type, ns, name string) any {
	d.allowed(kind, nil)
	return d.World.Get(kind, ns, name)
}

func (d declared) Find(kind reflect.Type, by *ctrl.Index, value string) []any {
	d.allowed(kind, by)
	return d.World.Find(kind, by, value)
}

func (d declared) allowed(kind reflect.Type, by *ctrl.Index) {
	ok := false
	for _, r := range d.ctrl.Reads {
		if r.Kind != kind {
			continue
		}
		ok = ok || by == nil || by == ctrl.ByNamespace
		for _, ix := range r.By {
			ok = ok || ix == by
		}
	}
	if !ok {
		d.t.Errorf("%s looks at %v by %v and does not declare it among its Reads", d.ctrl.Name, kind, by)
	}
}

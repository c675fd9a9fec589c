package ctrltest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
)

// describe is a plan as the examples have it.
func (s *stage) describe(p ctrl.Plan) string {
	out := &strings.Builder{}
	s.actions(out, "", p.Do)
	if len(p.Do) == 0 {
		out.WriteString("nothing\n")
	}
	if p.After > 0 {
		fmt.Fprintf(out, "again after %v\n", p.After)
	}
	return out.String()
}

// actions writes do: the same one many times as one, and what neighbours
// have in common for the case of failure after the last of them.
func (s *stage) actions(out *strings.Builder, indent string, do []ctrl.Action) {
	texts, failures := make([]string, len(do)), make([]string, len(do)+1)
	for i, a := range do {
		texts[i], failures[i] = s.action(indent, a)
	}
	for i := 0; i < len(do); {
		n := 1
		for i+n < len(do) && texts[i+n] == texts[i] && failures[i+n] == failures[i] {
			n++
		}
		text := texts[i]
		if n > 1 {
			text = fmt.Sprintf("%s%d times %s", indent, n, strings.TrimPrefix(text, indent))
		}
		out.WriteString(text)
		if i += n; failures[i] != failures[i-1] {
			out.WriteString(failures[i-1])
		}
	}
}

var paces = map[ctrl.Pace]string{ctrl.SlowStart: ", slow start", ctrl.AtOnce: ", at once"}

func (s *stage) action(indent string, a ctrl.Action) (text, failure string) {
	out, other := &strings.Builder{}, &strings.Builder{}
	fmt.Fprintf(out, "%s%v%s%s\n", indent, a, terms(a), paces[a.Pace])
	for line := range strings.Lines(s.detail(a)) {
		out.WriteString(indent + "  " + line)
	}
	if a.Then != nil {
		done := copyOf(a.Obj)
		if done.GetName() == "" {
			done.SetName(done.GetGenerateName() + "*")
		}
		s.branch(out, indent, "then", a.Then(done))
	}
	if a.Else != nil {
		s.branch(other, indent, "else", a.Else(errors.New("no luck")))
	}
	return out.String(), other.String()
}

func (s *stage) branch(out *strings.Builder, indent, name string, do []ctrl.Action) {
	if len(do) > 0 {
		out.WriteString(indent + name + ":\n")
		s.actions(out, indent+"  ", do)
	}
}

// terms are on what terms a deletion is.
func terms(a ctrl.Action) (s string) {
	if a.Exact {
		s += ", this revision only"
	}
	if a.Policy != "" {
		s += ", " + string(a.Policy)
	}
	if a.Grace != nil {
		s += fmt.Sprintf(", grace %d", *a.Grace)
	}
	return s
}

func (s *stage) detail(a ctrl.Action) string {
	switch a.Verb {
	case ctrl.Create:
		return text(plain(a.Obj))
	case ctrl.Update, ctrl.UpdateStatus:
		i := s.at(a.Obj)
		if i < 0 {
			return text(plain(a.Obj))
		}
		return s.change(s.objects[i], a.Obj)
	case ctrl.Patch:
		return a.Patch + "\n"
	case ctrl.Delete, ctrl.Event, ctrl.Warn, ctrl.Check, ctrl.CheckGone:
	}
	return ""
}

// change is what differs between two states of an object, as a merge patch.
func (s *stage) change(old, obj apis.Object) string {
	was, err := json.Marshal(old)
	if err != nil {
		s.t.Fatal(err)
	}
	is, err := json.Marshal(obj)
	if err != nil {
		s.t.Fatal(err)
	}
	diff, err := jsonpatch.CreateMergePatch(was, is)
	if err != nil {
		s.t.Fatal(err)
	}
	m := map[string]any{}
	if err := json.Unmarshal(diff, &m); err != nil {
		s.t.Fatal(err)
	}
	if len(m) == 0 {
		s.t.Errorf("%T %v is written though nothing changes", obj, ctrl.KeyOf(obj))
	}
	return text(m)
}

// plain is obj as JSON has it, without what only a server fills in.
func plain(obj apis.Object) map[string]any {
	m := map[string]any{}
	if err := json.Unmarshal([]byte(ctrl.JSON(obj)), &m); err != nil {
		panic(err)
	}
	if meta, ok := m["metadata"].(map[string]any); ok {
		for _, k := range []string{"creationTimestamp", "name", "namespace", "generateName"} {
			delete(meta, k)
		}
	}
	if empty, ok := m["status"].(map[string]any); ok && len(empty) == 0 {
		delete(m, "status")
	}
	return m
}

// text is m in YAML.
func text(m map[string]any) string {
	b, err := yaml.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(b)
}

package ctrltest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
)

// A World is a cluster in memory: a ctrl.Lookup that actions can be done to.
type World struct {
	objects []apis.Object
	made    int // counts what was created and changed, for names and revisions
}

// NewWorld is a world with objs in it.
func NewWorld(objs ...apis.Object) *World {
	w := &World{}
	for _, o := range objs {
		w.Put(o)
	}
	return w
}

// Clone is a copy that shares nothing with w.
func (w *World) Clone() *World {
	c := &World{made: w.made}
	for _, o := range w.objects {
		c.objects = append(c.objects, copyOf(o))
	}
	return c
}

var strict = serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()

// Load puts the objects of a YAML text into the world.
func (w *World) Load(text string) error {
	for i, doc := range strings.Split(text, "\n---\n") {
		if strings.TrimSpace(doc) == "" {
			continue
		}
		obj, _, err := strict.Decode([]byte(doc), nil, nil)
		if err != nil {
			return fmt.Errorf("object %d: %w", i, err)
		}
		obj.GetObjectKind().SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind(""))
		w.Put(obj.(apis.Object))
	}
	return nil
}

// Put adds obj, or replaces that of its kind and name.
func (w *World) Put(obj apis.Object) {
	w.made++
	if obj.GetResourceVersion() == "" {
		obj.SetResourceVersion(strconv.Itoa(w.made))
	}
	if obj.GetUID() == "" {
		obj.SetUID(types.UID(fmt.Sprintf("uid-%d", w.made)))
	}
	if i := w.at(obj); i >= 0 {
		w.objects[i] = obj
		return
	}
	w.objects = append(w.objects, obj)
}

func (w *World) at(obj apis.Object) int {
	return slices.IndexFunc(w.objects, func(o apis.Object) bool {
		return reflect.TypeOf(o) == reflect.TypeOf(obj) && ctrl.KeyOf(o) == ctrl.KeyOf(obj)
	})
}

// gone removes what line names: "pod shop/web-a".
func (w *World) gone(line string) {
	w.objects = slices.DeleteFunc(w.objects, func(o apis.Object) bool {
		return strings.ToLower(reflect.TypeOf(o).Elem().Name())+" "+ctrl.KeyOf(o).String() == line
	})
}

// Get is part of ctrl.Lookup.
func (w *World) Get(kind reflect.Type, ns, name string) any {
	for _, o := range w.objects {
		if reflect.TypeOf(o) == kind && (ctrl.KeyOf(o) == ctrl.Key{Namespace: ns, Name: name}) {
			return o
		}
	}
	return nil
}

// Find is part of ctrl.Lookup.
func (w *World) Find(kind reflect.Type, by *ctrl.Index, value string) (found []any) {
	for _, o := range w.objects {
		if reflect.TypeOf(o) == kind && (by == nil || slices.Contains(by.Of(o), value)) {
			found = append(found, o)
		}
	}
	return found
}

// Perform does a to the world as a server would, with the least of it that a
// controller can notice.
func (w *World) Perform(a ctrl.Action, now time.Time) (apis.Object, error) {
	obj := copyOf(a.Obj)
	switch a.Verb {
	case ctrl.Create:
		return w.create(obj, now)
	case ctrl.Update, ctrl.UpdateStatus:
		i := w.at(obj)
		if i < 0 {
			return nil, fmt.Errorf("not found")
		}
		if old := w.objects[i]; old.GetResourceVersion() != obj.GetResourceVersion() {
			return nil, fmt.Errorf("conflict: revision %q is not %q", obj.GetResourceVersion(), old.GetResourceVersion())
		}
		return w.replace(i, obj), nil
	case ctrl.Patch:
		i := w.at(obj)
		if i < 0 {
			return nil, fmt.Errorf("not found")
		}
		patched, err := patch(w.objects[i], a.Patch)
		if err != nil {
			return nil, err
		}
		return w.replace(i, patched), nil
	case ctrl.Delete:
		w.remove(obj, a.Grace != nil && *a.Grace == 0, now)
	case ctrl.Event, ctrl.Warn, ctrl.Check, ctrl.CheckGone:
	}
	return nil, nil
}

func (w *World) create(obj apis.Object, now time.Time) (apis.Object, error) {
	if obj.GetName() == "" {
		obj.SetName(fmt.Sprintf("%sx%d", obj.GetGenerateName(), w.made))
	}
	if w.at(obj) >= 0 {
		return nil, fmt.Errorf("%v exists", ctrl.KeyOf(obj))
	}
	obj.SetCreationTimestamp(metav1.NewTime(now))
	obj.SetGeneration(1)
	w.Put(obj)
	return obj, nil
}

// replace puts obj in place i; a spec that changed is a new generation.
func (w *World) replace(i int, obj apis.Object) apis.Object {
	if old := w.objects[i]; old.GetGeneration() > 0 && !reflect.DeepEqual(part(old, "Spec"), part(obj, "Spec")) {
		obj.SetGeneration(old.GetGeneration() + 1)
	}
	w.made++
	obj.SetResourceVersion(strconv.Itoa(w.made))
	w.objects[i] = obj
	if obj.GetDeletionTimestamp() != nil && len(obj.GetFinalizers()) == 0 && !lingers(obj) {
		w.objects = slices.Delete(w.objects, i, i+1)
	}
	return obj
}

// remove deletes obj, or marks it as being deleted where something holds it.
func (w *World) remove(obj apis.Object, forced bool, now time.Time) {
	i := w.at(obj)
	if i < 0 {
		return
	}
	waits := lingers(obj) && !forced
	if len(obj.GetFinalizers()) == 0 && !waits {
		w.objects = slices.Delete(w.objects, i, i+1)
		return
	}
	marked := copyOf(w.objects[i])
	marked.SetDeletionTimestamp(&metav1.Time{Time: now})
	if !waits {
		marked.SetDeletionGracePeriodSeconds(new(int64(0)))
	}
	w.replace(i, marked)
}

// lingers reports whether obj is a pod that its node has to stop first.
func lingers(obj apis.Object) bool {
	p, ok := obj.(*corev1.Pod)
	return ok && p.Spec.NodeName != "" && !ctrl.Finished(p)
}

func patch(obj apis.Object, with string) (apis.Object, error) {
	was, err := json.Marshal(obj)
	if err != nil {
		return nil, err
	}
	fresh := reflect.New(reflect.TypeOf(obj).Elem()).Interface().(apis.Object)
	is, err := strategicpatch.StrategicMergePatch(was, []byte(with), fresh)
	if err != nil {
		return nil, err
	}
	return fresh, json.Unmarshal(is, fresh)
}

func copyOf(obj apis.Object) apis.Object { return obj.DeepCopyObject().(apis.Object) }

// part is a field of obj, nil where its kind has none of that name.
func part(obj apis.Object, name string) any {
	f := reflect.ValueOf(obj).Elem().FieldByName(name)
	if !f.IsValid() {
		return nil
	}
	return f.Interface()
}

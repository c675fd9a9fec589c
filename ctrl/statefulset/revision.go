package statefulset

import (
	"hash/fnv"
	"maps"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/knarr-dev/knarr/ctrl"
)

// hashKey is the label that tells revisions apart.
const hashKey = "controller.kubernetes.io/hash"

// longest is as much of a set's name as the name of a revision has room for.
const longest = 223

// A version is a template by the name of its revision.
type version struct {
	name       string
	template   *corev1.PodTemplateSpec
	collisions int32
}

func prefix(s *appsv1.StatefulSet) string { return s.Name[:min(len(s.Name), longest)] + "-" }

// setRevisions finds the revision that the set has now, and the one that its
// pods should have. A template of before becomes the newest again.
func (r *run) setRevisions() error {
	collisions := int32(0)
	if n := r.set.Status.CollisionCount; n != nil {
		collisions = *n
	}
	r.update = version{template: &r.set.Spec.Template, collisions: collisions}
	if same := r.history.Of(&r.set.Spec.Template); len(same) > 0 {
		rev := same[len(same)-1]
		r.update.name = rev.Name
		if rev != r.history[len(r.history)-1] {
			again := rev.DeepCopy()
			again.Revision = r.history.Next()
			r.do = append(r.do, ctrl.Action{Verb: ctrl.Update, Obj: again})
		}
	} else {
		r.add()
	}
	r.current = r.update
	for _, rev := range r.history {
		if rev.Name != r.set.Status.CurrentRevision || rev.Name == r.update.name {
			continue
		}
		t, err := ctrl.TemplateIn(rev)
		if err != nil {
			return err
		}
		r.current = version{name: rev.Name, template: t}
	}
	return nil
}

// lastRevisions is what the set had, for one that is being deleted.
func (r *run) lastRevisions() {
	s := r.set.Status
	r.current, r.update = version{name: s.CurrentRevision}, version{name: s.UpdateRevision}
	if s.CollisionCount != nil {
		r.update.collisions = *s.CollisionCount
	}
}

// add makes a revision of the set's template.
func (r *run) add() {
	data := ctrl.TemplateData(&r.set.Spec.Template)
	hash := hashOf(data, r.update.collisions)
	for r.names[prefix(r.set)+hash] { // another template has this hash
		r.update.collisions++
		hash = hashOf(data, r.update.collisions)
	}
	r.update.name = prefix(r.set) + hash
	rev := &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Name: r.update.name, Namespace: r.set.Namespace,
			Labels: maps.Clone(r.set.Spec.Template.Labels), Annotations: maps.Clone(r.set.Annotations),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(r.set, kind)},
		},
		Data: runtime.RawExtension{Raw: data}, Revision: r.history.Next(),
	}
	if rev.Labels == nil {
		rev.Labels = map[string]string{}
	}
	rev.Labels[hashKey] = hash
	r.do = append(r.do, ctrl.Action{Verb: ctrl.Create, Obj: rev})
}

// hashOf is upstream's, so that either can go on where the other stopped.
func hashOf(data []byte, collisions int32) string {
	h := fnv.New32()
	h.Write(data)
	h.Write([]byte(strconv.Itoa(int(collisions))))
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}

// forget deletes the oldest revisions that no pod has and that are too many
// to keep.
func (r *run) forget(status appsv1.StatefulSetStatus) (do []ctrl.Action) {
	limit := r.set.Spec.RevisionHistoryLimit
	if limit == nil || r.set.DeletionTimestamp != nil {
		return nil
	}
	live := map[string]bool{status.CurrentRevision: true, status.UpdateRevision: true}
	for _, list := range [][]*member{r.members, r.condemned} {
		for _, m := range list {
			live[m.revision()] = true
		}
	}
	var dead ctrl.History
	for _, rev := range r.history {
		if !live[rev.Name] {
			dead = append(dead, rev)
		}
	}
	for _, rev := range dead[:max(0, len(dead)-int(*limit))] {
		do = append(do, ctrl.Action{Verb: ctrl.Delete, Obj: rev})
	}
	return do
}

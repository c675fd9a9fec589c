package daemonset

import (
	"maps"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/knarr-dev/knarr/ctrl"
)

const (
	hashKey = appsv1.DefaultDaemonSetUniqueLabelKey
	// generationKey is the label by which pods were told apart before the
	// hash. They still have both.
	generationKey = "pod-template-generation"
)

// generation is the number of the set's template, false where it has none.
func generation(d *appsv1.DaemonSet) (string, bool) {
	n, err := strconv.ParseInt(d.Annotations[appsv1.DeprecatedTemplateGeneration], 10, 64)
	return strconv.FormatInt(n, 10), err == nil
}

// updated reports whether p has the template of now.
func (r *run) updated(p *corev1.Pod) bool {
	n, ok := generation(r.set)
	return p.Labels[hashKey] == r.hash && r.hash != "" || ok && p.Labels[generationKey] == n
}

// setRevision finds the revision of the set's template, or makes one. It is
// the newest one then, and the only one.
func (r *run) setRevision(all ctrl.History) {
	same := all.Of(&r.set.Spec.Template)
	known := map[string]bool{}
	for _, rev := range same {
		known[rev.Name] = true
	}
	for _, rev := range all {
		if !known[rev.Name] {
			r.history = append(r.history, rev)
		}
	}
	if len(same) == 0 {
		r.addRevision()
		return
	}
	keep := same[len(same)-1]
	if r.hash = keep.Labels[hashKey]; r.hash == "" {
		r.hash = keep.Name
	}
	r.unite(same[:len(same)-1])
	now := keep.DeepCopy()
	now.Revision = max(keep.Revision, r.history.Next())
	if now.Labels == nil {
		now.Labels = map[string]string{}
	}
	now.Labels[hashKey] = r.hash
	if now.Revision != keep.Revision || now.Labels[hashKey] != keep.Labels[hashKey] {
		r.do = append(r.do, ctrl.Action{Verb: ctrl.Update, Obj: now})
	}
}

// unite deletes revisions that hold the same as the one that is kept. Their
// pods become that one's.
func (r *run) unite(twice ctrl.History) {
	was := map[string]bool{}
	for _, rev := range twice {
		was[rev.Labels[hashKey]] = true
	}
	for i, p := range r.pods {
		if h := p.Labels[hashKey]; h == "" || h == r.hash || !was[h] {
			continue
		}
		labels := map[string]string{hashKey: r.hash}
		r.do = append(r.do, ctrl.Action{Verb: ctrl.Patch, Obj: p, Pace: ctrl.AtOnce, Patch: ctrl.JSON(map[string]any{
			"metadata": map[string]any{"uid": p.UID, "labels": labels},
		})})
		relabelled := p.DeepCopy()
		relabelled.Labels[hashKey] = r.hash
		r.pods[i] = relabelled
	}
	for _, rev := range twice {
		r.do = append(r.do, ctrl.Action{Verb: ctrl.Delete, Obj: rev})
	}
}

func (r *run) addRevision() {
	r.hash = ctrl.TemplateHash(&r.set.Spec.Template, r.collisions)
	for r.names[r.set.Name+"-"+r.hash] { // another template has this hash
		if r.collisions == nil {
			r.collisions = new(int32(0))
		}
		r.collisions = new(*r.collisions + 1)
		r.hash = ctrl.TemplateHash(&r.set.Spec.Template, r.collisions)
	}
	rev := &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Name: r.set.Name + "-" + r.hash, Namespace: r.set.Namespace,
			Labels: maps.Clone(r.set.Spec.Template.Labels), Annotations: maps.Clone(r.set.Annotations),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(r.set, kind)},
		},
		Data:     runtime.RawExtension{Raw: ctrl.TemplateData(&r.set.Spec.Template)},
		Revision: r.history.Next(),
	}
	if rev.Labels == nil {
		rev.Labels = map[string]string{}
	}
	rev.Labels[hashKey] = r.hash
	r.do = append(r.do, ctrl.Action{Verb: ctrl.Create, Obj: rev})
}

// forget deletes the oldest revisions that no pod has and that are too many
// to keep.
func (r *run) forget() (do []ctrl.Action) {
	limit := r.set.Spec.RevisionHistoryLimit
	if limit == nil {
		return nil
	}
	live := map[string]bool{}
	for _, p := range r.pods {
		live[p.Labels[hashKey]] = true
	}
	surplus := len(r.history) - int(*limit)
	for _, rev := range r.history {
		if surplus > 0 && !live[rev.Labels[hashKey]] {
			do = append(do, ctrl.Action{Verb: ctrl.Delete, Obj: rev})
			surplus--
		}
	}
	return do
}

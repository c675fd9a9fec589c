package deployment

import (
	"maps"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/knarr-dev/knarr/ctrl"
)

// The annotations that clients, kubectl rollout first, and our next look read.
const (
	revisionKey = "deployment.kubernetes.io/revision"
	historyKey  = "deployment.kubernetes.io/revision-history" // the numbers a set had before
	desiredKey  = "deployment.kubernetes.io/desired-replicas" // of the deployment, when the set was last sized
	maxKey      = "deployment.kubernetes.io/max-replicas"     // the same with the surge
)

// maxHistory is the longest a list of former revisions grows: some hundred numbers.
const maxHistory = 2000

// own are the annotations that a set does not take over from its deployment.
var own = map[string]bool{
	corev1.LastAppliedConfigAnnotation: true, revisionKey: true, historyKey: true,
	desiredKey: true, maxKey: true, appsv1.DeprecatedRollbackTo: true,
}

const hashKey = appsv1.DefaultDeploymentUniqueLabelKey

// revision is the number of rs in the deployment's history, 0 where it says none.
func revision(rs *appsv1.ReplicaSet) int64 {
	n, err := strconv.ParseInt(rs.Annotations[revisionKey], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// sameTemplate compares but for the hash, which only a set has.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	plain := func(t *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
		if _, ok := t.Labels[hashKey]; !ok {
			return t
		}
		out := *t
		out.Labels = maps.Clone(t.Labels)
		delete(out.Labels, hashKey)
		return &out
	}
	return equality.Semantic.DeepEqual(plain(a), plain(b))
}

// syncRevision gives the fresh set, where there is one, the newest number and
// the deployment's annotations, and the deployment that set's number.
func (r *rollout) syncRevision() {
	if r.fresh == nil {
		return
	}
	r.annotate(r.fresh)
	r.fresh.Spec.MinReadySeconds = r.dep.Spec.MinReadySeconds
	r.setRevision()
	if r.hasDeadline() && r.condition(appsv1.DeploymentProgressing) == nil {
		r.progress(corev1.ConditionTrue, "FoundNewReplicaSet", "Found new replica set %q", r.fresh.Name)
	}
}

func (r *rollout) setRevision() {
	if r.dep.Annotations == nil {
		r.dep.Annotations = map[string]string{}
	}
	r.dep.Annotations[revisionKey] = r.fresh.Annotations[revisionKey]
}

// annotate copies the deployment's annotations to s and makes it the newest
// revision. A number that it had before is kept as history.
func (r *rollout) annotate(s *set) {
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	for k, v := range r.dep.Annotations {
		if !own[k] {
			s.Annotations[k] = v
		}
	}
	newest := int64(1)
	for _, o := range r.old {
		newest = max(newest, revision(o.ReplicaSet)+1)
	}
	had, numbered := s.Annotations[revisionKey]
	before, err := strconv.ParseInt(had, 10, 64)
	if err != nil && had != "" || before >= newest {
		return // not our number, or new enough: older sets may have been deleted
	}
	s.Annotations[revisionKey] = strconv.FormatInt(newest, 10)
	if !numbered {
		return
	}
	var past []string
	if h := s.Annotations[historyKey]; h != "" {
		past = strings.Split(h, ",")
	}
	past = append(past, had)
	for len(past) > 1 && len(strings.Join(past, ",")) > maxHistory {
		past = past[1:]
	}
	s.Annotations[historyKey] = strings.Join(past, ",")
}

// add makes a fresh set of no size in the rollout.
func (r *rollout) add() {
	hash := ctrl.TemplateHash(&r.dep.Spec.Template, r.dep.Status.CollisionCount)
	for r.names[setName(r.dep.Name, hash)] { // another template has this hash
		if r.dep.Status.CollisionCount == nil {
			r.dep.Status.CollisionCount = new(int32(0))
		}
		*r.dep.Status.CollisionCount++
		hash = ctrl.TemplateHash(&r.dep.Spec.Template, r.dep.Status.CollisionCount)
	}
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name: setName(r.dep.Name, hash), Namespace: r.dep.Namespace,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(r.dep, kind)},
		},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: new(int32(0)), MinReadySeconds: r.dep.Spec.MinReadySeconds,
			Selector: r.dep.Spec.Selector.DeepCopy(), Template: *r.dep.Spec.Template.DeepCopy(),
		},
	}
	rs.Labels = withHash(rs.Spec.Template.Labels, hash)
	rs.Spec.Template.Labels = withHash(rs.Spec.Template.Labels, hash)
	rs.Spec.Selector.MatchLabels = withHash(rs.Spec.Selector.MatchLabels, hash)
	r.fresh = &set{ReplicaSet: rs}
	r.annotate(r.fresh)
	r.setRevision()
	if r.hasDeadline() {
		r.progress(corev1.ConditionTrue, "NewReplicaSetCreated", "Created new replica set %q", rs.Name)
	}
}

func withHash(labels map[string]string, hash string) map[string]string {
	out := maps.Clone(labels)
	if out == nil {
		out = map[string]string{}
	}
	out[hashKey] = hash
	return out
}

func setName(deployment, hash string) string {
	room := validation.DNS1123SubdomainMaxLength - len(hash) - 1
	return deployment[:min(len(deployment), room)] + "-" + hash
}

// create makes s, or tells why it cannot be made.
func (r *rollout) create(s *set) []ctrl.Action {
	do := []ctrl.Action{{Verb: ctrl.Create, Obj: s.ReplicaSet, Else: func(err error) []ctrl.Action {
		if apierrors.IsAlreadyExists(err) {
			return nil // the next look will see whose it is
		}
		f := rollout{input: r.input, was: r.was}
		f.dep = copyOf(r.was)
		const reason, message = "ReplicaSetCreateError", "Failed to create new replica set %q: %v"
		if f.hasDeadline() {
			f.progress(corev1.ConditionFalse, reason, message, s.Name, err)
		}
		return append([]ctrl.Action{ctrl.Complain(r.was, reason+": "+message, s.Name, err)}, f.writeStatus()...)
	}}}
	if s.size() > 0 {
		do = append(do, ctrl.Tell(r.was, "ScalingReplicaSet: Scaled up replica set %s from 0 to %d", s.Name, s.size()))
	}
	return do
}

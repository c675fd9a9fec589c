package statefulset

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
)

// pod is the pod of ordinal n, of the old template below what has moved on.
func (r *run) pod(n int) *corev1.Pod {
	v, s := r.update, r.set
	switch rolling := s.Spec.UpdateStrategy.RollingUpdate; {
	case rolling != nil && n < first(s)+r.partition(),
		rolling == nil && rolls(s) && n < first(s)+int(s.Status.CurrentReplicas):
		v = r.current
	}
	p := ctrl.PodFrom(v.template, s, kind)
	p.Name = s.Name + "-" + strconv.Itoa(n)
	identify(p, n)
	p.Labels[appsv1.StatefulSetRevisionLabel] = v.name
	p.Spec.Hostname, p.Spec.Subdomain = p.Name, s.Spec.ServiceName
	r.mount(p, n)
	return p
}

// identify labels p as the one of ordinal n.
func identify(p *corev1.Pod, n int) {
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels[appsv1.StatefulSetPodNameLabel] = p.Name
	p.Labels[appsv1.PodIndexLabel] = strconv.Itoa(n)
}

func claimName(s *appsv1.StatefulSet, template *corev1.PersistentVolumeClaim, n int) string {
	return fmt.Sprintf("%s-%s-%d", template.Name, s.Name, n)
}

// mount makes volumes of p of the claims of ordinal n, in place of others of
// their names.
func (r *run) mount(p *corev1.Pod, n int) {
	var volumes []corev1.Volume
	taken := map[string]bool{}
	for i := range r.set.Spec.VolumeClaimTemplates {
		t := &r.set.Spec.VolumeClaimTemplates[i]
		taken[t.Name] = true
		volumes = append(volumes, corev1.Volume{Name: t.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(r.set, t, n)},
		}})
	}
	for i := range p.Spec.Volumes {
		if !taken[p.Spec.Volumes[i].Name] {
			volumes = append(volumes, p.Spec.Volumes[i])
		}
	}
	p.Spec.Volumes = volumes
}

// mounts reports whether m has its claims as volumes.
func (r *run) mounts(m *member) bool {
	for i := range r.set.Spec.VolumeClaimTemplates {
		t := &r.set.Spec.VolumeClaimTemplates[i]
		if !slices.ContainsFunc(m.Spec.Volumes, func(v corev1.Volume) bool {
			return v.Name == t.Name && v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claimName(r.set, t, m.n)
		}) {
			return false
		}
	}
	return true
}

// missingClaims are the claims of m that are not there.
func (r *run) missingClaims(m *member) (missing []*corev1.PersistentVolumeClaim) {
	for i := range r.set.Spec.VolumeClaimTemplates {
		t := &r.set.Spec.VolumeClaimTemplates[i]
		name := claimName(r.set, t, m.n)
		if r.claims[name] != nil {
			continue
		}
		c := t.DeepCopy()
		c.Name, c.Namespace = name, r.set.Namespace
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		maps.Copy(c.Labels, r.set.Spec.Selector.MatchLabels)
		c.OwnerReferences = append(c.OwnerReferences, r.claimOwner(m)...)
		missing = append(missing, c)
	}
	return missing
}

// makeClaim creates a claim of m, and then what needs it.
func (r *run) makeClaim(m *member, c *corev1.PersistentVolumeClaim, next []ctrl.Action) ctrl.Action {
	return ctrl.Action{
		Verb: ctrl.Create, Obj: c, Pace: ctrl.SlowStart,
		Then: func(apis.Object) []ctrl.Action {
			told := ctrl.Tell(r.set, "SuccessfulCreate: Create Claim %s Pod %s in StatefulSet %s success", c.Name, m.Name, r.set.Name)
			return append([]ctrl.Action{told}, next...)
		},
		Else: func(err error) []ctrl.Action {
			if apierrors.IsAlreadyExists(err) {
				return nil
			}
			told := ctrl.Complain(r.set, "FailedCreate: Create Claim %s for Pod %s in StatefulSet %s failed error: %v", c.Name, m.Name, r.set.Name, err)
			if len(next) == 0 {
				return []ctrl.Action{told}
			}
			fail := r.failed("FailedCreate: Create Pod %s in StatefulSet %s failed error: %v", m.Name)
			return append([]ctrl.Action{told}, fail(fmt.Errorf("failed to create PVC %s: %w", c.Name, err))...)
		},
	}
}

// eachClaim calls f for the claims of m that are there.
func (r *run) eachClaim(m *member, f func(*corev1.PersistentVolumeClaim)) {
	for i := range r.set.Spec.VolumeClaimTemplates {
		if c := r.claims[claimName(r.set, &r.set.Spec.VolumeClaimTemplates[i], m.n)]; c != nil {
			f(c)
		}
	}
}

// blocked reports whether a claim of m, which is not there yet, is about to
// go: it is being deleted, or goes with a pod that was there before.
func (r *run) blocked(m *member) (blocked bool) {
	_, whenScaled := r.policy()
	r.eachClaim(m, func(c *corev1.PersistentVolumeClaim) {
		blocked = blocked || c.DeletionTimestamp != nil || whenScaled && stale(c, m.Pod, podKind)
	})
	return blocked
}

// policy is whether claims go with the set, and with a pod that is one too many.
func (r *run) policy() (whenDeleted, whenScaled bool) {
	p := r.set.Spec.PersistentVolumeClaimRetentionPolicy
	if p == nil {
		return false, false
	}
	const remove = appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	return p.WhenDeleted == remove, p.WhenScaled == remove
}

// claimOwner is with what the claims of m go, nil for nothing.
func (r *run) claimOwner(m *member) []metav1.OwnerReference {
	whenDeleted, whenScaled := r.policy()
	surplus := m.n < first(r.set) || m.n >= end(r.set)
	switch {
	case whenScaled && surplus:
		return []metav1.OwnerReference{*metav1.NewControllerRef(m.Pod, podKind)}
	case whenDeleted:
		return []metav1.OwnerReference{*metav1.NewControllerRef(r.set, kind)}
	}
	return nil
}

// mendClaims makes the claims of m go with what they should go with. It keeps
// off a claim that belonged to a set or pod of before.
func (r *run) mendClaims(m *member) {
	r.eachClaim(m, func(c *corev1.PersistentVolumeClaim) {
		if stale(c, r.set, kind) || stale(c, m.Pod, podKind) {
			return
		}
		want := slices.DeleteFunc(slices.Clone(c.OwnerReferences), func(ref metav1.OwnerReference) bool {
			return names(ref, r.set, kind) || names(ref, m.Pod, podKind)
		})
		foreign := r.foreign(want)
		if !foreign {
			want = append(want, r.claimOwner(m)...)
		}
		if equality.Semantic.DeepEqual(want, c.OwnerReferences) {
			return
		}
		if foreign {
			r.do = append(r.do, ctrl.Complain(r.set, "ConflictingController: PersistentVolumeClaim %s has a conflicting "+
				"OwnerReference that acts as a manging controller, the retention policy is ignored for this claim", c.Name))
		}
		c = c.DeepCopy()
		c.OwnerReferences = want
		r.do = append(r.do, ctrl.Action{
			Verb: ctrl.Update, Obj: c,
			Else: r.failed("FailedUpdate: Update Pod %s in StatefulSet %s failed error: could not update claim "+c.Name+
				" for delete policy ownerRefs: %v", m.Name),
		})
	})
}

// foreign reports whether somebody else controls a claim with those owners,
// where it matters.
func (r *run) foreign(refs []metav1.OwnerReference) bool {
	whenDeleted, whenScaled := r.policy()
	return (whenDeleted || whenScaled) && slices.ContainsFunc(refs, func(ref metav1.OwnerReference) bool {
		return ref.Controller != nil && *ref.Controller
	})
}

// names reports whether ref is to obj, or to one of its name before.
func names(ref metav1.OwnerReference, obj apis.Object, kind schema.GroupVersionKind) bool {
	return ref.APIVersion == kind.GroupVersion().String() && ref.Kind == kind.Kind && ref.Name == obj.GetName()
}

// stale reports whether c belongs to one of obj's name before.
func stale(c *corev1.PersistentVolumeClaim, obj apis.Object, kind schema.GroupVersionKind) bool {
	return slices.ContainsFunc(c.OwnerReferences, func(ref metav1.OwnerReference) bool {
		return names(ref, obj, kind) && ref.UID != obj.GetUID()
	})
}

package podspec

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/volume"
)

// A Subject is a spec with the metadata of its pod or template. What it was
// before is nil when it is made. Faults that were stored before there was a
// rule against them may stay.
type Subject struct {
	Meta *metav1.ObjectMeta
	Spec *corev1.PodSpec

	Was     *corev1.PodSpec
	WasMeta *metav1.ObjectMeta

	Template bool // of pods to come, rather than a pod
}

// Template is the subject that a pod template is, or nil where it was none.
func Template(t, was *corev1.PodTemplateSpec) Subject {
	s := Subject{Meta: &t.ObjectMeta, Spec: &t.Spec, Template: true}
	if was != nil {
		s.Was, s.WasMeta = &was.Spec, &was.ObjectMeta
	}
	return s
}

// Pod is the subject that a pod is.
func Pod(p, was *corev1.Pod) Subject {
	s := Subject{Meta: &p.ObjectMeta, Spec: &p.Spec}
	if was != nil {
		s.Was, s.WasMeta = &was.Spec, &was.ObjectMeta
	}
	return s
}

// had reports whether the spec broke a rule before already.
func (s Subject) had(broken func(at check.At, spec *corev1.PodSpec)) bool {
	if s.Was == nil {
		return false
	}
	at := check.New()
	broken(at, s.Was)
	return at.Found() > 0
}

// ValidateTemplate checks a pod template, which stands at at.
func ValidateTemplate(at check.At, t, was *corev1.PodTemplateSpec) {
	s := Template(t, was)
	meta.Labels(at.Dot("labels"), t.Labels)
	meta.Annotations(at.Dot("annotations"), t.Annotations)
	s.Annotations(at.Dot("annotations"))
	s.Validate(at.Dot("spec"))
	s.MatchAnnotations(at.Dot("spec"))
	if len(t.Spec.EphemeralContainers) > 0 {
		at.Dot("spec.ephemeralContainers").Forbidden("ephemeral containers not allowed in pod template")
	}
}

// Restarts demands of a spec that its containers run for ever. Messages name
// the kind that makes the pods.
func Restarts(at check.At, spec *corev1.PodSpec, kind string) {
	check.OneOf(at.Dot("restartPolicy"), spec.RestartPolicy, corev1.RestartPolicyAlways)
	if spec.ActiveDeadlineSeconds != nil {
		at.Dot("activeDeadlineSeconds").Forbidden("activeDeadlineSeconds in " + kind + " is not Supported")
	}
}

// Annotations checks the annotations that mean something to the system.
func (s Subject) Annotations(at check.At) {
	all := s.Meta.Annotations
	if mirror, ok := all[corev1.MirrorPodAnnotationKey]; ok && s.Spec.NodeName == "" {
		at.Key(corev1.MirrorPodAnnotationKey).Invalid(mirror, "must set spec.nodeName if mirror pod annotation is set")
	}
	tolerationsAnnotation(at, all[corev1.TolerationsAnnotationKey])
	if cost := all[corev1.PodDeletionCost]; !validCost(all) && (s.WasMeta == nil || validCost(s.WasMeta.Annotations)) {
		at.Key(corev1.PodDeletionCost).Invalid(cost, "must be a 32bit integer")
	}
	seccompAnnotations(at, all)
	appArmorAnnotations(at, all, s.Spec)
}

// validCost reports whether the cost of deleting a pod is a number, if it is told.
func validCost(annotations map[string]string) bool {
	cost, told := annotations[corev1.PodDeletionCost]
	if !told {
		return true
	}
	_, err := strconv.ParseInt(cost, 10, 32)
	digit := len(cost) > 0 && (cost[0] == '-' || cost[0] >= '1' && cost[0] <= '9' || cost == "0")
	return err == nil && digit
}

// Validate checks the spec.
func (s Subject) Validate(at check.At) {
	spec := s.Spec
	if spec.TerminationGracePeriodSeconds == nil {
		at.Dot("terminationGracePeriodSeconds").Required("")
	}
	in := volume.Pod{Template: s.Template, AnyTokenPath: s.had(tokenPaths)}
	if !s.Template {
		in.Name = s.Meta.Name
	}
	c := context{Subject: s, volumes: volume.Volumes(at.Dot("volumes"), spec.Volumes, in), claims: map[string]bool{}}
	for _, claim := range spec.ResourceClaims {
		if claim.Name != "" {
			c.claims[claim.Name] = true
		}
	}
	s.resourceClaims(at.Dot("resourceClaims"))
	c.containers(at.Dot("containers"))
	c.initContainers(at.Dot("initContainers"))
	c.ephemeralContainers(at.Dot("ephemeralContainers"))
	c.podResources(at.Dot("resources"))
	s.host(at)
	check.ListedChoice(at.Dot("restartPolicy"), spec.RestartPolicy, corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	check.ListedChoice(at.Dot("dnsPolicy"), spec.DNSPolicy, corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)
	meta.Labels(at.Dot("nodeSelector"), spec.NodeSelector)
	s.security(at.Dot("securityContext"))
	s.affinity(at.Dot("affinity"))
	dnsConfig(at.Dot("dnsConfig"), spec)
	s.gates(at)
	s.spread(at.Dot("topologySpreadConstraints"))
	hostProcess(at, spec)
	s.hostUsers(at)
	hostname(at, spec)
	s.names(at)
	s.system(at)
	fileKeyVolumes(at, spec)
}

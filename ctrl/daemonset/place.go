package daemonset

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/knarr-dev/knarr/ctrl"
)

// A place says where pods of a set may be.
type place struct {
	node        string // the one that the template names, if any
	affinity    nodeaffinity.RequiredNodeAffinity
	tolerations []corev1.Toleration
}

// A verdict is whether a pod should be made on a node, and whether one that
// is there may stay.
type verdict struct{ run, stay bool }

func newPlace(d *appsv1.DaemonSet) place {
	spec := d.Spec.Template.Spec.DeepCopy()
	tolerate(spec)
	return place{spec.NodeName, nodeaffinity.GetRequiredNodeAffinity(&corev1.Pod{Spec: *spec}), spec.Tolerations}
}

// verdict is about n, which is nil where there is no such node.
func (at place) verdict(n *corev1.Node) verdict {
	if n == nil || at.node != "" && at.node != n.Name {
		return verdict{}
	}
	if fits, err := at.affinity.Match(n); err != nil || !fits {
		return verdict{}
	}
	v := verdict{true, true}
	for i := range n.Spec.Taints {
		t := &n.Spec.Taints[i]
		if t.Effect == corev1.TaintEffectPreferNoSchedule || slices.ContainsFunc(at.tolerations, func(tol corev1.Toleration) bool { return tolerates(tol, t) }) {
			continue
		}
		v.run = false
		v.stay = v.stay && t.Effect != corev1.TaintEffectNoExecute
	}
	return v
}

func tolerates(tol corev1.Toleration, t *corev1.Taint) bool {
	if tol.Effect != "" && tol.Effect != t.Effect || tol.Key != "" && tol.Key != t.Key {
		return false
	}
	return tol.Operator == corev1.TolerationOpExists ||
		(tol.Operator == "" || tol.Operator == corev1.TolerationOpEqual) && tol.Value == t.Value
}

// tolerate lets a pod stay through what befalls its node, and run before the
// node is ready for others.
func tolerate(spec *corev1.PodSpec) {
	taints := []corev1.Taint{
		{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoExecute},
		{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute},
		{Key: corev1.TaintNodeDiskPressure, Effect: corev1.TaintEffectNoSchedule},
		{Key: corev1.TaintNodeMemoryPressure, Effect: corev1.TaintEffectNoSchedule},
		{Key: corev1.TaintNodePIDPressure, Effect: corev1.TaintEffectNoSchedule},
		{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule},
	}
	if spec.HostNetwork {
		taints = append(taints, corev1.Taint{Key: corev1.TaintNodeNetworkUnavailable, Effect: corev1.TaintEffectNoSchedule})
	}
	for _, t := range taints {
		tol := corev1.Toleration{Key: t.Key, Operator: corev1.TolerationOpExists, Effect: t.Effect}
		i := slices.IndexFunc(spec.Tolerations, func(had corev1.Toleration) bool { return had.MatchToleration(&tol) })
		if i < 0 {
			spec.Tolerations = append(spec.Tolerations, tol)
			continue
		}
		spec.Tolerations[i] = tol // for any length of time
	}
}

// pod is the set's pod for a node.
func (r *run) pod(node string) *corev1.Pod {
	p := ctrl.PodFrom(&r.set.Spec.Template, r.set, kind)
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels[hashKey] = r.hash
	if n, ok := generation(r.set); ok {
		p.Labels[generationKey] = n
	}
	tolerate(&p.Spec)
	if p.Spec.Affinity == nil {
		p.Spec.Affinity = &corev1.Affinity{}
	}
	if p.Spec.Affinity.NodeAffinity == nil {
		p.Spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
			{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node}},
		}}},
	}
	return p
}

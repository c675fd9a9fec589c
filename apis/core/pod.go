package core

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"

	"github.com/knarr-dev/knarr/apis"
)

var pods = apis.Define(apis.Resource[*corev1.Pod]{
	Plural:     "pods",
	Short:      []string{"po"},
	Categories: []string{"all"},

	Default:  defaultPod,
	Prepare:  preparePod,
	Validate: validatePod,
	Warn:     warnPod,
	Spec:     func(p *corev1.Pod) any { return &p.Spec },

	Subs: []apis.Sub[*corev1.Pod]{
		{Name: "ephemeralcontainers", Edit: editEphemeralContainers, Validate: validateEphemeralContainers},
		{Name: "resize", Edit: editResize, Validate: validateResize},
		{
			Name: "status", Keeps: []string{"spec", "metadata.ownerReferences"},
			Prepare: preparePodStatus, Validate: validatePodStatus, Warn: warnPodStatus,
		},
	},
	Acts: []apis.Act{
		{Name: "attach", Kind: kind("PodAttachOptions"), Verbs: getAndCreate},
		{Name: "binding", Kind: kind("Binding"), Verbs: []string{"create"}},
		{Name: "eviction", Kind: policyv1.SchemeGroupVersion.WithKind("Eviction"), Verbs: []string{"create"}},
		{Name: "exec", Kind: kind("PodExecOptions"), Verbs: getAndCreate},
		{Name: "log", Kind: kind("Pod"), Verbs: []string{"get"}},
		{Name: "portforward", Kind: kind("PodPortForwardOptions"), Verbs: getAndCreate},
		{Name: "proxy", Kind: kind("PodProxyOptions"), Verbs: proxyVerbs},
	},

	Fields: map[string]func(*corev1.Pod) string{
		"spec.nodeName":            func(p *corev1.Pod) string { return p.Spec.NodeName },
		"spec.host":                func(p *corev1.Pod) string { return p.Spec.NodeName },
		"spec.restartPolicy":       func(p *corev1.Pod) string { return string(p.Spec.RestartPolicy) },
		"spec.schedulerName":       func(p *corev1.Pod) string { return p.Spec.SchedulerName },
		"spec.serviceAccountName":  func(p *corev1.Pod) string { return p.Spec.ServiceAccountName },
		"spec.hostNetwork":         func(p *corev1.Pod) string { return strconv.FormatBool(p.Spec.HostNetwork) },
		"status.phase":             func(p *corev1.Pod) string { return string(p.Status.Phase) },
		"status.podIP":             podIP,
		"status.podIPs":            podIP,
		"status.nominatedNodeName": func(p *corev1.Pod) string { return p.Status.NominatedNodeName },
	},
	Indexed: "spec.nodeName",
	Columns: podColumns,

	Lifetime: apis.Lifetime[*corev1.Pod]{ReturnsDeleted: true, Grace: podGrace},
})

// podIP is the address that selectors see: the first one.
func podIP(p *corev1.Pod) string {
	if len(p.Status.PodIPs) == 0 {
		return ""
	}
	return p.Status.PodIPs[0].IP
}

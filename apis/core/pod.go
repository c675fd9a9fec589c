package core

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var pods = apis.Define(apis.Resource[*corev1.Pod]{
	Plural:     "pods",
	Short:      []string{"po"},
	Categories: []string{"all"},

	Prepare: preparePod,
	Spec:    func(p *corev1.Pod) any { return &p.Spec },

	Subs: []apis.Sub[*corev1.Pod]{
		{Name: "ephemeralcontainers", Edit: editEphemeralContainers},
		{Name: "resize", Edit: editResize},
		meta.Status[*corev1.Pod](nil, "metadata.deletionTimestamp", "metadata.ownerReferences"),
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

func preparePod(p, old *corev1.Pod) {
	if old != nil {
		p.Status = old.Status
		return
	}
	p.Status = corev1.PodStatus{Phase: corev1.PodPending}
}

// podGrace is no time at all for a pod that runs nowhere.
func podGrace(p *corev1.Pod, asked *int64) int64 {
	ended := p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
	switch {
	case p.Spec.NodeName == "" || ended:
		return 0
	case asked != nil && *asked < 0:
		return 1
	case asked != nil:
		return *asked
	}
	return max(0, meta.Deref(p.Spec.TerminationGracePeriodSeconds, 0))
}

func editEphemeralContainers(into, p *corev1.Pod) {
	into.Spec.EphemeralContainers = p.Spec.EphemeralContainers
}

// editResize carries over how much each container may use.
func editResize(into, p *corev1.Pod) {
	into.Spec.Resources = p.Spec.Resources
	resize := func(into, from []corev1.Container) {
		for i := range into {
			for j := range from {
				if into[i].Name == from[j].Name {
					into[i].Resources, into[i].ResizePolicy = from[j].Resources, from[j].ResizePolicy
				}
			}
		}
	}
	resize(into.Spec.Containers, p.Spec.Containers)
	resize(into.Spec.InitContainers, p.Spec.InitContainers)
}

package core

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var nodes = apis.Define(apis.Resource[*corev1.Node]{
	Plural:   "nodes",
	Short:    []string{"no"},
	Scope:    apis.Cluster,
	StoredAt: "minions",

	Default:  defaultNode,
	Prepare:  prepareNode,
	Validate: validateNode,
	Warn:     warnNode,
	Subs: []apis.Sub[*corev1.Node]{{
		Name: "status", Keeps: []string{"spec"},
		Prepare: prepareNodeStatus, Validate: validateNodeStatus, Warn: func(_, _ *corev1.Node) []string { return nil },
	}},
	Acts: []apis.Act{{Name: "proxy", Kind: kind("NodeProxyOptions"), Verbs: proxyVerbs}},

	Fields: map[string]func(*corev1.Node) string{
		"spec.unschedulable": func(n *corev1.Node) string { return strconv.FormatBool(n.Spec.Unschedulable) },
	},
	Columns: []apis.Column[*corev1.Node]{
		{Name: "Status", Cell: func(n *corev1.Node, _ time.Time) any { return nodeStatus(n) }},
		{Name: "Roles", Cell: func(n *corev1.Node, _ time.Time) any { return meta.Or(nodeRoles(n), "<none>") }},
		{Name: "Age", Cell: func(n *corev1.Node, now time.Time) any { return apis.Age(n.CreationTimestamp, now) }},
		{Name: "Version", Cell: func(n *corev1.Node, _ time.Time) any { return n.Status.NodeInfo.KubeletVersion }},
		{Name: "Internal-IP", Wide: true, Cell: func(n *corev1.Node, _ time.Time) any { return nodeAddress(n, corev1.NodeInternalIP) }},
		{Name: "External-IP", Wide: true, Cell: func(n *corev1.Node, _ time.Time) any { return nodeAddress(n, corev1.NodeExternalIP) }},
		{Name: "OS-Image", Wide: true, Cell: func(n *corev1.Node, _ time.Time) any { return meta.Or(n.Status.NodeInfo.OSImage, "<unknown>") }},
		{Name: "Kernel-Version", Wide: true, Cell: func(n *corev1.Node, _ time.Time) any {
			kernel := meta.Or(n.Status.NodeInfo.KernelVersion, "<unknown>")
			if arch := n.Status.NodeInfo.Architecture; arch != "" {
				kernel += " (" + arch + ")"
			}
			return kernel
		}},
		{Name: "Container-Runtime", Wide: true, Cell: func(n *corev1.Node, _ time.Time) any {
			return meta.Or(n.Status.NodeInfo.ContainerRuntimeVersion, "<unknown>")
		}},
	},
})

func nodeStatus(n *corev1.Node) string {
	status := "Unknown"
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			if status = "NotReady"; c.Status == corev1.ConditionTrue {
				status = "Ready"
			}
		}
	}
	if n.Spec.Unschedulable {
		status += ",SchedulingDisabled"
	}
	return status
}

// nodeRoles is what labels of the two customary forms say.
func nodeRoles(n *corev1.Node) string {
	roles := map[string]bool{}
	for key, value := range n.Labels {
		if role, ok := strings.CutPrefix(key, "node-role.kubernetes.io/"); ok {
			value = role
		} else if key != "kubernetes.io/role" {
			continue
		}
		if value != "" {
			roles[value] = true
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(roles)), ",")
}

func nodeAddress(n *corev1.Node, kind corev1.NodeAddressType) string {
	for _, a := range n.Status.Addresses {
		if a.Type == kind {
			return a.Address
		}
	}
	return "<none>"
}

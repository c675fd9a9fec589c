package kubelet

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Field is the value of a downward API field of p, whose status must be the
// one that the kubelet knows.
func Field(p *corev1.Pod, path string) (string, error) {
	if of, key, ok := subscript(path); ok {
		switch of {
		case "metadata.annotations":
			return p.Annotations[key], nil
		case "metadata.labels":
			return p.Labels[key], nil
		}
	}
	switch path {
	case "metadata.name":
		return p.Name, nil
	case "metadata.namespace":
		return p.Namespace, nil
	case "metadata.uid":
		return string(p.UID), nil
	case "metadata.labels":
		return pairs(p.Labels), nil
	case "metadata.annotations":
		return pairs(p.Annotations), nil
	case "spec.nodeName":
		return p.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return p.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return p.Status.HostIP, nil
	case "status.hostIPs":
		var ips []string
		for _, ip := range p.Status.HostIPs {
			ips = append(ips, ip.IP)
		}
		return strings.Join(ips, ","), nil
	case "status.podIP":
		return p.Status.PodIP, nil
	case "status.podIPs":
		var ips []string
		for _, ip := range p.Status.PodIPs {
			ips = append(ips, ip.IP)
		}
		return strings.Join(ips, ","), nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %v", path)
}

// subscript takes metadata.labels['a/b'] apart.
func subscript(path string) (of, key string, ok bool) {
	path, ok = strings.CutSuffix(path, "']")
	if !ok {
		return "", "", false
	}
	return strings.Cut(path, "['")
}

// pairs is a map as a downward API file has it: sorted, a line a pair.
func pairs(m map[string]string) string {
	var lines []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, k+"="+strconv.Quote(m[k]))
	}
	return strings.Join(lines, "\n")
}

// Resource is the value of a downward API resource field, rounded up to whole
// divisors. The container is c where the field names none. A container without
// a limit has all that pods may use of the node.
func Resource(p *corev1.Pod, c *corev1.Container, f *corev1.ResourceFieldSelector, allocatable corev1.ResourceList) (string, error) {
	if f.ContainerName != "" {
		if c = spec(p, f.ContainerName); c == nil {
			return "", fmt.Errorf("container %s not found", f.ContainerName)
		}
	}
	side, name, ok := strings.Cut(f.Resource, ".")
	if !ok || c == nil {
		return "", fmt.Errorf("unsupported container resource : %v", f.Resource)
	}
	var list corev1.ResourceList
	switch side {
	case "limits":
		list = c.Resources.Limits
	case "requests":
		list = c.Resources.Requests
	}
	res := corev1.ResourceName(name)
	switch {
	case res == corev1.ResourceCPU, res == corev1.ResourceMemory, res == corev1.ResourceEphemeralStorage:
	case strings.HasPrefix(name, corev1.ResourceHugePagesPrefix):
		allocatable = nil // never shared, so without a limit there are none
	default:
		return "", fmt.Errorf("unsupported container resource : %v", f.Resource)
	}
	q := list[res]
	if all, ok := allocatable[res]; ok && side == "limits" && q.IsZero() {
		q = all
	}
	divisor := f.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if res == corev1.ResourceCPU {
		return ceil(q.MilliValue(), divisor.MilliValue()), nil
	}
	return ceil(q.Value(), divisor.Value()), nil
}

func ceil(n, by int64) string {
	return strconv.FormatInt((n+by-1)/by, 10)
}

// spec finds a container or init container by name; nil where there is none.
func spec(p *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

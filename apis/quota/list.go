package quota

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Sum is what is in a and b together.
func Sum(a, b corev1.ResourceList) corev1.ResourceList {
	sum := a.DeepCopy()
	if sum == nil {
		sum = corev1.ResourceList{}
	}
	for name, q := range b {
		has := sum[name]
		has.Add(q)
		sum[name] = has
	}
	return sum
}

// Growth is by how much a is more than b: what has not grown is not in it.
func Growth(a, b corev1.ResourceList) corev1.ResourceList {
	growth := corev1.ResourceList{}
	for name, q := range a {
		q = q.DeepCopy()
		if was, ok := b[name]; ok {
			q.Sub(was)
		}
		if q.Sign() > 0 {
			growth[name] = q
		}
	}
	return growth
}

// Part is what of l is called by one of names.
func Part(l corev1.ResourceList, names []corev1.ResourceName) corev1.ResourceList {
	part := corev1.ResourceList{}
	for name, q := range l {
		if slices.Contains(names, name) {
			part[name] = q
		}
	}
	return part
}

// Over returns the names of what there is more of in l than in most, of which
// there is no bound for what it does not name.
func Over(l, most corev1.ResourceList) (names []corev1.ResourceName) {
	for name, q := range l {
		if bound, ok := most[name]; ok && q.Cmp(bound) > 0 {
			names = append(names, name)
		}
	}
	return names
}

// Same reports whether a and b are equal in all that either names.
func Same(a, b corev1.ResourceList) bool {
	if len(a) != len(b) {
		return false
	}
	for name, q := range a {
		if o, ok := b[name]; !ok || q.Cmp(o) != 0 {
			return false
		}
	}
	return true
}

// Text is a list for people to read: cpu=1,pods=2.
func Text(l corev1.ResourceList) string {
	var parts []string
	for name, q := range l {
		parts = append(parts, string(name)+"="+q.String())
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

package sched

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// A Pod is a pod, with what plugins ask about it again and again worked out
// once. It never changes.
type Pod struct {
	*corev1.Pod

	Priority int32
	Requests Resources
	Scored   Resources // CPU and memory, of which no container has none here

	Ports []Port // of the host

	Require []Term // other pods it must be near
	Avoid   []Term // other pods it must not be near
	Prefer  []Term // other pods it likes to be near, or, of negative weight, far from
}

// A Port is a port of the host that a pod takes.
type Port struct {
	IP       string // empty for all addresses
	Protocol corev1.Protocol
	Number   int32
}

// Clash tells whether two pods on one node cannot have these ports.
func (a Port) Clash(b Port) bool {
	return a.Number == b.Number && a.Protocol == b.Protocol && (a.IP == b.IP || a.IP == "" || b.IP == "")
}

// NewPod works out what there is to know about p, which must not change
// hereafter.
func NewPod(p *corev1.Pod) *Pod {
	q := &Pod{Pod: p, Requests: requests(p, Resources{}), Ports: ports(p)}
	q.Scored = scored(p, q.Requests)
	if p.Spec.Priority != nil {
		q.Priority = *p.Spec.Priority
	}
	if a := p.Spec.Affinity; a != nil {
		if near := a.PodAffinity; near != nil {
			q.Require = terms(p, near.RequiredDuringSchedulingIgnoredDuringExecution)
			q.Prefer = weighted(q.Prefer, p, near.PreferredDuringSchedulingIgnoredDuringExecution, 1)
		}
		if far := a.PodAntiAffinity; far != nil {
			q.Avoid = terms(p, far.RequiredDuringSchedulingIgnoredDuringExecution)
			q.Prefer = weighted(q.Prefer, p, far.PreferredDuringSchedulingIgnoredDuringExecution, -1)
		}
	}
	return q
}

// affine tells whether the pod has a say in where other pods go.
func (p *Pod) affine() bool { return len(p.Require)+len(p.Avoid)+len(p.Prefer) > 0 }

// group is what p has in common with pods that nothing can tell from it by
// their labels.
func (p *Pod) group() string {
	key := labels.Set(p.Labels).String()
	if p.DeletionTimestamp != nil {
		key += " leaving"
	}
	return key
}

// Done tells whether the pod has run to its end and holds nothing any more.
func Done(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// ports are those of the containers that run for as long as the pod does.
func ports(p *corev1.Pod) (out []Port) {
	take := func(c *corev1.Container) {
		for _, cp := range c.Ports {
			if cp.HostPort <= 0 {
				continue
			}
			port := Port{IP: cp.HostIP, Protocol: cp.Protocol, Number: cp.HostPort}
			if port.IP == "0.0.0.0" || port.IP == "::" {
				port.IP = ""
			}
			if port.Protocol == "" {
				port.Protocol = corev1.ProtocolTCP
			}
			out = append(out, port)
		}
	}
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; Sidecar(c) {
			take(c)
		}
	}
	for i := range p.Spec.Containers {
		take(&p.Spec.Containers[i])
	}
	return out
}

// A Term picks other pods, and says what it is to be near them: to share the
// value of a node label.
type Term struct {
	TopologyKey string
	Weight      int64 // of a preference

	Namespaces []string        // by name
	Spaces     labels.Selector // and by label; Nothing where the term has none
	Selector   labels.Selector
}

// Matches tells whether the term picks p, whose namespace has these labels.
func (t *Term) Matches(p *corev1.Pod, space labels.Set) bool {
	return t.Selects(p.Namespace, p.Labels, space)
}

// Selects tells whether the term picks pods with these labels, in a namespace
// with those.
func (t *Term) Selects(namespace string, set, space labels.Set) bool {
	return t.covers(namespace, space) && t.Selector.Matches(set)
}

func (t *Term) covers(name string, set labels.Set) bool {
	return slices.Contains(t.Namespaces, name) || t.Spaces.Matches(set)
}

// Reaches tells whether only the labels of a namespace can say if its pods
// are meant.
func (t *Term) Reaches() bool {
	rules, selectable := t.Spaces.Requirements()
	return selectable && len(rules) > 0
}

func terms(p *corev1.Pod, in []corev1.PodAffinityTerm) (out []Term) {
	for i := range in {
		out = append(out, term(p, &in[i]))
	}
	return out
}

func weighted(out []Term, p *corev1.Pod, in []corev1.WeightedPodAffinityTerm, sign int64) []Term {
	for i := range in {
		t := term(p, &in[i].PodAffinityTerm)
		t.Weight = sign * int64(in[i].Weight)
		out = append(out, t)
	}
	return out
}

func term(p *corev1.Pod, in *corev1.PodAffinityTerm) Term {
	t := Term{TopologyKey: in.TopologyKey, Namespaces: in.Namespaces, Spaces: Selector(in.NamespaceSelector), Selector: Selector(in.LabelSelector)}
	if len(in.Namespaces) == 0 && in.NamespaceSelector == nil {
		t.Namespaces = []string{p.Namespace}
	}
	return t
}

// Selector compiles s. A nil one picks nothing, and so does one that the API
// would not have let through.
func Selector(s *metav1.LabelSelector) labels.Selector {
	compiled, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return compiled
}

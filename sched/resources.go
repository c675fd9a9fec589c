package sched

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Resources is an amount of each resource: CPU in thousandths, the rest in
// whole units. The zero value is nothing of any.
type Resources struct {
	CPU, Memory, Storage int64

	Other map[corev1.ResourceName]int64 // extended resources, huge pages
}

// What a container that asks for nothing counts as where nodes are compared,
// so that a crowd of such pods does not end up on one node.
const (
	unsaidCPU    = 100
	unsaidMemory = 200 << 20
)

// Amounts turns a list into numbers. The pods entry is left out: it is a
// count, and no pod asks for it.
func Amounts(list corev1.ResourceList) (r Resources) {
	for name, q := range list {
		switch name {
		case corev1.ResourceCPU:
			r.CPU = q.MilliValue()
		case corev1.ResourceMemory:
			r.Memory = q.Value()
		case corev1.ResourceEphemeralStorage:
			r.Storage = q.Value()
		case corev1.ResourcePods:
		default:
			if r.Other == nil {
				r.Other = map[corev1.ResourceName]int64{}
			}
			r.Other[name] = q.Value()
		}
	}
	return r
}

// None tells whether r names no resource at all.
func (r Resources) None() bool {
	return r.CPU == 0 && r.Memory == 0 && r.Storage == 0 && len(r.Other) == 0
}

// add adds o to r, sign times.
func (r *Resources) add(o Resources, sign int64) {
	r.CPU += sign * o.CPU
	r.Memory += sign * o.Memory
	r.Storage += sign * o.Storage
	for name, v := range o.Other {
		if r.Other == nil {
			r.Other = make(map[corev1.ResourceName]int64, len(o.Other))
		}
		r.Other[name] += sign * v
	}
}

// raise makes r at least o.
func (r *Resources) raise(o Resources) {
	r.CPU, r.Memory, r.Storage = max(r.CPU, o.CPU), max(r.Memory, o.Memory), max(r.Storage, o.Storage)
	for name, v := range o.Other {
		if r.Other == nil {
			r.Other = make(map[corev1.ResourceName]int64, len(o.Other))
		}
		r.Other[name] = max(r.Other[name], v)
	}
}

// requests is what a node must have free for p: its containers and sidecars
// together, or the hungriest moment of its start if that is more; then what
// the pod says for itself as a whole, and the overhead. Containers that do
// not say how much CPU or memory they want get it from unsaid.
func requests(p *corev1.Pod, unsaid Resources) (sum Resources) {
	var sidecars, peak Resources
	for i := range p.Spec.Containers {
		sum.add(containerRequests(p, &p.Spec.Containers[i], true, unsaid), 1)
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		sidecar := Sidecar(c)
		r := containerRequests(p, c, sidecar, unsaid)
		if sidecar {
			sum.add(r, 1)
			sidecars.add(r, 1)
			peak.raise(sidecars)
			continue
		}
		r.add(sidecars, 1)
		peak.raise(r)
	}
	sum.raise(peak)
	if whole(p) {
		override(&sum, p)
	}
	sum.add(Amounts(p.Spec.Overhead), 1)
	return sum
}

// Sidecar tells whether an init container runs for as long as the pod does.
func Sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// containerRequests is what c counts for. One that lasts may be in the middle
// of a resize, and counts for the most of what it asked for and what it has.
func containerRequests(p *corev1.Pod, c *corev1.Container, lasts bool, unsaid Resources) Resources {
	if lasts {
		if s := statusOf(p, c.Name); s != nil && s.Resources != nil {
			return most(p, unsaid, c.Resources.Requests, s.Resources.Requests, s.AllocatedResources)
		}
	}
	return largest(unsaid, c.Resources.Requests)
}

func statusOf(p *corev1.Pod, container string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses} {
		for i := range list {
			if list[i].Name == container {
				return &list[i]
			}
		}
	}
	return nil
}

// most leaves out what is asked for where the node has said that it will
// never give it.
func most(p *corev1.Pod, unsaid Resources, asked, actual, allocated corev1.ResourceList) Resources {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodResizePending && c.Reason == corev1.PodReasonInfeasible {
			return largest(unsaid, actual, allocated)
		}
	}
	return largest(unsaid, asked, actual, allocated)
}

func largest(unsaid Resources, lists ...corev1.ResourceList) (r Resources) {
	for _, list := range lists {
		r.raise(Amounts(list))
		if _, said := list[corev1.ResourceCPU]; said {
			unsaid.CPU = 0
		}
		if _, said := list[corev1.ResourceMemory]; said {
			unsaid.Memory = 0
		}
	}
	r.CPU += unsaid.CPU
	r.Memory += unsaid.Memory
	return r
}

// whole tells whether the pod asks for resources as a whole.
func whole(p *corev1.Pod) bool {
	if p.Spec.Resources == nil {
		return false
	}
	for name := range p.Spec.Resources.Requests {
		if wholesale(name) {
			return true
		}
	}
	return false
}

func wholesale(name corev1.ResourceName) bool {
	return name == corev1.ResourceCPU || name == corev1.ResourceMemory || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// override puts what the pod asks for as a whole in the place of what its
// containers add up to.
func override(sum *Resources, p *corev1.Pod) {
	asked := p.Spec.Resources.Requests
	r := Amounts(asked)
	if p.Status.Resources != nil {
		r = most(p, Resources{}, asked, p.Status.Resources.Requests, p.Status.AllocatedResources)
	}
	for name := range asked {
		switch {
		case name == corev1.ResourceCPU:
			sum.CPU = r.CPU
		case name == corev1.ResourceMemory:
			sum.Memory = r.Memory
		case wholesale(name):
			if sum.Other == nil {
				sum.Other = map[corev1.ResourceName]int64{}
			}
			sum.Other[name] = r.Other[name]
		}
	}
}

// ScoredByContainer is what p counts for where nodes are compared if what it
// asks for as a whole is left aside.
func ScoredByContainer(p *Pod) Resources {
	if p.Spec.Resources == nil {
		return p.Scored
	}
	q := *p.Pod
	q.Spec.Resources = nil
	return scored(&q, Resources{})
}

// scored is what p counts for where nodes are compared.
func scored(p *corev1.Pod, asked Resources) Resources {
	unsaid := Resources{CPU: unsaidCPU, Memory: unsaidMemory}
	if whole(p) {
		// What the pod said as a whole needs no filling up from below.
		if asked.CPU > 0 {
			unsaid.CPU = 0
		}
		if asked.Memory > 0 {
			unsaid.Memory = 0
		}
	}
	r := requests(p, unsaid)
	return Resources{CPU: r.CPU, Memory: r.Memory}
}

package sched

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// A Node is a node with the pods on it and the sums over them. While a cycle
// runs it does not change.
type Node struct {
	*corev1.Node // nil as long as only pods on it have been seen

	name string
	slot int // small and its own, for counting by node

	Pods   []*Pod
	Affine []*Pod // those of Pods that have a say in where other pods go
	Averse []*Pod // those of Affine that must not be near others

	Allocatable Resources
	MaxPods     int64

	Used   Resources
	Scored Resources
	Ports  []Port

	Images map[string]*Image
}

// An Image is a container image that lies on nodes.
type Image struct {
	Size  int64 // in bytes
	Nodes int   // how many have it
}

// Clone copies n, so that pods can be added to the copy and taken from it.
func (n *Node) Clone() *Node {
	m := *n
	m.Pods, m.Affine, m.Averse, m.Ports = slices.Clone(n.Pods), slices.Clone(n.Affine), slices.Clone(n.Averse), slices.Clone(n.Ports)
	m.Used.Other = nil
	m.Used.add(Resources{Other: n.Used.Other}, 1)
	return &m
}

// Add puts p on the node.
func (n *Node) Add(p *Pod) {
	n.Pods = append(n.Pods, p)
	if p.affine() {
		n.Affine = append(n.Affine, p)
	}
	if len(p.Avoid) > 0 {
		n.Averse = append(n.Averse, p)
	}
	n.Ports = append(n.Ports, p.Ports...)
	n.Used.add(p.Requests, 1)
	n.Scored.add(p.Scored, 1)
}

// Remove takes p off the node.
func (n *Node) Remove(p *Pod) {
	n.Pods = without(n.Pods, p)
	if p.affine() {
		n.Affine = without(n.Affine, p)
	}
	if len(p.Avoid) > 0 {
		n.Averse = without(n.Averse, p)
	}
	for _, port := range p.Ports {
		n.Ports = without(n.Ports, port)
	}
	n.Used.add(p.Requests, -1)
	n.Scored.add(p.Scored, -1)
}

// without drops one x from list; the order of the rest is lost.
func without[T comparable](list []T, x T) []T {
	i := slices.Index(list, x)
	if i < 0 {
		return list
	}
	last := len(list) - 1
	list[i] = list[last]
	clear(list[last:])
	return list[:last]
}

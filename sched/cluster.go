package sched

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A Cluster is all that a cycle sees. It is kept, not rebuilt: each change of
// a node or a pod is put into it, and what depends on the pods of many nodes
// (sums, images, the lists below) follows at once. It is for one goroutine;
// while a cycle runs over it, it must not change.
type Cluster struct {
	Objects Objects

	nodes     map[string]*Node
	pods      map[types.UID]spot
	images    map[string]*Image
	nominated map[string][]*Pod   // by node
	nominee   map[types.UID]claim // who is nominated where

	affine, averse map[*Node]bool // those with such pods
	groups         groups
	slots          int   // how many nodes have had one
	free           []int // slots of those that are gone

	order []*Node // as Nodes returns them; nil when it has to be made anew
	zones zones
}

// A spot is where a pod is.
type spot struct {
	pod  *Pod
	node *Node
}

// A claim is a pod's right to a node where room was made for it.
type claim struct {
	pod  *Pod
	node string
}

// NewCluster returns an empty cluster.
func NewCluster(o Objects) *Cluster {
	return &Cluster{
		Objects: o,
		nodes:   map[string]*Node{}, pods: map[types.UID]spot{}, images: map[string]*Image{},
		nominated: map[string][]*Pod{}, nominee: map[types.UID]claim{},
		affine: map[*Node]bool{}, averse: map[*Node]bool{}, groups: groups{},
		zones: zones{of: map[string][]*Node{}},
	}
}

// Nodes lists the nodes so that neighbours in the list lie in different
// zones: a cycle that looks at a part of them looks at all zones alike.
func (c *Cluster) Nodes() []*Node {
	if c.order == nil {
		c.order = c.zones.mix(len(c.nodes))
	}
	return c.order
}

// Node returns the node of that name, nil where there is none.
func (c *Cluster) Node(name string) *Node {
	if n := c.nodes[name]; n != nil && n.Node != nil {
		return n
	}
	return nil
}

// Affine goes through the nodes with pods that have a say in where others go,
// in no order.
func (c *Cluster) Affine() map[*Node]bool { return c.affine }

// Averse goes through the nodes with pods that must not be near others, in no
// order.
func (c *Cluster) Averse() map[*Node]bool { return c.averse }

// PutNode takes in a node that is new or has changed.
func (c *Cluster) PutNode(obj *corev1.Node) *Node {
	n := c.at(obj.Name)
	old := n.Node
	n.Node, n.Allocatable, n.MaxPods = obj, Amounts(obj.Status.Allocatable), obj.Status.Allocatable.Pods().Value()
	if old == nil || zone(old) != zone(obj) {
		if old != nil {
			c.zones.drop(zone(old), n)
		}
		c.zones.put(zone(obj), n)
		c.order = nil
	}
	c.putImages(n)
	return n
}

// DropNode forgets a node. Pods that are still on it wait for it to return.
func (c *Cluster) DropNode(name string) {
	n := c.Node(name)
	if n == nil {
		return
	}
	c.zones.drop(zone(n.Node), n)
	c.order = nil
	c.dropImages(n)
	n.Node = nil
	c.tidy(n)
}

// PutPod puts p on a node, and takes what it was until now from where it was.
func (c *Cluster) PutPod(p *Pod, node string) {
	c.DropPod(p.UID)
	n := c.at(node)
	n.Add(p)
	c.pods[p.UID] = spot{p, n}
	c.index(n)
	c.groups.count(p, n, 1)
}

// DropPod takes a pod off its node, if it is on one.
func (c *Cluster) DropPod(uid types.UID) {
	s, ok := c.pods[uid]
	if !ok {
		return
	}
	delete(c.pods, uid)
	s.node.Remove(s.pod)
	c.index(s.node)
	c.groups.count(s.pod, s.node, -1)
	c.tidy(s.node)
}

// Where tells on which node a pod is; both are nil if it is on none, the node
// alone if it has not been seen or is gone.
func (c *Cluster) Where(uid types.UID) (*Pod, *Node) {
	s := c.pods[uid]
	if s.node == nil || s.node.Node == nil {
		return s.pod, nil
	}
	return s.pod, s.node
}

// Pods is how many pods are on nodes.
func (c *Cluster) Pods() int { return len(c.pods) }

// Nominate gives p a claim to room on a node, in the place of one it had;
// none where node is empty.
func (c *Cluster) Nominate(p *Pod, node string) {
	if old, ok := c.nominee[p.UID]; ok {
		delete(c.nominee, p.UID)
		if c.nominated[old.node] = without(c.nominated[old.node], old.pod); len(c.nominated[old.node]) == 0 {
			delete(c.nominated, old.node)
		}
	}
	if node != "" {
		c.nominee[p.UID] = claim{p, node}
		c.nominated[node] = append(c.nominated[node], p)
	}
}

// Nominated lists the pods that have a claim to room on a node.
func (c *Cluster) Nominated(node string) []*Pod { return c.nominated[node] }

// Nomination is the node that a pod has a claim to, empty if to none.
func (c *Cluster) Nomination(uid types.UID) string { return c.nominee[uid].node }

func (c *Cluster) at(name string) *Node {
	n := c.nodes[name]
	if n == nil {
		n = &Node{name: name, slot: c.slot()}
		c.nodes[name] = n
	}
	return n
}

func (c *Cluster) slot() int {
	if last := len(c.free) - 1; last >= 0 {
		slot := c.free[last]
		c.free = c.free[:last]
		return slot
	}
	c.slots++
	return c.slots - 1
}

// tidy forgets the place of a node of which nothing is left.
func (c *Cluster) tidy(n *Node) {
	if n.Node == nil && len(n.Pods) == 0 {
		delete(c.nodes, n.name)
		c.free = append(c.free, n.slot)
	}
}

func (c *Cluster) index(n *Node) {
	mark(c.affine, n, len(n.Affine) > 0)
	mark(c.averse, n, len(n.Averse) > 0)
}

func mark(set map[*Node]bool, n *Node, in bool) {
	if in {
		set[n] = true
	} else {
		delete(set, n)
	}
}

func (c *Cluster) putImages(n *Node) {
	had := n.Images
	n.Images = make(map[string]*Image, len(n.Status.Images))
	for _, img := range n.Status.Images {
		for _, name := range img.Names {
			if n.Images[name] != nil {
				continue
			}
			known := c.images[name]
			if known == nil {
				known = &Image{Size: img.SizeBytes}
				c.images[name] = known
			}
			known.Nodes++
			n.Images[name] = known
		}
	}
	c.forget(had)
}

func (c *Cluster) dropImages(n *Node) {
	c.forget(n.Images)
	n.Images = nil
}

func (c *Cluster) forget(images map[string]*Image) {
	for name, img := range images {
		if img.Nodes--; img.Nodes == 0 {
			delete(c.images, name)
		}
	}
}

// zones are the nodes by zone.
type zones struct {
	names []string
	of    map[string][]*Node
}

func zone(n *corev1.Node) string {
	first := func(keys ...string) string {
		for _, k := range keys {
			if v, ok := n.Labels[k]; ok {
				return v
			}
		}
		return ""
	}
	return first(corev1.LabelFailureDomainBetaRegion, corev1.LabelTopologyRegion) + "\x00" +
		first(corev1.LabelFailureDomainBetaZone, corev1.LabelTopologyZone)
}

func (z *zones) put(name string, n *Node) {
	if _, known := z.of[name]; !known {
		z.names = append(z.names, name)
	}
	z.of[name] = append(z.of[name], n)
}

func (z *zones) drop(name string, n *Node) {
	z.of[name] = slices.DeleteFunc(z.of[name], func(m *Node) bool { return m == n })
	if len(z.of[name]) == 0 {
		delete(z.of, name)
		z.names = slices.DeleteFunc(z.names, func(s string) bool { return s == name })
	}
}

// mix takes the first of each zone, then the second of each, and so on.
func (z *zones) mix(size int) []*Node {
	out := make([]*Node, 0, size)
	for i, more := 0, true; more; i++ {
		more = false
		for _, name := range z.names {
			if i < len(z.of[name]) {
				out = append(out, z.of[name][i])
				more = true
			}
		}
	}
	return out
}

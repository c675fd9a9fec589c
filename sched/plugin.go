// Package sched is the vocabulary of scheduling: what a plugin sees of the
// cluster, what it may say, and how the answers of all plugins add up to the
// choice of a node. It does no I/O, knows no time and rolls no dice; package
// sched/loop does.
package sched

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis"
)

// A Plugin has a say in where pods run. S is what it works out once a cycle
// for use at every node. A func left nil has nothing to say.
type Plugin[S any] struct {
	Name   string
	Weight int64 // of Score

	// Hold tells whether p is not to be tried yet.
	Hold func(p *corev1.Pod) bool
	// Before is the order in which pods are tried; one plugin has it.
	Before func(a, b Waiting) bool

	// Prepare begins a cycle for p. What it says in its Scope holds for all
	// nodes; it is where a plugin that p does not concern steps aside.
	Prepare func(p *Pod, c *Cluster) (S, Scope)
	// Filter tells whether p fits on n.
	Filter func(s S, p *Pod, n *Node) Verdict
	// Moved is S as it would be had some pods left n and others joined it.
	// Where nil, S does not depend on the pods of a node.
	Moved func(s S, p *Pod, n *Node, left, joined []*Pod) S
	// Score sets a score from 0 to 100 for each of the nodes, all of which p
	// fits on. It does so for all at once because most scores mean something
	// only beside the others. The scores come in as zeros.
	Score func(p *Pod, c *Cluster, nodes []*Node, scores []int64)
	// Writes is what must be written before p may be bound to n.
	Writes func(s S, p *Pod, n *Node) []Write
	// Evict makes room for a pod that fits nowhere.
	Evict func(t *Trial, dice func(n int) int) Eviction

	// Wakes tells which changes may make a pod fit that this plugin turned
	// down.
	Wakes []Change
	// Local says that Filter depends on nothing of the cluster but the node,
	// so that a change of one node helps only where Filter now lets it pass.
	Local bool
	// Helps tells whether one of the changes in Wakes may be of help to p;
	// where nil they all may.
	Helps func(p *Pod, e Event) bool

	// Reads lists the kinds that the plugin looks up in Cluster.Objects for
	// the pods that ReadsFor picks; it is asked about every pod of the
	// cluster.
	Reads    []apis.Object
	ReadsFor func(p *Pod) bool
}

// Waiting is a pod in the queue.
type Waiting struct {
	Pod   *Pod
	Since time.Time
}

// A Verdict is why a pod does not fit on a node; the zero value is that it
// does.
type Verdict struct {
	Why []string
	// Final says that no eviction on the node would help.
	Final bool
}

// Fits is the verdict of a plugin that has nothing against it.
var Fits = Verdict{}

// Fits tells whether v is Fits.
func (v Verdict) Fits() bool { return len(v.Why) == 0 }

// A Scope is what a plugin says of all nodes at once. The zero value is that
// each must be looked at.
type Scope struct {
	Aside bool     // the pod does not concern Filter
	Only  []string // the names of the nodes that may do; nil for all
	No    string   // why no node will do, and no eviction would help
	Err   error    // why nothing can be said now
}

// A Write is an object that has to be changed before a pod may be bound.
type Write struct {
	Object apis.Object // as it is to be
	// Done tells, from the objects as they then are, whether what the change
	// asks of others has come about, or that it never will.
	Done func(o Objects) (bool, error)
}

// An Eviction is what is to be done for a pod that fits nowhere.
type Eviction struct {
	Node    *Node  // where room is made; nil for nowhere
	Victims []*Pod // who has to go, the most important first
	Why     string // why no room can be made
	// Keep says that a claim to a node that the pod already has stays.
	Keep bool
	// Last says that no other plugin is to be asked.
	Last bool
}

// A Change is something that happens to the cluster.
type Change string

// The changes.
const (
	NodeAdded       Change = "NodeAdd"
	NodeAllocatable Change = "NodeAllocatableChange"
	NodeLabels      Change = "NodeLabelChange"
	NodeTaints      Change = "NodeTaintChange" // also when it was uncordoned
	NodeDeleted     Change = "NodeDelete"
	PodAssigned     Change = "AssignedPodAdd"
	PodLabels       Change = "AssignedPodLabelChange"
	PodShrunk       Change = "AssignedPodScaleDown"
	PodDeleted      Change = "AssignedPodDelete"
	StorageChanged  Change = "StorageChange" // any kind that volumes are made of
)

// An Event is one change, with what it happened to.
type Event struct {
	Change Change
	Node   *Node       // that changed, or whose pod did; nil where it is gone
	Pod    *corev1.Pod // as it is, or was last
	Was    *corev1.Pod // as it was before, if it changed
	Object apis.Object // of StorageChanged
}

// An Erased plugin is what the cycle runs.
type Erased struct {
	Name   string
	Weight int64
	Wakes  []Change
	Local  bool
	Reads  []apis.Object

	Hold     func(p *corev1.Pod) bool
	Before   func(a, b Waiting) bool
	Score    func(p *Pod, c *Cluster, nodes []*Node, scores []int64)
	Evict    func(t *Trial, dice func(n int) int) Eviction
	Helps    func(p *Pod, e Event) bool
	ReadsFor func(p *Pod) bool

	begin func(p *Pod, c *Cluster) turn
}

// A turn is what a plugin says in one cycle; a func is nil where it has
// nothing to say.
type turn struct {
	scope  Scope
	filter func(n *Node) Verdict
	moved  func(n *Node, left, joined []*Pod) func(n *Node) Verdict
	writes func(n *Node) []Write
}

// Erase hides the plugin's state from the cycle.
func (pl Plugin[S]) Erase() Erased {
	return Erased{
		Name: pl.Name, Weight: pl.Weight, Wakes: pl.Wakes, Local: pl.Local, Reads: pl.Reads,
		Hold: pl.Hold, Before: pl.Before, Score: pl.Score, Evict: pl.Evict, Helps: pl.Helps, ReadsFor: pl.ReadsFor,
		begin: pl.begin,
	}
}

// Alone is what the plugin says of one node, asked outside of a cycle.
func (pl *Erased) Alone(p *Pod, c *Cluster, n *Node) Verdict {
	t := pl.begin(p, c)
	switch {
	case t.scope.No != "":
		return Verdict{Why: []string{t.scope.No}, Final: true}
	case t.filter == nil:
		return Fits
	}
	return t.filter(n)
}

func (pl *Plugin[S]) begin(p *Pod, c *Cluster) (t turn) {
	var s S
	if pl.Prepare != nil {
		s, t.scope = pl.Prepare(p, c)
	}
	if pl.Writes != nil {
		t.writes = func(n *Node) []Write { return pl.Writes(s, p, n) }
	}
	if pl.Filter == nil || t.scope.Aside {
		return t
	}
	t.filter = func(n *Node) Verdict { return pl.Filter(s, p, n) }
	if pl.Moved != nil {
		t.moved = func(n *Node, left, joined []*Pod) func(*Node) Verdict {
			then := pl.Moved(s, p, n, left, joined)
			return func(n *Node) Verdict { return pl.Filter(then, p, n) }
		}
	}
	return t
}

package sched

import (
	"fmt"
	"slices"
	"strings"
)

// A Trial is one pod's cycle: what each plugin has worked out for it, and what
// they said of the nodes that were looked at.
type Trial struct {
	Pod     *Pod
	Cluster *Cluster

	// Rejected are the nodes that were looked at and do not do.
	Rejected []Rejection
	// By are the plugins that turned the pod down anywhere, by their index.
	By Set
	// No is why no node at all will do; empty where that has to be asked of
	// each.
	No string
	// Elsewhere is said of the nodes outside the few that the pod may be on.
	Elsewhere string

	plugins []Erased
	filters []filter
	writes  []func(n *Node) []Write
	only    []*Node
	limited bool // to only
}

type filter struct {
	plugin int
	judge  func(n *Node) Verdict
	moved  func(n *Node, left, joined []*Pod) func(n *Node) Verdict
}

// A Rejection is a verdict on one node.
type Rejection struct {
	Node *Node
	Verdict
}

// A Set holds the indexes of plugins.
type Set uint64

// Has tells whether a plugin is in the set.
func (s Set) Has(plugin int) bool { return s&(1<<plugin) != 0 }

// With is the set with one more plugin.
func (s Set) With(plugin int) Set { return s | 1<<plugin }

// Begin starts a cycle for p.
func Begin(p *Pod, c *Cluster, plugins []Erased) (*Trial, error) {
	t := &Trial{Pod: p, Cluster: c, plugins: plugins}
	var limits [][]string
	var limiters []string
	for i := range plugins {
		turn := plugins[i].begin(p, c)
		switch {
		case turn.scope.Err != nil:
			return t, fmt.Errorf("running PreFilter plugin %q: %w", plugins[i].Name, turn.scope.Err)
		case turn.scope.No != "":
			t.No, t.By = turn.scope.No, t.By.With(i)
			return t, nil
		case turn.scope.Only != nil:
			limits, limiters = append(limits, turn.scope.Only), append(limiters, plugins[i].Name)
			t.By = t.By.With(i)
		}
		if turn.filter != nil {
			t.filters = append(t.filters, filter{i, turn.filter, turn.moved})
		}
		if turn.writes != nil {
			t.writes = append(t.writes, turn.writes)
		}
	}
	t.limit(limits, limiters)
	return t, nil
}

// limit keeps the nodes that all limiters would have.
func (t *Trial) limit(limits [][]string, limiters []string) {
	if len(limits) == 0 {
		return
	}
	t.limited = true
	slices.Sort(limiters)
	t.Elsewhere = fmt.Sprintf("node(s) didn't satisfy plugin(s) %v", limiters)
	for _, name := range limits[0] {
		everywhere := !slices.ContainsFunc(limits, func(l []string) bool { return !slices.Contains(l, name) })
		if n := t.Cluster.Node(name); n != nil && everywhere && !slices.Contains(t.only, n) {
			t.only = append(t.only, n)
		}
	}
}

// Try tells whether the pod fits on n. Pods that have a claim to room there
// and are no less important are taken to be there, and, lest the pod counts
// on them, not to be.
func (t *Trial) Try(n *Node) Verdict {
	v, _ := t.try(n, nil)
	return v
}

// TryWithout is Try for a node, or its copy, that some pods have left.
func (t *Trial) TryWithout(n *Node, left []*Pod) Verdict {
	v, _ := t.try(n, left)
	return v
}

func (t *Trial) try(n *Node, left []*Pod) (Verdict, int) {
	if joined := t.ahead(n); len(joined) > 0 {
		full := n.Clone()
		for _, p := range joined {
			full.Add(p)
		}
		if v, by := t.judge(full, left, joined); !v.Fits() {
			return v, by
		}
	}
	return t.judge(n, left, nil)
}

// ahead lists the pods with a claim to n that the pod has to respect.
func (t *Trial) ahead(n *Node) (out []*Pod) {
	if len(t.Cluster.nominee) == 0 {
		return nil
	}
	for _, p := range t.Cluster.Nominated(n.Name) {
		if p.Priority >= t.Pod.Priority && p.UID != t.Pod.UID {
			out = append(out, p)
		}
	}
	return out
}

func (t *Trial) judge(n *Node, left, joined []*Pod) (Verdict, int) {
	for i := range t.filters {
		f := &t.filters[i]
		judge := f.judge
		if f.moved != nil && len(left)+len(joined) > 0 {
			judge = f.moved(n, left, joined)
		}
		if v := judge(n); !v.Fits() {
			return v, f.plugin
		}
	}
	return Fits, 0
}

// A Search is how Pick goes about it.
type Search struct {
	From  int              // the node to begin with, by its place in Nodes
	Dice  func(n int) int  // below n; decides between nodes that are equal
	Score func(s []Scores) // shown the scores of all nodes that would do; may be nil
}

// Scores are what one plugin thinks of the nodes that would do, weighted.
type Scores struct {
	Plugin string
	Of     []int64
}

// A Choice is where a pod goes.
type Choice struct {
	Node  *Node // nil where none will do
	Fit   []*Node
	After int // how many nodes were looked at
}

// Pick chooses a node for the pod.
func (t *Trial) Pick(s Search) (c Choice) {
	if t.No != "" {
		return c
	}
	if claimed := t.Cluster.Node(t.Cluster.Nomination(t.Pod.UID)); claimed != nil && t.Try(claimed).Fits() {
		return Choice{Node: claimed, Fit: []*Node{claimed}}
	}
	nodes := t.Cluster.Nodes()
	if t.limited {
		nodes, s.From = t.only, 0
	}
	c.Fit, c.After = t.fit(nodes, s.From)
	switch len(c.Fit) {
	case 0:
	case 1:
		c.Node = c.Fit[0]
	default:
		c.Node = t.best(c.Fit, s)
	}
	return c
}

// fit looks for as many nodes as are enough.
func (t *Trial) fit(nodes []*Node, from int) (fit []*Node, looked int) {
	want := enough(len(nodes))
	fit = make([]*Node, 0, want)
	for i := range nodes {
		n := nodes[(from+i)%len(nodes)]
		v, by := t.try(n, nil)
		if !v.Fits() {
			t.Rejected = append(t.Rejected, Rejection{n, v})
			t.By = t.By.With(by)
			continue
		}
		if fit = append(fit, n); len(fit) == want {
			return fit, i + 1
		}
	}
	return fit, len(nodes)
}

// enough is how many nodes are worth comparing: all of a small cluster, and
// of a large one the smaller a part the larger it is.
func enough(nodes int) int {
	const least, leastPercent = 100, 5
	if nodes < least {
		return nodes
	}
	return max(least, nodes*max(leastPercent, 50-nodes/125)/100)
}

// best is the node with the highest score, one of them by lot.
func (t *Trial) best(fit []*Node, s Search) (best *Node) {
	total, scores := make([]int64, len(fit)), make([]int64, len(fit))
	var seen []Scores
	for i := range t.plugins {
		pl := &t.plugins[i]
		if pl.Score == nil {
			continue
		}
		clear(scores)
		pl.Score(t.Pod, t.Cluster, fit, scores)
		for j := range scores {
			total[j] += scores[j] * pl.Weight
		}
		if s.Score != nil {
			seen = append(seen, Scores{pl.Name, weighted64(scores, pl.Weight)})
		}
	}
	if s.Score != nil {
		s.Score(seen)
	}
	var top int64
	equal := 0
	for i, n := range fit {
		switch {
		case best == nil || total[i] > top:
			best, top, equal = n, total[i], 1
		case total[i] == top:
			if equal++; s.Dice(equal) == 0 {
				best = n
			}
		}
	}
	return best
}

func weighted64(scores []int64, weight int64) []int64 {
	out := make([]int64, len(scores))
	for i := range scores {
		out[i] = scores[i] * weight
	}
	return out
}

// Writes is what has to be written before the pod may be bound to n.
func (t *Trial) Writes(n *Node) (out []Write) {
	for _, w := range t.writes {
		out = append(out, w(n)...)
	}
	return out
}

// Evict asks the plugins, each in turn, to make room for the pod.
func (t *Trial) Evict(dice func(n int) int) Eviction {
	var whys []string
	keep := true
	for i := range t.plugins {
		if t.plugins[i].Evict == nil {
			continue
		}
		e := t.plugins[i].Evict(t, dice)
		if e.Node != nil {
			return e
		}
		if whys, keep = append(whys, e.Why), keep && e.Keep; e.Last {
			break
		}
	}
	return Eviction{Why: strings.Join(whys, ", "), Keep: keep}
}

// Stretch maps scores to 0 to 100 so that the highest becomes 100, or, where
// less is better, the highest becomes 0.
func Stretch(scores []int64, lessIsBetter bool) {
	highest := slices.Max(scores)
	for i, s := range scores {
		if highest > 0 {
			s = 100 * s / highest
		}
		if lessIsBetter {
			s = 100 - s
		}
		scores[i] = s
	}
}

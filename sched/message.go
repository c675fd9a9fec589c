package sched

import (
	"fmt"
	"slices"
	"strings"
)

// NoNodes is the message where there is not a single node.
const NoNodes = "no nodes available to schedule pods"

// Message says why the pod fits nowhere, and why no room can be made for it.
func (t *Trial) Message(e Eviction) string {
	all := len(t.Cluster.Nodes())
	if all == 0 {
		return NoNodes
	}
	msg := Tally(all, t.Rejected, t.Elsewhere)
	if t.No != "" {
		msg = fmt.Sprintf("0/%d nodes are available: %s.", all, t.No)
	}
	if e.Why != "" {
		msg += " " + e.Why
	}
	return msg
}

// Tally counts the reasons why none of so many nodes will do; rest is the one
// of those that were not rejected on their own.
func Tally(all int, rejected []Rejection, rest string) string {
	count := map[string]int{}
	for _, r := range rejected {
		for _, why := range r.Why {
			count[why]++
		}
	}
	if left := all - len(rejected); left > 0 && rest != "" {
		count[rest] += left
	}
	lines := make([]string, 0, len(count))
	for why, n := range count {
		lines = append(lines, fmt.Sprintf("%d %s", n, why))
	}
	slices.Sort(lines)
	msg := fmt.Sprintf("0/%d nodes are available:", all)
	if len(lines) > 0 {
		msg += " " + strings.Join(lines, ", ") + "."
	}
	return msg
}

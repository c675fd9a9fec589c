// Package priority orders the queue: the important first, then those that
// have waited longest.
package priority

import "github.com/knarr-dev/knarr/sched"

// Plugin is the queue order.
var Plugin = sched.Plugin[struct{}]{
	Name:   "PrioritySort",
	Before: before,
}.Erase()

func before(a, b sched.Waiting) bool {
	if a.Pod.Priority != b.Pod.Priority {
		return a.Pod.Priority > b.Pod.Priority
	}
	return a.Since.Before(b.Since)
}

// Package claims turns down pods that need resource claims: this scheduler
// does not allocate devices, and a pod must not start without what it claims.
package claims

import (
	"github.com/knarr-dev/knarr/sched"
)

// Plugin is the resource claims plugin.
var Plugin = sched.Plugin[struct{}]{
	Name:    "DynamicResources",
	Prepare: prepare,
	Evict:   evict,
}.Erase()

func prepare(p *sched.Pod, _ *sched.Cluster) (s struct{}, scope sched.Scope) {
	if len(p.Spec.ResourceClaims) > 0 {
		scope.No = "pod has resource claims, which this scheduler does not allocate"
	}
	return s, scope
}

// evict is where devices that are claimed but not used would be taken back.
// As upstream: it says so of every pod that fits nowhere, and of one that was
// turned down without a look at any node it says less, and has the last word.
func evict(t *sched.Trial, _ func(int) int) sched.Eviction {
	if t.No != "" && len(t.Pod.Spec.ResourceClaims) == 0 {
		return sched.Eviction{Why: "not found", Keep: true, Last: true}
	}
	return sched.Eviction{Why: "no new claims to deallocate", Keep: true}
}

package preempt

import (
	"cmp"
	"math"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-dev/knarr/sched"
)

// An option is to evict these pods from that node.
type option struct {
	node    *sched.Node
	victims []*sched.Pod // the most important first
	broken  int          // victims that a budget would have kept
}

// cheaper orders options by what is lost: broken budgets, the most important
// victim, the importance of all, their number, and how long the most important
// have run.
func cheaper(a, b option) int {
	return cmp.Or(
		cmp.Compare(a.broken, b.broken),
		cmp.Compare(a.victims[0].Priority, b.victims[0].Priority),
		cmp.Compare(a.importance(), b.importance()),
		cmp.Compare(len(a.victims), len(b.victims)),
		b.oldest().Compare(a.oldest()),
	)
}

// importance is the sum of the priorities, lifted so that all are positive: a
// few pods of negative priority are less of a loss than many.
func (o *option) importance() (sum int64) {
	for _, p := range o.victims {
		sum += int64(p.Priority) + math.MaxInt32 + 1
	}
	return sum
}

// oldest is when the first of the most important victims started.
func (o *option) oldest() time.Time {
	oldest := started(o.victims[0])
	for _, p := range o.victims {
		if at := started(p); p.Priority == o.victims[0].Priority && at.Before(oldest) {
			oldest = at
		}
	}
	return oldest
}

// moreImportant orders pods by priority, then by age.
func moreImportant(a, b *sched.Pod) int {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), started(a).Compare(started(b)))
}

// neverStarted is later than any start, for pods that have not started: less
// is lost with them.
var neverStarted = time.Unix(math.MaxInt32, 0)

func started(p *sched.Pod) time.Time {
	if p.Status.StartTime == nil {
		return neverStarted
	}
	return p.Status.StartTime.Time
}

// A budget is how many more pods a PodDisruptionBudget lets go.
type budget struct {
	*policyv1.PodDisruptionBudget

	selector labels.Selector
}

func newBudgets(o sched.Objects) (out []budget) {
	for b := range sched.In[*policyv1.PodDisruptionBudget](o, "") {
		// Here an empty selector selects nothing.
		if s := sched.Selector(b.Spec.Selector); !s.Empty() {
			out = append(out, budget{b, s})
		}
	}
	return out
}

// split tells those pods that a budget protects from those that may go.
func split(pods []*sched.Pod, budgets []budget) (protected, free []*sched.Pod) {
	left := make([]int32, len(budgets))
	for i := range budgets {
		left[i] = budgets[i].Status.DisruptionsAllowed
	}
	for _, p := range pods {
		broken := false
		for i := range budgets {
			if budgets[i].covers(p) {
				left[i]--
				broken = broken || left[i] < 0
			}
		}
		if broken {
			protected = append(protected, p)
		} else {
			free = append(free, p)
		}
	}
	return protected, free
}

// covers tells whether the loss of p would count. One that the API server is
// already evicting has been counted.
func (b *budget) covers(p *sched.Pod) bool {
	if b.Namespace != p.Namespace || len(p.Labels) == 0 || !b.selector.Matches(labels.Set(p.Labels)) {
		return false
	}
	_, counted := b.Status.DisruptedPods[p.Name]
	return !counted
}

package schedtest

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/sched"
)

// report is the text of a verdict.
type report struct {
	strings.Builder

	trial  *sched.Trial
	scores []sched.Scores
}

// nodes lists the nodes that would do, with their scores where there is more
// than one, and what is wrong with the others.
func (r *report) nodes(c sched.Choice) {
	shown := slices.DeleteFunc(slices.Clone(r.scores), func(s sched.Scores) bool {
		return !slices.ContainsFunc(s.Of, func(score int64) bool { return score != 0 })
	})
	w := tabwriter.NewWriter(r, 0, 0, 2, ' ', 0)
	if len(shown) > 0 {
		fmt.Fprint(w, "node")
		for _, s := range shown {
			fmt.Fprint(w, "\t", s.Plugin)
		}
		fmt.Fprintln(w, "\ttotal")
	}
	best, most := []string{}, int64(-1)
	for i, n := range c.Fit {
		var total int64
		fmt.Fprint(w, n.Name)
		for _, s := range shown {
			fmt.Fprint(w, "\t", s.Of[i])
			total += s.Of[i]
		}
		if len(shown) > 0 {
			fmt.Fprintf(w, "\t%d\n", total)
		} else {
			fmt.Fprintln(w, "\tfits")
		}
		if total > most {
			best, most = nil, total
		}
		if total == most {
			best = append(best, n.Name)
		}
	}
	_ = w.Flush() // into memory
	for _, x := range r.trial.Rejected {
		final := ""
		if x.Final {
			final = " (final)"
		}
		fmt.Fprintf(r, "%s: %s%s\n", x.Node.Name, strings.Join(x.Why, ", "), final)
	}
	if c.Node != nil {
		fmt.Fprintf(r, "pick %s\n", strings.Join(best, " or "))
	}
}

func (r *report) writes(list []sched.Write) {
	for _, w := range list {
		fmt.Fprintf(r, "write %T %s", w.Object, w.Object.GetName())
		if pv, ok := w.Object.(*corev1.PersistentVolume); ok {
			fmt.Fprintf(r, " for %s/%s", pv.Spec.ClaimRef.Namespace, pv.Spec.ClaimRef.Name)
		}
		fmt.Fprintln(r, "", w.Object.GetAnnotations())
	}
}

func (r *report) eviction(e sched.Eviction) {
	if e.Node != nil {
		fmt.Fprintf(r, "evict from %s:", e.Node.Name)
		for _, v := range e.Victims {
			fmt.Fprintf(r, " %s/%s", v.Namespace, v.Name)
		}
		fmt.Fprintln(r)
	}
	fmt.Fprintln(r, r.trial.Message(e))
}

// Package run runs specs of the suite with Ginkgo: first those that may run
// beside others, then the serial ones one by one, then once more and alone
// what failed. It has a bound for each spec and stops what exceeds it, by
// name. What it runs against, and what becomes of the outcomes, its caller
// knows.
package run

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/knarr-dev/knarr/conformance/e2e/report"
	"github.com/knarr-dev/knarr/conformance/e2e/spec"
)

// A Runner runs specs of one suite.
type Runner struct {
	Ginkgo string   // the tool
	Suite  string   // the suite's test binary
	Args   []string // for the suite
	Dir    string   // where Ginkgo's reports and output go

	Procs int           // how many specs at once
	Bound time.Duration // for one spec
	Grace time.Duration // from when a run is stopped until it is killed
	Again bool          // whether what failed gets a second go

	Say func(format string, args ...any) // what goes on, a line each
}

// Run runs the specs and is what came of each, in their order. Where ctx
// ends, what ran by then is reported, and the rest as not run. ended says why
// not everything ran, and is empty where it did.
func (r *Runner) Run(ctx context.Context, specs []spec.Spec) (outcomes []report.Outcome, ended string) {
	found, began := map[string]report.Outcome{}, time.Now()
	parallel, serial := spec.Split(specs)
	ended = r.until(ctx, "parallel", parallel, r.Procs, found)
	if ended == "" {
		ended = r.until(ctx, "serial", serial, 1, found)
	}
	if ended == "" && r.Again {
		ended = r.again(ctx, specs, found, time.Since(began))
	}
	for _, s := range specs {
		o, ran := found[s.Name]
		if !ran {
			o.State = report.NotRun
		}
		o.Spec = s // with the area it was listed in
		outcomes = append(outcomes, o)
	}
	return outcomes, ended
}

// until runs specs to their end: where one hangs and the run is stopped, the
// others that were stopped with it, or had not begun, are run in a new one.
func (r *Runner) until(ctx context.Context, name string, specs []spec.Spec, procs int, found map[string]report.Outcome) (ended string) {
	for round := 1; len(specs) > 0; round++ {
		if ctx.Err() != nil {
			return context.Cause(ctx).Error()
		}
		r.Say("%s: %d specs, %d at once", name, len(specs), procs)
		p := r.start(fmt.Sprintf("%s-%d", name, round), specs, procs)
		got, hung, err := p.wait(ctx)
		collect(got, hung, found)
		var left []spec.Spec
		for _, s := range specs {
			if _, ran := found[s.Name]; !ran {
				left = append(left, s)
			}
		}
		switch {
		case ctx.Err() != nil && len(left) > 0:
			interrupt(got, found)
			return context.Cause(ctx).Error()
		case len(left) > 0 && len(hung) == 0:
			return because(got, err, p.log)
		}
		specs = left
	}
	return ""
}

// collect notes what specs came to in a run of Ginkgo, those that hung too.
func collect(got report.Round, hung map[string]time.Duration, found map[string]report.Outcome) {
	for _, o := range got.Outcomes {
		found[o.Name] = o
	}
	for _, o := range got.Interrupted {
		if running, is := hung[o.Name]; is {
			found[o.Name] = stuck(o, running)
		}
	}
	for name, running := range hung {
		if _, reported := found[name]; !reported {
			found[name] = stuck(report.Outcome{Spec: spec.Spec{Name: name}, Attempts: 1}, running)
		}
	}
}

// interrupt notes which specs were running when all was stopped.
func interrupt(got report.Round, found map[string]report.Outcome) {
	for _, o := range got.Interrupted {
		if _, known := found[o.Name]; !known {
			o.State, o.Failure = report.NotRun, fmt.Sprintf("was running for %.0f s when the run was stopped\n%s", o.Seconds, o.Failure)
			found[o.Name] = o
		}
	}
}

// again gives what failed a second go with nothing beside it: what passes
// then is flaky. What failed fast goes first, for all of it takes at most half
// as long as the first go did.
func (r *Runner) again(ctx context.Context, specs []spec.Spec, found map[string]report.Outcome, first time.Duration) (ended string) {
	var fast, slow []spec.Spec
	for _, s := range specs {
		switch o := found[s.Name]; {
		case o.State != report.Failed || o.Hung:
		case o.Seconds < time.Minute.Seconds():
			fast = append(fast, s)
		default:
			slow = append(slow, s)
		}
	}
	bound := max(first/2, time.Minute)
	ctx, cancel := context.WithTimeoutCause(ctx, bound, errLong)
	defer cancel()
	second := map[string]report.Outcome{}
	if ended = r.until(ctx, "again", fast, 1, second); ended == "" {
		ended = r.until(ctx, "again-long", slow, 1, second)
	}
	for name, o := range second {
		if o.State == report.NotRun {
			continue
		}
		first := found[name]
		first.Attempts++
		if o.State == report.Passed {
			first.State = report.Flaky
		}
		found[name] = first
	}
	if ended == errLong.Error() {
		r.Say("the second go of what failed was ended after %s", bound.Round(time.Second))
		return ""
	}
	if ended != "" {
		return "the second go of what failed: " + ended
	}
	return ""
}

var errLong = errors.New("it takes too long")

// stuck is the outcome of a spec that was stopped for running too long.
func stuck(o report.Outcome, running time.Duration) report.Outcome {
	o.State, o.Hung = report.Failed, true
	o.Seconds = max(o.Seconds, running.Seconds())
	o.Failure = strings.TrimSpace(fmt.Sprintf("still running after %s, and stopped\n%s", running.Round(time.Second), o.Failure))
	return o
}

// because says why a run left specs out that nothing stopped.
func because(got report.Round, err error, log string) string {
	switch {
	case len(got.Problems) > 0:
		return strings.Join(got.Problems, "\n")
	case err != nil:
		return fmt.Sprintf("%v; its output is in %s", err, log)
	default:
		return "the suite says nothing of some specs; its output is in " + log
	}
}

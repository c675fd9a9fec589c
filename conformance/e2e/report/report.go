// Package report says what came of a run: it reads what Ginkgo wrote, puts
// the outcomes of several of its runs together and shows them as a table, as
// JSON, as JUnit's XML and as a page to look at. It runs nothing.
package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2/types"

	"github.com/knarr-dev/knarr/conformance/e2e/spec"
)

// The outcomes of a spec.
const (
	Passed  = "passed"
	Failed  = "failed"
	Flaky   = "flaky"   // failed, then passed alone
	Skipped = "skipped" // the spec itself found that it cannot run here
	NotRun  = "not run" // the run ended before it
)

// A Report is a run and what came of each of its specs.
type Report struct {
	Cluster string    `json:"cluster"` // the server's address and version
	Suite   string    `json:"suite"`   // the suite's version
	Nodes   int       `json:"nodes"`
	Procs   int       `json:"procs"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Ended   string    `json:"ended,omitempty"` // why it ended early, empty where it did not
	Specs   []Outcome `json:"specs"`
}

// An Outcome is what came of one spec.
type Outcome struct {
	spec.Spec

	State    string  `json:"state"`
	Seconds  float64 `json:"seconds"`
	Attempts int     `json:"attempts,omitempty"`
	Hung     bool    `json:"hung,omitempty"` // ran longer than a spec may
	Failure  string  `json:"failure,omitempty"`
	Where    string  `json:"where,omitempty"`  // file and line of the failure
	Events   string  `json:"events,omitempty"` // what the spec saw in the cluster
	Log      string  `json:"log,omitempty"`    // the end of what it said
}

// A Round is what one run of Ginkgo reported.
type Round struct {
	Outcomes    []Outcome // of specs that ran to an end of their own
	Interrupted []Outcome // of specs that were running when the run was stopped
	Problems    []string  // what failed besides specs, as what prepares the suite
}

// Load reads Ginkgo's report of a run.
func Load(file string) (Round, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return Round{}, err
	}
	var suites []types.Report
	if err := json.Unmarshal(data, &suites); err != nil {
		return Round{}, fmt.Errorf("read %s: %w", file, err)
	}
	var r Round
	for _, s := range suites {
		for _, sr := range s.SpecReports {
			r.add(sr)
		}
		if !s.SuiteSucceeded {
			r.Problems = append(r.Problems, reasons(s)...)
		}
	}
	return r, nil
}

func (r *Round) add(sr types.SpecReport) {
	if !sr.LeafNodeType.Is(types.NodeTypeIt) {
		if sr.State.Is(types.SpecStateFailureStates) {
			r.Problems = append(r.Problems, fmt.Sprintf("%s: %s", sr.LeafNodeType, failure(sr)))
		}
		return
	}
	o := Outcome{
		Spec:     spec.Spec{Name: sr.FullText(), Serial: sr.IsSerial},
		Seconds:  sr.RunTime.Seconds(),
		Attempts: 1,
	}
	switch {
	case sr.State.Is(types.SpecStatePassed):
		o.State = Passed
	case sr.State.Is(types.SpecStateSkipped):
		if sr.NumAttempts == 0 && sr.Failure.Message == "" {
			return // out of focus, or not reached
		}
		o.State, o.Failure = Skipped, sr.Failure.Message
	case sr.State.Is(types.SpecStateFailureStates):
		o.State = Failed
		describe(&o, sr)
		if sr.State.Is(types.SpecStateInterrupted | types.SpecStateAborted | types.SpecStateTimedout) {
			r.Interrupted = append(r.Interrupted, o)
			return
		}
	default:
		return // pending
	}
	r.Outcomes = append(r.Outcomes, o)
}

// reasons are why a suite failed, but for its specs.
func reasons(s types.Report) (rs []string) {
	for _, reason := range s.SpecialSuiteFailureReasons {
		// That specs fail is no news, and neither is that we stopped it.
		if !strings.Contains(reason, "Interrupted by") {
			rs = append(rs, reason)
		}
	}
	return rs
}

// logBytes is how much of a failed spec's output is kept: pages that hold
// hundreds of failures should still open.
const logBytes = 24 << 10

func describe(o *Outcome, sr types.SpecReport) {
	o.Failure = failure(sr)
	o.Where = fmt.Sprintf("%s:%d", short(sr.Failure.Location.FileName), sr.Failure.Location.LineNumber)
	var events, log []string
	for line := range strings.Lines(sr.CapturedGinkgoWriterOutput + sr.CapturedStdOutErr) {
		if strings.Contains(line, " - event for ") {
			events = append(events, line)
		} else {
			log = append(log, line)
		}
	}
	o.Events, o.Log = tail(strings.Join(events, "")), tail(strings.Join(log, ""))
}

func failure(sr types.SpecReport) string {
	text := sr.Failure.Message
	if sr.Failure.ForwardedPanic != "" {
		text += "\n" + sr.Failure.ForwardedPanic
	}
	if more := sr.Failure.AdditionalFailure; more != nil {
		text += "\n" + more.Failure.Message
	}
	if p := sr.Failure.ProgressReport; p.CurrentStepText != "" {
		text += "\nat step: " + p.CurrentStepText
	}
	return strings.TrimSpace(text)
}

// short is a source file's name from the suite's folder on.
func short(file string) string {
	if _, rest, is := strings.Cut(file, "/test/e2e/"); is {
		return "test/e2e/" + rest
	}
	return file
}

func tail(text string) string {
	if len(text) <= logBytes {
		return text
	}
	text = text[len(text)-logBytes:]
	if _, rest, is := strings.Cut(text, "\n"); is {
		text = rest
	}
	return "…\n" + text
}

// A Row is a line of the table by area.
type Row struct {
	Area                                        string
	Specs, Passed, Failed, Flaky, Skipped, Left int
	Seconds                                     float64
}

// Rows count by area, in the order of their names, and then in all.
func (r *Report) Rows() []Row {
	byArea := map[string]*Row{}
	total := Row{Area: "all"}
	for _, o := range r.Specs {
		row := byArea[o.Area]
		if row == nil {
			row = &Row{Area: o.Area}
			byArea[o.Area] = row
		}
		row.count(o)
		total.count(o)
	}
	var rows []Row
	for _, area := range slices.Sorted(maps.Keys(byArea)) {
		rows = append(rows, *byArea[area])
	}
	return append(rows, total)
}

func (w *Row) count(o Outcome) {
	w.Specs++
	w.Seconds += o.Seconds
	switch o.State {
	case Passed:
		w.Passed++
	case Failed:
		w.Failed++
	case Flaky:
		w.Flaky++
	case Skipped:
		w.Skipped++
	default:
		w.Left++
	}
}

// With are the specs of that state, the longest first.
func (r *Report) With(state string) (found []Outcome) {
	for _, o := range r.Specs {
		if o.State == state {
			found = append(found, o)
		}
	}
	slices.SortStableFunc(found, func(a, b Outcome) int { return cmp.Compare(b.Seconds, a.Seconds) })
	return found
}

// Slowest are the n specs that took longest.
func (r *Report) Slowest(n int) []Outcome {
	all := slices.Clone(r.Specs)
	slices.SortStableFunc(all, func(a, b Outcome) int { return cmp.Compare(b.Seconds, a.Seconds) })
	all = slices.DeleteFunc(all, func(o Outcome) bool { return o.Seconds == 0 })
	return all[:min(n, len(all))]
}

// Good tells whether every spec ran and passed, if need be at the second go.
// One that skipped itself was not shown to work, and so is not good.
func (r *Report) Good() bool {
	return r.Ended == "" && len(r.Specs) > 0 && !slices.ContainsFunc(r.Specs, func(o Outcome) bool {
		return o.State != Passed && o.State != Flaky
	})
}

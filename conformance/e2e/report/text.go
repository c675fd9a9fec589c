package report

import (
	"fmt"
	"io"
	"strings"
)

// failureLines is how much of a failure a terminal is filled with.
const failureLines = 6

// Text prints the table by area and what failed, with why.
func (r *Report) Text(w io.Writer) {
	for _, o := range r.With(Failed) {
		fmt.Fprintf(w, "\nFAILED %s (%.0f s)%s\n", o.Name, o.Seconds, hung(o))
		lines := strings.Split(o.Failure, "\n")
		for _, line := range lines[:min(failureLines, len(lines))] {
			fmt.Fprintf(w, "    %s\n", cut(line, 200))
		}
		fmt.Fprintf(w, "    at %s\n", o.Where)
	}
	for _, o := range r.With(Flaky) {
		first, _, _ := strings.Cut(o.Failure, "\n")
		fmt.Fprintf(w, "\nFLAKY %s: passed alone, but before\n    %s\n", o.Name, cut(first, 200))
	}
	for _, o := range r.With(Skipped) {
		first, _, _ := strings.Cut(o.Failure, "\n")
		fmt.Fprintf(w, "\nSKIPPED %s\n    %s\n", o.Name, cut(first, 200))
	}
	if left := r.With(NotRun); len(left) > 0 {
		fmt.Fprintf(w, "\nNOT RUN %d specs, for %s\n", len(left), r.Ended)
		for _, o := range left {
			if first, _, _ := strings.Cut(o.Failure, "\n"); first != "" {
				fmt.Fprintf(w, "    %s: %s\n", o.Name, first)
			}
		}
	}
	fmt.Fprintln(w)
	rows, wide := r.Rows(), len("area")
	for _, row := range rows {
		wide = max(wide, len(row.Area))
	}
	fmt.Fprintf(w, "%-*s  specs  passed  failed  flaky  skipped  not run  seconds\n", wide, "area")
	for _, row := range rows {
		fmt.Fprintf(w, "%-*s  %5d  %6d  %6d  %5d  %7d  %7d  %7.0f\n", wide, row.Area, row.Specs, row.Passed, row.Failed, row.Flaky, row.Skipped, row.Left, row.Seconds)
	}
	fmt.Fprintf(w, "\n%.0f s on the clock, %d at once, %d nodes, %s\n", r.Seconds, r.Procs, r.Nodes, r.Cluster)
}

func hung(o Outcome) string {
	if o.Hung {
		return " HUNG"
	}
	return ""
}

func cut(line string, n int) string {
	if runes := []rune(line); len(runes) > n {
		return string(runes[:n]) + "…"
	}
	return line
}

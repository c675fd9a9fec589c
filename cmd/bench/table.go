package main

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"text/tabwriter"
)

// A row is one line of the table.
type row struct {
	what            string
	measured, limit string  // in their unit
	ratio           float64 // of measured to limit; none where 0
	cpu             float64 // the same of the server's CPU time for each; none where 0
	wanted          wanted
}

// wanted are bounds on the ratios; none where 0.
type wanted struct {
	least, most float64 // of the ratio
	cpu         float64 // the most of CPU time
}

func (w wanted) String() string {
	var parts []string
	if w.least > 0 {
		parts = append(parts, fmt.Sprintf(">= %g", w.least))
	}
	if w.most > 0 {
		parts = append(parts, fmt.Sprintf("<= %g", w.most))
	}
	if w.cpu > 0 {
		parts = append(parts, fmt.Sprintf("CPU <= %g", w.cpu))
	}
	return strings.Join(parts, ", ")
}

// verdict tells whether the row is as wanted, empty where nothing is.
func (r row) verdict() string {
	w := r.wanted
	switch {
	case w == wanted{}:
		return ""
	case w.least > 0 && r.ratio < w.least, w.most > 0 && r.ratio > w.most, w.cpu > 0 && r.cpu > w.cpu:
		return "missed"
	}
	return "met"
}

// ratio prints a ratio, of which there may be none.
func ratio(x float64) string {
	if x == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", x)
}

// print prints the table.
func print(out io.Writer, o options, rows []row) error {
	if len(rows) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, err := fmt.Fprintln(t, "what\tmeasured\tlimit\tratio\tCPU ratio\twanted\t")
	for _, r := range rows {
		_, rerr := fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.what, r.measured, r.limit, ratio(r.ratio), ratio(r.cpu), r.wanted, r.verdict())
		err = errors.Join(err, rerr)
	}
	err = errors.Join(err, t.Flush())
	_, perr := fmt.Fprintf(out, "medians of %d runs of about %v on %d processors\n", o.runs, o.span, runtime.NumCPU())
	return errors.Join(err, perr)
}

// count prints a number as people like to read it.
func count(x float64) string {
	switch {
	case x >= 1e6:
		return fmt.Sprintf("%.1fM", x/1e6)
	case x >= 1e4:
		return fmt.Sprintf("%.0fk", x/1e3)
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.1f", x)
}

// bytes prints a size.
func bytesOf(n float64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", n/1e6)
	case n >= 1e4:
		return fmt.Sprintf("%.0f kB", n/1e3)
	}
	return fmt.Sprintf("%.0f B", n)
}

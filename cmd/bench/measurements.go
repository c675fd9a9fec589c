package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
)

// A measurement makes rows of the table.
type measurement struct {
	name string
	run  func(w *world, ctx context.Context) ([]row, error)
}

// measurements are all of them, in the order in which they are made: first
// what fills the world, last what changes it.
var measurements = []measurement{
	{"post", (*world).post},
	{"list", (*world).list},
	{"list16", (*world).list16},
	{"json", (*world).json},
	{"label", (*world).label},
	{"node", (*world).node},
	{"consistent", (*world).consistent},
	{"get", (*world).get},
	{"apply", (*world).apply},
	{"watch", (*world).watch},
	{"memory", (*world).memory},
	{"start", (*world).start},
}

// names are those of the measurements.
func names() string {
	var all []string
	for _, m := range measurements {
		all = append(all, m.name)
	}
	return strings.Join(all, ", ")
}

// measure makes the measurements that are wanted. One that fails does not
// keep the others from being made, but is told of.
func measure(ctx context.Context, o options) (rows []row, err error) {
	chosen := slices.DeleteFunc(slices.Clone(measurements), func(m measurement) bool { return !o.only.MatchString(m.name) })
	if len(chosen) == 0 {
		return nil, fmt.Errorf("-only=%s: there are %s", o.only, names())
	}
	w, err := create(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if chosen[0].name != "post" {
		if err := errors.Join(w.fill(ctx, crowd, o.objects), w.counted(ctx)); err != nil {
			return nil, err
		}
	}
	var failed []error
	for _, m := range chosen {
		fmt.Fprintln(os.Stderr, "measuring", m.name)
		more, err := m.run(w, ctx)
		rows = append(rows, more...)
		if ctx.Err() != nil {
			return rows, errors.Join(append(failed, context.Cause(ctx))...)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("measure %s: %w", m.name, err))
		}
	}
	return rows, errors.Join(failed...)
}

// compare runs two loads in turns, so that what else the machine does falls
// on both, and makes a row of their medians.
func (w *world) compare(ctx context.Context, what string, of, limit load, want wanted) (row, error) {
	var samples [2][]sample
	for range w.runs {
		for i, l := range []load{of, limit} {
			l.span = w.span
			s, err := l.run(ctx)
			if err != nil {
				return row{}, err
			}
			samples[i] = append(samples[i], s)
		}
	}
	return rates(what, median(samples[0]), median(samples[1]), want), nil
}

// rates is the row of two samples.
func rates(what string, of, limit sample, want wanted) row {
	return row{
		what: what, measured: of.String(), limit: limit.String(),
		ratio: of.rate / limit.rate, cpu: of.cpu / limit.cpu, wanted: want,
	}
}

func (s sample) String() string {
	if s.cpu >= 1e-3 {
		return fmt.Sprintf("%s/s, %.2f ms", count(s.rate), s.cpu*1e3)
	}
	return fmt.Sprintf("%s/s, %.1f us", count(s.rate), s.cpu*1e6)
}

// median is the median of rates and that of CPU times.
func median(samples []sample) sample {
	var rate, cpu []float64
	for _, s := range samples {
		rate, cpu = append(rate, s.rate), append(cpu, s.cpu)
	}
	return sample{rate: middle(rate), cpu: middle(cpu)}
}

// middle is the median of some numbers.
func middle(x []float64) float64 {
	slices.Sort(x)
	n := len(x)
	return (x[(n-1)/2] + x[n/2]) / 2
}

// same compares a call of the API server with a plain handler that writes the
// same bytes.
func (w *world) same(ctx context.Context, what string, c call, clients int, want wanted) ([]row, error) {
	body, err := w.api.fetch(ctx, c)
	if err != nil {
		return nil, err
	}
	if _, err := w.plain.fetch(ctx, call{method: http.MethodPut, path: "/bytes/same", body: body}); err != nil {
		return nil, err
	}
	c.size = len(body)
	r, err := w.compare(ctx, fmt.Sprintf("%s (%s)", what, bytesOf(float64(len(body)))),
		load{to: w.api, clients: clients, call: always(c)},
		load{to: w.plain, clients: clients, call: always(call{path: "/bytes/same", size: c.size})}, want)
	return []row{r}, err
}

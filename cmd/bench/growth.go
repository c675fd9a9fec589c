package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

// sizes are the numbers of pods between which growth is looked for.
var sizes = []int{1000, 10_000, 100_000}

// figures are those of which growth is shown. Only the first may grow with
// the number of pods, by as much as that.
var figures = []struct {
	what string
	take func(ctx context.Context, w *world) (sample, error)
}{
	{"LIST of all pods", asked(func(*world) call { return call{path: cachedPods, asked: protoMedia} }, 1)},
	{"LIST by label", asked((*world).byLabel, 1)},
	{"LIST by spec.nodeName", asked((*world).byNode, 1)},
	{"GET, 32 clients", asked(func(w *world) call { return call{path: onePod(w.objects / 2), asked: protoMedia} }, 32)},
	{"POST, 32 writers", func(ctx context.Context, w *world) (sample, error) { return w.repeat(ctx, w.creations()) }},
	{"watch, events sent", func(ctx context.Context, w *world) (sample, error) {
		sides, err := w.sides(ctx)
		if err != nil {
			return sample{}, err
		}
		return w.flood(ctx, sides[0])
	}},
}

// asked is the figure of a call.
func asked(of func(*world) call, clients int) func(ctx context.Context, w *world) (sample, error) {
	return func(ctx context.Context, w *world) (sample, error) {
		return w.repeat(ctx, load{to: w.api, clients: clients, call: always(of(w))})
	}
}

// repeat is the median of some runs of a load.
func (w *world) repeat(ctx context.Context, l load) (sample, error) {
	var samples []sample
	l.span = w.span
	for range w.runs {
		s, err := l.run(ctx)
		if err != nil {
			return sample{}, err
		}
		samples = append(samples, s)
	}
	return median(samples), nil
}

// growth prints the figures at all sizes: rate, and CPU time for each. What
// was measured before something failed is printed all the same.
func growth(ctx context.Context, out io.Writer, o options) error {
	table := make([][]string, 1+len(figures))
	table[0] = []string{"what"}
	for i, f := range figures {
		table[1+i] = []string{f.what}
	}
	var failed error
	for _, n := range sizes {
		fmt.Fprintln(os.Stderr, "measuring with", n, "pods")
		table[0] = append(table[0], fmt.Sprintf("%d pods", n))
		samples, err := take(ctx, o, n)
		for i, s := range samples {
			table[1+i] = append(table[1+i], s.String())
		}
		if err != nil {
			failed = fmt.Errorf("measure with %d pods: %w", n, err)
			break
		}
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, line := range table {
		if _, err := fmt.Fprintln(t, strings.Join(line, "\t")); err != nil {
			return errors.Join(err, failed)
		}
	}
	return errors.Join(t.Flush(), failed)
}

// take takes all figures in a world of n pods.
func take(ctx context.Context, o options, n int) (samples []sample, err error) {
	o.objects = n
	w, err := create(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.fill(ctx, crowd, n); err != nil {
		return nil, err
	}
	if err := w.counted(ctx); err != nil {
		return nil, err
	}
	for _, f := range figures {
		s, err := f.take(ctx, w)
		if err != nil {
			return samples, fmt.Errorf("%s: %w", f.what, err)
		}
		samples = append(samples, s)
	}
	return samples, nil
}

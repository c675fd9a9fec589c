package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/knarr-dev/knarr/registry"
)

// memory measures what an API server of its own keeps of each pod, once as
// live heap and once as what the process takes from the machine.
func (w *world) memory(ctx context.Context) (rows []row, err error) {
	own, err := create(ctx, w.options)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, own.close()) }()
	before, err := own.use(ctx)
	if err != nil {
		return nil, err
	}
	if err := own.fill(ctx, crowd, w.heavy); err != nil {
		return nil, err
	}
	after, err := own.use(ctx)
	if err != nil {
		return nil, err
	}
	page, err := own.store.List(ctx, registry.Query{Prefix: "/registry/pods/" + crowd + "/"})
	if err != nil {
		return nil, err
	}
	if len(page.Records) != w.heavy {
		return nil, fmt.Errorf("etcd has %d pods, not %d", len(page.Records), w.heavy)
	}
	total := 0
	for _, r := range page.Records {
		total += len(r.Value)
	}
	n, size := float64(w.heavy), float64(total)/float64(w.heavy)
	heap, rss := (after.live-before.live)/n, (after.resident-before.resident)/n
	return []row{
		{what: fmt.Sprintf("live heap for each of %d pods, against etcd's", w.heavy), measured: bytesOf(heap), limit: bytesOf(size), ratio: heap / size, wanted: wanted{most: 2.5}},
		{what: "resident memory for each", measured: bytesOf(rss), limit: bytesOf(size), ratio: rss / size},
	}, nil
}

// usage is how much memory a server uses, in bytes.
type usage struct{ live, resident float64 }

// use is the API server's usage now, when it has seen all that is in etcd.
func (w *world) use(ctx context.Context) (u usage, err error) {
	c := w.api.client()
	defer c.CloseIdleConnections()
	garbage := call{path: anyPods + "?limit=500", asked: protoMedia} // and consistent
	first, err := w.metrics(ctx)
	if err != nil {
		return u, err
	}
	now := first
	// A collection that has begun after now has ended with the second one.
	for now.collections < first.collections+2 {
		for range 50 {
			if err := w.api.do(ctx, c, garbage, nil); err != nil {
				return u, err
			}
		}
		if now, err = w.metrics(ctx); err != nil {
			return u, err
		}
	}
	resident, err := w.api.resident()
	return usage{live: now.next / (1 + now.percent/100), resident: float64(resident)}, err
}

// collector is what the metrics tell of garbage collection.
type collector struct {
	collections float64
	next        float64 // size of the heap at which the next begins
	percent     float64 // of what lives, by which the heap may grow until then
}

func (w *world) metrics(ctx context.Context) (g collector, err error) {
	body, err := w.api.fetch(ctx, call{path: "/metrics"})
	if err != nil {
		return g, err
	}
	names := map[string]*float64{
		"go_gc_duration_seconds_count": &g.collections, "go_memstats_next_gc_bytes": &g.next, "go_gc_gogc_percent": &g.percent,
	}
	for line := range bytes.Lines(body) {
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		if into := names[name]; into != nil {
			if *into, err = strconv.ParseFloat(value, 64); err != nil {
				return g, fmt.Errorf("metric %s: %w", name, err)
			}
			delete(names, name)
		}
	}
	if len(names) > 0 {
		return g, fmt.Errorf("the server tells nothing of its garbage collector: %d metrics lack", len(names))
	}
	return g, nil
}

package main

import (
	"context"
	"fmt"
)

// Where lists of pods are.
const (
	anyPods    = "/api/v1/pods"
	cachedPods = anyPods + "?resourceVersion=0"
)

func (w *world) list(ctx context.Context) ([]row, error) {
	return w.same(ctx, fmt.Sprintf("LIST of %d pods", w.objects), call{path: cachedPods, asked: protoMedia}, 1, wanted{least: .8, cpu: 1.5})
}

func (w *world) list16(ctx context.Context) ([]row, error) {
	return w.same(ctx, "the same, 16 clients", call{path: cachedPods, asked: protoMedia}, 16, wanted{least: .8})
}

// json measures what comes after the first list, which makes the JSON.
func (w *world) json(ctx context.Context) ([]row, error) {
	return w.same(ctx, "LIST in JSON, second and later", call{path: cachedPods, asked: jsonMedia}, 1, wanted{least: .8, cpu: 1.5})
}

func (w *world) label(ctx context.Context) ([]row, error) {
	return w.same(ctx, fmt.Sprintf("LIST by label, %d of them", labelShare), w.byLabel(), 1, wanted{least: .5})
}

func (w *world) node(ctx context.Context) ([]row, error) {
	return w.same(ctx, fmt.Sprintf("LIST by spec.nodeName, %d of them", nodeShare), w.byNode(), 1, wanted{least: .5})
}

func (w *world) byLabel() call {
	return call{path: cachedPods + "&labelSelector=batch%3D" + batch(w.objects/2), asked: protoMedia}
}

func (w *world) byNode() call {
	return call{path: cachedPods + "&fieldSelector=spec.nodeName%3D" + nodeName(w.objects/2), asked: protoMedia}
}

func (w *world) consistent(ctx context.Context) ([]row, error) {
	r, err := w.compare(ctx, "LIST consistent, against cached",
		load{to: w.api, clients: 1, call: always(call{path: anyPods, asked: protoMedia})},
		load{to: w.api, clients: 1, call: always(call{path: cachedPods, asked: protoMedia})}, wanted{least: .8})
	return []row{r}, err
}

func (w *world) get(ctx context.Context) ([]row, error) {
	c := call{path: onePod(w.objects / 2), asked: protoMedia}
	fresh, err := w.same(ctx, "GET of a pod, 32 clients", c, 32, wanted{least: .5, cpu: 2})
	if err != nil {
		return fresh, err
	}
	c.path += "?resourceVersion=0"
	cached, err := w.same(ctx, "the same from cache", c, 32, wanted{})
	return append(fresh, cached...), err
}

// onePod is where the i-th pod is.
func onePod(i int) string { return "/api/v1/namespaces/" + crowd + "/pods/" + podName(i) }

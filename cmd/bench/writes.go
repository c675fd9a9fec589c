package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/wire"
)

// writers is how many write at once.
const writers = 32

// post measures creations, half of them in protobuf and half in JSON, until
// all the objects are there.
func (w *world) post(ctx context.Context) (rows []row, err error) {
	forms := []struct {
		what, media string
		encode      func(*corev1.Pod) ([]byte, error)
		samples     [2][]sample
	}{
		{what: "POST of pods, 32 writers", media: protoMedia, encode: func(p *corev1.Pod) ([]byte, error) { return podKind.Encode(p) }},
		{what: "the same in JSON", media: jsonMedia, encode: func(p *corev1.Pod) ([]byte, error) { return json.Marshal(p) }},
	}
	rounds, from := w.runs*len(forms), 0
	for i := range rounds {
		f := &forms[i%len(forms)]
		to := w.objects * (i + 1) / rounds
		var bodies [][]byte
		for n := from; n < to; n++ {
			body, err := f.encode(pod(n))
			if err != nil {
				return nil, err
			}
			bodies = append(bodies, body)
		}
		from = to
		for side, l := range []load{
			{to: w.api, call: func(i int) call {
				return creation(crowd, f.media, bodies[i])
			}},
			{to: w.plain, call: func(i int) call {
				return call{method: http.MethodPost, path: "/put", body: bodies[i], want: http.StatusCreated}
			}},
		} {
			l.clients, l.count = writers, len(bodies)
			s, err := l.run(ctx)
			if err != nil {
				return nil, err
			}
			f.samples[side] = append(f.samples[side], s)
		}
	}
	for _, f := range forms {
		rows = append(rows, rates(f.what, median(f.samples[0]), median(f.samples[1]), wanted{least: .5, cpu: 3}))
	}
	return rows, w.counted(ctx)
}

// counted holds that all the objects are there for readers.
func (w *world) counted(ctx context.Context) error {
	body, err := w.api.fetch(ctx, call{path: anyPods + "?limit=1", asked: jsonMedia})
	if err != nil {
		return err
	}
	var list struct {
		Metadata struct{ RemainingItemCount int }
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return err
	}
	if have := list.Metadata.RemainingItemCount + 1; have != w.objects {
		return fmt.Errorf("the server has %d pods, not %d", have, w.objects)
	}
	return nil
}

// template is a pod as the API server makes it, with all defaults.
func (w *world) template(ctx context.Context, namespace string, i int) (*corev1.Pod, error) {
	body, err := podKind.Encode(pod(i))
	if err != nil {
		return nil, err
	}
	body, err = w.api.fetch(ctx, creation(namespace, protoMedia, body))
	if err != nil {
		return nil, err
	}
	obj, _, err := podKind.Decode(wire.Protobuf, body, wire.Ignore)
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Pod), nil
}

// maxOps is how many writes etcd takes in one commit: 128 by default.
const maxOps = 100

// fill puts pods into etcd past the API server, which is faster. It finds
// them there as it would another server's.
func (w *world) fill(ctx context.Context, namespace string, n int) error {
	like, err := w.template(ctx, namespace, 0)
	if err != nil {
		return err
	}
	var ops []registry.Op
	for i := 1; i < n; i++ {
		value, err := stored(namespace, i, like)
		if err != nil {
			return err
		}
		ops = append(ops, registry.Op{Key: key(namespace, i), Value: value})
		if len(ops) == maxOps || i == n-1 {
			if _, err := w.store.Commit(ctx, ops...); err != nil {
				return err
			}
			ops = ops[:0]
		}
	}
	return nil
}

// key is where the i-th pod of a namespace is stored.
func key(namespace string, i int) string { return "/registry/pods/" + namespace + "/" + podName(i) }

// applied is how many pods are applied to in turns, so that mostly the field
// has been there before.
const applied = 512

// apply compares server-side apply of one label with creation.
func (w *world) apply(ctx context.Context) ([]row, error) {
	var n atomic.Int64
	change := func(int) call {
		i := int(n.Add(1))
		name := podName(i % min(applied, w.objects))
		return call{
			method: http.MethodPatch, path: "/api/v1/namespaces/" + crowd + "/pods/" + name + "?fieldManager=bench", sent: applyMedia, asked: protoMedia,
			body: fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q,"labels":{"bench":"v%d"}}}`, name, i),
		}
	}
	r, err := w.compare(ctx, "server-side apply, against POST",
		load{to: w.api, clients: writers, call: change}, w.creations(), wanted{cpu: 2})
	return []row{r}, err
}

// creations are pods in passing.
func (w *world) creations() load {
	return load{to: w.api, clients: writers, call: func(int) call {
		i := w.passing.Add(1)
		p := pod(int(i) % w.objects)
		p.Name = fmt.Sprintf("passing-%06d", i)
		body, err := podKind.Encode(p)
		if err != nil {
			panic(err) // the like of it has been encoded before
		}
		return creation(spare, protoMedia, body)
	}}
}

// creation creates a pod.
func creation(namespace, media string, body []byte) call {
	return call{method: http.MethodPost, path: "/api/v1/namespaces/" + namespace + "/pods", sent: media, asked: media, body: body, want: http.StatusCreated}
}

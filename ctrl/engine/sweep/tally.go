package sweep

import (
	"log/slog"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/ctrl"
	"github.com/knarr-dev/knarr/ctrl/quota"
)

// A Tally tells the controller of quotas how many objects of each kind there
// are, and when there are less. It knows nothing while no Loop runs.
type Tally struct {
	mu   sync.Mutex
	seen *watcher
}

// begin has the tally count what w sees.
func (t *Tally) begin(w *watcher) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen = w
	if w != nil {
		w.fewer = w.wakeQuotas
	}
}

// Counts is what a namespace has of each kind that has been listed, and
// whether those are all.
func (t *Tally) Counts(ns string) (of map[schema.GroupResource]int, all bool) {
	t.mu.Lock()
	w := t.seen
	t.mu.Unlock()
	if w == nil {
		return nil, false
	}
	all, of = w.complete(), map[schema.GroupResource]int{}
	w.mu.Lock()
	defer w.mu.Unlock()
	for gvr, o := range w.watches {
		if o.listed && o.resource.Namespaced {
			of[gvr.GroupResource()] = 0
		}
	}
	for r, c := range w.graph.In(ns) {
		if _, listed := of[r.GroupResource()]; listed {
			of[r.GroupResource()] = c.Count
		}
	}
	return of, all
}

// wakeQuotas wakes the quotas of a namespace for which an object less of a
// kind matters.
func (w *watcher) wakeQuotas(kind schema.GroupResource, ns string) {
	if ns == "" || !w.engine.Shared(corev1.SchemeGroupVersion.WithResource("resourcequotas")) {
		return
	}
	quotas, err := w.engine.Informers.Core().V1().ResourceQuotas().Lister().ResourceQuotas(ns).List(labels.Everything())
	if err != nil {
		slog.Error("quotas are not counted anew", "namespace", ns, "err", err)
		return
	}
	for _, q := range quotas {
		if quota.Heeds(q, kind) {
			w.engine.Wake(quota.Name, ctrl.KeyOf(q))
		}
	}
}

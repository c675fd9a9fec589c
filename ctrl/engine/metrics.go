package engine

import (
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/knarr-dev/knarr/ctrl"
)

// metrics are those of all runners. What changes with the time alone, as how
// long a look has taken so far, is worked out when it is asked for.
type metrics struct {
	adds, retries, staleLooks, panics *prometheus.CounterVec
	queued, worked                    *prometheus.HistogramVec
	actions                           *prometheus.CounterVec
	depth, unfinished, longest        *prometheus.Desc

	mu      sync.Mutex
	runners map[*runner]*timing
}

// timing is when the keys of one runner were woken and begun.
type timing struct{ woken, begun map[ctrl.Key]time.Time }

func newMetrics() *metrics {
	byName := []string{"name"}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	seconds := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(1e-5, 10, 8),
		}, byName)
	}
	gauge := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, byName, nil) }
	return &metrics{
		adds:       counter("workqueue_adds_total", "Keys woken by a change.", byName...),
		retries:    counter("workqueue_retries_total", "Keys that failed and are tried again.", byName...),
		queued:     seconds("workqueue_queue_duration_seconds", "How long a woken key waits for a worker."),
		worked:     seconds("workqueue_work_duration_seconds", "How long a look at a key takes."),
		depth:      gauge("workqueue_depth", "Keys that wait for a worker."),
		unfinished: gauge("workqueue_unfinished_work_seconds", "How long all looks under way have taken so far."),
		longest:    gauge("workqueue_longest_running_processor_seconds", "How long the oldest look under way has taken so far."),
		staleLooks: counter("controllers_stale_looks_total", "Looks put off until the caches show the controller's own writes.", byName...),
		panics:     counter("controllers_panics_total", "Looks that panicked.", byName...),
		actions:    counter("controllers_actions_total", "Requests made by plans.", "name", "verb", "kind", "result"),
		runners:    map[*runner]*timing{},
	}
}

func (m *metrics) vectors() []prometheus.Collector {
	return []prometheus.Collector{m.adds, m.retries, m.queued, m.worked, m.staleLooks, m.panics, m.actions}
}

// Describe is part of prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, v := range m.vectors() {
		v.Describe(ch)
	}
	ch <- m.depth
	ch <- m.unfinished
	ch <- m.longest
}

// Collect is part of prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, v := range m.vectors() {
		v.Collect(ch)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for r, t := range m.runners {
		var all, longest float64
		for _, at := range t.begun {
			took := time.Since(at).Seconds()
			all, longest = all+took, max(longest, took)
		}
		for desc, v := range map[*prometheus.Desc]float64{m.depth: float64(r.queue.Len()), m.unfinished: all, m.longest: longest} {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, r.ctrl.Name)
		}
	}
}

func (m *metrics) runs(r *runner) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.runners[r] = &timing{map[ctrl.Key]time.Time{}, map[ctrl.Key]time.Time{}}
}

func (m *metrics) stopped(r *runner) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.runners, r)
}

func (m *metrics) woken(r *runner, key ctrl.Key) {
	m.adds.WithLabelValues(r.ctrl.Name).Inc()
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.runners[r]; t != nil && t.woken[key].IsZero() {
		t.woken[key] = time.Now()
	}
}

// begin notes that a look at key begins; what it returns, that it ended.
func (m *metrics) begin(r *runner, key ctrl.Key) func(err error) {
	start := time.Now()
	m.mu.Lock()
	t := m.runners[r]
	if at := t.woken[key]; !at.IsZero() {
		m.queued.WithLabelValues(r.ctrl.Name).Observe(start.Sub(at).Seconds())
		delete(t.woken, key)
	}
	t.begun[key] = start
	m.mu.Unlock()
	return func(err error) {
		m.worked.WithLabelValues(r.ctrl.Name).Observe(time.Since(start).Seconds())
		if err != nil {
			m.retries.WithLabelValues(r.ctrl.Name).Inc()
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(t.begun, key)
	}
}

func (m *metrics) stale(r *runner) { m.staleLooks.WithLabelValues(r.ctrl.Name).Inc() }

func (m *metrics) panicked(r *runner) { m.panics.WithLabelValues(r.ctrl.Name).Inc() }

func (m *metrics) acted(r *runner, a ctrl.Action, err error) {
	verb, result := string(a.Verb), "ok"
	if a.Sub != "" {
		verb += "-" + a.Sub
	}
	if err != nil {
		result = "failed"
	}
	kind := strings.ToLower(reflect.TypeOf(a.Obj).Elem().Name())
	m.actions.WithLabelValues(r.ctrl.Name, verb, kind, result).Inc()
}

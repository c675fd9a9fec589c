package loop

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics tell how the scheduler does, by the names that its stock
// counterpart has for it. It is a prometheus.Collector.
type Metrics struct {
	attempts   *prometheus.CounterVec
	attempt    *prometheus.HistogramVec
	algorithm  prometheus.Histogram
	pending    *prometheus.GaugeVec
	incoming   *prometheus.CounterVec
	tries      prometheus.Histogram
	wait       *prometheus.HistogramVec
	cache      *prometheus.GaugeVec
	evictions  prometheus.Counter
	victims    prometheus.Histogram
	evicting   *prometheus.HistogramVec
	evicted    *prometheus.CounterVec
	collectors []prometheus.Collector
}

// NewMetrics returns metrics that are all zero.
func NewMetrics() *Metrics {
	m := &Metrics{
		attempts:  counters("schedule_attempts_total", "Attempts to schedule pods, by result: scheduled, unschedulable, or error.", "result", "profile"),
		attempt:   histograms("scheduling_attempt_duration_seconds", "How long an attempt took, with the binding.", prometheus.ExponentialBuckets(.001, 2, 15), "result", "profile"),
		algorithm: histogram("scheduling_algorithm_duration_seconds", "How long the choice of a node took.", prometheus.ExponentialBuckets(.001, 2, 15)),
		pending:   gauges("pending_pods", "Pods without a node, by the part of the queue that they are in.", "queue"),
		incoming:  counters("queue_incoming_pods_total", "Pods that came into a part of the queue, by what brought them there.", "queue", "event"),
		tries:     histogram("pod_scheduling_attempts", "Attempts that it took to schedule a pod.", prometheus.ExponentialBuckets(1, 2, 5)),
		wait:      histograms("pod_scheduling_sli_duration_seconds", "Time from a pod's coming to its binding.", prometheus.ExponentialBuckets(.01, 2, 20), "attempts"),
		cache:     gauges("cache_size", "What the scheduler keeps in mind.", "type"),
		evictions: prometheus.NewCounter(prometheus.CounterOpts{Subsystem: "scheduler", Name: "preemption_attempts_total", Help: "Attempts to make room for a pod."}),
		victims:   histogram("preemption_victims", "Pods evicted at a time.", prometheus.ExponentialBuckets(1, 2, 7)),
		evicting:  histograms("preemption_goroutines_duration_seconds", "How long it took to have pods evicted.", prometheus.ExponentialBuckets(.01, 2, 20), "result"),
		evicted:   counters("preemption_goroutines_execution_total", "Evictions, by whether they went well.", "result"),
	}
	m.collectors = []prometheus.Collector{
		m.attempts, m.attempt, m.algorithm, m.pending, m.incoming, m.tries, m.wait, m.cache,
		m.evictions, m.victims, m.evicting, m.evicted,
	}
	return m
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Subsystem: "scheduler", Name: name, Help: help}, labels)
}

func gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Subsystem: "scheduler", Name: name, Help: help}, labels)
}

func histogram(name, help string, buckets []float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Subsystem: "scheduler", Name: name, Help: help, Buckets: buckets})
}

func histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Subsystem: "scheduler", Name: name, Help: help, Buckets: buckets}, labels)
}

// Describe is for prometheus.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.collectors {
		c.Describe(ch)
	}
}

// Collect is for prometheus.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.collectors {
		c.Collect(ch)
	}
}

// The results of an attempt, as metrics name them.
const (
	scheduled     = "scheduled"
	unschedulable = "unschedulable"
	failed        = "error"
)

func (m *Metrics) tried(result, profile string, took time.Duration) {
	m.attempts.WithLabelValues(result, profile).Inc()
	m.attempt.WithLabelValues(result, profile).Observe(took.Seconds())
}

func (m *Metrics) bound(it *item, now time.Time) {
	const many = 15
	tries := strconv.Itoa(it.tries)
	if it.tries >= many {
		tries = strconv.Itoa(many) + "+"
	}
	m.tries.Observe(float64(it.tries))
	m.wait.WithLabelValues(tries).Observe(now.Sub(it.came).Seconds())
}

// entered counts a pod that came into a part of the queue.
func (m *Metrics) entered(to place, event string) {
	if to == penalty {
		to = backoff
	}
	m.incoming.WithLabelValues(string(to), event).Inc()
}

// size tells the sizes as they are now.
func (m *Metrics) size(q *queue, nodes, pods int) {
	m.pending.WithLabelValues(string(active)).Set(float64(q.piles[active].Len()))
	m.pending.WithLabelValues(string(backoff)).Set(float64(q.piles[backoff].Len() + q.piles[penalty].Len()))
	m.pending.WithLabelValues(string(pool)).Set(float64(q.piles[pool].Len()))
	m.pending.WithLabelValues(string(held)).Set(float64(q.piles[held].Len()))
	m.cache.WithLabelValues("nodes").Set(float64(nodes))
	m.cache.WithLabelValues("pods").Set(float64(pods))
}

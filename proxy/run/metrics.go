package run

import (
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics have the names that the stock proxy's have where they mean the same.
type metrics struct {
	registry *prometheus.Registry

	duration, programming    prometheus.Histogram
	updated, queued          prometheus.Gauge
	services, slices, faults prometheus.Counter
	healthz, livez           *prometheus.CounterVec
}

func newMetrics() *metrics {
	const subsystem = "kubeproxy"
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Subsystem: subsystem, Name: name, Help: help, Buckets: buckets})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Subsystem: subsystem, Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Subsystem: subsystem, Name: name, Help: help})
	}
	codes := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Subsystem: subsystem, Name: name, Help: help}, []string{"code"})
	}
	m := &metrics{
		registry:    prometheus.NewRegistry(),
		duration:    histogram("sync_proxy_rules_duration_seconds", "How long it took to carry changes into the maps.", prometheus.ExponentialBuckets(0.0001, 2, 18)),
		programming: histogram("network_programming_duration_seconds", "How long after its cause a change of endpoints was in the maps.", prometheus.ExponentialBuckets(0.005, 2, 16)),
		updated:     gauge("sync_proxy_rules_last_timestamp_seconds", "When the maps were last as they should be."),
		queued:      gauge("sync_proxy_rules_last_queued_timestamp_seconds", "When there was last something to carry into the maps."),
		services:    counter("sync_proxy_rules_service_changes_total", "Changes of Services that were carried into the maps."),
		slices:      counter("sync_proxy_rules_endpoint_changes_total", "Changes of EndpointSlices that were carried into the maps."),
		faults:      counter("sync_proxy_rules_failures_total", "Attempts to carry changes into the maps that failed in part."),
		healthz:     codes("proxy_healthz_total", "Answers of /healthz."),
		livez:       codes("proxy_livez_total", "Answers of /livez."),
	}
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.duration, m.programming, m.updated, m.queued, m.services, m.slices, m.faults, m.healthz, m.livez,
	)
	return m
}

// synced notes an attempt to carry changes into the maps.
func (m *metrics) synced(began, now time.Time, c changes, err error) {
	m.duration.Observe(now.Sub(began).Seconds())
	m.services.Add(float64(c.services))
	m.slices.Add(float64(c.slices))
	if err != nil {
		m.faults.Inc()
		return
	}
	m.updated.Set(seconds(now))
	for _, t := range c.caused {
		m.programming.Observe(now.Sub(t).Seconds())
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }

// handler serves the metrics, and says what kind of proxy this is.
func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /proxyMode", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ebpf") })
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	return mux
}

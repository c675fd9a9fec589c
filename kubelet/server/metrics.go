package server

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests *prometheus.CounterVec
	inflight *prometheus.GaugeVec
	duration *prometheus.HistogramVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	labels := []string{"method", "path", "server_type", "long_running"}
	m := &metrics{
		prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubelet_http_requests_total", Help: "Requests that came in."}, labels),
		prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kubelet_http_inflight_requests", Help: "Requests being served."}, labels),
		prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kubelet_http_requests_duration_seconds", Help: "How long requests took to serve."}, labels),
	}
	if r != nil {
		r.MustRegister(m.requests, m.inflight, m.duration)
	}
	return m
}

// Paths that requests are counted by; all others are one.
var counted = strings.Fields("healthz pods stats metrics metrics/cadvisor metrics/probes metrics/resource run exec attach portForward containerLogs configz runningpods checkpoint logs debug spec")

var long = []string{"exec", "attach", "portforward", "debug"}

func (m *metrics) count(server string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		if path := first + "/" + rest; slices.Contains(counted, path) {
			first = path
		} else if !slices.Contains(counted, first) {
			first = "other"
		}
		method := r.Method
		if verbs[method] == "" {
			method = "other"
		}
		labels := []string{method, first, server, strconv.FormatBool(slices.Contains(long, strings.ToLower(first)))}
		m.requests.WithLabelValues(labels...).Inc()
		m.inflight.WithLabelValues(labels...).Inc()
		start := time.Now()
		defer func() {
			m.inflight.WithLabelValues(labels...).Dec()
			m.duration.WithLabelValues(labels...).Observe(time.Since(start).Seconds())
		}()
		next.ServeHTTP(w, r)
	})
}

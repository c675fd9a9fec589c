package dns

import (
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Metrics tell how the server does, by the names that CoreDNS has for it, so
// that what watches the one can watch the other. It is a prometheus.Collector.
type Metrics struct {
	requests     *prometheus.CounterVec
	responses    *prometheus.CounterVec
	duration     *prometheus.HistogramVec
	requestSize  *prometheus.HistogramVec
	responseSize *prometheus.HistogramVec
	panics       prometheus.Counter
	upstream     *prometheus.HistogramVec
	unhealthy    *prometheus.CounterVec
	broken       prometheus.Counter
	rejects      prometheus.Counter
	hits         *prometheus.CounterVec
	misses       prometheus.Counter
	entries      prometheus.Gauge
	programming  *prometheus.HistogramVec
	refused      prometheus.Counter
	collectors   []prometheus.Collector
}

// NewMetrics returns metrics that are all zero.
func NewMetrics() *Metrics {
	sizes := []float64{0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8191, 16383, 32767, 65535}
	times := prometheus.ExponentialBuckets(.00025, 2, 16)
	m := &Metrics{
		requests:     counters("dns_requests_total", "Questions that came in.", "server", "zone", "view", "proto", "family", "type"),
		responses:    counters("dns_responses_total", "Answers, by their code and by what knew them.", "server", "zone", "view", "rcode", "plugin"),
		duration:     histograms("dns_request_duration_seconds", "How long an answer took.", times, "server", "zone", "view"),
		requestSize:  histograms("dns_request_size_bytes", "Size of questions.", sizes, "server", "zone", "view", "proto"),
		responseSize: histograms("dns_response_size_bytes", "Size of answers.", sizes, "server", "zone", "view", "proto"),
		panics:       counter("panics_total", "Questions whose answer failed by a fault of this program."),
		upstream:     histograms("proxy_request_duration_seconds", "How long upstream servers took.", times, "proxy_name", "to", "rcode"),
		unhealthy:    counters("proxy_healthcheck_failures_total", "Probes of upstream servers that failed.", "proxy_name", "to"),
		broken:       counter("forward_healthcheck_broken_total", "Questions for which there was no upstream server that answers."),
		rejects:      counter("forward_max_concurrent_rejects_total", "Questions turned down because too many waited for upstream servers."),
		hits:         counters("cache_hits_total", "Answers of upstream servers that were remembered.", "type"),
		misses:       counter("cache_misses_total", "Answers of upstream servers that were not remembered."),
		entries:      prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "coredns", Name: "cache_entries", Help: "Answers of upstream servers that are remembered."}),
		programming:  histograms("kubernetes_dns_programming_duration_seconds", "Time from a change of endpoints to their being answered.", prometheus.ExponentialBuckets(.001, 2, 20), "service_kind"),
		refused:      counter("tcp_connections_rejected_total", "TCP connections turned down because there were too many."),
	}
	m.collectors = []prometheus.Collector{
		m.requests, m.responses, m.duration, m.requestSize, m.responseSize, m.panics, m.upstream, m.unhealthy,
		m.broken, m.rejects, m.hits, m.misses, m.entries, m.programming, m.refused,
	}
	return m
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "coredns", Name: name, Help: help})
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "coredns", Name: name, Help: help}, labels)
}

func histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "coredns", Name: name, Help: help, Buckets: buckets}, labels)
}

// Describe is part of prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.collectors {
		c.Describe(ch)
	}
}

// Collect is part of prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.collectors {
		c.Collect(ch)
	}
}

// hit counts an answer that was remembered.
func (m *Metrics) hit(answer *dns.Msg) {
	kind := "success"
	if answer.Rcode != dns.RcodeSuccess || len(answer.Answer) == 0 {
		kind = "denial"
	}
	m.hits.WithLabelValues(kind).Inc()
}

// programmed counts how long it took until a change of endpoints came here.
func (m *Metrics) programmed(s *discoveryv1.EndpointSlice) {
	at, err := time.Parse(time.RFC3339Nano, s.Annotations[corev1.EndpointsLastChangeTriggerTime])
	if err != nil {
		return // nobody said when
	}
	kind := "cluster_ip"
	if _, headless := s.Labels[corev1.IsHeadlessService]; headless {
		kind = "headless_with_selector"
	}
	m.programming.WithLabelValues(kind).Observe(time.Since(at).Seconds())
}

// counted are the types that questions are counted by; all others are one.
var counted = map[uint16]bool{
	dns.TypeA: true, dns.TypeAAAA: true, dns.TypeSRV: true, dns.TypePTR: true, dns.TypeCNAME: true, dns.TypeTXT: true, dns.TypeSOA: true,
	dns.TypeNS: true, dns.TypeMX: true, dns.TypeHTTPS: true, dns.TypeSVCB: true, dns.TypeDS: true, dns.TypeDNSKEY: true, dns.TypeANY: true,
}

func rtype(t uint16) string {
	if counted[t] {
		return dns.TypeToString[t]
	}
	return "other"
}

func rcode(code int) string {
	if s, ok := dns.RcodeToString[code]; ok {
		return s
	}
	return "other"
}

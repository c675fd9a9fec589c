package server

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/knarr-dev/knarr/registry"
)

// Metrics are what the server counts of requests, under the stock server's
// names.
var (
	requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_request_total",
		Help: "Requests by verb, kind, scope, component and the code they were answered with.",
	}, []string{"verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code"})
	durations = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "apiserver_request_duration_seconds",
		Help:    "How long requests with an end took.",
		Buckets: []float64{.005, .025, .05, .1, .2, .4, .6, .8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60},
	}, []string{"verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"})
	longs = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "apiserver_longrunning_requests",
		Help: "Requests without an end that are being served.",
	}, []string{"verb", "group", "version", "resource", "subresource", "scope", "component"})
)

// Metrics returns what is to be registered for the metrics of all servers.
func Metrics() []prometheus.Collector { return []prometheus.Collector{requests, durations, longs} }

// series are the labels that all metrics of a request have.
func series(req *registry.Request, dryRun string) []string {
	scope := "cluster"
	switch {
	case !req.Resource:
		scope = ""
	case req.Name != "":
		scope = "resource"
	case req.Namespace != "":
		scope = "namespace"
	}
	return []string{verbLabel(req.Verb), dryRun, req.Group, req.Version, req.Plural, req.Sub, scope, "apiserver"}
}

// longSeries are the labels of a request without an end.
func longSeries(req *registry.Request) []string {
	all := series(req, "")
	return append(all[:1:1], all[2:]...)
}

// verbLabel is the verb as the metrics have it.
func verbLabel(verb string) string {
	switch verb {
	case "create":
		return "POST"
	case "update":
		return "PUT"
	case "patch":
		return "PATCH"
	case "get":
		return "GET"
	case "list":
		return "LIST"
	case "watch":
		return "WATCH"
	case "delete":
		return "DELETE"
	case "deletecollection":
		return "DELETECOLLECTION"
	}
	return "other"
}

// count notes how a request was answered.
func (s *Server) count(req *registry.Request, out *recorder) {
	known := !req.Resource
	if req.Resource {
		_, known = s.routes.Load().forms[gvr(req)]
	}
	if !known {
		// Names that clients make up must not make series.
		req = &registry.Request{Verb: req.Verb}
	}
	values := series(req, "")
	requests.WithLabelValues(append(values, strconv.Itoa(out.code))...).Inc()
	if !longRunning(req) {
		durations.WithLabelValues(values...).Observe(time.Since(out.began).Seconds())
	}
}

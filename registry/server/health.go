package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/apimachinery/pkg/version"
)

// A Check is one thing that must be well for the server to be.
type Check struct {
	Name  string
	Probe func(r *http.Request) error
	// Ready makes it count for readyz only: a server that is not ready need
	// not be started again.
	Ready bool
}

// Health returns the handlers of healthz, livez and readyz, for Config.Paths.
func Health(checks []Check) map[string]http.Handler {
	paths := map[string]http.Handler{}
	for _, name := range []string{"healthz", "livez", "readyz"} {
		var counted []Check
		for _, c := range checks {
			if !c.Ready || name == "readyz" {
				counted = append(counted, c)
				paths["/"+name+"/"+c.Name] = health(c.Name, []Check{c})
			}
		}
		paths["/"+name] = health(name, counted)
	}
	return paths
}

// health answers ok where all checks are, and else says which are not. Why
// they are not is logged: who asks may be anybody.
func health(name string, checks []Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var report bytes.Buffer
		var failed []string
		exclude := r.URL.Query()["exclude"]
		for _, c := range checks {
			if slices.Contains(exclude, c.Name) {
				fmt.Fprintf(&report, "[+]%s excluded: ok\n", c.Name)
				continue
			}
			if err := c.Probe(r); err != nil {
				slog.WarnContext(r.Context(), "health check failed", "check", c.Name, "err", err)
				fmt.Fprintf(&report, "[-]%s failed: reason withheld\n", c.Name)
				failed = append(failed, c.Name)
				continue
			}
			fmt.Fprintf(&report, "[+]%s ok\n", c.Name)
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, verbose := r.URL.Query()["verbose"]
		switch {
		case len(failed) > 0:
			http.Error(w, fmt.Sprintf("%s%s check failed", report.String(), name), http.StatusInternalServerError)
		case verbose:
			fmt.Fprintf(w, "%s%s check passed\n", report.String(), name)
		default:
			fmt.Fprint(w, "ok")
		}
	})
}

// Version returns the handler of /version.
func Version(info version.Info) http.Handler {
	text, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		panic(err) // plain strings always encode
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text) // nobody is left to tell
	})
}

// MetricsHandler serves what reg gathers as Prometheus reads it.
func MetricsHandler(reg *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

// Index returns the handler of the root path, which lists all paths.
func (s *Server) Index() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var paths []string
		for _, all := range []map[string]http.Handler{s.Paths, s.routes.Load().paths} {
			for p := range all {
				if p != "" {
					paths = append(paths, p)
				}
			}
		}
		slices.Sort(paths)
		text, err := json.MarshalIndent(map[string][]string{"paths": paths}, "", "  ")
		if err != nil {
			panic(err) // plain strings always encode
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text) // nobody is left to tell
	})
}

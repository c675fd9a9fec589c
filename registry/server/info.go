package server

import (
	"net/http"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/fields"

	"github.com/knarr-dev/knarr/registry"
)

// verbs are those of the HTTP methods on one object, and on a collection.
var (
	verbs = map[string]string{
		http.MethodGet: "get", http.MethodHead: "get", http.MethodPost: "create",
		http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete",
	}
	collectionVerbs = map[string]string{
		http.MethodGet: "list", http.MethodHead: "list", http.MethodPost: "create", http.MethodDelete: "deletecollection",
	}
)

// parse finds out what r asks for. The rules are those of the stock server's
// request info, which authorization goes by.
func parse(r *http.Request) *registry.Request {
	req := &registry.Request{Path: r.URL.Path, Verb: strings.ToLower(r.Method), Agent: r.UserAgent()}
	parts := segments(r.URL.Path)
	if len(parts) < 3 {
		return req // too short for a resource
	}
	switch parts[0] {
	case "api":
		req.Version, parts = parts[1], parts[2:]
	case "apis":
		if len(parts) < 4 {
			return req
		}
		req.Group, req.Version, parts = parts[1], parts[2], parts[3:]
	default:
		return req
	}
	req.Resource = true
	watch := parts[0] == "watch"
	proxy := parts[0] == "proxy"
	if watch || proxy {
		if len(parts) < 2 {
			req.Resource = false
			return req
		}
		parts = parts[1:]
	}
	locate(req, parts)
	decideVerb(req, r, watch)
	return req
}

// locate reads namespace, plural, name and subresource from path segments.
func locate(req *registry.Request, parts []string) {
	if parts[0] == "namespaces" && len(parts) > 1 {
		req.Namespace = parts[1]
		// namespaces/x/status is a subresource, namespaces/x/pods is none.
		if len(parts) > 2 && parts[2] != "status" && parts[2] != "finalize" {
			parts = parts[2:]
		}
	}
	req.Plural = parts[0]
	if len(parts) > 1 {
		req.Name = parts[1]
	}
	if len(parts) > 2 {
		req.Sub, req.Parts = parts[2], parts[3:]
	}
}

// decideVerb names what is done, which depends on more than the method.
func decideVerb(req *registry.Request, r *http.Request, watch bool) {
	query := r.URL.Query()
	req.Labels, req.Fields = query.Get("labelSelector"), query.Get("fieldSelector")
	if req.Name != "" {
		req.Verb = verbs[r.Method]
		if watch && r.Method == http.MethodGet {
			// The old form of watching one object.
			req.Verb = "watch"
		}
		return
	}
	req.Verb = collectionVerbs[r.Method]
	if req.Verb != "list" {
		return
	}
	if name, ok := namedBy(req.Fields); ok {
		req.Name = name
	}
	if watch || truthy(query["watch"]) {
		req.Verb = "watch"
	}
}

// namedBy returns the name that a field selector asks for, if it does.
func namedBy(selector string) (string, bool) {
	if selector == "" {
		return "", false
	}
	sel, err := fields.ParseSelector(selector)
	if err != nil {
		return "", false
	}
	name, ok := sel.RequiresExactMatch("metadata.name")
	return name, ok && name != "" && !strings.ContainsAny(name, "/%")
}

// truthy reads a boolean query parameter: there is more that means yes than no.
func truthy(values []string) bool {
	if len(values) == 0 {
		return false
	}
	return !slices.Contains([]string{"false", "0"}, strings.ToLower(values[0]))
}

func segments(path string) []string {
	path = strings.Trim(path, "/")
	if path == "" {
		return nil
	}
	return strings.Split(path, "/")
}

// longRunning reports whether a request may go on without end, and so is
// neither timed nor counted among those in flight.
func longRunning(req *registry.Request) bool {
	if !req.Resource {
		return strings.HasPrefix(req.Path, "/debug/pprof/")
	}
	switch req.Sub {
	case "attach", "exec", "portforward", "proxy", "log":
		return true
	}
	return req.Verb == "watch"
}

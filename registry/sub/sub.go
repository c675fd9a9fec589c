// Package sub holds what is done rather than stored: the subresources that
// act, and the kinds that are answered and forgotten, one file each. Their
// list is in Actions' callers; what they are called and take is said in apis.
package sub

import (
	"context"
	"net/http"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/rest"
)

// An Action answers requests to a subresource, or to a kind that is not
// stored. One of Create, List and Serve is set.
type Action struct {
	Resource schema.GroupResource
	Sub      string // "" for a kind that is not stored

	// Create takes an object that was posted and returns the answer, which
	// has its kind and apiVersion set, and goes out as 201.
	Create func(ctx context.Context, c *rest.Call, obj apis.Object) (runtime.Object, error)
	New    func() apis.Object // what Create takes
	Kind   schema.GroupVersionKind
	Also   []schema.GroupVersion // others in which Kind may be posted, with the same fields

	// List makes the list of all objects of a kind that is made when it is
	// asked for.
	List func(ctx context.Context) (runtime.Object, error)

	// Serve takes over the whole request. An error that it returns goes to
	// the client, so it must not return one after it has begun to answer. The
	// request's context ends with the server, even after a hijack.
	Serve func(w http.ResponseWriter, r *http.Request, req *registry.Request) error
}

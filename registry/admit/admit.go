// Package admit is admission: rules that look at a write after it is
// authorized and before it is stored, and may change or refuse it. The
// plugins stand in one file each; their order is in Stock.
package admit

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
)

// An Operation is what a request does to its object.
type Operation string

// The operations, as AdmissionReview names them.
const (
	Create  Operation = "CREATE"
	Update  Operation = "UPDATE"
	Delete  Operation = "DELETE"
	Connect Operation = "CONNECT"
)

// A Request is a write, as admission sees it.
type Request struct {
	Operation Operation
	Kind      *apis.Definition
	Sub       string
	Namespace string
	Name      string
	Object    apis.Object    // as it would be stored; nil on Delete. Mutate may change it, or put another in its place
	Old       apis.Object    // as it is stored; nil on Create
	Connects  runtime.Object // on Connect in place of Object: a PodExecOptions and so on
	Options   runtime.Object // the client's CreateOptions, PatchOptions and so on; nil on Connect
	DryRun    bool

	// What the client has asked for, and sent: of a view, of one version of a
	// custom kind, or of a subresource.
	Resource schema.GroupVersionResource
	Sent     schema.GroupVersionKind

	// Where a plugin that asks others has changed the object, all plugins get
	// to see it once more.
	Again bool           // a plugin sets it to have another round
	Round int            // 1 in that round
	Kept  map[string]any // what plugins keep from one round to the next, by their names

	User registry.User
}

// Is reports whether the request is for the kind group/plural itself, not
// for one of its subresources.
func (r *Request) Is(group, plural string) bool {
	return r.Sub == "" && r.Kind.Group == group && r.Kind.Plural == plural
}

// A World is the objects that rules go by.
type World interface {
	// Lookup returns an object, and a NotFound Status if there is none.
	Lookup(ctx context.Context, gr schema.GroupResource, namespace, name string) (apis.Object, error)
	// Known is Lookup without asking the store for what does not seem to be there.
	Known(ctx context.Context, gr schema.GroupResource, namespace, name string) (apis.Object, error)
	All(ctx context.Context, gr schema.GroupResource, namespace string) ([]apis.Object, error)
}

// A Plugin is one rule. All of Mutate come before all of Validate; a func
// left nil has nothing to say. An error refuses the request and is what the
// client is told.
type Plugin struct {
	Name     string
	Mutate   func(ctx context.Context, w World, r *Request) error
	Validate func(ctx context.Context, w World, r *Request) error
}

// A Chain is plugins in order and the world they go by.
type Chain struct {
	World   World
	Plugins []Plugin
}

// Mutate lets the plugins change the request's object.
func (c *Chain) Mutate(ctx context.Context, r *Request) error {
	if err := c.mutate(ctx, r); err != nil || !r.Again {
		return err
	}
	r.Round++
	return c.mutate(ctx, r)
}

func (c *Chain) mutate(ctx context.Context, r *Request) error {
	for _, p := range c.Plugins {
		if p.Mutate == nil {
			continue
		}
		if err := p.Mutate(ctx, c.World, r); err != nil {
			return err
		}
	}
	return nil
}

// Validate lets the plugins refuse the request.
func (c *Chain) Validate(ctx context.Context, r *Request) error {
	for _, p := range c.Plugins {
		if p.Validate == nil {
			continue
		}
		if err := p.Validate(ctx, c.World, r); err != nil {
			return err
		}
	}
	return nil
}

package server

import (
	"context"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/rest"
	"github.com/knarr-dev/knarr/registry/sub"
	"github.com/knarr-dev/knarr/registry/wire"
)

// act has an action answer a request.
func (a *answer) act(f *rest.Form, action *sub.Action, req *registry.Request) error {
	switch {
	case action.Serve != nil:
		ctx, end := a.untilStop()
		defer end()
		return action.Serve(a.w, a.r.WithContext(ctx), req)
	case action.Objects != nil:
		return a.computed(f, action, req)
	}
	return a.create(f, action, req)
}

// untilStop is the request's context, which also ends when the server stops:
// a connection that an action has taken over is not known to net/http.
func (a *answer) untilStop() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(a.r.Context())
	go func() {
		defer cancel()
		select {
		case <-a.s.stopping:
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// create gives an action the object that was posted.
func (a *answer) create(f *rest.Form, action *sub.Action, req *registry.Request) (err error) {
	// What an action answers is not stored and has no columns to print.
	if a.f, err = negotiate(a.r, offer{media: everyMedia}); err != nil {
		return err
	}
	opts, err := a.createOptions()
	if err != nil {
		return err
	}
	kinds := []*wire.Kind{wire.NewKind(action.Kind, action.New)}
	for _, gv := range action.Also {
		kinds = append(kinds, wire.NewKind(gv.WithKind(action.Kind.Kind), action.New))
	}
	obj, err := a.decode(opts.FieldValidation, kinds...)
	if err != nil {
		return err
	}
	c := a.call(req, opts.DryRun, opts.FieldManager)
	c.Options = opts
	review := &admit.Request{
		Operation: admit.Create, Kind: f.Definition, Sub: req.Sub, Namespace: req.Namespace, Name: req.Name,
		Object: obj, Options: opts, DryRun: c.DryRun, User: req.User,
	}
	if err := a.s.rest.Admit.Mutate(a.r.Context(), review); err != nil {
		return err
	}
	if err := a.s.rest.Admit.Validate(a.r.Context(), review); err != nil {
		return err
	}
	answer, err := action.Create(a.r.Context(), c, obj)
	if err != nil {
		return err
	}
	a.send(http.StatusCreated, answer)
	return nil
}

// computed reads objects that an action makes when they are asked for.
func (a *answer) computed(f *rest.Form, action *sub.Action, req *registry.Request) error {
	if err := a.negotiate(); err != nil {
		return err
	}
	_, sel, err := a.listOptions(f, req)
	if err != nil {
		return err
	}
	all, err := action.Objects(a.r.Context())
	if err != nil {
		return err
	}
	var found []*cache.Object
	for _, obj := range all {
		named := fields.Set{"metadata.name": obj.GetName(), "metadata.namespace": ""}
		switch {
		case req.Verb == "get" && obj.GetName() != req.Name:
			continue
		case req.Verb == "list" && (!sel.Labels.Matches(labels.Set(obj.GetLabels())) || !sel.Fields.Matches(named)):
			continue
		}
		o, err := encoded(f, obj)
		if err != nil {
			return err
		}
		found = append(found, o)
	}
	switch {
	case req.Verb == "list":
		a.list(f, found, wire.ListMeta{})
	case len(found) == 0:
		return apierrors.NewNotFound(f.GroupResource(), req.Name)
	default:
		a.stored(f, found[0])
	}
	return nil
}

// encoded is an object as the cache would hold it.
func encoded(f *rest.Form, obj apis.Object) (*cache.Object, error) {
	value, err := f.Wire.Encode(obj)
	if err != nil {
		return nil, err
	}
	o, err := f.Wire.Object(value, 0)
	if err != nil {
		return nil, err
	}
	return &cache.Object{Object: wire.Object{Kind: f.Wire, Raw: o.Raw}, Key: obj.GetName()}, nil
}

package server

import (
	"context"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/admit"
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
	case action.List != nil:
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
	if err := placed(obj, req.Namespace); err != nil {
		return err
	}
	review := &admit.Request{
		Operation: admit.Create, Kind: f.Definition, Sub: req.Sub, Namespace: req.Namespace, Name: req.Name,
		Object: obj, Options: opts, DryRun: c.DryRun, User: req.User,
		Resource: f.Wire.GroupVersion().WithResource(f.Plural), Sent: action.Kind,
	}
	if err := a.s.rest.Admit.Mutate(a.r.Context(), review); err != nil {
		return err
	}
	if err := a.s.rest.Admit.Validate(a.r.Context(), review); err != nil {
		return err
	}
	answer, err := action.Create(a.r.Context(), c, review.Object)
	if err != nil {
		return err
	}
	a.send(http.StatusCreated, answer)
	return nil
}

// placed makes a posted object be in the namespace that it was posted to.
func placed(obj apis.Object, namespace string) error {
	if ns := obj.GetNamespace(); ns != "" && ns != namespace && namespace != "" {
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	obj.SetNamespace(namespace)
	return nil
}

// computed reads objects that an action makes when they are asked for.
func (a *answer) computed(f *rest.Form, action *sub.Action, req *registry.Request) error {
	if err := a.negotiate(f); err != nil {
		return err
	}
	_, sel, err := a.listOptions(f, req)
	if err != nil {
		return err
	}
	list, err := action.List(a.r.Context())
	if err != nil {
		return err
	}
	items, err := meta.ExtractList(list)
	if err != nil {
		return err
	}
	found := []runtime.Object{}
	for _, item := range items {
		obj := item.(apis.Object)
		obj.GetObjectKind().SetGroupVersionKind(f.Wire.GroupVersionKind)
		named := fields.Set{"metadata.name": obj.GetName(), "metadata.namespace": ""}
		switch {
		case req.Verb == "get" && obj.GetName() == req.Name:
			a.written(f, http.StatusOK, obj)
			return nil
		case req.Verb == "list" && sel.Labels.Matches(labels.Set(obj.GetLabels())) && sel.Fields.Matches(named):
			found = append(found, obj)
		}
	}
	switch {
	case req.Verb == "get":
		// As upstream: here the singular stands where errors else have the plural.
		return apierrors.NewNotFound(schema.GroupResource{Group: f.Group, Resource: strings.ToLower(f.Kind.GroupVersionKind.Kind)}, req.Name)
	case a.f.shape != whole:
		return a.shaped(f, metav1.ListMeta{}, func(yield func(apis.Object, error) bool) {
			for _, obj := range found {
				if !yield(obj.(apis.Object), nil) {
					return
				}
			}
		})
	}
	for _, obj := range found {
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{}) // which a list says for all
	}
	if err := meta.SetList(list, found); err != nil {
		return err
	}
	list.GetObjectKind().SetGroupVersionKind(f.Wire.GroupVersion().WithKind(f.Wire.GroupVersionKind.Kind + "List"))
	a.send(http.StatusOK, list)
	return nil
}

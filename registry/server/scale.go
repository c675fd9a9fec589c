package server

import (
	"fmt"
	"net/http"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/rest"
)

// doScale does a verb on the scale of an object.
func (a *answer) doScale(f *rest.Form, req *registry.Request) (err error) {
	if a.f, err = negotiate(a.r, offer{media: everyMedia}); err != nil {
		return err
	}
	switch req.Verb {
	case "get":
		return a.getScale(f, req)
	case "update":
		return a.putScale(f, req)
	case "patch":
		p, c, err := a.patch(f, req)
		if err != nil {
			return err
		}
		w, err := f.PatchScale(a.r.Context(), c, p)
		if err != nil {
			return err
		}
		a.send(http.StatusOK, f.ScaleOf(w.Object))
		return nil
	}
	return notAllowed()
}

func (a *answer) getScale(f *rest.Form, req *registry.Request) error {
	o, err := f.Get(a.r.Context(), req.Namespace, req.Name, a.r.URL.Query().Get("resourceVersion"))
	if err != nil {
		return err
	}
	obj, err := f.Decode(o)
	if err != nil {
		return err
	}
	if f.Scale.Wanted(obj) == nil {
		return apierrors.NewInternalError(fmt.Errorf("the spec replicas field %q does not exist", "."+f.Scale.Path))
	}
	a.send(http.StatusOK, f.ScaleOf(obj))
	return nil
}

func (a *answer) putScale(f *rest.Form, req *registry.Request) error {
	opts, err := a.updateOptions()
	if err != nil {
		return err
	}
	in, err := a.decode(opts.FieldValidation, rest.ScaleKind)
	if err != nil {
		return err
	}
	c := a.call(req, opts.DryRun, opts.FieldManager)
	c.Options = opts
	w, err := f.Rescale(a.r.Context(), c, in.(*autoscalingv1.Scale))
	if err != nil {
		return err
	}
	a.send(http.StatusOK, f.ScaleOf(w.Object))
	return nil
}

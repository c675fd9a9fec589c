package server

import (
	"net/http"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/sub"
	"github.com/knarr-dev/knarr/registry/wire"
)

// act has an action answer a request.
func (a *answer) act(action *sub.Action, req *registry.Request) (err error) {
	if action.Serve != nil {
		return action.Serve(a.w, a.r, req)
	}
	// What an action answers is not stored and has no columns to print.
	if a.f, err = negotiate(a.r, offer{media: everyMedia}); err != nil {
		return err
	}
	opts, err := a.createOptions()
	if err != nil {
		return err
	}
	obj, err := a.decode(wire.NewKind(action.Kind, action.New), opts.FieldValidation)
	if err != nil {
		return err
	}
	c := a.call(req, opts.DryRun, opts.FieldManager)
	c.Options = opts
	answer, err := action.Create(a.r.Context(), c, obj)
	if err != nil {
		return err
	}
	a.send(http.StatusCreated, answer)
	return nil
}

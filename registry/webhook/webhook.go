// Package webhook asks the webhooks of the cluster about writes: those that
// may change an object, one after the other, and those that may refuse it, all
// at once. Which are meant is for package match to say, and package hook
// reaches them.
package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/match"
	"github.com/knarr-dev/knarr/registry/rest"
	"github.com/knarr-dev/knarr/registry/world"
)

// A Config is what webhooks are asked with.
type Config struct {
	Service *rest.Service
	World   *world.World
	May     match.Allower // what their conditions go by
}

// Mutating is the plugin that asks webhooks which may change objects.
func Mutating(cfg Config) admit.Plugin {
	m := &mutating{asker{cfg, newSource(cfg, mutatingConfigurations)}}
	return admit.Plugin{Name: "MutatingAdmissionWebhook", Mutate: m.mutate}
}

// Validating is the plugin that asks webhooks which may refuse requests.
func Validating(cfg Config) admit.Plugin {
	v := &validating{asker{cfg, newSource(cfg, validatingConfigurations)}}
	return admit.Plugin{Name: "ValidatingAdmissionWebhook", Validate: v.validate}
}

// An asker asks the webhooks of one kind of configuration.
type asker struct {
	Config

	source *source
}

// hooks are those that might be asked about a request.
func (a *asker) hooks(ctx context.Context, r *admit.Request) ([]*webhook, error) {
	all, err := a.source.current(ctx)
	if err != nil || len(all) == 0 || match.Exempt(r) || match.Own(ctx) {
		return nil, err
	}
	return all, nil
}

// meant returns the request as a webhook is to see it, nil if it is not meant.
func (a *asker) meant(ctx context.Context, h *webhook, r *admit.Request) (*match.Seen, error) {
	as, err := h.criteria.Match(ctx, a.Service, a.World, r)
	if err != nil || as == nil {
		return nil, err
	}
	seen, err := as.See(a.Service, r)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if len(h.conditions) == 0 {
		return seen, nil
	}
	holds, err := a.hold(ctx, h, seen)
	switch {
	case err != nil && !h.ignore:
		return nil, apierrors.NewForbidden(r.Kind.GroupResource(), r.Name, err)
	case err != nil || !holds:
		return nil, nil //nolint:nilerr // such a webhook is passed over where it cannot be told
	}
	return seen, nil
}

// hold reports whether a webhook's conditions hold of what it would see.
func (a *asker) hold(ctx context.Context, h *webhook, seen *match.Seen) (bool, error) {
	vars, err := seen.Vars(a.May)
	if err != nil {
		return false, err
	}
	return h.conditions.Hold(ctx, vars)
}

// unreached is an error in calling a webhook, which may not matter.
type unreached struct {
	hook string
	err  error
}

// Error is part of error. Clients go by its words.
func (u *unreached) Error() string {
	return fmt.Sprintf("failed calling webhook %q: %v", u.hook, u.err)
}

// Unwrap is for errors.Is.
func (u *unreached) Unwrap() error { return u.err }

// judge is what an error in asking a webhook comes to, nil where it is to be
// ignored. The key is where the audit log is told so.
func judge(ctx context.Context, h *webhook, key string, err error) error {
	u, ok := errors.AsType[*unreached](err)
	switch {
	case !ok:
		return err
	case !h.ignore:
		return apierrors.NewInternalError(u)
	case ctx.Err() != nil:
		return apierrors.NewTimeoutError("request did not complete within requested timeout", 0)
	}
	slog.WarnContext(ctx, "go on without a webhook", "webhook", h.name, "configuration", h.configuration, "err", u.err)
	registry.RequestOf(ctx).Annotate(key, h.name)
	return nil
}

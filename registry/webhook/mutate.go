package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/match"
)

type mutating struct{ asker }

// asked is what is remembered of a request from one round to the next.
type asked struct {
	since map[*webhook]bool // asked, and to be asked again if something changes
	due   map[*webhook]bool // to be asked again
	last  apis.Object       // as the webhooks have left it
}

// changed makes those be asked again that have not seen what has changed.
func (a *asked) changed() {
	for h := range a.since {
		a.due[h] = true
	}
	clear(a.since)
}

// mutate asks the webhooks that are meant, one after the other. In a second
// round it asks those again that want it, if they have not seen all that has
// changed.
func (m *mutating) mutate(ctx context.Context, _ admit.World, r *admit.Request) error {
	hooks, err := m.hooks(ctx, r)
	if err != nil || len(hooks) == 0 {
		return err
	}
	before, known := r.Kept["webhooks"].(*asked)
	if !known {
		before = &asked{since: map[*webhook]bool{}, due: map[*webhook]bool{}}
	}
	if r.Round > 0 && known && !apis.Equal(before.last, r.Object) {
		before.changed()
	}
	some := known
	for i, h := range hooks {
		if r.Round > 0 && !before.due[h] {
			continue
		}
		seen, err := m.meant(ctx, h, r)
		if err != nil {
			return err
		}
		if seen == nil {
			continue
		}
		some = true
		if err := m.one(ctx, h, i, seen, r, before); err != nil {
			return err
		}
	}
	if some && r.Object != nil {
		if r.Kept == nil {
			r.Kept = map[string]any{}
		}
		before.last, _ = r.Object.DeepCopyObject().(apis.Object)
		r.Kept["webhooks"] = before
	}
	return nil
}

// one asks one webhook and does what it wants done.
func (m *mutating) one(ctx context.Context, h *webhook, i int, seen *match.Seen, r *admit.Request, before *asked) error {
	key := fmt.Sprintf("mutation.webhook.admission.k8s.io/round_%d_index_%d", r.Round, i)
	was := r.Object
	answer, err := h.ask(ctx, seen, patched)
	if err == nil && answer.Patch != nil {
		err = patch(h, seen, answer)
	}
	changed := r.Object != was && !apis.Equal(r.Object, was)
	h.note(ctx, key, changed)
	if changed {
		before.changed()
		r.Again = true
	}
	if h.again {
		before.since[h] = true
	}
	return judge(ctx, h, "failed-open."+key, err)
}

// note tells the audit log what a webhook has done.
func (h *webhook) note(ctx context.Context, key string, mutated bool) {
	text, err := json.Marshal(struct {
		Configuration string `json:"configuration"`
		Webhook       string `json:"webhook"`
		Mutated       bool   `json:"mutated"`
	}{h.configuration, h.name, mutated})
	if err == nil {
		registry.RequestOf(ctx).Annotate(key, string(text))
	}
}

// patched demands an answer that says how it is to be read.
func patched(r *admissionv1.AdmissionResponse) error {
	switch {
	case len(r.Patch) > 0 && r.PatchType == nil:
		return errors.New("webhook returned response.patch but not response.patchType")
	case len(r.Patch) == 0 && r.PatchType != nil:
		return errors.New("webhook returned response.patchType but not response.patch")
	case r.PatchType != nil && *r.PatchType == "":
		return fmt.Errorf("webhook returned invalid response.patchType of %q", *r.PatchType)
	}
	return nil
}

// patch changes the request's object as the webhook wants it.
func patch(h *webhook, seen *match.Seen, answer *admissionv1.AdmissionResponse) error {
	p, err := jsonpatch.DecodePatch(answer.Patch)
	switch {
	case err != nil:
		return &unreached{h.name, fmt.Errorf("received undecodable patch in webhook response: %w", err)}
	case len(p) == 0:
		return nil
	case seen.Object == nil:
		return apierrors.NewInternalError(fmt.Errorf("admission webhook %q attempted to modify the object, which is not supported for this operation", h.name))
	case answer.PatchType != nil && *answer.PatchType != admissionv1.PatchTypeJSONPatch:
		return &unreached{h.name, fmt.Errorf("unsupported patch type %q", *answer.PatchType)}
	}
	text, err := json.Marshal(seen.Object)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if text, err = p.Apply(text); err != nil {
		return apierrors.NewInternalError(err)
	}
	if err := seen.Take(text); err != nil {
		return apierrors.NewInternalError(err)
	}
	return nil
}

package webhook

import (
	"context"
	"errors"
	"fmt"
	"sync"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/match"
)

type validating struct{ asker }

// validate asks all webhooks that are meant, at once. Of several refusals the
// client is told the first in order.
func (v *validating) validate(ctx context.Context, _ admit.World, r *admit.Request) error {
	hooks, err := v.hooks(ctx, r)
	if err != nil || len(hooks) == 0 {
		return err
	}
	type question struct {
		hook *webhook
		seen *match.Seen
	}
	var all []question
	for _, h := range hooks {
		seen, err := v.meant(ctx, h, r)
		if err != nil {
			return err
		}
		if seen != nil {
			all = append(all, question{h, seen})
		}
	}
	errs := make([]error, len(all))
	var wait sync.WaitGroup
	for i, q := range all {
		wait.Go(func() {
			key := fmt.Sprintf("failed-open.validating.webhook.admission.k8s.io/round_0_index_%d", i)
			_, err := q.hook.ask(ctx, q.seen, unpatched)
			errs[i] = judge(ctx, q.hook, key, err)
		})
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// unpatched demands an answer that changes nothing.
func unpatched(r *admissionv1.AdmissionResponse) error {
	switch {
	case len(r.Patch) > 0:
		return errors.New("validating webhook may not return response.patch")
	case r.PatchType != nil:
		return errors.New("validating webhook may not return response.patchType")
	}
	return nil
}

package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	celconfig "k8s.io/apiserver/pkg/apis/cel"

	"github.com/knarr-dev/knarr/apis/expression"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/match"
)

type validating struct{ judge }

// A verdict is what a policy has against a request.
type verdict struct {
	index  int // of the validation
	text   string
	reason metav1.StatusReason
}

// validate tries all policies that are meant. The first that denies is the
// one that the client is told of.
func (v *validating) validate(ctx context.Context, _ admit.World, r *admit.Request) error {
	tries, faults, err := v.tries(ctx, r)
	if err != nil || len(tries)+len(faults) == 0 {
		return err
	}
	var denied *fault
	deny := func(f fault) {
		if denied == nil {
			denied = &f
		}
	}
	for _, f := range faults {
		if !f.policy.ignore {
			deny(f)
		}
	}
	notes := notes{}
	for i := range tries {
		found, err := v.one(ctx, &tries[i], r, notes)
		if err != nil {
			return err
		}
		if found != nil {
			deny(*found)
		}
	}
	notes.publish(ctx)
	if denied == nil {
		return nil
	}
	return denied.refusal(r)
}

// one tries one policy, and returns why the request is to be refused, nil
// where it is not.
func (v *validating) one(ctx context.Context, t *try, r *admit.Request, notes notes) (denied *fault, err error) {
	vars, err := v.vars(t, r)
	if err != nil {
		return nil, err
	}
	var verdicts []verdict
	var unnoted []error
	switch ok, err := t.holds(ctx, vars); {
	case err != nil:
		verdicts = []verdict{{0, err.Error(), metav1.StatusReasonInvalid}}
	case ok:
		if vars[expression.NamespaceObject], err = v.namespace(ctx, r); err != nil {
			return nil, err
		}
		verdicts = t.verdicts(ctx, vars)
		unnoted = t.note(ctx, vars, notes)
	}
	for _, verdict := range verdicts {
		if t.act(ctx, verdict) && denied == nil {
			denied = &fault{t.policy, t.binding, errors.New(verdict.text), verdict.reason}
		}
	}
	if len(unnoted) > 0 && denied == nil {
		denied = &fault{t.policy, t.binding, unnoted[0], ""}
	}
	return denied, nil
}

// vars are the variables of a policy's conditions.
func (j *judge) vars(t *try, r *admit.Request) (match.Vars, error) {
	seen, err := t.as.See(j.Service, r)
	if err != nil {
		return nil, err
	}
	return seen.Vars(j.May)
}

// refusal is the error that the client gets.
func (f *fault) refusal(r *admit.Request) error {
	text := fmt.Sprintf("ValidatingAdmissionPolicy '%s' denied request: %v", f.policy.name, f.err)
	if f.binding != nil {
		text = fmt.Sprintf("ValidatingAdmissionPolicy '%s' with binding '%s' denied request: %v", f.policy.name, f.binding.name, f.err)
	}
	err := admit.Forbidden(r, errors.New(text))
	err.ErrStatus.Reason, err.ErrStatus.Code = metav1.StatusReasonInvalid, http.StatusUnprocessableEntity
	if code, ok := codes[f.reason]; ok {
		err.ErrStatus.Reason, err.ErrStatus.Code = f.reason, code
	}
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Message: text})
	return err
}

var codes = map[metav1.StatusReason]int32{
	metav1.StatusReasonForbidden: http.StatusForbidden, metav1.StatusReasonUnauthorized: http.StatusUnauthorized,
	metav1.StatusReasonRequestEntityTooLarge: http.StatusRequestEntityTooLarge,
}

// verdicts are what a policy has against what it sees.
func (t *try) verdicts(ctx context.Context, vars match.Vars) (all []verdict) {
	failed := func(i int, err error) {
		if !t.policy.ignore {
			all = append(all, verdict{i, err.Error(), metav1.StatusReasonInvalid})
		}
	}
	budget := int64(celconfig.RuntimeCELCostBudget)
	with := t.with(vars)
	t.policy.composed.in(ctx, with, &budget)
	results, err := t.evaluated(ctx, with, &budget)
	if err != nil {
		failed(0, err)
		return all
	}
	for i, res := range results {
		val := &t.policy.validations[i]
		switch {
		case res.err != nil:
			failed(i, res.err)
		case res.val != types.True:
			text, err := val.explain(ctx, with, &budget)
			if err != nil {
				failed(i, err)
				continue
			}
			all = append(all, verdict{i, text, val.reason})
		}
	}
	return all
}

// A result is the value of a validation, or why it has none.
type result struct {
	val ref.Val
	err error
}

func (t *try) evaluated(ctx context.Context, vars match.Vars, budget *int64) ([]result, error) {
	results := make([]result, len(t.policy.validations))
	for i := range t.policy.validations {
		val, err := t.policy.validations[i].evaluate(ctx, vars, budget)
		if errors.Is(err, match.ErrBudget) {
			return nil, err
		}
		results[i] = result{val, err}
	}
	return results, nil
}

// explain is what the client is told of a validation that does not hold.
func (v *validation) explain(ctx context.Context, vars match.Vars, budget *int64) (string, error) {
	text := ""
	if v.computesMessage {
		val, err := v.messageFormula.evaluate(ctx, vars, budget)
		if errors.Is(err, match.ErrBudget) {
			return "", fmt.Errorf("failed messageExpression: %w", err)
		}
		if err == nil {
			text, _ = val.Value().(string)
			text = strings.TrimSpace(text)
		}
		if len(text) > celconfig.MaxEvaluatedMessageExpressionSizeBytes || strings.Contains(text, "\n") {
			text = ""
		}
	}
	if text == "" {
		text = v.message
	}
	if text == "" {
		text = "failed expression: " + v.text
	}
	return text, nil
}

// act does what the binding wants done about a verdict, and reports whether
// that is to refuse the request.
func (t *try) act(ctx context.Context, v verdict) (deny bool) {
	for _, action := range t.binding.actions {
		switch action {
		case admissionregistrationv1.Deny:
			deny = true
		case admissionregistrationv1.Warn:
			registry.Warn(ctx, fmt.Sprintf("Validation failed for ValidatingAdmissionPolicy '%s' with binding '%s': %s", t.policy.name, t.binding.name, v.text))
		case admissionregistrationv1.Audit:
			text, err := json.Marshal([]failure{{v.text, t.policy.name, t.binding.name, v.index, t.binding.actions}})
			if err == nil {
				registry.RequestOf(ctx).Annotate("validation.policy.admission.k8s.io/validation_failure", string(text))
			}
		}
	}
	return deny
}

// A failure is a verdict as the audit log has it.
type failure struct {
	Message string                                     `json:"message"`
	Policy  string                                     `json:"policy"`
	Binding string                                     `json:"binding"`
	Index   int                                        `json:"expressionIndex"`
	Actions []admissionregistrationv1.ValidationAction `json:"validationActions"`
}

// notes are what the audit log is to be told, by key.
type notes map[string][]string

// maxNote is the most bytes of a note, so that the log stays readable.
const maxNote = 10 << 10

// note adds what a policy has to tell, and returns what is wrong with that
// where it matters.
func (t *try) note(ctx context.Context, vars match.Vars, to notes) (errs []error) {
	if len(t.policy.annotations) == 0 {
		return nil
	}
	budget := int64(celconfig.RuntimeCELCostBudget)
	with := t.with(vars)
	t.policy.composed.in(ctx, with, &budget)
	for i := range t.policy.annotations {
		a := &t.policy.annotations[i]
		val, err := a.evaluate(ctx, with, &budget)
		if err != nil {
			if !t.policy.ignore {
				errs = append(errs, err)
			}
			continue
		}
		text, _ := val.Value().(string) // or null, which is nothing
		text = strings.TrimSpace(text)
		text = text[:min(len(text), maxNote)]
		key := t.policy.name + "/" + a.key
		if text != "" && !slices.Contains(to[key], text) {
			to[key] = append(to[key], text)
		}
	}
	return errs
}

func (n notes) publish(ctx context.Context) {
	for key, texts := range n {
		registry.RequestOf(ctx).Annotate(key, strings.Join(texts, ", "))
	}
}

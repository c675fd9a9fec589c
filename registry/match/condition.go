package match

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/interpreter"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	celconfig "k8s.io/apiserver/pkg/apis/cel"

	"github.com/knarr-dev/knarr/apis/expression"
)

// Conditions are expressions that all must hold of a request that is meant.
type Conditions []condition

type condition struct {
	name string
	text string
	prog cel.Program
	err  error
}

// NewConditions compiles conditions, which have been validated. One that does
// not compile is an error whenever it is evaluated.
func NewConditions(all []admissionregistrationv1.MatchCondition, u expression.Uses) Conditions {
	var cs Conditions
	for _, c := range all {
		out := condition{name: c.Name, text: c.Expression}
		prog, err := expression.Compile(c.Expression, u, true, cel.BoolType)
		if err != nil {
			out.err = fmt.Errorf("compilation error: %w", err)
		}
		out.prog = prog
		cs = append(cs, out)
	}
	return cs
}

// Hold reports whether all conditions hold, with values for their variables.
// One that does not ends it, whatever is wrong with others.
func (cs Conditions) Hold(ctx context.Context, vars interpreter.Activation) (bool, error) {
	var errs []error
	budget := int64(celconfig.RuntimeCELCostBudgetMatchConditions)
	for i := range cs {
		c := &cs[i]
		if c.err != nil {
			errs = append(errs, c.err)
			continue
		}
		val, err := Evaluate(ctx, c.prog, c.text, vars, &budget)
		switch {
		case errors.Is(err, ErrBudget):
			return false, err
		case err != nil:
			errs = append(errs, err)
		case val == types.False:
			return false, nil
		}
	}
	return len(errs) == 0, utilerrors.NewAggregate(errs)
}

// ErrBudget is for what would cost more than there is.
var ErrBudget = errors.New("validation failed due to running out of cost budget, no further validation rules will be run")

// Evaluate runs the program of an expression and takes its cost off budget.
// Error ErrBudget means that no more is to be evaluated.
func Evaluate(ctx context.Context, p cel.Program, text string, vars interpreter.Activation, budget *int64) (ref.Val, error) {
	val, details, err := p.ContextEval(ctx, vars)
	if details == nil || details.ActualCost() == nil {
		return nil, fmt.Errorf("runtime cost could not be calculated for expression: %v, no further expression will be run: %w", text, ErrBudget)
	}
	cost := *details.ActualCost()
	if cost > uint64(max(*budget, 0)) {
		return nil, ErrBudget
	}
	*budget -= int64(cost) //nolint:gosec // it is less than the budget
	if err != nil {
		return nil, fmt.Errorf("expression '%v' resulted in error: %w", text, err)
	}
	return val, nil
}

package policy

import (
	"context"
	"fmt"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/lazy"

	"github.com/knarr-dev/knarr/apis/expression"
	"github.com/knarr-dev/knarr/registry/match"
)

// A formula is an expression that was compiled, or why it could not be.
type formula struct {
	*expression.Expression

	err error
}

func formulated(e *expression.Expression, err *expression.Error) formula {
	if err != nil {
		return formula{nil, fmt.Errorf("compilation error: %w", err)}
	}
	return formula{e, nil}
}

// evaluate is the value of an expression, whose cost comes off the budget.
func (f *formula) evaluate(ctx context.Context, vars match.Vars, budget *int64) (ref.Val, error) {
	if f.err != nil {
		return nil, f.err
	}
	val, err := match.Evaluate(ctx, f.Expression, f.Text, vars, budget)
	if *budget < 0 {
		return nil, match.ErrBudget
	}
	return val, err
}

// composed are the values of a policy's variables, by name.
type composed struct {
	declared *apiservercel.DeclType
	formulas map[string]formula
}

// in adds to vars the values of variables, each of which is found out when an
// expression asks for it, once. What that costs comes off the budget.
func (c *composed) in(ctx context.Context, vars match.Vars, budget *int64) {
	values := lazy.NewMapValue(c.declared)
	for name, f := range c.formulas {
		values.Append(name, func(*lazy.MapValue) ref.Val {
			if f.err != nil {
				return types.NewErr("composited variable %q fails to compile: %v", name, f.err)
			}
			val, details, err := f.ContextEval(ctx, vars)
			if details == nil || details.ActualCost() == nil {
				return types.NewErr("unable to calculate cost of variable %q", name)
			}
			// It may fall below nothing, which is found out by who evaluates.
			*budget -= int64(min(*details.ActualCost(), 1<<62)) //nolint:gosec // it fits
			if err != nil {
				return types.NewErr("composited variable %q fails to evaluate: %v", name, err)
			}
			return val
		})
	}
	vars[expression.Variables] = values
}

package resource

import (
	"fmt"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/dynamic-resource-allocation/cel"

	"github.com/knarr-dev/knarr/apis/check"
)

// expression demands one that can be evaluated with a device, and not at too
// great a cost. One that was stored may use what is not for new ones any more.
func expression(at check.At, text string, stored bool) {
	known := environment.NewExpressions
	if stored {
		known = environment.StoredExpressions
	}
	compiler := cel.GetCompiler(cel.Features{EnableConsumableCapacity: true})
	result := compiler.CompileCELExpression(text, cel.Options{EnvType: &known})
	switch err := result.Error; {
	case err == nil:
		if result.MaxCost > resourcev1.CELSelectorExpressionMaxCost {
			at.Forbidden("too complex, exceeds cost limit")
		}
	case err.Type == apiservercel.ErrorTypeInvalid:
		at.Invalid(text, err.Detail)
	case err.Type == apiservercel.ErrorTypeRequired:
		at.Required(err.Detail)
	default:
		at.Add(field.InternalError(at.Path(), fmt.Errorf("compile: %w", err)))
	}
}

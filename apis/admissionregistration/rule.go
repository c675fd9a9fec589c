package admissionregistration

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/cel-go/cel"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/expression"
)

var everyOperation = []admissionregistrationv1.OperationType{
	admissionregistrationv1.OperationAll, admissionregistrationv1.Connect, admissionregistrationv1.Create,
	admissionregistrationv1.Delete, admissionregistrationv1.Update,
}

// rule checks which requests are meant.
func rule(at check.At, r *admissionregistrationv1.RuleWithOperations, operations []admissionregistrationv1.OperationType) {
	ops := at.Dot("operations")
	if len(r.Operations) == 0 {
		ops.Required("")
	}
	if len(r.Operations) > 1 && slices.Contains(r.Operations, admissionregistrationv1.OperationAll) {
		ops.Invalid(r.Operations, "if '*' is present, must not specify other operations")
	}
	for i, op := range r.Operations {
		check.OneOf(ops.Index(i), op, operations...)
	}
	groups, versions := at.Dot("apiGroups"), at.Dot("apiVersions")
	wild(groups, r.APIGroups, "API groups")
	wild(versions, r.APIVersions, "API versions")
	for i, v := range r.APIVersions {
		versions.Index(i).Present(v)
	}
	resources(at.Dot("resources"), r.Resources)
	if r.Scope != nil {
		check.OneOf(at.Dot("scope"), *r.Scope, admissionregistrationv1.AllScopes, admissionregistrationv1.ClusterScope, admissionregistrationv1.NamespacedScope)
	}
}

// wild demands something, and nothing beside what stands for everything.
func wild(at check.At, given []string, what string) {
	if len(given) == 0 {
		at.Required("")
	}
	if len(given) > 1 && slices.Contains(given, "*") {
		at.Invalid(given, "if '*' is present, must not specify other "+what)
	}
}

func resources(at check.At, given []string) {
	if len(given) == 0 {
		at.Required("")
	}
	subsOf, ofAll := map[string]bool{}, map[string]bool{}
	plain := false // As upstream: the last one tells.
	for i, r := range given {
		if !at.Index(i).Present(r) {
			continue
		}
		res, sub, has := strings.Cut(r, "/")
		if !has {
			plain = r != "*"
			continue
		}
		if subsOf[res] {
			at.Index(i).Invalid(r, fmt.Sprintf("if '%s/*' is present, must not specify %s", res, r))
		}
		if ofAll[sub] {
			at.Index(i).Invalid(r, fmt.Sprintf("if '*/%s' is present, must not specify %s", sub, r))
		}
		subsOf[res] = subsOf[res] || sub == "*"
		ofAll[sub] = ofAll[sub] || res == "*"
	}
	if len(given) > 1 && slices.Contains(given, "*/*") {
		at.Invalid(given, "if '*/*' is present, must not specify other resources")
	}
	if plain && slices.Contains(given, "*") {
		at.Invalid(given, "if '*' is present, must not specify other resources without subresources")
	}
}

const maxConditions = 64

// matchConditions checks expressions that all must hold of a request that is
// meant. Those in stored have stood there before.
func matchConditions(at check.At, all []admissionregistrationv1.MatchCondition, params bool, stored check.Set[string]) {
	if len(all) > maxConditions {
		at.TooMany(len(all), maxConditions)
	}
	names := check.Set[string]{}
	for i, c := range all {
		at := at.Index(i)
		if text := strings.TrimSpace(c.Expression); text == "" {
			at.Dot("expression").Required("")
		} else {
			condition(at.Dot("expression"), text, expression.Uses{Params: params, Authorizer: true}, stored[text])
		}
		if at.Dot("name").Present(c.Name) {
			at.Dot("name").Qualified(c.Name)
		}
		if c.Name != "" && names.Twice(c.Name) {
			at.Dot("name").Duplicate(c.Name)
		}
	}
}

// condition demands an expression that holds or does not.
func condition(at check.At, text string, uses expression.Uses, stored bool) {
	_, err := expression.Compile(text, uses, stored, cel.BoolType)
	uncompiled(at, text, err)
}

func uncompiled(at check.At, text string, err *expression.Error) {
	switch {
	case err == nil:
	case err.Internal:
		at.Add(field.InternalError(at.Path(), err))
	default:
		at.Invalid(text, err.Detail)
	}
}

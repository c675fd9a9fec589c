package admissionregistration

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/cel-go/cel"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/expression"
	"github.com/knarr-dev/knarr/apis/meta"
)

// A compile compiles an expression, as expression.Compile does.
type compile func(text string, u expression.Uses, stored bool, types ...*cel.Type) (*expression.Expression, *expression.Error)

// expressions says what is wrong with one that is to be of one of some types.
func (c compile) check(at check.At, text string, u expression.Uses, stored bool, types ...*cel.Type) {
	_, err := c(text, u, stored, types...)
	uncompiled(at, text, err)
}

func defaultMatch(m *admissionregistrationv1.MatchResources) {
	if m == nil {
		return
	}
	if m.MatchPolicy == nil {
		m.MatchPolicy = new(admissionregistrationv1.Equivalent)
	}
	if m.NamespaceSelector == nil {
		m.NamespaceSelector = &metav1.LabelSelector{}
	}
	if m.ObjectSelector == nil {
		m.ObjectSelector = &metav1.LabelSelector{}
	}
	for i := range m.ResourceRules {
		defaultRule(&m.ResourceRules[i].Rule)
	}
	for i := range m.ExcludeResourceRules {
		defaultRule(&m.ExcludeResourceRules[i].Rule)
	}
}

func requiredFailurePolicy(at check.At, p *admissionregistrationv1.FailurePolicyType) {
	if p == nil {
		at.Required("")
	}
	failurePolicy(at, p)
}

// constraints checks what a policy is about, which must be something.
func constraints(at check.At, m *admissionregistrationv1.MatchResources) {
	if m == nil {
		at.Required("")
		return
	}
	matched(at, m)
	if len(m.ResourceRules) == 0 {
		at.Dot("resourceRules").Required("") // of what else would the types be known?
	}
}

// matched checks what is meant, where it is said.
func matched(at check.At, m *admissionregistrationv1.MatchResources) {
	if m == nil {
		return
	}
	if m.MatchPolicy == nil {
		at.Dot("matchPolicy").Required("")
	}
	matchPolicy(at.Dot("matchPolicy"), m.MatchPolicy)
	strictly := func(at check.At, s *metav1.LabelSelector) {
		if s == nil {
			at.Required("")
			return
		}
		meta.Selector(at, s, false)
	}
	strictly(at.Dot("namespaceSelector"), m.NamespaceSelector)
	strictly(at.Dot("objectSelector"), m.ObjectSelector)
	for i := range m.ResourceRules {
		namedRule(at.Dot("resourceRules").Index(i), &m.ResourceRules[i])
	}
	for i := range m.ExcludeResourceRules {
		namedRule(at.Dot("excludeResourceRules").Index(i), &m.ExcludeResourceRules[i])
	}
}

func namedRule(at check.At, r *admissionregistrationv1.NamedRuleWithOperations) {
	names := check.Set[string]{}
	for i, name := range r.ResourceNames {
		at := at.Dot("resourceNames").Index(i)
		meta.Segment(at, name)
		if names.Twice(name) {
			at.Duplicate(name)
		}
	}
	rule(at, &r.RuleWithOperations, everyOperation)
}

// changing are the operations that have an object to change.
var changing = []admissionregistrationv1.OperationType{
	admissionregistrationv1.OperationAll, admissionregistrationv1.Connect, admissionregistrationv1.Create, admissionregistrationv1.Update,
}

// onlyChanging demands of rules that there is something to change. As
// upstream: no rule is named where one is wrong.
func onlyChanging(at check.At, m *admissionregistrationv1.MatchResources) {
	if m == nil {
		return
	}
	for _, r := range m.ResourceRules {
		for _, op := range r.Operations {
			check.OneOf(at.Dot("resourceRules").Dot("operations"), op, changing...)
		}
	}
}

func paramKind(at check.At, k *admissionregistrationv1.ParamKind) {
	if k == nil {
		return
	}
	version := at.Dot("apiVersion")
	switch group, v, has := strings.Cut(k.APIVersion, "/"); {
	case k.APIVersion == "":
		version.Required("")
	case strings.Contains(v, "/"):
		version.Invalid(k.APIVersion, "unexpected GroupVersion string: "+k.APIVersion)
	default:
		if !has {
			group, v = "", group
		}
		if wrong := utilvalidation.IsDNS1123Subdomain(group); group != "" && len(wrong) > 0 {
			version.Invalid(group, strings.Join(wrong, ","))
		}
		if v == "" {
			version.Invalid(k.APIVersion, "version must be specified")
		} else if wrong := utilvalidation.IsDNS1035Label(v); len(wrong) > 0 {
			version.Invalid(v, strings.Join(wrong, ","))
		}
	}
	if k.Kind == "" {
		at.Dot("kind").Required("")
	} else if wrong := utilvalidation.IsDNS1035Label(strings.ToLower(k.Kind)); len(wrong) > 0 {
		at.Dot("kind").Invalid(k.Kind, "may have mixed case, but should otherwise match: "+strings.Join(wrong, ","))
	}
}

func paramRef(at check.At, r *admissionregistrationv1.ParamRef) {
	if r == nil {
		return
	}
	const either = "name and selector are mutually exclusive"
	if r.Name != "" {
		meta.Segment(at.Dot("name"), r.Name)
		if r.Selector != nil {
			at.Dot("name").Forbidden(either)
		}
	}
	if r.Selector != nil {
		meta.Selector(at.Dot("selector"), r.Selector, false)
		if r.Name != "" {
			at.Dot("selector").Forbidden(either)
		}
	}
	if r.Name == "" && r.Selector == nil {
		at.Required("one of name or selector must be specified")
	}
	action := meta.Deref(r.ParameterNotFoundAction, "")
	check.ListedChoice(at.Dot("parameterNotFoundAction"), action, admissionregistrationv1.DenyAction, admissionregistrationv1.AllowAction)
}

func policyName(at check.At, name string) {
	if at.Present(name) {
		meta.Name(at, name)
	}
}

var (
	identifier = regexp.MustCompile("^[_a-zA-Z][_a-zA-Z0-9]*$")
	reserved   = strings.Fields(`true false null in as break const continue else for function if import let loop package namespace return
		var void while`)
)

// variables checks and declares named expressions. Those in stored have stood
// there before.
func variables(at check.At, c *expression.Compiler, all []admissionregistrationv1.Variable, u expression.Uses, stored check.Set[string]) {
	for i, v := range all {
		at := at.Index(i)
		if strings.TrimSpace(v.Name) == "" {
			at.Dot("name").Required("name is not specified")
		} else if !identifier.MatchString(v.Name) || slices.Contains(reserved, v.Name) {
			at.Dot("name").Invalid(v.Name, "must be a valid CEL identifier")
		}
		if strings.TrimSpace(v.Expression) == "" {
			at.Dot("expression").Required("expression is not specified")
			continue
		}
		_, err := c.Declare(v.Name, v.Expression, u, stored[v.Expression])
		uncompiled(at.Dot("expression"), v.Expression, err)
	}
}

// unset is what columns show of what is not given.
const unset = "<unset>"

func paramKindColumn[T apis.Object](of func(T) *admissionregistrationv1.ParamKind) apis.Column[T] {
	return apis.Column[T]{Name: "ParamKind", Cell: func(obj T, _ time.Time) any {
		if k := of(obj); k != nil {
			return k.APIVersion + "/" + k.Kind
		}
		return unset
	}}
}

func paramRefColumn[T apis.Object](of func(T) *admissionregistrationv1.ParamRef) apis.Column[T] {
	return apis.Column[T]{Name: "ParamRef", Cell: func(obj T, _ time.Time) any {
		switch r := of(obj); {
		case r == nil || r.Name == "" && r.Selector == nil:
			return unset
		case r.Name != "":
			return fmt.Sprintf("%s/%s", meta.Or(r.Namespace, "*"), r.Name)
		default:
			return r.Selector.String()
		}
	}}
}

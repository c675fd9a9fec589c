package flowcontrol

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

var flowSchemas = apis.Define(apis.Resource[*flowcontrolv1.FlowSchema]{
	Plural: "flowschemas",
	Scope:  apis.Cluster,

	Default: func(s *flowcontrolv1.FlowSchema) {
		s.Spec.MatchingPrecedence = cmp.Or(s.Spec.MatchingPrecedence, 1000)
	},
	Prepare:  meta.KeepStatus[*flowcontrolv1.FlowSchema],
	Validate: validateFlowSchema,
	Spec:     func(s *flowcontrolv1.FlowSchema) any { return &s.Spec },
	Subs:     []apis.Sub[*flowcontrolv1.FlowSchema]{meta.Status(validateFlowSchemaStatus, meta.StatusMeta()...)},

	Columns: []apis.Column[*flowcontrolv1.FlowSchema]{
		{Name: "PriorityLevel", Cell: func(s *flowcontrolv1.FlowSchema, _ time.Time) any { return s.Spec.PriorityLevelConfiguration.Name }},
		{Name: "MatchingPrecedence", Cell: func(s *flowcontrolv1.FlowSchema, _ time.Time) any { return int64(s.Spec.MatchingPrecedence) }},
		{Name: "DistinguisherMethod", Cell: func(s *flowcontrolv1.FlowSchema, _ time.Time) any {
			if s.Spec.DistinguisherMethod == nil {
				return "<none>"
			}
			return string(s.Spec.DistinguisherMethod.Type)
		}},
		{Name: "Age", Cell: func(s *flowcontrolv1.FlowSchema, now time.Time) any { return apis.Age(s.CreationTimestamp, now) }},
		{Name: "MissingPL", Cell: func(s *flowcontrolv1.FlowSchema, _ time.Time) any {
			for _, c := range s.Status.Conditions {
				if c.Type == flowcontrolv1.FlowSchemaConditionDangling {
					return string(c.Status)
				}
			}
			return "?"
		}},
	},
})

func validateFlowSchema(s, _ *flowcontrolv1.FlowSchema) field.ErrorList {
	root := check.New()
	at, spec := root.Dot("spec"), &s.Spec
	precedence := at.Dot("matchingPrecedence")
	switch p := spec.MatchingPrecedence; {
	case p <= 0:
		precedence.Invalid(p, "must be a positive value")
	case p > flowcontrolv1.FlowSchemaMaxMatchingPrecedence:
		precedence.Invalid(p, fmt.Sprintf("must not be greater than %d", flowcontrolv1.FlowSchemaMaxMatchingPrecedence))
	case p == 1 && s.Name != flowcontrolv1.FlowSchemaNameExempt:
		precedence.Invalid(p, "only the schema named 'exempt' may have matchingPrecedence 1")
	}
	if m := spec.DistinguisherMethod; m != nil {
		methods := []flowcontrolv1.FlowDistinguisherMethodType{
			flowcontrolv1.FlowDistinguisherMethodByNamespaceType, flowcontrolv1.FlowDistinguisherMethodByUserType,
		}
		if kind := at.Dot("distinguisherMethod.type"); !slices.Contains(methods, m.Type) {
			kind.Add(field.NotSupported(kind.Path(), check.Bare(m), methods))
		}
	}
	if level := at.Dot("priorityLevelConfiguration.name"); spec.PriorityLevelConfiguration.Name == "" {
		level.Required("must reference a priority level")
	} else {
		meta.Name(level, spec.PriorityLevelConfiguration.Name)
	}
	for i := range spec.Rules {
		rules(at.Dot("rules").Index(i), &spec.Rules[i])
	}
	if m := mandatorySchemas[s.Name]; m != nil && !equality.Semantic.DeepEqual(spec, m) {
		at.Invalid(check.Bare(spec), "spec of '"+s.Name+"' must equal the fixed value")
	}
	conditionTypes(root.Dot("status.conditions"), s.Status.Conditions, flowSchemaCondition)
	return root.Errors()
}

func flowSchemaCondition(c flowcontrolv1.FlowSchemaCondition) string { return string(c.Type) }

func validateFlowSchemaStatus(s, _ *flowcontrolv1.FlowSchema) field.ErrorList {
	at := check.New()
	conditionTypes(at.Dot("status.conditions"), s.Status.Conditions, flowSchemaCondition)
	return at.Errors()
}

// conditionTypes demands that conditions have types, each its own.
func conditionTypes[C any](at check.At, all []C, of func(C) string) {
	seen := check.Set[string]{}
	for i, c := range all {
		at := at.Index(i).Dot("type")
		if seen.Twice(of(c)) {
			at.Duplicate(of(c))
		}
		at.Present(of(c))
	}
}

func rules(at check.At, r *flowcontrolv1.PolicyRulesWithSubjects) {
	if len(r.Subjects) == 0 {
		at.Dot("subjects").Required("subjects must contain at least one value")
	}
	for i := range r.Subjects {
		subject(at.Dot("subjects").Index(i), &r.Subjects[i])
	}
	if len(r.ResourceRules) == 0 && len(r.NonResourceRules) == 0 {
		at.Required("at least one of resourceRules and nonResourceRules has to be non-empty")
	}
	for i := range r.ResourceRules {
		resourceRule(at.Dot("resourceRules").Index(i), &r.ResourceRules[i])
	}
	for i := range r.NonResourceRules {
		urlRule(at.Dot("nonResourceRules").Index(i), &r.NonResourceRules[i])
	}
}

// subject checks who asks: one of three sorts, as the kind says.
func subject(at check.At, s *flowcontrolv1.Subject) {
	const account, user, group = flowcontrolv1.SubjectKindServiceAccount, flowcontrolv1.SubjectKindUser, flowcontrolv1.SubjectKindGroup
	if !check.OneOf(at.Dot("kind"), s.Kind, account, user, group) {
		return
	}
	sorts := []struct {
		name  string
		kind  flowcontrolv1.SubjectKind
		set   bool
		check func(at check.At)
	}{
		{"serviceAccount", account, s.ServiceAccount != nil, func(at check.At) { serviceAccount(at, s.ServiceAccount) }},
		{"user", user, s.User != nil, func(at check.At) { at.Dot("name").Present(s.User.Name) }},
		{"group", group, s.Group != nil, func(at check.At) { at.Dot("name").Present(s.Group.Name) }},
	}
	for _, sort := range sorts {
		switch at := at.Dot(sort.name); {
		case sort.kind != s.Kind:
		case sort.set:
			sort.check(at)
		default:
			at.Required(fmt.Sprintf("%s is required when subject kind is '%s'", sort.name, sort.kind))
		}
	}
	for _, sort := range sorts {
		if sort.set && sort.kind != s.Kind {
			at.Dot(sort.name).Forbidden(fmt.Sprintf("%s is forbidden when subject kind is not '%s'", sort.name, sort.kind))
		}
	}
}

func serviceAccount(at check.At, s *flowcontrolv1.ServiceAccountSubject) {
	if at.Dot("name").Present(s.Name) && s.Name != flowcontrolv1.NameAll {
		meta.Name(at.Dot("name"), s.Name)
	}
	if s.Namespace == "" {
		at.Dot("namespace").Required("must specify namespace for service account")
	} else {
		meta.Namespace(at.Dot("namespace"), s.Namespace)
	}
}

var knownVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"}

func verbs(at check.At, given []string) {
	switch {
	case len(given) == 0:
		at.Required("verbs must contain at least one value")
	case wild(at, given, "verbs"):
	case slices.ContainsFunc(given, func(v string) bool { return !slices.Contains(knownVerbs, v) }):
		at.Add(field.NotSupported(at.Path(), given, knownVerbs))
	}
}

// wild reports whether a list stands for everything. It has nothing else in
// it then.
func wild(at check.At, list []string, what string) bool {
	if !slices.Contains(list, "*") {
		return false
	}
	if len(list) > 1 {
		at.Invalid(list, "if '*' is present, must not specify other "+what)
	}
	return true
}

func resourceRule(at check.At, r *flowcontrolv1.ResourcePolicyRule) {
	verbs(at.Dot("verbs"), r.Verbs)
	if groups := at.Dot("apiGroups"); len(r.APIGroups) == 0 {
		groups.Required("resource rules must supply at least one api group")
	} else {
		wild(groups, r.APIGroups, "api groups")
	}
	if resources := at.Dot("resources"); len(r.Resources) == 0 {
		resources.Required("resource rules must supply at least one resource")
	} else {
		wild(resources, r.Resources, "resources")
	}
	namespaces := at.Dot("namespaces")
	if len(r.Namespaces) == 0 && !r.ClusterScope {
		namespaces.Required("resource rules that are not cluster scoped must supply at least one namespace")
	}
	if wild(namespaces, r.Namespaces, "namespaces") {
		return
	}
	for i, n := range r.Namespaces {
		for _, wrong := range validation.ValidateNamespaceName(n, false) {
			namespaces.Index(i).Invalid(n, "each member of this list must be '*' or a DNS-1123 label; "+wrong)
		}
	}
}

func urlRule(at check.At, r *flowcontrolv1.NonResourcePolicyRule) {
	verbs(at.Dot("verbs"), r.Verbs)
	urls := at.Dot("nonResourceURLs")
	switch {
	case len(r.NonResourceURLs) == 0:
		urls.Required("nonResourceURLs must contain at least one value")
		return
	case wild(urls, r.NonResourceURLs, "non-resource URLs"):
		return
	}
	for i, u := range r.NonResourceURLs {
		url(urls.Index(i), u)
	}
}

// url demands a path, with at most a last part that stands for all below it.
func url(at check.At, u string) {
	stars := strings.Count(u, "*")
	switch {
	case u == "":
		at.Invalid(u, "must not be empty")
	case u == "/":
	case !strings.HasPrefix(u, "/"):
		at.Invalid(u, "must start with slash")
	case strings.Contains(u, " "):
		at.Invalid(u, "must not contain white-space")
	case strings.Contains(u, "//"):
		at.Invalid(u, "must not contain double slash")
	case stars > 1 || stars == 1 && !strings.HasSuffix(u, "/*"):
		at.Invalid(u, "wildcard can only do suffix matching")
	}
}

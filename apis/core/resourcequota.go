package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

var resourceQuotas = apis.Define(apis.Resource[*corev1.ResourceQuota]{
	Plural: "resourcequotas",
	Short:  []string{"quota"},

	Default:  defaultQuota,
	Prepare:  meta.KeepStatus[*corev1.ResourceQuota],
	Validate: validateQuota,
	Warn:     warnQuota,
	Subs:     []apis.Sub[*corev1.ResourceQuota]{meta.Status(validateQuotaStatus)},
	Columns: []apis.Column[*corev1.ResourceQuota]{
		{Name: "Request", Cell: func(q *corev1.ResourceQuota, _ time.Time) any { return printQuota(q, false) }},
		{Name: "Limit", Cell: func(q *corev1.ResourceQuota, _ time.Time) any { return printQuota(q, true) }},
	},
	Lifetime: apis.Lifetime[*corev1.ResourceQuota]{ReturnsDeleted: true},
})

func printQuota(q *corev1.ResourceQuota, limits bool) string {
	var all []string
	for name, hard := range check.Sorted(q.Status.Hard) {
		if strings.HasPrefix(string(name), "limits.") == limits {
			used := q.Status.Used[name]
			all = append(all, fmt.Sprintf("%s: %s/%s", name, used.String(), hard.String()))
		}
	}
	return strings.Join(all, ", ")
}

func defaultQuota(q *corev1.ResourceQuota) {
	meta.RoundUp(q.Spec.Hard)
	meta.RoundUp(q.Status.Hard)
	meta.RoundUp(q.Status.Used)
}

func validateQuota(q, old *corev1.ResourceQuota) field.ErrorList {
	at := check.New()
	spec := at.Dot("spec")
	quotaList(spec.Dot("hard"), q.Spec.Hard)
	quotaScopes(spec.Dot("scopes"), q)
	if q.Spec.ScopeSelector != nil {
		scopeSelector(spec.Dot("scopeSelector.matchExpressions"), q)
	}
	if old != nil && !maps.Equal(scopeSet(q.Spec.Scopes), scopeSet(old.Spec.Scopes)) {
		spec.Dot("scopes").Invalid(q.Spec.Scopes, validation.FieldImmutableErrorMsg)
	}
	return at.Errors()
}

func validateQuotaStatus(q, _ *corev1.ResourceQuota) field.ErrorList {
	at := check.New()
	if q.ResourceVersion == "" {
		at.Dot("resourceVersion").Required("")
	}
	quotaList(at.Dot("status.hard"), q.Status.Hard)
	quotaList(at.Dot("status.used"), q.Status.Used)
	return at.Errors()
}

func quotaList(at check.At, list corev1.ResourceList) {
	for name, amount := range check.Sorted(list) {
		meta.QuotaResource(at.Key(string(name)), name)
		meta.Quantity(at.Key(string(name)), name, amount)
	}
}

func scopeSet(scopes []corev1.ResourceQuotaScope) map[corev1.ResourceQuotaScope]bool {
	set := map[corev1.ResourceQuotaScope]bool{}
	for _, s := range scopes {
		set[s] = true
	}
	return set
}

// Resources that a scope can be told of.
var (
	podCount   = []corev1.ResourceName{corev1.ResourcePods}
	podCompute = append([]corev1.ResourceName{
		corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory,
		corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory,
	}, podCount...)
	scopeResources = map[corev1.ResourceQuotaScope][]corev1.ResourceName{
		corev1.ResourceQuotaScopeTerminating:               podCompute,
		corev1.ResourceQuotaScopeNotTerminating:            podCompute,
		corev1.ResourceQuotaScopeNotBestEffort:             podCompute,
		corev1.ResourceQuotaScopePriorityClass:             podCompute,
		corev1.ResourceQuotaScopeCrossNamespacePodAffinity: podCompute,
		corev1.ResourceQuotaScopeBestEffort:                podCount,
		corev1.ResourceQuotaScopeVolumeAttributesClass:     {corev1.ResourcePersistentVolumeClaims, corev1.ResourceRequestsStorage},
	}
)

// scopeFits calls unfit for each limit that cannot be told by the scope. An
// unknown scope fits all.
func scopeFits(q *corev1.ResourceQuota, scope corev1.ResourceQuotaScope, unfit func()) {
	may, known := scopeResources[scope]
	for name := range q.Spec.Hard {
		if known && meta.StandardQuota(name) && !slices.Contains(may, name) {
			unfit()
		}
	}
}

func conflicting(at check.At, q *corev1.ResourceQuota, set map[corev1.ResourceQuotaScope]bool) {
	for _, pair := range [][2]corev1.ResourceQuotaScope{
		{corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort},
		{corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating},
	} {
		if set[pair[0]] && set[pair[1]] {
			at.Invalid(q.Spec.Scopes, "conflicting scopes")
		}
	}
}

func quotaScopes(at check.At, q *corev1.ResourceQuota) {
	for _, s := range q.Spec.Scopes {
		if scopeResources[s] == nil {
			at.Invalid(q.Spec.Scopes, "unsupported scope")
		}
		scopeFits(q, s, func() { at.Invalid(q.Spec.Scopes, "unsupported scope applied to resource") })
	}
	conflicting(at, q, scopeSet(q.Spec.Scopes))
}

// scopeSelector tells what is wrong with any requirement at the list, as upstream does.
func scopeSelector(at check.At, q *corev1.ResourceQuota) {
	set := map[corev1.ResourceQuotaScope]bool{}
	for _, r := range q.Spec.ScopeSelector.MatchExpressions {
		if scopeResources[r.ScopeName] == nil {
			at.Dot("scopeName").Invalid(r.ScopeName, "unsupported scope")
		}
		scopeFits(q, r.ScopeName, func() { at.Invalid(check.Bare(q.Spec.ScopeSelector), "unsupported scope applied to resource") })
		switch r.ScopeName {
		case corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort, corev1.ResourceQuotaScopeTerminating,
			corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
			if r.Operator != corev1.ScopeSelectorOpExists {
				at.Dot("operator").Invalid(r.Operator, "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, "+
					"ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity")
			}
		}
		switch r.Operator {
		case corev1.ScopeSelectorOpIn, corev1.ScopeSelectorOpNotIn:
			if len(r.Values) == 0 {
				at.Dot("values").Required("must be at least one value when `operator` is 'In' or 'NotIn' for scope selector")
			}
		case corev1.ScopeSelectorOpExists, corev1.ScopeSelectorOpDoesNotExist:
			if len(r.Values) > 0 {
				at.Dot("values").Invalid(r.Values, "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector")
			}
		default:
			at.Dot("operator").Invalid(r.Operator, "not a valid selector operator")
		}
		set[r.ScopeName] = true
	}
	conflicting(at, q, set)
}

// warnQuota warns of requests that may be more than limits.
func warnQuota(q, old *corev1.ResourceQuota) []string {
	if old != nil {
		return nil
	}
	var w check.Warnings
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceStorage, corev1.ResourceEphemeralStorage} {
		asked := "requests." + name
		request, ok := q.Spec.Hard[asked]
		if !ok && (name == corev1.ResourceCPU || name == corev1.ResourceMemory) {
			asked = name
			request, ok = q.Spec.Hard[asked]
		}
		if limit, limited := q.Spec.Hard["limits."+name]; ok && limited && request.Cmp(limit) > 0 {
			w.Add(fmt.Sprintf("ResourceQuota %s (%s) should be less than limits.%s (%s)", asked, request.String(), name, limit.String()))
		}
	}
	return w
}

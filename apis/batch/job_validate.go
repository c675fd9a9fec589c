package batch

import (
	"fmt"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/podspec"
)

// What is known of an indexed job is written down index by index: these are
// the limits of that.
const (
	manyCompletions    = 100_000 // above it, with a limit for each index:
	manyFailedIndexes  = 10_000  // no more may fail
	highParallelism    = 10_000  // and no more run at a time
	maxParallelism     = 100_000
	maxFailedIndexes   = 100_000
	maxRules           = 20
	maxExitCodes       = 255
	maxSucceededLength = 64 * 1024
	maxManagerLength   = 63
)

func indexed(s *batchv1.JobSpec) bool {
	return meta.Deref(s.CompletionMode, batchv1.NonIndexedCompletion) == batchv1.IndexedCompletion
}

func validateJob(j, old *batchv1.Job) field.ErrorList {
	at := check.New()
	var was *corev1.PodTemplateSpec
	prefixed, lenient := true, false
	if old != nil {
		was = &old.Spec.Template
		_, named := was.Labels[batchv1.JobNameLabel]
		_, owned := was.Labels[batchv1.ControllerUidLabel]
		prefixed = named && owned
		lenient = old.Spec.Selector != nil && metavalidation.LabelSelectorHasInvalidLabelValue(old.Spec.Selector)
	}
	whole := func() {
		spec(at.Dot("spec"), &j.Spec, was)
		selector(at.Dot("spec"), &j.Spec, lenient)
	}
	generated(at, j, prefixed)
	whole()
	if n := meta.Deref(j.Spec.Completions, 0); indexed(&j.Spec) && n > 0 {
		last := fmt.Sprintf("%s-%d", j.Name, n-1)
		if len(utilvalidation.IsDNS1123Label(last)) > 0 {
			at.Dot("metadata.name").Invalid(j.Name, "will not able to create pod with invalid DNS label: "+last)
		}
	}
	if old != nil {
		whole() // as upstream: all is told twice
		updateJob(at.Dot("spec"), j, old)
	}
	return at.Errors()
}

// generated demands that a selector which the client did not choose is the
// one for the job's own pods.
func generated(at check.At, j *batchv1.Job, prefixed bool) {
	if *j.Spec.ManualSelector || j.Spec.Selector == nil {
		return
	}
	want := map[string]string{}
	need := func(key, value string) {
		want[key] = value
		at := at.Dot("spec.template.metadata.labels").Key(key)
		if is, ok := j.Spec.Template.Labels[key]; !ok {
			at.Required(fmt.Sprintf("must be '%s'", value))
		} else if is != value {
			at.Invalid(j.Spec.Template.Labels, fmt.Sprintf("must be '%s'", value))
		}
	}
	for i := range nameLabels {
		if i == 0 || prefixed {
			need(uidLabels[i], string(j.UID))
			need(nameLabels[i], j.Name)
		}
	}
	if s, err := metav1.LabelSelectorAsSelector(j.Spec.Selector); err == nil && !s.Matches(labels.Set(want)) {
		at.Dot("spec.selector").Invalid(j.Spec.Selector, "`selector` not auto-generated")
	}
}

func selector(at check.At, s *batchv1.JobSpec, lenient bool) {
	if s.Selector == nil {
		at.Dot("selector").Required("")
	} else {
		meta.Selector(at.Dot("selector"), s.Selector, lenient)
	}
	if selects, err := metav1.LabelSelectorAsSelector(s.Selector); err == nil && !selects.Matches(labels.Set(s.Template.Labels)) {
		at.Dot("template.metadata.labels").Invalid(s.Template.Labels, "`selector` does not match template `labels`")
	}
}

// spec checks what holds of the jobs of a CronJob too. was is the template
// there was before, nil for none.
func spec(at check.At, s *batchv1.JobSpec, was *corev1.PodTemplateSpec) {
	check.NonNegativeIf(at.Dot("parallelism"), s.Parallelism)
	check.NonNegativeIf(at.Dot("completions"), s.Completions)
	check.NonNegativeIf(at.Dot("activeDeadlineSeconds"), s.ActiveDeadlineSeconds)
	check.NonNegativeIf(at.Dot("backoffLimit"), s.BackoffLimit)
	check.NonNegativeIf(at.Dot("ttlSecondsAfterFinished"), s.TTLSecondsAfterFinished)
	check.NonNegativeIf(at.Dot("backoffLimitPerIndex"), s.BackoffLimitPerIndex)
	if s.MaxFailedIndexes != nil {
		check.NonNegative(at.Dot("maxFailedIndexes"), *s.MaxFailedIndexes)
		if s.BackoffLimitPerIndex == nil {
			at.Dot("backoffLimitPerIndex").Required("when maxFailedIndexes is specified")
		}
	}
	if by, at := s.ManagedBy, at.Dot("managedBy"); by != nil {
		at.Add(utilvalidation.IsDomainPrefixedPath(at.Path(), *by)...)
		if len(*by) > maxManagerLength {
			at.TooLong(maxManagerLength)
		}
	}
	indexes(at, s)
	if s.PodFailurePolicy != nil {
		failurePolicy(at.Dot("podFailurePolicy.rules"), s)
	}
	if p, at := s.SuccessPolicy, at.Dot("successPolicy"); p != nil && indexed(s) {
		successPolicy(at.Dot("rules"), s)
	} else if p != nil {
		at.Invalid(check.Bare(p), "requires indexed completion mode")
	}
	if p, at := s.PodReplacementPolicy, at.Dot("podReplacementPolicy"); p != nil && s.PodFailurePolicy != nil {
		check.OneOf(at, *p, batchv1.Failed)
	} else if p != nil {
		check.OneOf(at, *p, batchv1.Failed, batchv1.TerminatingOrFailed)
	}
	podspec.ValidateTemplate(at.Dot("template"), &s.Template, was)
	switch p, at := s.Template.Spec.RestartPolicy, at.Dot("template.spec.restartPolicy"); {
	case p == corev1.RestartPolicyAlways || p == "":
		at.Required(`valid values: "OnFailure", "Never"`)
	case !check.Listed(at, p, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever):
	case s.PodFailurePolicy != nil && p != corev1.RestartPolicyNever:
		at.Invalid(p, `only "Never" is supported when podFailurePolicy is specified`)
	}
}

// indexes checks what is about the completions having numbers.
func indexes(at check.At, s *batchv1.JobSpec) {
	if s.CompletionMode != nil {
		check.Listed(at.Dot("completionMode"), *s.CompletionMode, batchv1.NonIndexedCompletion, batchv1.IndexedCompletion)
	}
	failed, parallelism := at.Dot("maxFailedIndexes"), at.Dot("parallelism")
	if s.CompletionMode == nil || *s.CompletionMode == batchv1.NonIndexedCompletion {
		if s.BackoffLimitPerIndex != nil {
			at.Dot("backoffLimitPerIndex").Invalid(*s.BackoffLimitPerIndex, "requires indexed completion mode")
		}
		if s.MaxFailedIndexes != nil {
			failed.Invalid(*s.MaxFailedIndexes, "requires indexed completion mode")
		}
	}
	if !indexed(s) {
		return
	}
	const forMany = "must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index"
	below := func(at check.At, n *int32, limit int32, detail string) {
		if n != nil && *n > limit {
			at.Invalid(*n, detail)
		}
	}
	if s.Completions == nil {
		at.Dot("completions").Required("when completion mode is Indexed")
	}
	below(parallelism, s.Parallelism, maxParallelism, "must be less than or equal to 100000 when completion mode is Indexed")
	if s.Completions != nil {
		below(failed, s.MaxFailedIndexes, *s.Completions, "must be less than or equal to completions")
	}
	below(failed, s.MaxFailedIndexes, maxFailedIndexes, "must be less than or equal to 100000")
	if meta.Deref(s.Completions, 0) <= manyCompletions || s.BackoffLimitPerIndex == nil {
		return
	}
	if s.MaxFailedIndexes == nil {
		failed.Required("must be specified when completions is above 100000")
	}
	below(parallelism, s.Parallelism, highParallelism, forMany)
	below(failed, s.MaxFailedIndexes, manyFailedIndexes, forMany)
}

// choice is check.Choice where the message for nothing names the values too.
func choice[S ~string](at check.At, s S, values ...S) {
	if s == "" {
		slices.Sort(values)
		at.Required(fmt.Sprintf("valid values: %q", values))
		return
	}
	check.OneOf(at, s, values...)
}

func failurePolicy(at check.At, s *batchv1.JobSpec) {
	rules := s.PodFailurePolicy.Rules
	if len(rules) > maxRules {
		at.TooMany(len(rules), maxRules)
	}
	names := map[string]bool{}
	for _, c := range slices.Concat(s.Template.Spec.Containers, s.Template.Spec.InitContainers) {
		names[c.Name] = true
	}
	for i := range rules {
		r, at := &rules[i], at.Index(i)
		if r.Action == batchv1.PodFailurePolicyActionFailIndex {
			if s.BackoffLimitPerIndex == nil {
				at.Dot("action").Invalid(r.Action, "requires the backoffLimitPerIndex to be set")
			}
		} else {
			choice(at.Dot("action"), r.Action, batchv1.PodFailurePolicyActionCount, batchv1.PodFailurePolicyActionFailIndex,
				batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore)
		}
		if r.OnExitCodes != nil {
			exitCodes(at.Dot("onExitCodes"), r.OnExitCodes, names)
		}
		conditions(at.Dot("onPodConditions"), r.OnPodConditions)
		switch codes, conditions := r.OnExitCodes != nil, len(r.OnPodConditions) > 0; {
		case codes && conditions:
			at.Invalid(field.OmitValueType{}, "specifying both OnExitCodes and OnPodConditions is not supported")
		case !codes && !conditions:
			at.Invalid(field.OmitValueType{}, "specifying one of OnExitCodes and OnPodConditions is required")
		}
	}
}

func conditions(at check.At, patterns []batchv1.PodFailurePolicyOnPodConditionsPattern) {
	if len(patterns) > maxRules {
		at.TooMany(len(patterns), maxRules)
	}
	for i, p := range patterns {
		at.Index(i).Dot("type").Qualified(string(p.Type))
		choice(at.Index(i).Dot("status"), p.Status, corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown)
	}
}

func exitCodes(at check.At, r *batchv1.PodFailurePolicyOnExitCodesRequirement, names map[string]bool) {
	choice(at.Dot("operator"), r.Operator, batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn)
	if r.ContainerName != nil && !names[*r.ContainerName] {
		at.Dot("containerName").Invalid(*r.ContainerName, "must be one of the container or initContainer names in the pod template")
	}
	at = at.Dot("values")
	if len(r.Values) == 0 {
		at.Invalid(r.Values, "at least one value is required")
	} else if len(r.Values) > maxExitCodes {
		at.TooMany(len(r.Values), maxExitCodes)
	}
	seen := check.Set[int32]{}
	for i, code := range r.Values {
		if r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn && code == 0 {
			at.Index(i).Invalid(code, "must not be 0 for the In operator")
		}
		if seen.Twice(code) {
			at.Index(i).Duplicate(code)
		}
	}
	if !slices.IsSorted(r.Values) {
		at.Invalid(r.Values, "must be ordered")
	}
}

func successPolicy(at check.At, s *batchv1.JobSpec) {
	rules, completions := s.SuccessPolicy.Rules, meta.Deref(s.Completions, 0)
	if len(rules) == 0 {
		at.Required("at least one rules must be specified when the successPolicy is specified")
	}
	if len(rules) > maxRules {
		at.TooMany(len(rules), maxRules)
	}
	for i, r := range rules {
		at := at.Index(i)
		if r.SucceededCount == nil && r.SucceededIndexes == nil {
			at.Required("at least one of succeededCount or succeededIndexes must be specified")
		}
		named := int32(0)
		if r.SucceededIndexes != nil {
			at := at.Dot("succeededIndexes")
			if len(*r.SucceededIndexes) > maxSucceededLength {
				at.TooLong(maxSucceededLength)
			}
			var err error
			if named, err = count(*r.SucceededIndexes, completions); err != nil {
				at.Invalid(*r.SucceededIndexes, "error parsing succeededIndexes: "+err.Error())
			}
		}
		if r.SucceededCount == nil {
			continue
		}
		n, at := *r.SucceededCount, at.Dot("succeededCount")
		check.NonNegative(at, n)
		if n > completions {
			at.Invalid(n, fmt.Sprintf("must be less than or equal to %d (the number of specified completions)", completions))
		}
		if r.SucceededIndexes != nil && n > named {
			at.Invalid(n, fmt.Sprintf("must be less than or equal to %d (the number of indexes in the specified succeededIndexes field)", named))
		}
	}
}

// updateJob demands that what a job does stays the same, but for the pods of
// one that is suspended.
func updateJob(at check.At, j, old *batchv1.Job) {
	s, was := &j.Spec, &old.Spec
	if !indexed(s) {
		at.Dot("completions").Same(s.Completions, was.Completions)
	} else if n := s.Completions; n != nil && !equality.Semantic.DeepEqual(n, was.Completions) && *n != *s.Parallelism {
		at.Dot("completions").Invalid(n, "can only be modified in tandem with "+strings.Split(at.String(), ".")[0]+".parallelism")
	}
	at.Dot("selector").Same(s.Selector, was.Selector)
	if still := meta.Deref(was.Suspend, false) && old.Status.Active == 0; still &&
		(old.Status.StartTime == nil || jobIs(old, batchv1.JobSuspended)) {
		before := butForPlaceAndSize(&was.Template.Spec, &s.Template.Spec)
		same(at.Dot("template.spec"), &s.Template.Spec, before)
	} else {
		same(at.Dot("template"), &s.Template, &was.Template)
	}
	at.Dot("completionMode").Same(s.CompletionMode, was.CompletionMode)
	same(at.Dot("podFailurePolicy"), s.PodFailurePolicy, was.PodFailurePolicy)
	at.Dot("backoffLimitPerIndex").Same(s.BackoffLimitPerIndex, was.BackoffLimitPerIndex)
	at.Dot("managedBy").Same(s.ManagedBy, was.ManagedBy)
	same(at.Dot("successPolicy"), s.SuccessPolicy, was.SuccessPolicy)
}

// same is At.Same for what messages show with the names of fields in Go.
func same(at check.At, now, was any) {
	if !equality.Semantic.DeepEqual(now, was) {
		at.Invalid(check.Bare(now), "field is immutable")
	}
}

// butForPlaceAndSize is was with all of now that a suspended job may change:
// where its pods go and how much they get.
func butForPlaceAndSize(was, now *corev1.PodSpec) *corev1.PodSpec {
	was = was.DeepCopy()
	affinity := func(s *corev1.PodSpec) corev1.Affinity { return meta.Deref(s.Affinity, corev1.Affinity{}) }
	if merged := affinity(was); was.Affinity != nil || now.Affinity != nil {
		merged.NodeAffinity = affinity(now).NodeAffinity
		was.Affinity = &merged
		if now.Affinity == nil && merged == (corev1.Affinity{}) {
			was.Affinity = nil
		}
	}
	was.NodeSelector, was.Tolerations, was.SchedulingGates = now.NodeSelector, now.Tolerations, now.SchedulingGates
	sizes := func(was, now []corev1.Container) {
		for i := range was {
			if len(was) == len(now) && was[i].Name == now[i].Name {
				was[i].Resources = now[i].Resources
			}
		}
	}
	sizes(was.Containers, now.Containers)
	sizes(was.InitContainers, now.InitContainers)
	return was
}

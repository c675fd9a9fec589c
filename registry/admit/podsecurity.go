package admit

import (
	"context"
	"errors"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
)

// podSecurity holds pods to the level of security that their namespace asks
// for, and warns of what would make pods that are not.
func podSecurity() Plugin {
	checks, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		panic(err) // the library's own checks are not valid
	}
	s := security{checks}
	return Plugin{Name: "PodSecurity", Validate: func(ctx context.Context, w World, r *Request) error {
		if r.Operation != Create && r.Operation != Update {
			return nil
		}
		switch obj := r.Object.(type) {
		case *corev1.Namespace:
			return s.namespace(ctx, w, r, obj)
		case *corev1.Pod:
			return s.pod(ctx, w, r, obj)
		}
		return s.template(ctx, w, r)
	}}
}

type security struct{ policy.Evaluator }

// unasked is what holds for a namespace that does not say.
var unasked = api.Policy{
	Enforce: api.LevelVersion{Level: api.LevelPrivileged, Version: api.LatestVersion()},
	Audit:   api.LevelVersion{Level: api.LevelPrivileged, Version: api.LatestVersion()},
	Warn:    api.LevelVersion{Level: api.LevelPrivileged, Version: api.LatestVersion()},
}

// namespace checks the labels of a namespace, and warns of pods in it that
// would not be let in any more.
func (s security) namespace(ctx context.Context, w World, r *Request, ns *corev1.Namespace) error {
	if r.Sub != "" {
		return nil
	}
	want, errs := api.PolicyToEvaluate(ns.Labels, unasked)
	if r.Operation == Create {
		if len(errs) > 0 {
			return apierrors.NewInvalid(r.Kind.GroupVersionKind.GroupKind(), r.name(), errs)
		}
		return nil
	}
	was, oldErrs := api.PolicyToEvaluate(r.Old.GetLabels(), unasked)
	if len(errs) > 0 && errs.ToAggregate().Error() != fmt.Sprint(oldErrs.ToAggregate()) {
		return apierrors.NewInvalid(r.Kind.GroupVersionKind.GroupKind(), r.name(), errs)
	}
	relaxed := want.Enforce.Version == was.Enforce.Version && api.CompareLevels(want.Enforce.Level, was.Enforce.Level) < 1
	if want.Enforce.Level == api.LevelPrivileged || relaxed {
		return nil
	}
	pods, err := w.All(ctx, schema.GroupResource{Resource: "pods"}, ns.Name)
	if err != nil {
		registry.Warn(ctx, "failed to list pods while checking new PodSecurity enforce level")
		return nil //nolint:nilerr // the namespace may be changed all the same
	}
	registry.Warn(ctx, s.unfit(ns.Name, pods, want.Enforce)...)
	return nil
}

// maxChecked is how many pods are checked when a namespace asks for more, as upstream.
const maxChecked = 3000

// unfit tells of pods that are not up to a level: of each fault the first
// pod by name and how many more there are.
func (s security) unfit(namespace string, pods []apis.Object, level api.LevelVersion) (warnings []string) {
	type faulty struct {
		first string
		count int
	}
	by := map[string]faulty{}
	total := len(pods)
	for _, obj := range representative(pods)[:min(total, maxChecked)] {
		pod := obj.(*corev1.Pod)
		result := policy.AggregateCheckResults(s.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec))
		if result.Allowed {
			continue
		}
		f := by[result.ForbiddenReason()]
		if f.count == 0 || pod.Name < f.first {
			f.first = pod.Name
		}
		f.count++
		by[result.ForbiddenReason()] = f
	}
	for reason, f := range by {
		switch f.count {
		case 1:
			warnings = append(warnings, fmt.Sprintf("%s: %s", f.first, reason))
		case 2:
			warnings = append(warnings, fmt.Sprintf("%s (and 1 other pod): %s", f.first, reason))
		default:
			warnings = append(warnings, fmt.Sprintf("%s (and %d other pods): %s", f.first, f.count-1, reason))
		}
	}
	slices.Sort(warnings)
	if len(warnings) > 0 {
		head := fmt.Sprintf("existing pods in namespace %q violate the new PodSecurity enforce level %q", namespace, level.String())
		warnings = append([]string{head}, warnings...)
	}
	if total > maxChecked {
		head := fmt.Sprintf("new PodSecurity enforce level only checked against the first %d of %d existing pods", maxChecked, total)
		warnings = append([]string{head}, warnings...)
	}
	return warnings
}

// representative puts one pod of each controller before the others, which
// most likely are like it.
func representative(pods []apis.Object) []apis.Object {
	seen := map[types.UID]bool{}
	var first, more []apis.Object
	for _, p := range pods {
		ref := metav1.GetControllerOfNoCopy(p)
		if ref != nil && seen[ref.UID] {
			more = append(more, p)
			continue
		}
		if ref != nil {
			seen[ref.UID] = true
		}
		first = append(first, p)
	}
	return append(first, more...)
}

// unaffected are subresources of pods through which their spec cannot change.
var unaffected = []string{"exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"}

// pod holds a pod to the level of its namespace.
func (s security) pod(ctx context.Context, w World, r *Request, pod *corev1.Pod) error {
	if slices.Contains(unaffected, r.Sub) {
		return nil
	}
	want, fault, err := levels(ctx, w, r)
	if err != nil {
		return err
	}
	if fault == nil && want.FullyPrivileged() {
		annotate(ctx, api.EnforcedPolicyAnnotationKey, want.Enforce.String())
		return nil
	}
	if r.Operation == Update && !otherImages(pod, r.Old.(*corev1.Pod)) {
		return nil
	}
	annotate(ctx, api.EnforcedPolicyAnnotationKey, want.Enforce.String())
	result := policy.AggregateCheckResults(s.EvaluatePod(want.Enforce, &pod.ObjectMeta, &pod.Spec))
	s.tell(ctx, want, fault, &pod.ObjectMeta, &pod.Spec, result.Allowed)
	if !result.Allowed {
		return forbid(r, "violates PodSecurity %q: %s", want.Enforce.String(), result.ForbiddenDetail())
	}
	return nil
}

// levels are what the namespace of a request asks for, and what is wrong with
// how it asks.
func levels(ctx context.Context, w World, r *Request) (api.Policy, error, error) {
	ns, err := w.Lookup(ctx, namespaces, "", r.Namespace)
	if err != nil {
		return api.Policy{}, nil, apierrors.NewInternalError(fmt.Errorf("failed to lookup namespace %q: %w", r.Namespace, err))
	}
	want, errs := api.PolicyToEvaluate(ns.GetLabels(), unasked)
	if len(errs) > 0 {
		return want, errs.ToAggregate(), nil
	}
	return want, nil, nil
}

// tell warns, and notes for the audit, of what a pod or template is not up to.
func (s security) tell(ctx context.Context, want api.Policy, fault error, meta *metav1.ObjectMeta, spec *corev1.PodSpec, warn bool) {
	if fault != nil {
		annotate(ctx, "error", fmt.Sprintf("Failed to parse policy: %v", fault))
	}
	if result := policy.AggregateCheckResults(s.EvaluatePod(want.Audit, meta, spec)); !result.Allowed {
		annotate(ctx, api.AuditViolationsAnnotationKey, fmt.Sprintf("would violate PodSecurity %q: %s", want.Audit.String(), result.ForbiddenDetail()))
	}
	if !warn {
		return // an error says it already
	}
	if result := policy.AggregateCheckResults(s.EvaluatePod(want.Warn, meta, spec)); !result.Allowed {
		registry.Warn(ctx, fmt.Sprintf("would violate PodSecurity %q: %s", want.Warn.String(), result.ForbiddenDetail()))
	}
}

func annotate(ctx context.Context, key, value string) {
	registry.RequestOf(ctx).Annotate(api.AuditAnnotationPrefix+key, value)
}

// template warns of a template whose pods would not be let in.
func (s security) template(ctx context.Context, w World, r *Request) error {
	t := templateOf(r.Object)
	if t == nil || r.Sub != "" {
		return nil
	}
	want, fault, err := levels(ctx, w, r)
	if err != nil {
		annotate(ctx, "error", errors.Unwrap(err).Error())
		return nil
	}
	if fault != nil || want.Warn.Level != api.LevelPrivileged || want.Audit.Level != api.LevelPrivileged {
		s.tell(ctx, want, fault, &t.ObjectMeta, &t.Spec, true)
	}
	return nil
}

// templateOf is the template of pods in an object, nil where it has none.
func templateOf(obj apis.Object) *corev1.PodTemplateSpec {
	switch obj := obj.(type) {
	case *corev1.PodTemplate:
		return &obj.Template
	case *corev1.ReplicationController:
		return obj.Spec.Template
	case *appsv1.ReplicaSet:
		return &obj.Spec.Template
	case *appsv1.Deployment:
		return &obj.Spec.Template
	case *appsv1.StatefulSet:
		return &obj.Spec.Template
	case *appsv1.DaemonSet:
		return &obj.Spec.Template
	case *batchv1.Job:
		return &obj.Spec.Template
	case *batchv1.CronJob:
		return &obj.Spec.JobTemplate.Spec.Template
	}
	return nil
}

// otherImages reports whether a pod has containers that it did not have, or
// that have other images: nothing else that matters can change.
func otherImages(pod, old *corev1.Pod) bool {
	images := func(p *corev1.Pod) map[string]string {
		by := map[string]string{}
		for _, late := range []bool{false, true} {
			for _, c := range containersOf(p, late) {
				by[c.what+"/"+c.Name] = c.Image
			}
		}
		return by
	}
	was := images(old)
	for name, image := range images(pod) {
		if before, ok := was[name]; !ok || before != image {
			return true
		}
	}
	return false
}

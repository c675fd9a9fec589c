package sub

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	policyv1beta1 "k8s.io/api/policy/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	pdb "k8s.io/component-helpers/apps/poddisruptionbudget"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/rest"
)

// Evictions is the action that deletes a pod if its disruption budget allows.
func Evictions(svc *rest.Service) Action {
	return Action{
		Resource: corev1.Resource("pods"), Sub: "eviction",
		Kind:   policyv1.SchemeGroupVersion.WithKind("Eviction"),
		Also:   []schema.GroupVersion{policyv1beta1.SchemeGroupVersion},
		New:    func() apis.Object { return new(policyv1.Eviction) },
		Create: evicter{svc, svc.Kind(corev1.Resource("pods")), svc.Kind(policyv1.Resource("poddisruptionbudgets"))}.evict,
	}
}

type evicter struct {
	*rest.Service

	pods, budgets *rest.Kind
}

const (
	maxDisrupted = 2000 // evictions that may wait for the disruption controller, as upstream
	evictTries   = 20   // for a pod that changes all the time
	retryAfter   = 10   // seconds until the disruption controller may have caught up
)

// evict is SR-4 of the contract.
func (e evicter) evict(ctx context.Context, c *rest.Call, obj apis.Object) (runtime.Object, error) {
	eviction := obj.(*policyv1.Eviction)
	opts, err := evictionOptions(c, eviction)
	if err != nil {
		return nil, err
	}
	call := *c
	call.Name, call.DryRun, call.Admitted, call.Sub = eviction.Name, len(opts.DryRun) > 0, true, ""
	pod, gone, err := e.evictUnguarded(ctx, &call, opts)
	if err != nil || gone {
		return done(), err
	}
	budget, err := e.budget(ctx, pod)
	if err != nil {
		return nil, err
	}
	if budget == nil {
		return done(), e.remove(ctx, &call, opts)
	}
	if spare(pod, budget) {
		// What was said of the pod and its fellows must still hold.
		err := e.remove(ctx, &call, asOf(opts, pod))
		if apierrors.IsConflict(err) && !dated(opts) {
			err = processing(budget.Name)
		}
		return done(), err
	}
	if err := e.charge(ctx, pod, budget, call.DryRun); err != nil {
		return nil, err
	}
	return done(), e.remove(ctx, &call, opts)
}

// evictionOptions are those of the eviction's deletion.
func evictionOptions(c *rest.Call, eviction *policyv1.Eviction) (*metav1.DeleteOptions, error) {
	if c.Name != eviction.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	opts := eviction.DeleteOptions
	if opts == nil {
		opts = &metav1.DeleteOptions{}
	}
	if b := opts.IgnoreStoreReadErrorWithClusterBreakingPotential; b != nil && *b {
		return nil, apierrors.NewInvalid(policyv1.SchemeGroupVersion.WithKind("Eviction").GroupKind(), c.Name, field.ErrorList{field.Invalid(
			field.NewPath("deleteOptions", "ignoreStoreReadErrorWithClusterBreakingPotential"), true, "can not be set for pod eviction, try after removing the option")})
	}
	if c.DryRun {
		all := []string{metav1.DryRunAll}
		if len(opts.DryRun) > 0 && !slices.Equal(opts.DryRun, all) {
			return nil, unexplained(fmt.Sprintf("Non-matching dry-run options in request and content: %v and %v", all, opts.DryRun))
		}
		opts.DryRun = all
	}
	if errs := validation.ValidateDeleteOptions(opts); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "DeleteOptions"}, "", errs)
	}
	return opts, nil
}

// evictUnguarded evicts a pod that no budget guards, as it does not run or
// goes already; otherwise it returns the pod.
func (e evicter) evictUnguarded(ctx context.Context, c *rest.Call, opts *metav1.DeleteOptions) (pod *corev1.Pod, gone bool, err error) {
	for range evictTries {
		if pod, err = e.pod(ctx, c); err != nil {
			return nil, false, err
		}
		ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || pod.DeletionTimestamp != nil
		if !ended && pod.Status.Phase != corev1.PodPending {
			return pod, false, nil
		}
		as := opts
		if !ended && !dated(opts) {
			as = asOf(opts, pod) // it must not begin to run meanwhile
		}
		if err = e.remove(ctx, c, as); !apierrors.IsConflict(err) || dated(opts) {
			break
		}
	}
	return nil, err == nil, err
}

// pod is the newest state of the call's pod.
func (e evicter) pod(ctx context.Context, c *rest.Call) (*corev1.Pod, error) {
	o, err := e.pods.Get(ctx, c.Namespace, c.Name, "")
	if err != nil {
		return nil, err
	}
	obj, err := o.Decode()
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Pod), nil
}

// dated reports whether the options are for one revision only.
func dated(opts *metav1.DeleteOptions) bool {
	return opts.Preconditions != nil && opts.Preconditions.ResourceVersion != nil
}

// asOf is the options for what the pod is now and nothing later.
func asOf(opts *metav1.DeleteOptions, pod *corev1.Pod) *metav1.DeleteOptions {
	opts = opts.DeepCopy()
	if opts.Preconditions == nil {
		opts.Preconditions = &metav1.Preconditions{}
	}
	opts.Preconditions.ResourceVersion = &pod.ResourceVersion
	return opts
}

// budget is the one that guards the pod, nil for none.
func (e evicter) budget(ctx context.Context, pod *corev1.Pod) (found *policyv1.PodDisruptionBudget, err error) {
	all, err := e.All(ctx, e.budgets.GroupResource(), pod.Namespace)
	if err != nil {
		return nil, err
	}
	for _, obj := range all {
		b := obj.(*policyv1.PodDisruptionBudget)
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil || !selector.Matches(labels.Set(pod.Labels)) {
			continue // as upstream: a selector that makes no sense selects nothing
		}
		if found != nil {
			return nil, unexplained("This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.")
		}
		found = b
	}
	return found, nil
}

// spare reports whether the pod may go without being counted: it is not
// healthy, so its budget does not count on it.
func spare(pod *corev1.Pod, b *policyv1.PodDisruptionBudget) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return false
		}
	}
	if p := b.Spec.UnhealthyPodEvictionPolicy; p != nil && *p == policyv1.AlwaysAllow {
		return true
	}
	return b.Status.CurrentHealthy >= b.Status.DesiredHealthy && b.Status.DesiredHealthy > 0
}

// charge takes one disruption off the budget, if there is one left.
func (e evicter) charge(ctx context.Context, pod *corev1.Pod, b *policyv1.PodDisruptionBudget, dryRun bool) error {
	// It is the server that keeps the account, not who asks for the eviction.
	ctx = registry.WithRequest(ctx, &registry.Request{User: registry.Self()})
	call := &rest.Call{Namespace: b.Namespace, Name: b.Name, Sub: "status", Manager: "kube-apiserver", DryRun: dryRun}
	_, err := e.budgets.Edit(ctx, call, func(obj apis.Object) error {
		b := obj.(*policyv1.PodDisruptionBudget)
		if err := allows(b); err != nil {
			return err
		}
		if b.Status.DisruptionsAllowed--; b.Status.DisruptionsAllowed == 0 {
			pdb.UpdateDisruptionAllowedCondition(b)
		}
		if b.Status.DisruptedPods == nil {
			b.Status.DisruptedPods = map[string]metav1.Time{}
		}
		b.Status.DisruptedPods[pod.Name] = metav1.NewTime(e.Now().Truncate(time.Second))
		return nil
	})
	return err
}

// allows tells why a budget does not allow a disruption, nil if it does.
func allows(b *policyv1.PodDisruptionBudget) error {
	gr := schema.GroupResource{Group: policyv1.GroupName, Resource: "poddisruptionbudget"}
	switch s := &b.Status; {
	case s.ObservedGeneration < b.Generation:
		return processing(b.Name)
	case s.DisruptionsAllowed < 0:
		return apierrors.NewForbidden(gr, b.Name, fmt.Errorf("pdb disruptions allowed is negative"))
	case len(s.DisruptedPods) > maxDisrupted:
		return apierrors.NewForbidden(gr, b.Name, fmt.Errorf("DisruptedPods map too big - too many evictions not confirmed by PDB controller"))
	case s.DisruptionsAllowed == 0:
		return violation(0, fmt.Sprintf("The disruption budget %s %s", b.Name, refusal(s)))
	}
	return nil
}

// refusal says why a status allows no disruption.
func refusal(s *policyv1.PodDisruptionBudgetStatus) string {
	c := meta.FindStatusCondition(s.Conditions, policyv1.DisruptionAllowedCondition)
	told := c != nil && c.Status == metav1.ConditionFalse && c.Message != ""
	switch {
	case told && c.Reason == policyv1.SyncFailedReason:
		return "does not allow evicting pods currently because it failed sync: " + c.Message
	case s.CurrentHealthy <= s.DesiredHealthy:
		return fmt.Sprintf("needs %d healthy pods and has %d currently", s.DesiredHealthy, s.CurrentHealthy)
	case told:
		return fmt.Sprintf("does not allow evicting pods currently (%s): %s", c.Reason, c.Message)
	}
	return "does not allow evicting pods currently"
}

// processing is the error of a budget whose status is not up to date.
func processing(budget string) error {
	return violation(retryAfter, fmt.Sprintf("The disruption budget %s is still being processed by the server.", budget))
}

func violation(seconds int, cause string) error {
	err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", seconds)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: cause})
	return err
}

// remove deletes the pod, and has it say first why.
func (e evicter) remove(ctx context.Context, c *rest.Call, opts *metav1.DeleteOptions) error {
	if !c.DryRun {
		w, err := e.pods.Rewrite(ctx, c, func(obj apis.Object) error {
			pod := obj.(*corev1.Pod)
			if err := precondition(pod, opts.Preconditions); err != nil {
				return err
			}
			setCondition(&pod.Status, corev1.PodCondition{
				Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(e.Now()).Rfc3339Copy(),
				Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting",
			})
			return nil
		})
		if err != nil {
			return err
		}
		if dated(opts) {
			opts = opts.DeepCopy()
			opts.Preconditions.ResourceVersion = new(w.Object.GetResourceVersion())
		}
	}
	_, err := e.pods.Delete(ctx, c, opts.DeepCopy())
	return err
}

// precondition checks that the pod is what the client wants gone.
func precondition(pod *corev1.Pod, p *metav1.Preconditions) error {
	if p == nil {
		return nil
	}
	gr := schema.GroupResource{Resource: "Pod"} // as upstream
	if p.UID != nil && *p.UID != "" && *p.UID != pod.UID {
		return apierrors.NewConflict(gr, pod.Name, fmt.Errorf(
			"the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *p.UID, pod.UID))
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != "" && *p.ResourceVersion != pod.ResourceVersion {
		return apierrors.NewConflict(gr, pod.Name, fmt.Errorf(
			"the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *p.ResourceVersion, pod.ResourceVersion))
	}
	return nil
}

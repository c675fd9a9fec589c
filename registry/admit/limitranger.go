package admit

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
	resources "k8s.io/component-helpers/resource"
)

// limitRanger gives containers what the limit ranges of their namespace say
// that they get, and refuses what those do not let be.
func limitRanger() Plugin {
	return Plugin{
		Name: "LimitRanger",
		Mutate: func(ctx context.Context, w World, r *Request) error {
			pod, _ := r.Object.(*corev1.Pod)
			if pod == nil {
				return nil
			}
			return eachLimitRange(ctx, w, r, func(l *corev1.LimitRange) error {
				setDefaults(pod, l)
				return nil
			})
		},
		Validate: func(ctx context.Context, w World, r *Request) error {
			return eachLimitRange(ctx, w, r, func(l *corev1.LimitRange) error {
				switch obj := r.Object.(type) {
				case *corev1.Pod:
					return joined(podFaults(obj, l))
				case *corev1.PersistentVolumeClaim:
					return joined(claimFaults(obj, l))
				}
				return nil
			})
		},
	}
}

// eachLimitRange calls f with the limit ranges that the request is subject to.
func eachLimitRange(ctx context.Context, w World, r *Request, f func(*corev1.LimitRange) error) error {
	if !limited(r) {
		return nil
	}
	ranges, err := w.All(ctx, schema.GroupResource{Resource: "limitranges"}, r.Namespace)
	if err != nil {
		return forbid(r, "unable to %s %s at this time because there was an error enforcing limit ranges", r.Operation, r.Kind.GroupResource())
	}
	for _, l := range ranges {
		if err := f(l.(*corev1.LimitRange)); err != nil {
			return forbidFor(r, err)
		}
	}
	return nil
}

func limited(r *Request) bool {
	if r.Old != nil && r.Old.GetDeletionTimestamp() != nil {
		return false
	}
	switch {
	case r.Is("", "pods"):
		return r.Operation == Create // what is limited cannot change later but by a resize
	case r.Kind.Group == "" && r.Kind.Plural == "pods":
		return r.Sub == "resize" && r.Operation == Update
	case r.Is("", "persistentvolumeclaims"):
		return r.Operation == Create || r.Operation == Update
	}
	return false
}

// setDefaults gives containers what they do not say themselves.
func setDefaults(pod *corev1.Pod, l *corev1.LimitRange) {
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	for i := range l.Spec.Limits {
		if item := &l.Spec.Limits[i]; item.Type == corev1.LimitTypeContainer {
			maps.Copy(requests, item.DefaultRequest)
			maps.Copy(limits, item.Default)
		}
	}
	var notes []string
	for i := range pod.Spec.Containers {
		notes = append(notes, setContainer(&pod.Spec.Containers[i], requests, limits, "container")...)
	}
	for i := range pod.Spec.InitContainers {
		notes = append(notes, setContainer(&pod.Spec.InitContainers[i], requests, limits, "init container")...)
	}
	if len(notes) == 0 {
		return
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations["kubernetes.io/limit-ranger"] = "LimitRanger plugin set: " + strings.Join(notes, "; ")
}

func setContainer(c *corev1.Container, requests, limits corev1.ResourceList, what string) (notes []string) {
	if set := setMissing(&c.Resources.Requests, requests); set != "" {
		notes = append(notes, fmt.Sprintf("%s request for %s %s", set, what, c.Name))
	}
	if set := setMissing(&c.Resources.Limits, limits); set != "" {
		notes = append(notes, fmt.Sprintf("%s limit for %s %s", set, what, c.Name))
	}
	return notes
}

// setMissing adds to a list what it lacks and returns the names of that.
func setMissing(to *corev1.ResourceList, from corev1.ResourceList) string {
	var set []string
	for _, name := range slices.Sorted(maps.Keys(from)) {
		if _, ok := (*to)[name]; ok {
			continue
		}
		if *to == nil {
			*to = corev1.ResourceList{}
		}
		(*to)[name] = from[name].DeepCopy()
		set = append(set, string(name))
	}
	return strings.Join(set, ", ")
}

// podFaults are what about a pod is not within limits.
func podFaults(pod *corev1.Pod, l *corev1.LimitRange) (errs []error) {
	for i := range l.Spec.Limits {
		item := &l.Spec.Limits[i]
		switch item.Type {
		case corev1.LimitTypeContainer:
			for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
				errs = append(errs, faults(item, c.Resources.Requests, c.Resources.Limits)...)
			}
		case corev1.LimitTypePod:
			opts := resources.PodResourcesOptions{ExcludeOverhead: true}
			errs = append(errs, faults(item, resources.PodRequests(pod, opts), resources.PodLimits(pod, opts))...)
		}
	}
	return errs
}

// claimFaults are what about a claim is not within limits. Only what it
// requests counts.
func claimFaults(pvc *corev1.PersistentVolumeClaim, l *corev1.LimitRange) (errs []error) {
	for i := range l.Spec.Limits {
		item := &l.Spec.Limits[i]
		if item.Type != corev1.LimitTypePersistentVolumeClaim {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(item.Min)) {
			m := measure{string(item.Type), name, item.Min[name], pvc.Spec.Resources.Requests, nil}
			errs = appendErr(errs, m.least())
		}
		for _, name := range slices.Sorted(maps.Keys(item.Max)) {
			m := measure{string(item.Type), name, item.Max[name], pvc.Spec.Resources.Requests, nil}
			errs = appendErr(errs, m.mostRequested())
		}
	}
	return errs
}

func faults(item *corev1.LimitRangeItem, requests, limits corev1.ResourceList) (errs []error) {
	check := func(bounds corev1.ResourceList, f func(measure) error) {
		for _, name := range slices.Sorted(maps.Keys(bounds)) {
			errs = appendErr(errs, f(measure{string(item.Type), name, bounds[name], requests, limits}))
		}
	}
	check(item.Min, measure.least)
	check(item.Max, measure.most)
	check(item.MaxLimitRequestRatio, measure.ratio)
	return errs
}

func appendErr(errs []error, err error) []error {
	if err != nil {
		errs = append(errs, err)
	}
	return errs
}

// A measure holds one resource of something against a bound.
type measure struct {
	of               string // the type of the limit
	name             corev1.ResourceName
	bound            resource.Quantity
	requests, limits corev1.ResourceList
}

func (m measure) least() error {
	req, requested := m.requests[m.name]
	lim, limited := m.limits[m.name]
	r, l, b := common(req, lim, m.bound)
	what := fmt.Sprintf("minimum %s usage per %s is %s", m.name, m.of, m.bound.String())
	switch {
	case !requested:
		return fmt.Errorf("%s.  No request is specified", what)
	case r < b:
		return fmt.Errorf("%s, but request is %s", what, req.String())
	case limited && l < b:
		return fmt.Errorf("%s, but limit is %s", what, lim.String())
	}
	return nil
}

func (m measure) most() error {
	req, requested := m.requests[m.name]
	lim, limited := m.limits[m.name]
	r, l, b := common(req, lim, m.bound)
	what := fmt.Sprintf("maximum %s usage per %s is %s", m.name, m.of, m.bound.String())
	switch {
	case !limited:
		return fmt.Errorf("%s.  No limit is specified", what)
	case l > b:
		return fmt.Errorf("%s, but limit is %s", what, lim.String())
	case requested && r > b:
		return fmt.Errorf("%s, but request is %s", what, req.String())
	}
	return nil
}

func (m measure) mostRequested() error {
	req, requested := m.requests[m.name]
	r, _, b := common(req, resource.Quantity{}, m.bound)
	what := fmt.Sprintf("maximum %s usage per %s is %s", m.name, m.of, m.bound.String())
	switch {
	case !requested:
		return fmt.Errorf("%s.  No request is specified", what)
	case r > b:
		return fmt.Errorf("%s, but request is %s", what, req.String())
	}
	return nil
}

func (m measure) ratio() error {
	req, requested := m.requests[m.name]
	lim, limited := m.limits[m.name]
	r, l, _ := common(req, lim, m.bound)
	what := fmt.Sprintf("%s max limit to request ratio per %s is %s", m.name, m.of, m.bound.String())
	switch {
	case !requested || r == 0:
		return fmt.Errorf("%s, but no request is specified or request is 0", what)
	case !limited || l == 0:
		return fmt.Errorf("%s, but no limit is specified or limit is 0", what)
	}
	if ratio := float64(l) / float64(r); ratio > m.bound.AsApproximateFloat64() {
		return fmt.Errorf("%s, but provided ratio is %f", what, ratio)
	}
	return nil
}

// common are three quantities as numbers of one scale, a fine one unless a
// quantity is too large for it.
func common(a, b, c resource.Quantity) (int64, int64, int64) {
	if max(a.Value(), b.Value(), c.Value()) <= resource.MaxMilliValue {
		return a.MilliValue(), b.MilliValue(), c.MilliValue()
	}
	return a.Value(), b.Value(), c.Value()
}

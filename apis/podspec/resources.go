package podspec

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-helpers/resource"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

// resources checks what a container, or a pod, asks for and may use.
func (c context) resources(at check.At, r *corev1.ResourceRequirements, name func(check.At, corev1.ResourceName)) {
	limits, requests := at.Dot("limits"), at.Dot("requests")
	pages, compute := false, false
	one := func(at check.At, n corev1.ResourceName, q apiresource.Quantity) {
		name(at, n)
		meta.Quantity(at, n, q)
	}
	size := func(at check.At, n corev1.ResourceName, q apiresource.Quantity) {
		if meta.HugePages(n) && !c.had(dividedPages) {
			wholePages(at, n, q)
		}
		pages = pages || meta.HugePages(n)
		compute = compute || n == corev1.ResourceCPU || n == corev1.ResourceMemory
	}
	for n, q := range check.Sorted(r.Limits) {
		one(limits.Key(string(n)), n, q)
		size(limits.Key(string(n)), n, q)
	}
	for n, q := range check.Sorted(r.Requests) {
		one(requests.Key(string(n)), n, q)
		limit, limited := r.Limits[n]
		switch {
		case limited && q.Cmp(limit) != 0 && !meta.Overcommits(n):
			requests.Invalid(q.String(), fmt.Sprintf("must be equal to %s limit of %s", n, limit.String()))
		case limited && q.Cmp(limit) > 0:
			requests.Invalid(q.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", n, limit.String()))
		case !limited && !meta.Overcommits(n):
			limits.Required("Limit must be set for non overcommitable resources")
		}
		size(requests.Key(string(n)), n, q)
	}
	if pages && !compute {
		at.Forbidden("HugePages require cpu or memory")
	}
	c.claimNames(at.Dot("claims"), r.Claims)
}

// wholePages demands a multiple of the size of the pages.
func wholePages(at check.At, n corev1.ResourceName, q apiresource.Quantity) {
	page, err := apiresource.ParseQuantity(strings.TrimPrefix(string(n), corev1.ResourceHugePagesPrefix))
	if err != nil || page.Sign() <= 0 || page.MilliValue()%1000 != 0 || q.Value()%page.Value() != 0 {
		at.Invalid(q.String(), fmt.Sprintf("%s is not positive integer multiple of %s", q.String(), n))
	}
}

func dividedPages(at check.At, spec *corev1.PodSpec) {
	for _, ctr := range Containers(at, spec) {
		for _, list := range []corev1.ResourceList{ctr.Resources.Limits, ctr.Resources.Requests} {
			for n, q := range list {
				if meta.HugePages(n) {
					wholePages(at, n, q)
				}
			}
		}
	}
}

// claimNames demands that each claim, or request in it, is named once, and is
// one of the pod's.
func (c context) claimNames(at check.At, claims []corev1.ResourceClaim) {
	used := map[string]bool{}
	for i, claim := range claims {
		at, key := at.Index(i), claim.Name
		if claim.Name == "" {
			at.Required("")
			continue
		}
		if used[claim.Name] {
			at.Duplicate(claim.Name)
		} else {
			if claim.Request != "" {
				at.Dot("request").Label(claim.Request)
				key += "/" + claim.Request
			}
			if used[key] {
				at.Duplicate(key)
			} else if claim.Request == "" {
				for other := range used {
					if strings.HasPrefix(other, claim.Name+"/") {
						at.Duplicate(claim.Name)
					}
				}
			}
			used[key] = true
		}
		if !c.claims[claim.Name] {
			at.NotFound(claim.Name)
			at.Explain("must be one of the names in pod.spec.resourceClaims" + c.knownClaims())
		}
	}
}

func (c context) knownClaims() string {
	if len(c.claims) == 0 {
		return " which is empty"
	}
	var names []string
	for name := range check.Sorted(c.claims) {
		names = append(names, name)
	}
	return ": " + strings.Join(names, ", ")
}

// podResources checks what the pod as a whole asks for and may use.
func (c context) podResources(at check.At) {
	r := c.Spec.Resources
	if r == nil {
		return
	}
	if c.Spec.OS != nil && c.Spec.OS.Name == corev1.Windows {
		at.Forbidden("may not be set for a windows pod")
		return
	}
	if r.Claims != nil {
		at.Dot("claims").Forbidden("claims may not be set for Resources at pod-level")
	}
	c.resources(at, r, func(at check.At, n corev1.ResourceName) {
		before := at.Found()
		meta.ResourceName(at, n)
		if at.Found() == before && !resource.IsSupportedPodLevelResource(n) {
			check.Listed(at, n, "cpu", "hugepages-", "memory")
		}
	})
	c.withinPod(at, r)
}

// withinPod demands that what the containers ask for and may use is within what the pod does.
func (c context) withinPod(at check.At, r *corev1.ResourceRequirements) {
	pod := &corev1.Pod{Spec: *c.Spec}
	for n, sum := range check.Sorted(resource.AggregateContainerRequests(pod, resource.PodResourcesOptions{})) {
		if q, ok := r.Requests[n]; ok && sum.Cmp(q) > 0 {
			at.Dot("requests").Key(string(n)).Invalid(q.String(),
				fmt.Sprintf("must be greater than or equal to aggregate container requests of %s", sum.String()))
		}
	}
	for n, sum := range check.Sorted(resource.AggregateContainerLimits(pod, resource.PodResourcesOptions{})) {
		if q, ok := r.Limits[n]; ok && meta.HugePages(n) && sum.Cmp(q) > 0 {
			at.Dot("limits").Key(string(n)).Invalid(q.String(),
				fmt.Sprintf("must be greater than or equal to aggregate container limits of %s", sum.String()))
		}
	}
	for i, ctr := range c.Spec.Containers {
		for n, q := range check.Sorted(ctr.Resources.Limits) {
			if limit, ok := r.Limits[n]; ok && q.Cmp(limit) > 0 {
				at.Dot("containers").Index(i).Key(string(n)).Dot("limits").Invalid(q.String(),
					fmt.Sprintf("must be less than or equal to pod limits of %s", limit.String()))
			}
		}
	}
}

// QOS is the class of service that the resources of a pod put it in.
func QOS(spec *corev1.PodSpec) corev1.PodQOSClass {
	asked := []corev1.ResourceRequirements{}
	if spec.Resources != nil {
		asked = append(asked, *spec.Resources)
	} else {
		for _, all := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
			for _, ctr := range all {
				asked = append(asked, ctr.Resources)
			}
		}
	}
	requests, limits, guaranteed := corev1.ResourceList{}, corev1.ResourceList{}, true
	for _, r := range asked {
		sum(requests, r.Requests)
		if sum(limits, r.Limits) < 2 && (spec.Resources == nil || len(r.Limits) > 0) {
			guaranteed = false
		}
	}
	if len(requests) == 0 && len(limits) == 0 {
		return corev1.PodQOSBestEffort
	}
	for n, q := range requests {
		limit, ok := limits[n]
		guaranteed = guaranteed && ok && limit.Cmp(q) == 0
	}
	if guaranteed && len(requests) == len(limits) {
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

// sum adds the CPU and memory of list to into, and tells how many of the two there are.
func sum(into, list corev1.ResourceList) (count int) {
	for n, q := range list {
		if slices.Contains([]corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}, n) && q.Sign() > 0 {
			count++
			total := into[n]
			total.Add(q)
			into[n] = total
		}
	}
	return count
}

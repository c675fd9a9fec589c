package meta

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"

	"github.com/knarr-dev/knarr/apis/check"
)

// Names of resources that mean something to the system itself, by where they may stand.
var (
	countedResources = []corev1.ResourceName{ // objects in a namespace
		corev1.ResourcePods, corev1.ResourceQuotas, corev1.ResourceServices, corev1.ResourceReplicationControllers,
		corev1.ResourceSecrets, corev1.ResourceConfigMaps, corev1.ResourcePersistentVolumeClaims,
		corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers,
	}
	containerResources = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}
	quotaResources     = slices.Concat(countedResources, containerResources, []corev1.ResourceName{
		corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsEphemeralStorage, corev1.ResourceRequestsStorage,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage,
	})
	standardResources = append(slices.Clone(quotaResources), corev1.ResourceStorage)
)

// RoundUp rounds each quantity up to a thousandth, the least that is kept.
func RoundUp(list corev1.ResourceList) {
	for name, q := range list {
		q.RoundUp(resource.Milli)
		list[name] = q
	}
}

// HugePages reports whether name is a size of huge pages.
func HugePages(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

func requestedHugePages(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceRequestsHugePagesPrefix)
}

// Native reports whether name is in the domain of Kubernetes, as names without a domain are.
func Native(name corev1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

// Extended reports whether name is of a resource that somebody added to nodes.
func Extended(name corev1.ResourceName) bool {
	return !Native(name) && !strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix) &&
		len(utilvalidation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+string(name))) == 0
}

// Overcommits reports whether limits may be more than requests.
func Overcommits(name corev1.ResourceName) bool { return Native(name) && !HugePages(name) }

// Quantity demands an amount that there may be of a resource: not below zero,
// and whole where its units are.
func Quantity(at check.At, name corev1.ResourceName, q resource.Quantity) {
	if q.Sign() < 0 {
		at.Invalid(q.String(), validation.IsNegativeErrorMsg)
	}
	if (slices.Contains(countedResources, name) || Extended(name)) && q.MilliValue()%1000 != 0 {
		at.Invalid(q, "must be an integer")
	}
}

// BasicQuantity demands an amount that is not below zero, in the words of kinds
// that do not care which resource it is of.
func BasicQuantity(at check.At, q resource.Quantity) {
	if q.Value() < 0 {
		at.Invalid(q.Value(), "must be a valid resource quantity")
	}
}

// PositiveQuantity demands an amount above zero.
func PositiveQuantity(at check.At, q resource.Quantity) {
	if q.Sign() <= 0 {
		at.Invalid(q.String(), "must be greater than zero")
	}
}

// ResourceName demands a resource that is known, or has a domain.
func ResourceName(at check.At, name corev1.ResourceName) {
	wrong := utilvalidation.IsQualifiedName(string(name))
	at.Wrong(name, wrong)
	known := slices.Contains(standardResources, name) || HugePages(name) || requestedHugePages(name)
	if len(wrong) == 0 && !strings.Contains(string(name), "/") && !known {
		at.Invalid(name, "must be a standard resource type or fully qualified")
	}
}

// ContainerResource demands a resource that a container may ask for.
func ContainerResource(at check.At, name corev1.ResourceName) {
	ResourceName(at, name)
	switch {
	case !strings.Contains(string(name), "/"):
		if !slices.Contains(containerResources, name) && !HugePages(name) {
			at.Invalid(name, "must be a standard resource for containers")
		}
	case !Native(name) && !Extended(name):
		at.Invalid(name, "doesn't follow extended resource name standard")
	}
}

// StandardQuota reports whether a resource that a quota limits is the system's own.
func StandardQuota(name corev1.ResourceName) bool {
	return slices.Contains(quotaResources, name) || HugePages(name) || requestedHugePages(name)
}

// QuotaResource demands a resource that a quota may limit.
func QuotaResource(at check.At, name corev1.ResourceName) {
	ResourceName(at, name)
	if !strings.Contains(string(name), "/") && !StandardQuota(name) {
		at.Invalid(name, "must be a standard resource for quota")
	}
}

// Package all lists every group of kinds that is built in, and knows their
// Go types.
package all

import (
	"sync"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/admissionregistration"
	"github.com/knarr-dev/knarr/apis/apiextensions"
	"github.com/knarr-dev/knarr/apis/apiregistration"
	"github.com/knarr-dev/knarr/apis/apps"
	"github.com/knarr-dev/knarr/apis/authentication"
	"github.com/knarr-dev/knarr/apis/authorization"
	"github.com/knarr-dev/knarr/apis/autoscaling"
	"github.com/knarr-dev/knarr/apis/batch"
	"github.com/knarr-dev/knarr/apis/certificates"
	"github.com/knarr-dev/knarr/apis/coordination"
	"github.com/knarr-dev/knarr/apis/core"
	"github.com/knarr-dev/knarr/apis/discovery"
	"github.com/knarr-dev/knarr/apis/flowcontrol"
	"github.com/knarr-dev/knarr/apis/networking"
	"github.com/knarr-dev/knarr/apis/node"
	"github.com/knarr-dev/knarr/apis/policy"
	"github.com/knarr-dev/knarr/apis/rbac"
	"github.com/knarr-dev/knarr/apis/resource"
	"github.com/knarr-dev/knarr/apis/scheduling"
	"github.com/knarr-dev/knarr/apis/storage"
)

// Groups are all groups in the order of discovery, by which kubectl decides
// whose a short name is. Two hold nothing but views of kinds stored in another
// group or version.
var Groups = []apis.Group{
	core.Group,
	apiregistration.Group,
	apps.Group,
	{GroupVersion: eventsv1.SchemeGroupVersion},
	authentication.Group,
	authorization.Group,
	autoscaling.Group,
	{GroupVersion: autoscalingv1.SchemeGroupVersion},
	batch.Group,
	certificates.Group,
	networking.Group,
	policy.Group,
	rbac.Group,
	storage.Group,
	admissionregistration.Group,
	apiextensions.Group,
	scheduling.Group,
	coordination.Group,
	node.Group,
	discovery.Group,
	resource.Group,
	flowcontrol.Group,
}

// Scheme knows the Go types of the served group versions and of meta.k8s.io,
// and nothing else. It is built once and must not be added to.
var Scheme = sync.OnceValue(func() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, eventsv1.AddToScheme, authenticationv1.AddToScheme, authorizationv1.AddToScheme,
		autoscalingv2.AddToScheme, autoscalingv1.AddToScheme, batchv1.AddToScheme, certificatesv1.AddToScheme,
		networkingv1.AddToScheme, policyv1.AddToScheme, rbacv1.AddToScheme, storagev1.AddToScheme, schedulingv1.AddToScheme,
		coordinationv1.AddToScheme, nodev1.AddToScheme, discoveryv1.AddToScheme, resourcev1.AddToScheme, flowcontrolv1.AddToScheme,
		admissionregistrationv1.AddToScheme, apiextensionsv1.AddToScheme, apiregistrationv1.AddToScheme, metav1.AddMetaToScheme,
	} {
		if err := add(scheme); err != nil {
			panic(err) // two types of one name: only the lines above can do that
		}
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	return scheme
})

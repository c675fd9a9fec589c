// Package core says what the kinds of the core group are: pods, services,
// nodes and what they need. What is done with them is in registry.
package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
)

// Group is core/v1.
var Group = apis.In(corev1.SchemeGroupVersion,
	bindings, componentStatuses, configMaps, endpoints, events, limitRanges, namespaces, nodes,
	persistentVolumeClaims, persistentVolumes, pods, podTemplates, replicationControllers,
	resourceQuotas, secrets, serviceAccounts, services,
)

var (
	getAndCreate = []string{"create", "get"}
	proxyVerbs   = []string{"create", "delete", "get", "patch", "update"}
)

func kind(name string) schema.GroupVersionKind { return corev1.SchemeGroupVersion.WithKind(name) }

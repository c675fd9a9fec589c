package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry/wire"
)

// The namespaces: of the pods that are there all the time, of those that
// change for watchers, and of those that are made in passing.
const (
	crowd   = "crowd"
	watched = "watched"
	spare   = "spare"
)

// How many pods have a label in common, and how many are on a node.
const (
	labelShare = 100
	nodeShare  = 110
)

// podKind encodes pods as they are stored and sent.
var podKind = wire.NewKind(corev1.SchemeGroupVersion.WithKind("Pod"), func() apis.Object { return &corev1.Pod{} })

func podName(i int) string  { return fmt.Sprintf("web-7d9f8b6c5-%06d", i) }
func nodeName(i int) string { return fmt.Sprintf("node-%04d.example.internal", i/nodeShare) }
func batch(i int) string    { return fmt.Sprintf("batch-%04d", i/labelShare) }

// pod is the i-th pod of a deployment, of a common size.
func pod(i int) *corev1.Pod {
	sizes := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: podName(i),
			Labels: map[string]string{
				"app.kubernetes.io/name": "web",
				"pod-template-hash":      "7d9f8b6c5", "batch": batch(i),
			},
			Annotations: map[string]string{"prometheus.io/port": "9090"},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-7d9f8b6c5", UID: "0b1c9a52-5f0e-4c5c-9b0d-3f6f7a8e2d11", Controller: new(true), BlockOwnerDeletion: new(true),
			}},
		},
		Spec: corev1.PodSpec{
			NodeName: nodeName(i),
			Containers: []corev1.Container{{
				Name: "web", Image: "registry.example.com/shop/web:4.11.2", Args: []string{"--listen=:8080", "--metrics=:9090", "--config=/etc/web/config.yaml"},
				Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
				Env: []corev1.EnvVar{
					{Name: "POD_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
					{Name: "DATABASE_URL", Value: "postgres://shop@postgres.databases.svc.cluster.local:5432/shop"},
				},
				Resources:    corev1.ResourceRequirements{Requests: sizes("100m", "128Mi"), Limits: sizes("1", "512Mi")},
				VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/etc/web", ReadOnly: true}},
				ReadinessProbe: &corev1.Probe{
					ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/readyz", Port: intstr.FromString("http")}},
				},
			}},
			Volumes: []corev1.Volume{
				{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "web-config"}}}},
			},
		},
	}
}

// stored is the i-th pod of the given namespace as it is kept, like a pod
// that was created by the API.
func stored(namespace string, i int, like *corev1.Pod) ([]byte, error) {
	p := like.DeepCopy()
	mine := pod(i)
	p.Name, p.Namespace, p.ResourceVersion, p.Labels = mine.Name, namespace, "", mine.Labels
	p.UID = types.UID(fmt.Sprintf("%08x-5f0e-4c5c-9b0d-3f6f7a8e2d11", i))
	p.Spec.NodeName = mine.Spec.NodeName
	return podKind.Encode(p)
}

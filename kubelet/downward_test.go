package kubelet

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func pod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "p", Namespace: "ns", UID: "u",
			Labels: map[string]string{"b": "2", "a/x": "one \"1\""},
		},
		Spec: corev1.PodSpec{
			NodeName: "n", ServiceAccountName: "sa",
			Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{
				Limits:   corev1.ResourceList{"memory": resource.MustParse("64Mi"), "cpu": resource.MustParse("1250m")},
				Requests: corev1.ResourceList{"cpu": resource.MustParse("250m")},
			}}},
		},
		Status: corev1.PodStatus{
			HostIP: "10.0.0.1", PodIP: "10.1.0.5",
			PodIPs: []corev1.PodIP{{IP: "10.1.0.5"}, {IP: "fd00::5"}},
		},
	}
}

func TestField(t *testing.T) {
	for path, want := range map[string]string{
		"metadata.name":            "p",
		"metadata.labels":          "a/x=\"one \\\"1\\\"\"\nb=\"2\"",
		"metadata.labels['a/x']":   "one \"1\"",
		"metadata.labels['none']":  "",
		"spec.serviceAccountName":  "sa",
		"status.podIPs":            "10.1.0.5,fd00::5",
		"status.hostIP":            "10.0.0.1",
		"metadata.annotations":     "",
		"metadata.annotations['']": "",
	} {
		if got, err := Field(pod(), path); got != want || err != nil {
			t.Errorf("%s is %q, %v; want %q", path, got, err, want)
		}
	}
	for _, path := range []string{"spec.containers", "metadata.name['x']", ""} {
		if got, err := Field(pod(), path); err == nil {
			t.Errorf("%s is %q and should be refused", path, got)
		}
	}
}

func TestResource(t *testing.T) {
	all := corev1.ResourceList{"cpu": resource.MustParse("3500m"), "memory": resource.MustParse("1Gi"), "ephemeral-storage": resource.MustParse("10G")}
	for _, tt := range []struct {
		field, divisor, want string
	}{
		{"limits.cpu", "0", "2"},
		{"limits.cpu", "1m", "1250"},
		{"requests.cpu", "0", "1"},
		{"limits.memory", "1Mi", "64"},
		{"limits.memory", "60Mi", "2"},
		{"requests.memory", "0", "0"},
		{"limits.ephemeral-storage", "1G", "10"},
		{"limits.hugepages-2Mi", "0", "0"},
	} {
		f := &corev1.ResourceFieldSelector{ContainerName: "c", Resource: tt.field, Divisor: resource.MustParse(tt.divisor)}
		if got, err := Resource(pod(), nil, f, all); got != tt.want || err != nil {
			t.Errorf("%s/%s is %q, %v; want %s", tt.field, tt.divisor, got, err, tt.want)
		}
	}
	for _, f := range []corev1.ResourceFieldSelector{{ContainerName: "none", Resource: "limits.cpu"}, {ContainerName: "c", Resource: "limits.gpu"}, {ContainerName: "c", Resource: "cpu"}} {
		if got, err := Resource(pod(), nil, &f, all); err == nil {
			t.Errorf("%v is %q and should be refused", f, got)
		}
	}
}

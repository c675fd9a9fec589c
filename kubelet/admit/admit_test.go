package admit

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func pod(t *testing.T, spec string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAdmit(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"disk": "ssd"}}}
	node.Status.Allocatable = corev1.ResourceList{"cpu": resource.MustParse("2"), "memory": resource.MustParse("1Gi"), "pods": resource.MustParse("3"), "x.io/gpu": resource.MustParse("1")}
	used := "{containers: [{name: c, resources: {requests: {cpu: 1500m, x.io/gpu: 1}}, ports: [{hostPort: 80, hostIP: 10.0.0.1}]}]}"
	for name, tt := range map[string]struct {
		spec   string
		others int
		want   string
	}{
		"fits":              {"{nodeSelector: {disk: ssd}, containers: [{name: c, resources: {requests: {cpu: 500m, memory: 1Gi}}}]}", 1, ""},
		"no cpu":            {"{containers: [{name: c, resources: {requests: {cpu: 2}}}]}", 1, "OutOfcpu: Node didn't have enough resource: cpu, requested: 2000, used: 1500, capacity: 2000"},
		"no memory":         {"{containers: [{name: c, resources: {requests: {memory: 2Gi}}}]}", 0, "OutOfmemory: Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824"},
		"no gpu":            {"{containers: [{name: c, resources: {requests: {x.io/gpu: 1}}}]}", 1, "OutOfx.io/gpu: Node didn't have enough resource: x.io/gpu, requested: 1, used: 1, capacity: 1"},
		"unknown resource":  {"{containers: [{name: c, resources: {requests: {x.io/other: 5}}}]}", 1, ""},
		"no place":          {"{containers: [{name: c}]}", 3, "OutOfpods: Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3"},
		"selector":          {"{nodeSelector: {disk: tape}}", 0, "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"},
		"name":              {"{nodeName: other}", 0, "NodeName: Predicate NodeName failed: node(s) didn't match the requested node name"},
		"port":              {"{containers: [{name: c, ports: [{hostPort: 80}]}]}", 1, "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"},
		"port, other ip":    {"{containers: [{name: c, ports: [{hostPort: 80, hostIP: 10.0.0.2}]}]}", 1, ""},
		"port, other proto": {"{containers: [{name: c, ports: [{hostPort: 80, protocol: UDP}]}]}", 1, ""},
		"os":                {"{os: {name: windows}}", 0, "PodOSNotSupported: Failed to admit pod as the OS field doesn't match node OS"},
		"sysctl":            {"{securityContext: {sysctls: [{name: kernel.msgmax, value: '1'}]}}", 0, `SysctlForbidden: forbidden sysctl: "kernel.msgmax" not allowlisted`},
		"sysctl, safe":      {"{securityContext: {sysctls: [{name: kernel/shm_rmid_forced, value: '1'}, {name: net.core.x, value: '1'}]}}", 0, ""},
		"sysctl, host":      {"{hostNetwork: true, securityContext: {sysctls: [{name: net.ipv4.tcp_rmem, value: '1'}]}}", 0, `SysctlForbidden: forbidden sysctl: "net.ipv4.tcp_rmem" not allowed with host net enabled`},
	} {
		t.Run(name, func(t *testing.T) {
			var others []*corev1.Pod
			for i := range tt.others {
				o := pod(t, "{}")
				if i == 0 {
					o = pod(t, used)
				}
				others = append(others, o)
			}
			got := ""
			if err := (Gate{Node: func() *corev1.Node { return node }, Sysctls: []string{"net.core.*"}}).Hook().Admit(pod(t, tt.spec), others); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

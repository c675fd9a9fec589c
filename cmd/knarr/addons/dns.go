// Package addons says what objects a cluster has from the start besides what
// every API server makes, and makes the cluster have them.
package addons

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// DNSOptions are what the cluster's DNS is made with.
type DNSOptions struct {
	Image     string // of knarr, as the nodes know it
	ClusterIP string // where the kubelets tell pods to ask
	Zone      string // as cluster.local
	Replicas  int32
	Upstreams []string // for names outside the cluster; those of the node where empty
}

// DNSReplicas is how many there are in a cluster of so many nodes: one that
// goes on where another's node is away, if there is another node.
func DNSReplicas(nodes int) int32 {
	return int32(min(2, max(1, nodes)))
}

const (
	dnsName = "kube-dns"
	dnsRole = "system:coredns" // what its counterpart's is called in other clusters
	dnsHTTP = 9153             // where its counterpart has its metrics
)

var dnsLabels = map[string]string{"k8s-app": dnsName}

// DNS returns the objects of the cluster's DNS, in the order in which they
// are needed.
func DNS(o DNSOptions) []runtime.Object {
	account := &corev1.ServiceAccount{TypeMeta: kind("v1", "ServiceAccount"), ObjectMeta: dnsMeta()}
	role := &rbacv1.ClusterRole{
		TypeMeta:   kind("rbac.authorization.k8s.io/v1", "ClusterRole"),
		ObjectMeta: metav1.ObjectMeta{Name: dnsRole, Labels: dnsLabels},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"services", "namespaces"}, Verbs: []string{"list", "watch"}},
			{APIGroups: []string{discoveryv1.GroupName}, Resources: []string{"endpointslices"}, Verbs: []string{"list", "watch"}},
		},
	}
	binding := &rbacv1.ClusterRoleBinding{
		TypeMeta:   kind("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
		ObjectMeta: metav1.ObjectMeta{Name: dnsRole, Labels: dnsLabels},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: dnsRole},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: dnsName, Namespace: metav1.NamespaceSystem}},
	}
	return []runtime.Object{account, role, binding, dnsService(o), dnsDeployment(o)}
}

func kind(version, kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: version, Kind: kind}
}

func dnsMeta() metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: dnsName, Labels: dnsLabels}
}

func dnsService(o DNSOptions) *corev1.Service {
	s := &corev1.Service{
		TypeMeta:   kind("v1", "Service"),
		ObjectMeta: dnsMeta(),
		Spec: corev1.ServiceSpec{
			Type:      corev1.ServiceTypeClusterIP,
			ClusterIP: o.ClusterIP,
			Selector:  dnsLabels,
			Ports: []corev1.ServicePort{
				{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP, TargetPort: intstr.FromInt32(53)},
				{Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(53)},
				{Name: "metrics", Port: dnsHTTP, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(dnsHTTP)},
			},
			// A node that is cut off from the others goes on with what it has.
			TrafficDistribution: new(corev1.ServiceTrafficDistributionPreferSameNode),
		},
	}
	s.Labels = map[string]string{"k8s-app": dnsName, "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
	s.Annotations = map[string]string{"prometheus.io/port": "9153", "prometheus.io/scrape": "true"}
	return s
}

func dnsDeployment(o DNSOptions) *appsv1.Deployment {
	return &appsv1.Deployment{
		TypeMeta:   kind("apps/v1", "Deployment"),
		ObjectMeta: dnsMeta(),
		Spec: appsv1.DeploymentSpec{
			Replicas: new(o.Replicas),
			Selector: &metav1.LabelSelector{MatchLabels: dnsLabels},
			// The next answers before the last one goes, as there may be one only.
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: new(intstr.FromInt32(0)), MaxSurge: new(intstr.FromInt32(1))},
			},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: dnsLabels},
				Spec: corev1.PodSpec{
					ServiceAccountName: dnsName,
					PriorityClassName:  "system-cluster-critical",
					DNSPolicy:          corev1.DNSDefault, // others are asked whom the node asks
					NodeSelector:       map[string]string{corev1.LabelOSStable: "linux"},
					Tolerations: []corev1.Toleration{
						{Key: "CriticalAddonsOnly", Operator: corev1.TolerationOpExists},
						{Key: "node-role.kubernetes.io/control-plane", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
					},
					Affinity: &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
						PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{
							Weight:          100,
							PodAffinityTerm: corev1.PodAffinityTerm{TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: dnsLabels}},
						}},
					}},
					Containers: []corev1.Container{dnsContainer(o)},
				},
			},
		},
	}
}

func dnsContainer(o DNSOptions) corev1.Container {
	args := []string{"dns", "--zone=" + o.Zone}
	for _, u := range o.Upstreams {
		args = append(args, "--upstream="+u)
	}
	return corev1.Container{
		Name: "dns", Image: o.Image, ImagePullPolicy: corev1.PullIfNotPresent,
		Command: []string{"/knarr"}, Args: args,
		Env: []corev1.EnvVar{
			// Below the limit, so that garbage is collected before it is too late.
			{Name: "GOMEMLIMIT", Value: "140MiB"}, {Name: "GOGC", Value: "50"},
		},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("50Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("170Mi")},
		},
		Ports: []corev1.ContainerPort{
			{Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP},
			{Name: "dns-tcp", ContainerPort: 53, Protocol: corev1.ProtocolTCP},
			{Name: "metrics", ContainerPort: dnsHTTP, Protocol: corev1.ProtocolTCP},
		},
		// A new one is soon asked, and one in trouble is restarted late.
		ReadinessProbe: dnsProbe("/ready", 2, 3),
		LivenessProbe:  dnsProbe("/health", 10, 5),
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: new(false),
			ReadOnlyRootFilesystem:   new(true),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_BIND_SERVICE"}},
		},
	}
}

func dnsProbe(path string, period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:     corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(dnsHTTP), Scheme: corev1.URISchemeHTTP}},
		PeriodSeconds:    period,
		FailureThreshold: failures,
		TimeoutSeconds:   5,
		SuccessThreshold: 1,
	}
}

package network

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/kubelet"
)

func namer(t *testing.T) (*Namer, *[]string) {
	dir := t.TempDir()
	resolv := filepath.Join(dir, "resolv.conf")
	text := "# comment\nsearch old\nnameserver 9.9.9.9\nnameserver 8.8.8.8\nsearch corp.example. . example\noptions ndots:2 rotate\n"
	if err := os.WriteFile(resolv, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	told := &[]string{}
	return &Namer{
		Servers: []string{"10.0.0.10"}, Domain: "cluster.local", ResolvConf: resolv, Root: dir,
		Tell: func(_ *corev1.Pod, _, _, reason, message string) { *told = append(*told, reason+": "+message) },
	}, told
}

func pod(t *testing.T, spec string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"}}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	p.Status.PodIPs = []corev1.PodIP{{IP: "10.1.0.5"}, {IP: "fd00::5"}}
	return p
}

func TestDNS(t *testing.T) {
	for spec, want := range map[string]string{
		"dnsPolicy: ClusterFirst":                                 "[10.0.0.10] [ns.svc.cluster.local svc.cluster.local cluster.local corp.example example] [ndots:5]",
		"{dnsPolicy: ClusterFirst, hostNetwork: true}":            "[9.9.9.9 8.8.8.8] [corp.example example] [ndots:2 rotate]",
		"{dnsPolicy: ClusterFirstWithHostNet, hostNetwork: true}": "[10.0.0.10] [ns.svc.cluster.local svc.cluster.local cluster.local corp.example example] [ndots:5]",
		"dnsPolicy: Default":                                      "[9.9.9.9 8.8.8.8] [corp.example example] [ndots:2 rotate]",
		"{dnsPolicy: None, dnsConfig: {nameservers: [1.1.1.1]}}":  "[1.1.1.1] [] []",
		"{dnsPolicy: Default, dnsConfig: {nameservers: [8.8.8.8, 1.1.1.1, 2.2.2.2], searches: [x, example], options: [{name: ndots, value: '7'}, {name: inet6}]}}": "[9.9.9.9 8.8.8.8 1.1.1.1] [corp.example example x] [ndots:7 rotate inet6]",
	} {
		n, told := namer(t)
		s := &kubelet.Sandbox{Pod: pod(t, spec), Config: &runtimeapi.PodSandboxConfig{}}
		if err := n.Hook().Prepare(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		d := s.Config.DnsConfig
		if got := fmt.Sprint(d.Servers, " ", d.Searches, " ", d.Options); got != want {
			t.Errorf("%s:\n%s, want\n%s", spec, got, want)
		}
		if strings.Contains(spec, "2.2.2.2") != (len(*told) == 1) {
			t.Errorf("%s: told %v", spec, *told)
		}
	}
	n, told := namer(t)
	n.Servers = nil
	if d, err := n.dns(pod(t, "dnsPolicy: ClusterFirst")); err != nil || d.Servers[0] != "9.9.9.9" || len(*told) != 1 {
		t.Errorf("without a cluster's: %v, %v, %v", d, err, *told)
	}
}

func TestLimits(t *testing.T) {
	n, told := namer(t)
	p := pod(t, "{dnsPolicy: None, dnsConfig: {nameservers: [1.1.1.1]}}")
	for i := range 40 {
		p.Spec.DNSConfig.Searches = append(p.Spec.DNSConfig.Searches, fmt.Sprintf("%s%d", strings.Repeat("a", 100), i))
	}
	p.Spec.DNSConfig.Searches[3] = strings.Repeat("b", 254)
	d, err := n.dns(p)
	if err != nil || len(strings.Join(d.Searches, " ")) > 2048 || len(d.Searches) != 19 || len(*told) != 1 {
		t.Errorf("%d searches, told %v, %v", len(d.Searches), *told, err)
	}
}

func TestNames(t *testing.T) {
	long := strings.Repeat("a", 62) + "-b"
	for spec, want := range map[string]string{
		"{}": "p", "{hostname: h}": "h", "{hostname: h, subdomain: sub}": "h",
		"{hostname: h, subdomain: sub, setHostnameAsFQDN: true}": "h.sub.ns.svc.cluster.local",
		"{setHostnameAsFQDN: true}":                              "p",
		"{hostnameOverride: a.b.c, subdomain: sub}":              "a.b.c",
		"{hostname: " + long + "}":                               strings.Repeat("a", 62),
		"{hostname: h, hostNetwork: true}":                       "",
	} {
		n, _ := namer(t)
		s := &kubelet.Sandbox{Pod: pod(t, spec), Config: &runtimeapi.PodSandboxConfig{}}
		if err := n.Hook().Prepare(t.Context(), s); err != nil || s.Config.Hostname != want {
			t.Errorf("%s: %q, %v; want %q", spec, s.Config.Hostname, err, want)
		}
	}
	n, _ := namer(t)
	s := &kubelet.Sandbox{Pod: pod(t, "{hostname: "+long[:50]+", subdomain: sub, setHostnameAsFQDN: true}"), Config: &runtimeapi.PodSandboxConfig{}}
	if err := n.Hook().Prepare(t.Context(), s); err == nil {
		t.Error("a name that the kernel does not take")
	}
}

func TestHosts(t *testing.T) {
	n, _ := namer(t)
	c := &kubelet.Container{
		Pod:    pod(t, "{hostname: h, subdomain: sub, hostAliases: [{ip: 1.2.3.4, hostnames: [a, b]}]}"),
		Spec:   &corev1.Container{},
		Config: &runtimeapi.ContainerConfig{},
	}
	h := n.Hook()
	if err := h.BeforeStart(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(c.Config.Mounts[0].HostPath)
	if err != nil {
		t.Fatal(err)
	}
	want := `# Kubernetes-managed hosts file.
127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::0	ip6-localnet
fe00::0	ip6-mcastprefix
fe00::1	ip6-allnodes
fe00::2	ip6-allrouters
10.1.0.5	h.sub.ns.svc.cluster.local	h
fd00::5	h.sub.ns.svc.cluster.local	h

# Entries added by HostAliases.
1.2.3.4	a	b
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	c.Spec.VolumeMounts = []corev1.VolumeMount{{MountPath: "/etc/hosts"}}
	if err := h.BeforeStart(t.Context(), c); err != nil || len(c.Config.Mounts) != 1 {
		t.Errorf("a container with its own: %v, %v", c.Config.Mounts, err)
	}
	c.Spec.VolumeMounts, c.Pod.Spec.HostNetwork = nil, true
	if err := h.BeforeStart(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	got, err = os.ReadFile(c.Config.Mounts[0].HostPath)
	if err != nil || !strings.HasPrefix(string(got), "# Kubernetes-managed hosts file (host network).\n") {
		t.Errorf("%s, %v", got, err)
	}
	for range 2 {
		if err := h.Cleanup(t.Context(), "u"); err != nil {
			t.Error(err)
		}
	}
}

func TestPorts(t *testing.T) {
	got := ports(pod(t, `{containers: [{name: a, ports: [{containerPort: 80, hostPort: 8080, hostIP: 127.0.0.1, protocol: TCP}, {containerPort: 53, hostPort: 53, protocol: UDP}]}, {name: b, ports: [{containerPort: 53, hostPort: 53, protocol: UDP}]}]}`))
	if len(got) != 2 || got[0].HostIp != "127.0.0.1" || got[1].Protocol != runtimeapi.Protocol_UDP {
		t.Error(got)
	}
}

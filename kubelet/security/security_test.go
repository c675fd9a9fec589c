package security

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/kubelet"
)

func container(t *testing.T, spec string, im *runtimeapi.Image) (*runtimeapi.LinuxContainerSecurityContext, error) {
	t.Helper()
	p := pod(t, spec)
	c := &kubelet.Container{Pod: p, Spec: &p.Spec.Containers[0], Image: im, Config: &runtimeapi.ContainerConfig{Linux: &runtimeapi.LinuxContainerConfig{}}}
	if strings.Contains(spec, "target") {
		c.Target, c.TargetID = "t", "t-id"
	}
	err := Policy{SeccompDir: "/seccomp"}.Hook().BeforeStart(t.Context(), c)
	return c.Config.Linux.SecurityContext, err
}

func pod(t *testing.T, spec string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"}}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestOwnBeforePods(t *testing.T) {
	sc, err := container(t, `
securityContext: {runAsUser: 1, runAsGroup: 2, fsGroup: 3, supplementalGroups: [4], seccompProfile: {type: RuntimeDefault}, supplementalGroupsPolicy: Strict}
containers:
- name: c
  securityContext:
    runAsUser: 10
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: {add: [NET_ADMIN], drop: [ALL]}
    seccompProfile: {type: Localhost, localhostProfile: a/b.json}
    appArmorProfile: {type: Localhost, localhostProfile: mine}
`, nil)
	if err != nil {
		t.Fatal(err)
	}
	if sc.RunAsUser.Value != 10 || sc.RunAsGroup.Value != 2 || !slices.Equal(sc.SupplementalGroups, []int64{3, 4}) || sc.SupplementalGroupsPolicy != runtimeapi.SupplementalGroupsPolicy_Strict {
		t.Errorf("runs as %v %v %v", sc.RunAsUser, sc.RunAsGroup, sc.SupplementalGroups)
	}
	if !sc.NoNewPrivs || !sc.ReadonlyRootfs || sc.Privileged || sc.Capabilities.AddCapabilities[0] != "NET_ADMIN" || sc.Capabilities.DropCapabilities[0] != "ALL" {
		t.Errorf("may %v", sc)
	}
	if sc.Seccomp.LocalhostRef != "/seccomp/a/b.json" || sc.Apparmor.LocalhostRef != "mine" {
		t.Errorf("profiles %v %v", sc.Seccomp, sc.Apparmor)
	}
	if old := sc.ApparmorProfile; old != "localhost/mine" { //nolint:staticcheck // older runtimes read only this
		t.Errorf("for older runtimes the profile is %q", old)
	}
	if !slices.Contains(sc.MaskedPaths, "/proc/kcore") || !slices.Contains(sc.ReadonlyPaths, "/proc/sys") {
		t.Errorf("sees %v", sc.MaskedPaths)
	}
}

func TestImageUser(t *testing.T) {
	plain := "{containers: [{name: c}]}"
	for _, tt := range []struct {
		im   *runtimeapi.Image
		uid  *int64
		name string
	}{
		{&runtimeapi.Image{Uid: &runtimeapi.Int64Value{Value: 7}}, new(int64(7)), ""},
		{&runtimeapi.Image{Username: "www"}, nil, "www"},
		{&runtimeapi.Image{}, new(int64(0)), ""},
	} {
		sc, err := container(t, plain, tt.im)
		if err != nil || sc.RunAsUsername != tt.name || (tt.uid == nil) != (sc.RunAsUser == nil) || tt.uid != nil && sc.RunAsUser.Value != *tt.uid {
			t.Errorf("%v: %v, %v", tt.im, sc, err)
		}
	}
}

func TestNonRoot(t *testing.T) {
	for _, tt := range []struct {
		pod, own string
		im       *runtimeapi.Image
		want     string
	}{
		{"runAsNonRoot: true", "", &runtimeapi.Image{}, "container has runAsNonRoot and image will run as root"},
		{"runAsNonRoot: true", "", &runtimeapi.Image{Username: "www"}, "container has runAsNonRoot and image has non-numeric user (www)"},
		{"runAsNonRoot: true", "", &runtimeapi.Image{Uid: &runtimeapi.Int64Value{Value: 7}}, ""},
		{"runAsNonRoot: true, runAsUser: 0", "", nil, "container's runAsUser breaks non-root policy"},
		{"runAsNonRoot: true, runAsUser: 0", "runAsUser: 5", nil, ""},
		{"runAsNonRoot: true", "runAsNonRoot: false", &runtimeapi.Image{}, ""},
	} {
		_, err := container(t, "{securityContext: {"+tt.pod+"}, containers: [{name: c, securityContext: {"+tt.own+"}}]}", tt.im)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)) {
			t.Errorf("%s, %s, %v: %v, want %q", tt.pod, tt.own, tt.im, err, tt.want)
		}
	}
}

func TestNamespaces(t *testing.T) {
	for spec, want := range map[string]string{
		"{containers: [{name: c}]}": "POD CONTAINER POD",
		"{hostNetwork: true, hostIPC: true, hostPID: true, containers: [{name: c}]}": "NODE NODE NODE",
		"{shareProcessNamespace: true, containers: [{name: c}]}":                     "POD POD POD",
		"{containers: [{name: c, image: target}]}":                                   "POD TARGET POD",
	} {
		sc, err := container(t, spec, nil)
		if err != nil {
			t.Fatal(err)
		}
		o := sc.NamespaceOptions
		if got := o.Network.String() + " " + o.Pid.String() + " " + o.Ipc.String(); got != want {
			t.Errorf("%s: %s, want %s", spec, got, want)
		}
	}
}

func TestSandbox(t *testing.T) {
	h := Policy{}.Hook()
	s := &kubelet.Sandbox{
		Pod:    pod(t, "{securityContext: {runAsUser: 5, fsGroup: 6, sysctls: [{name: kernel/shm_rmid_forced, value: '1'}, {name: net.ipv4.conf.eth0/1.x, value: '2'}]}, initContainers: [{name: i, securityContext: {privileged: true}}], containers: [{name: c}]}"),
		Config: &runtimeapi.PodSandboxConfig{Linux: &runtimeapi.LinuxPodSandboxConfig{}},
	}
	if err := h.Prepare(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	sc := s.Config.Linux.SecurityContext
	if !sc.Privileged || sc.RunAsUser.Value != 5 || sc.SupplementalGroups[0] != 6 {
		t.Error(sc)
	}
	if sys := s.Config.Linux.Sysctls; sys["kernel.shm_rmid_forced"] != "1" || sys["net.ipv4.conf.eth0/1.x"] != "2" {
		t.Error(sys)
	}
	s.Pod.Spec.HostUsers = new(false)
	if err := h.Prepare(t.Context(), s); err == nil {
		t.Error("a user namespace was promised")
	}
}

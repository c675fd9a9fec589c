package env

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/kubelet"
)

type objects struct{}

func (objects) ConfigMap(_ context.Context, _ types.UID, _, name string) (*corev1.ConfigMap, error) {
	if name != "cm" {
		return nil, apierrors.NewNotFound(corev1.Resource("configmap"), name)
	}
	return &corev1.ConfigMap{Data: map[string]string{"k": "from cm", "data-1": "v1"}}, nil
}

func (objects) Secret(_ context.Context, _ types.UID, _, name string) (*corev1.Secret, error) {
	if name != "s" {
		return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
	}
	return &corev1.Secret{Data: map[string][]byte{"k": []byte("from secret")}}, nil
}

func maker() *Maker {
	service := func(name, ip string, ports ...corev1.ServicePort) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{ClusterIP: ip, Ports: ports}}
	}
	return &Maker{
		Objects: objects{},
		Services: func(ns string) ([]*corev1.Service, error) {
			if ns == "default" {
				return []*corev1.Service{service("kubernetes", "10.0.0.1", corev1.ServicePort{Port: 443, Name: "https"}), service("other", "10.0.0.9", corev1.ServicePort{Port: 1})}, nil
			}
			return []*corev1.Service{
				service("my-db", "10.0.0.2", corev1.ServicePort{Port: 53, Name: "dns-udp", Protocol: "UDP"}, corev1.ServicePort{Port: 80, Name: "web"}),
				service("headless", "None", corev1.ServicePort{Port: 1}),
			}, nil
		},
		Allocatable: func() corev1.ResourceList { return corev1.ResourceList{"cpu": resource.MustParse("3500m")} },
	}
}

func run(t *testing.T, m *Maker, podYAML string) (map[string]string, *runtimeapi.ContainerConfig, error) {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"}}
	if err := yaml.UnmarshalStrict([]byte(podYAML), &p.Spec); err != nil {
		t.Fatal(err)
	}
	c := &kubelet.Container{Pod: p, Spec: &p.Spec.Containers[0], Config: &runtimeapi.ContainerConfig{}}
	err := m.Hook().BeforeStart(t.Context(), c)
	vars := map[string]string{}
	for _, e := range c.Config.Envs {
		vars[e.Key] = string(e.Value)
	}
	return vars, c.Config, err
}

func TestSources(t *testing.T) {
	got, config, err := run(t, maker(), `
enableServiceLinks: false
containers:
- name: c
  command: ["run", "$(A) $(NONE) $$(A)"]
  args: ["$(PRE_k)"]
  envFrom:
  - {prefix: PRE_, configMapRef: {name: cm}}
  - {secretRef: {name: none, optional: true}}
  - {secretRef: {name: s}}
  env:
  - {name: A, value: one}
  - {name: B, value: "$(A)-$(PRE_k)-$(KUBERNETES_SERVICE_HOST)"}
  - {name: A, value: "two $(A)"}
  - {name: CM, valueFrom: {configMapKeyRef: {name: cm, key: k}}}
  - {name: S, valueFrom: {secretKeyRef: {name: s, key: k}}}
  - {name: MISSING, valueFrom: {secretKeyRef: {name: s, key: none, optional: true}}}
  - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  - {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
  - {name: EMPTY}
`)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"PRE_k": "from cm", "PRE_data-1": "v1", "k": "from secret",
		"A": "two one", "B": "one-from cm-10.0.0.1", "CM": "from cm", "S": "from secret", "NAME": "p", "CPU": "4", "EMPTY": "",
		"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443", "KUBERNETES_SERVICE_PORT_HTTPS": "443",
		"KUBERNETES_PORT": "tcp://10.0.0.1:443", "KUBERNETES_PORT_443_TCP": "tcp://10.0.0.1:443",
		"KUBERNETES_PORT_443_TCP_PROTO": "tcp", "KUBERNETES_PORT_443_TCP_PORT": "443", "KUBERNETES_PORT_443_TCP_ADDR": "10.0.0.1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"run", "two one $(NONE) $(A)", "from cm"}, append(config.Command, config.Args...)); diff != "" {
		t.Error(diff)
	}
}

func TestServices(t *testing.T) {
	got, _, err := run(t, maker(), "containers: [{name: c, env: [{name: MY_DB_PORT, value: mine}]}]")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"MY_DB_SERVICE_HOST": "10.0.0.2", "MY_DB_SERVICE_PORT": "53", "MY_DB_SERVICE_PORT_DNS_UDP": "53", "MY_DB_SERVICE_PORT_WEB": "80",
		"MY_DB_PORT": "mine", "MY_DB_PORT_53_UDP": "udp://10.0.0.2:53", "MY_DB_PORT_80_TCP_PORT": "80", "KUBERNETES_SERVICE_PORT": "443",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	for name := range got {
		if strings.HasPrefix(name, "HEADLESS") || strings.HasPrefix(name, "OTHER") {
			t.Errorf("%s should not be there", name)
		}
	}
	m := maker()
	m.Services = func(string) ([]*corev1.Service, error) { return nil, errors.New("not yet") }
	if _, _, err := run(t, m, "containers: [{name: c}]"); err == nil {
		t.Error("started without knowing the services")
	}
}

func TestMissing(t *testing.T) {
	for source, want := range map[string]string{
		"configMapKeyRef: {name: cm, key: none}": "couldn't find key none in ConfigMap ns/cm",
		"configMapKeyRef: {name: none, key: k}":  `configmap "none" not found`,
		"secretKeyRef: {name: s, key: none}":     "couldn't find key none in Secret ns/s",
		"fieldRef: {fieldPath: spec.containers}": "unsupported fieldPath: spec.containers",
	} {
		_, _, err := run(t, maker(), "containers: [{name: c, env: [{name: A, valueFrom: {"+source+"}}]}]")
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", source, err, want)
		}
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "env"), []byte("# c\nA='x' # y\n\nB='one\ntwo'\n C= 'no'\nD='d'\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	m := maker()
	m.Volume = func(types.UID, string) (string, error) { return dir, nil }
	for key, want := range map[string]string{"A": "x", "B": "one\ntwo", "D": "d"} {
		got, _, err := run(t, m, "containers: [{name: c, env: [{name: V, valueFrom: {fileKeyRef: {volumeName: v, path: env, key: "+key+"}}}]}]")
		if err != nil || got["V"] != want {
			t.Errorf("%s is %q, %v; want %q", key, got["V"], err, want)
		}
	}
	for _, ref := range []string{"{volumeName: v, path: env, key: C}", "{volumeName: v, path: env, key: E}", "{volumeName: v, path: out, key: root}", "{volumeName: v, path: ../env, key: A}"} {
		if got, _, err := run(t, m, "containers: [{name: c, env: [{name: V, valueFrom: {fileKeyRef: "+ref+"}}]}]"); err == nil {
			t.Errorf("%s is %q", ref, got["V"])
		}
	}
	for _, text := range []string{"A=x", "A", "A ='x'", "='x'", "A='x", "A='x' y", "A=\"x\""} {
		if got, err := parse(text, "A"); err == nil {
			t.Errorf("%s gives %q", text, got)
		}
	}
}

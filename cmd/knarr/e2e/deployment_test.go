//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestNodes(t *testing.T) {
	says(t, kubectl(t, "get", "nodes", "-o", "wide"), "Ready", "v1.36.3", "containerd://")
	if _, ok := under.(*whole); !ok {
		t.Skip("SKIPPED: knarr status is for what knarr up has started")
	}
	s := status(t)
	if s.PID == 0 || s.Kubeconfig != filepath.Join(dataDir, "kubeconfig") || len(s.Nodes) != 1 || !s.Nodes[0].Ready {
		t.Errorf("%+v", s)
	}
	out, err := program(t, "knarr", append([]string{"up"}, upFlags...)...)
	if err != nil {
		t.Errorf("a second up: %v", err)
	}
	says(t, out, "runs already")
}

// TestDeployment rolls a deployment out, forward and back.
func TestDeployment(t *testing.T) {
	const ns = "e2e-deploy"
	namespace(t, ns)
	k := func(args ...string) string { t.Helper(); return kubectl(t, append([]string{"-n", ns}, args...)...) }
	rolled := func() {
		t.Helper()
		says(t, k("rollout", "status", "deployment/web", "--timeout=60s"), "successfully rolled out")
	}
	k("create", "deployment", "web", "--image=knarr.local/demo:latest", "--replicas=3")
	rolled()
	k("scale", "deployment/web", "--replicas=2")
	eventually(t, 30*time.Second, func() error {
		if got := k("get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}"); got != "2" {
			return fmt.Errorf("%s replicas", got)
		}
		return nil
	})
	k("set", "env", "deployment/web", "COLOR=blue")
	rolled()
	says(t, k("rollout", "history", "deployment/web"), "1  ", "2  ")
	says(t, k("rollout", "undo", "deployment/web"), "rolled back")
	rolled()
	if env := k("get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].env}"); env != "" {
		t.Errorf("after undo there is %s", env)
	}
	says(t, k("describe", "deployment", "web"), "Replicas:", "2 desired | 2 updated | 2 total | 2 available", "ScalingReplicaSet")
	says(t, k("delete", "deployment", "web"), "deleted")
	eventually(t, 60*time.Second, func() error {
		if left := k("get", "pods,replicasets", "-o", "name"); left != "" {
			return fmt.Errorf("left: %s", left)
		}
		return nil
	})
}

// TestApply applies a manifest in each way and sees what is refused.
func TestApply(t *testing.T) {
	const ns = "e2e-apply"
	namespace(t, ns)
	file := filepath.Join(t.TempDir(), "m.yaml")
	write := func(value string) {
		text := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {color: " + value + "}\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("red")
	says(t, kubectl(t, "-n", ns, "apply", "-f", file), "created")
	says(t, kubectl(t, "-n", ns, "apply", "-f", file), "unchanged")
	write("blue")
	out, err := program(t, "kubectl", "-n", ns, "diff", "-f", file)
	if err == nil {
		t.Error("diff sees no difference")
	}
	says(t, out, "-  color: red", "+  color: blue")
	says(t, kubectl(t, "-n", ns, "apply", "--server-side", "-f", file), "serverside-applied")
	refused(t, "conflict with \"kubectl\"", "-n", ns, "apply", "--server-side", "--field-manager=other", "-f", manifest(t, "green"))
	says(t, kubectl(t, "explain", "deployment.spec.strategy"), "rollingUpdate", "RollingUpdateDeployment")
	for _, bad := range []struct{ manifest, why string }{
		{`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"dat":{}}`, `strict decoding error: unknown field "dat"`},
		{`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},"spec":{"containers":"no"}}`, `cannot unmarshal string into Go struct field PodSpec.spec.containers`},
		{`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},"spec":{}}`, `The Pod "x" is invalid: spec.containers: Required value`},
		{`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"settings"}}`, `configmaps "settings" already exists`},
	} {
		if err := os.WriteFile(file, []byte(bad.manifest), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, bad.why, "-n", ns, "create", "-f", file)
	}
	stale := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"settings","resourceVersion":"1"}}`
	if err := os.WriteFile(file, []byte(stale), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, "the object has been modified; please apply your changes to the latest version and try again", "-n", ns, "replace", "-f", file)
}

// TestNamespace deletes a namespace with all that is in it.
func TestNamespace(t *testing.T) {
	const ns = "e2e-namespace"
	kubectl(t, "create", "namespace", ns)
	kubectl(t, "-n", ns, "create", "deployment", "web", "--image=knarr.local/demo:latest")
	kubectl(t, "-n", ns, "create", "secret", "generic", "s", "--from-literal=a=b")
	kubectl(t, "-n", ns, "rollout", "status", "deployment/web", "--timeout=60s")
	kubectl(t, "delete", "namespace", ns, "--timeout=60s")
	refused(t, `namespaces "e2e-namespace" not found`, "get", "namespace", ns)
}

// manifest writes a manifest of another value.
func manifest(t *testing.T, value string) string {
	file := filepath.Join(t.TempDir(), "other.yaml")
	text := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {color: " + value + "}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestTrouble sees pods that cannot run say why.
func TestTrouble(t *testing.T) {
	const ns = "e2e-trouble"
	namespace(t, ns)
	kubectl(t, "-n", ns, "run", "crash", "--image=knarr.local/demo:latest", "--", "crash")
	kubectl(t, "-n", ns, "run", "big", "--image=knarr.local/demo:latest", `--overrides={"spec":{"containers":[{"name":"big","image":"knarr.local/demo:latest","resources":{"requests":{"cpu":"1000"}}}]}}`)
	eventually(t, time.Minute, func() error {
		if out := kubectl(t, "-n", ns, "get", "pod", "crash"); !strings.Contains(out, "CrashLoopBackOff") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	says(t, kubectl(t, "-n", ns, "describe", "pod", "crash"), "Back-off restarting failed container crash in pod crash_"+ns)
	eventually(t, 20*time.Second, func() error {
		if out := kubectl(t, "-n", ns, "describe", "pod", "big"); !strings.Contains(out, "0/1 nodes are available: 1 Insufficient cpu") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
}

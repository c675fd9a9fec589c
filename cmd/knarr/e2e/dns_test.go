//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestDNS asks for names from a pod.
func TestDNS(t *testing.T) {
	if _, ok := under.(*whole); !ok {
		t.Skip("SKIPPED: who starts the parts one by one brings DNS too")
	}
	const ns = "e2e-dns"
	namespace(t, ns)
	kubectl(t, "-n", "kube-system", "rollout", "status", "deployment/kube-dns", "--timeout=60s")
	kubectl(t, "-n", ns, "create", "deployment", "web", "--image=knarr.local/demo:latest")
	kubectl(t, "-n", ns, "expose", "deployment", "web", "--port=80", "--target-port=8080")
	kubectl(t, "-n", ns, "create", "service", "externalname", "other", "--external-name=web."+ns+".svc.cluster.local")
	kubectl(t, "-n", ns, "run", "client", "--image=knarr.local/busybox:latest", "--", "sleep", "3600")
	kubectl(t, "-n", ns, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	kubectl(t, "-n", ns, "rollout", "status", "deployment/web", "--timeout=60s")
	address := kubectl(t, "-n", ns, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	full := "web." + ns + ".svc.cluster.local"
	lookup := func(args ...string) string {
		out, err := program(t, "kubectl", append([]string{"-n", ns, "exec", "client", "--", "nslookup"}, args...)...)
		if err != nil {
			return fmt.Sprintf("%s (%v)", out, err)
		}
		return out
	}
	for _, each := range []struct{ args, want string }{
		{full, address},
		{address, full},
		{"other." + ns + ".svc.cluster.local", address},
		{"kubernetes.default.svc.cluster.local", "10.97.0.1"},
		{"nobody." + ns + ".svc.cluster.local", "NXDOMAIN"},
	} {
		eventually(t, 20*time.Second, func() error {
			if out := lookup(strings.Fields(each.args)...); !strings.Contains(out, each.want) {
				return fmt.Errorf("%s: no %s in %s", each.args, each.want, out)
			}
			return nil
		})
	}
	// By its short name, as programs do.
	kubectl(t, "-n", ns, "run", "dial", "--image=knarr.local/demo:latest", "--restart=Never", "--", "dial", "http://web/")
	eventually(t, 30*time.Second, func() error {
		out, err := program(t, "kubectl", "-n", ns, "logs", "dial")
		if err != nil || !strings.Contains(out, "web-") {
			return fmt.Errorf("%s %w", out, err)
		}
		return nil
	})
}

// TestSecondNode adds a node, whose pods and services are reached from the other
// node, cuts it off, and takes it away.
func TestSecondNode(t *testing.T) {
	if _, ok := under.(*whole); !ok {
		t.Skip("SKIPPED: knarr node is for what knarr up has started")
	}
	const ns = "e2e-nodes"
	namespace(t, ns)
	node := func(args ...string) string {
		t.Helper()
		out, err := program(t, "knarr", append([]string{"node", "--data-dir=" + dataDir}, args...)...)
		if err != nil {
			t.Fatalf("knarr node %v: %v\n%s", args, err, out)
		}
		return out
	}
	says(t, node("add", "second"), "Node second is ready")
	says(t, node("list"), "second", "running")
	kubectl(t, "-n", ns, "run", "there", "--image=knarr.local/demo:latest", `--overrides={"spec":{"nodeName":"second"}}`)
	kubectl(t, "-n", ns, "expose", "pod", "there", "--port=80", "--target-port=8080")
	kubectl(t, "-n", ns, "run", "here", "--image=knarr.local/busybox:latest", "--", "sleep", "3600")
	kubectl(t, "-n", ns, "wait", "--for=condition=Ready", "pod/there", "pod/here", "--timeout=60s")
	service := kubectl(t, "-n", ns, "get", "service", "there", "-o", "jsonpath={.spec.clusterIP}") + ":80"
	pod := kubectl(t, "-n", ns, "get", "pod", "there", "-o", "jsonpath={.status.podIP}") + ":8080"
	for _, address := range []string{pod, service} {
		eventually(t, 20*time.Second, func() error {
			name, err := ask(t.Context(), address)
			if err != nil || name != "there" {
				return fmt.Errorf("from the host, %s is %q: %w", address, name, err)
			}
			return nil
		})
		says(t, kubectl(t, "-n", ns, "exec", "here", "--", "wget", "-qO-", "http://"+address+"/"), "there")
	}
	says(t, kubectl(t, "-n", ns, "logs", "there"), "there serves on")
	says(t, node("isolate", "second"), "cut off")
	says(t, node("list"), "isolated")
	kubectl(t, "wait", "--for=condition=Ready=Unknown", "node/second", "--timeout=90s")
	node("rejoin", "second")
	kubectl(t, "wait", "--for=condition=Ready", "node/second", "--timeout=30s")
	node("remove", "second")
	refused(t, `nodes "second" not found`, "get", "node", "second")
}

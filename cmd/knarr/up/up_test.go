package up

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func flags(t *testing.T, args ...string) *pflag.FlagSet {
	t.Helper()
	var o Options
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.flags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return fs
}

func TestMerged(t *testing.T) {
	first, err := merged(nil, flags(t, "--secure-port=7443"))
	if err != nil || first.SecurePort != 7443 || first.PodRange != "10.244.0.0/16" {
		t.Fatalf("%+v %v", first, err)
	}
	if err := first.complete(); err != nil {
		t.Fatal(err)
	}
	again, err := merged(&first, flags(t))
	if err != nil || again != first {
		t.Errorf("without flags: %+v %v, want what it was", again, err)
	}
	if moved, err := merged(&first, flags(t, "--read-only-port=0")); err != nil || moved.ReadOnlyPort != 0 || moved.SecurePort != 7443 {
		t.Errorf("with another port: %+v %v", moved, err)
	}
	for _, stays := range []string{"--cluster-cidr=10.1.0.0/16", "--service-cluster-ip-range=10.2.0.0/16", "--node-name=other", "--etcd-servers=http://x:2379"} {
		if _, err := merged(&first, flags(t, stays)); err == nil || !strings.Contains(err.Error(), "was made with --") {
			t.Errorf("%s: %v", stays, err)
		}
	}
}

func TestRelay(t *testing.T) {
	tell := func(steps ...step) (string, error) {
		var in, out bytes.Buffer
		p := newPipe(&in)
		for _, s := range steps {
			p.tell(s)
		}
		err := relay(&in, screen{&out})
		return out.String(), err
	}
	out, err := tell(step{Name: "One", Took: time.Second}, step{Done: true}, step{Name: "Late"})
	if err != nil || !strings.Contains(out, "One") || !strings.Contains(out, "1.00s") || strings.Contains(out, "Late") {
		t.Errorf("%q %v", out, err)
	}
	if _, err := tell(step{Name: "One"}, step{Error: "the disk is full"}); err == nil || err.Error() != "the disk is full" {
		t.Errorf("an error comes through as %v", err)
	}
	if _, err := tell(step{Name: "One"}); err == nil {
		t.Error("an early end is no success")
	}
}

func TestAddresses(t *testing.T) {
	if a, err := firstAddress("10.96.0.0/16,fd00::/112"); err != nil || a != "10.96.0.1" {
		t.Error(a, err)
	}
	if a, err := dnsAddress("10.96.0.0/16"); err != nil || a != "10.96.0.10" {
		t.Error(a, err)
	}
	if a, err := dnsAddress("10.96.0.0/30"); err == nil {
		t.Errorf("a range of four has no tenth address, and not %s", a)
	}
}

// TestLock takes a directory in another process, as a second knarr would.
func TestLock(t *testing.T) {
	if path := os.Getenv("KNARR_TEST_LOCK"); path != "" {
		err := (&dir{path: path}).take()
		if !errors.Is(err, errRunning) {
			t.Fatalf("%v, want that it is taken", err)
		}
		pid, err := (&dir{path: path}).holder()
		if err != nil || pid != os.Getppid() {
			t.Fatalf("held by %d, %v", pid, err)
		}
		return
	}
	d, err := openDir(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := d.holder(); pid != 0 || err != nil {
		t.Errorf("held by %d, %v before anybody took it", pid, err)
	}
	if err := d.take(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLock$")
	cmd.Env = append(os.Environ(), "KNARR_TEST_LOCK="+d.path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestMembers(t *testing.T) {
	d := &dir{path: t.TempDir()}
	plan := &Options{Node: "own"}
	for i, want := range []struct{ name, address string }{{"node2", "172.31.253.2"}, {"node3", "172.31.253.3"}} {
		m, err := d.newMember("", plan)
		if err != nil || m.Name != want.name || m.Address != want.address {
			t.Fatalf("%d: %+v %v, want %v", i, m, err, want)
		}
	}
	if err := os.RemoveAll(d.file("nodes", "node2")); err != nil {
		t.Fatal(err)
	}
	if m, err := d.newMember("second", plan); err != nil || m.Address != "172.31.253.2" {
		t.Errorf("an address that is free again is given again: %+v %v", m, err)
	}
	for name, why := range map[string]string{"own": "already", "second": "already", "No": "is no name", strings.Repeat("n", 21): "is no name"} {
		if _, err := d.newMember(name, plan); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %q", name, err, why)
		}
	}
	if _, err := d.member("nobody"); err == nil {
		t.Error("there is a node nobody")
	}
}

// TestStatus tells of a cluster that runs no more.
func TestStatus(t *testing.T) {
	d := &dir{path: t.TempDir()}
	if err := d.write(stateFile, State{PID: 1, Kubeconfig: "k", DataDir: d.path, Started: time.Now()}); err != nil {
		t.Fatal(err)
	}
	s, err := d.status(t.Context())
	if err != nil || s.PID != 0 || !s.Started.IsZero() {
		t.Errorf("%+v %v", s, err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"kubeconfig":"k"`, `"dataDir":`, `"nodes":[]`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
}

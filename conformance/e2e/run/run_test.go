package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/knarr-dev/knarr/conformance/e2e/report"
	"github.com/knarr-dev/knarr/conformance/e2e/spec"
)

// tools builds Ginkgo and the suite in testdata, once for all tests.
var tools = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "run")
	if err != nil {
		return "", err
	}
	for _, args := range [][]string{
		{"build", "-o", dir + "/ginkgo", "github.com/onsi/ginkgo/v2/ginkgo"},
		{"test", "-c", "-o", dir + "/fake.test", "./testdata/fake"},
	} {
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("go %v: %w: %s", args, err, out)
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := tools(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// said is what a runner says.
type said struct {
	mu    sync.Mutex
	lines []string
}

func (s *said) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "\n")
}

func runner(t *testing.T) (*Runner, *said) {
	t.Helper()
	dir, err := tools()
	if err != nil {
		t.Fatal(err)
	}
	s := &said{}
	t.Setenv("FAKE_DIR", t.TempDir())
	return &Runner{
		Ginkgo: filepath.Join(dir, "ginkgo"), Suite: filepath.Join(dir, "fake.test"), Dir: t.TempDir(),
		Procs: 3, Bound: time.Minute, Grace: time.Minute, Say: s.say,
	}, s
}

func specs(names ...string) (list []spec.Spec) {
	for _, n := range names {
		list = append(list, spec.Spec{
			Name: "[sig-fake] Specs " + n + " [Conformance]", Area: "fake", Serial: strings.Contains(n, "[Serial]"), Conformance: true,
		})
	}
	return list
}

func states(outcomes []report.Outcome) string {
	var b strings.Builder
	for _, o := range outcomes {
		name := strings.TrimSuffix(strings.TrimPrefix(o.Name, "[sig-fake] Specs "), " [Conformance]")
		fmt.Fprintf(&b, "%s: %s\n", name, o.State)
	}
	return b.String()
}

func TestRunOutcomes(t *testing.T) {
	r, said := runner(t)
	r.Again = true
	outcomes, ended := r.Run(t.Context(), specs("stand alone [Serial]", "pass", "fail", "fail once", "skip"))
	if ended != "" {
		t.Errorf("ended early: %s", ended)
	}
	want := "stand alone [Serial]: passed\npass: passed\nfail: failed\nfail once: flaky\nskip: skipped\n"
	if got := states(outcomes); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	fail := outcomes[2]
	if fail.Failure != "expected more\nand got less" || !strings.Contains(fail.Where, "fake_test.go:") || fail.Attempts != 2 {
		t.Errorf("the failure is %+v", fail)
	}
	if !strings.Contains(fail.Events, "event for pod") || !strings.Contains(fail.Log, "looking at the cluster") || strings.Contains(fail.Log, "event for") {
		t.Errorf("events %q, log %q", fail.Events, fail.Log)
	}
	for _, line := range []string{"failed after", "[sig-fake] Specs fail [Conformance]", "parallel: 4 specs, 3 at once", "serial: 1 specs, 1 at once", "again: 2 specs, 1 at once"} {
		if !strings.Contains(said.String(), line) {
			t.Errorf("it does not say %q:\n%s", line, said)
		}
	}
}

// What hangs is named and stopped, and the rest runs to its end.
func TestRunHang(t *testing.T) {
	r, said := runner(t)
	r.Bound = 2 * time.Second
	r.Procs = 2
	outcomes, ended := r.Run(t.Context(), specs("hang", "pass", "pass too", "fail", "stand alone [Serial]"))
	if ended != "" {
		t.Errorf("ended early: %s", ended)
	}
	want := "hang: failed\npass: passed\npass too: passed\nfail: failed\nstand alone [Serial]: passed\n"
	if got := states(outcomes); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if hang := outcomes[0]; !hang.Hung || !strings.HasPrefix(hang.Failure, "still running after 2s, and stopped") || !strings.Contains(hang.Failure, "waiting for what never comes") {
		t.Errorf("the outcome of what hangs is %+v", hang)
	}
	if !strings.Contains(said.String(), "HANGS, running for 2s: [sig-fake] Specs hang [Conformance]") {
		t.Errorf("it does not name what hangs:\n%s", said)
	}
}

// A suite that does not heed being stopped is killed, and what hung is still named.
func TestRunDeaf(t *testing.T) {
	r, said := runner(t)
	r.Bound, r.Grace, r.Procs = 2*time.Second, time.Second, 1
	outcomes, ended := r.Run(t.Context(), specs("hang deaf to signals", "stand alone [Serial]"))
	if got, want := states(outcomes), "hang deaf to signals: failed\nstand alone [Serial]: passed\n"; got != want || ended != "" {
		t.Errorf("got\n%swant\n%sended %q", got, want, ended)
	}
	if !strings.Contains(said.String(), "killing it") {
		t.Errorf("it was not killed:\n%s", said)
	}
}

func TestRunBound(t *testing.T) {
	r, said := runner(t)
	over := errors.New("the run's bound of 2s")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Second, over)
	defer cancel()
	outcomes, ended := r.Run(ctx, specs("take a while", "stand alone [Serial]"))
	if ended != over.Error() {
		t.Errorf("ended for %q", ended)
	}
	if got := outcomes[0].Failure; !strings.HasPrefix(got, "was running for 2 s when") && !strings.HasPrefix(got, "was running for 1 s when") {
		t.Errorf("of what was running it says %q", got)
	}
	if strings.Contains(said.String(), "serial:") {
		t.Errorf("it begins what it has no time for:\n%s", said)
	}
	if got, want := states(outcomes), "take a while: not run\nstand alone [Serial]: not run\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestRunBroken(t *testing.T) {
	r, _ := runner(t)
	t.Setenv("FAKE_BROKEN", "yes")
	outcomes, ended := r.Run(t.Context(), specs("pass"))
	if !strings.Contains(ended, "BeforeSuite") || !strings.Contains(ended, "the cluster is not there") {
		t.Errorf("ended for %q", ended)
	}
	if got, want := states(outcomes), "pass: not run\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	r.Ginkgo = "/no/such/tool"
	if _, ended := r.Run(t.Context(), specs("pass")); !strings.Contains(ended, "no such file") {
		t.Errorf("without a tool it ended for %q", ended)
	}
}

package report

import (
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/knarr-dev/knarr/conformance/e2e/spec"
)

// What Ginkgo wrote of a run that was stopped, cut down to what counts.
const ginkgo = `[{"SuiteDescription": "Fake suite", "SuiteSucceeded": false,
 "SpecialSuiteFailureReasons": ["Interrupted by User", "no specs left"],
 "SpecReports": [
  {"LeafNodeType": "SynchronizedBeforeSuite", "State": "failed", "Failure": {"Message": "pods not ready"}},
  {"LeafNodeType": "ReportAfterSuite", "State": "passed"},
  {"ContainerHierarchyTexts": ["[sig-a] A"], "LeafNodeType": "It", "LeafNodeText": "passes", "State": "passed", "NumAttempts": 1, "RunTime": 1500000000},
  {"ContainerHierarchyTexts": ["[sig-a] A", "B"], "LeafNodeType": "It", "LeafNodeText": "fails", "State": "failed", "NumAttempts": 1, "RunTime": 61000000000,
   "Failure": {"Message": "expected this", "Location": {"FileName": "k8s.io/kubernetes@v1.36.3/test/e2e/common/a.go", "LineNumber": 7}},
   "CapturedGinkgoWriterOutput": "I1128 waiting\nAt 08:00 - event for p: {kubelet} Failed: no image\n"},
  {"ContainerHierarchyTexts": ["[sig-a] A"], "LeafNodeType": "It", "LeafNodeText": "panics", "State": "panicked", "NumAttempts": 1, "Failure": {"Message": "Test Panicked", "ForwardedPanic": "nil map"}},
  {"ContainerHierarchyTexts": ["[sig-a] A"], "LeafNodeType": "It", "LeafNodeText": "skips", "State": "skipped", "NumAttempts": 1, "Failure": {"Message": "needs a cloud"}},
  {"ContainerHierarchyTexts": ["[sig-a] A"], "LeafNodeType": "It", "LeafNodeText": "out of focus", "State": "skipped", "NumAttempts": 0},
  {"ContainerHierarchyTexts": ["[sig-a] A"], "LeafNodeType": "It", "LeafNodeText": "waits", "State": "interrupted", "NumAttempts": 1,
   "Failure": {"Message": "Interrupted by User", "ProgressReport": {"CurrentStepText": "waiting for a pod"}}}
 ]}]`

func TestLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "r.json")
	if err := os.WriteFile(file, []byte(ginkgo), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range append(r.Outcomes, r.Interrupted...) {
		got = append(got, o.Name+": "+o.State)
	}
	want := "[sig-a] A passes: passed, [sig-a] A B fails: failed, [sig-a] A panics: failed, [sig-a] A skips: skipped, [sig-a] A waits: failed"
	if strings.Join(got, ", ") != want {
		t.Errorf("got %s\nwant %s", strings.Join(got, ", "), want)
	}
	if len(r.Interrupted) != 1 || !strings.Contains(r.Interrupted[0].Failure, "at step: waiting for a pod") {
		t.Errorf("interrupted: %+v", r.Interrupted)
	}
	if got := strings.Join(r.Problems, "; "); got != "SynchronizedBeforeSuite: pods not ready; no specs left" {
		t.Errorf("problems: %s", got)
	}
	fails := r.Outcomes[1]
	if fails.Where != "test/e2e/common/a.go:7" || fails.Seconds != 61 || fails.Log != "I1128 waiting\n" || !strings.HasPrefix(fails.Events, "At 08:00 - event for p") {
		t.Errorf("the failure is %+v", fails)
	}
	if got := r.Outcomes[2].Failure; got != "Test Panicked\nnil map" {
		t.Errorf("the panic is %q", got)
	}
	if _, err := Load(file + "x"); err == nil {
		t.Error("a report that is not there is read")
	}
}

func outcome(name, area, state string, seconds float64) Outcome {
	return Outcome{Spec: spec.Spec{Name: name, Area: area}, State: state, Seconds: seconds}
}

func sample() *Report {
	failed := outcome("pod <starts>", "node", Failed, 300)
	failed.Failure, failed.Where, failed.Hung = "timed out\nwaiting for pod\n3\n4\n5\n6\n7", "test/e2e/a.go:12", true
	failed.Events, failed.Log = "event for pod: BackOff\n", "<script>alert(1)</script>\n"
	flaky := outcome("service answers", "network", Flaky, 12)
	flaky.Failure = "connection refused"
	skipped := outcome("pod swaps", "node", Skipped, 1)
	skipped.Failure = "no swap here"
	left := outcome("job ends", "apps", NotRun, 0)
	left.Failure = "was running for 3 s when the run was stopped\nstep"
	return &Report{
		Cluster: "https://here, v1.36.3", Suite: "Kubernetes v1.36.3 conformance", Nodes: 2, Procs: 6, Seconds: 301,
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Ended: "the bound of 2h for the whole run",
		Specs: []Outcome{outcome("pod runs", "node", Passed, 2.5), failed, flaky, skipped, left},
	}
}

const table = `
area     specs  passed  failed  flaky  skipped  not run  seconds
apps         1       0       0      0        0        1        0
network      1       0       0      1        0        0       12
node         3       1       1      0        1        0      304
all          5       1       1      1        1        1      316

301 s on the clock, 6 at once, 2 nodes, https://here, v1.36.3
`

func TestText(t *testing.T) {
	var b strings.Builder
	sample().Text(&b)
	got := b.String()
	want := `
FAILED pod <starts> (300 s) HUNG
    timed out
    waiting for pod
    3
    4
    5
    6
    at test/e2e/a.go:12

FLAKY service answers: passed alone, but before
    connection refused

SKIPPED pod swaps
    no swap here

NOT RUN 1 specs, for the bound of 2h for the whole run
    job ends: was running for 3 s when the run was stopped
` + table
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestGood(t *testing.T) {
	for _, c := range []struct {
		name string
		r    Report
		want bool
	}{
		{"passed", Report{Specs: []Outcome{outcome("a", "b", Passed, 1), outcome("a", "b", Flaky, 1)}}, true},
		{"failed", Report{Specs: []Outcome{outcome("a", "b", Passed, 1), outcome("a", "b", Failed, 1)}}, false},
		{"skipped", Report{Specs: []Outcome{outcome("a", "b", Skipped, 1)}}, false},
		{"ended early", Report{Specs: []Outcome{outcome("a", "b", Passed, 1)}, Ended: "interrupt"}, false},
		{"nothing", Report{}, false},
	} {
		if got := c.r.Good(); got != c.want {
			t.Errorf("%s: good is %t", c.name, got)
		}
	}
}

func TestWrite(t *testing.T) {
	dir, r := t.TempDir(), sample()
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var back Report
	if err := json.Unmarshal([]byte(read("report.json")), &back); err != nil || len(back.Specs) != 5 || back.Specs[1].Failure != r.Specs[1].Failure || back.Specs[1].Name != "pod <starts>" {
		t.Errorf("report.json reads back as %+v, %v", back, err)
	}
	var suites junitSuites
	if err := xml.Unmarshal([]byte(read("report.xml")), &suites); err != nil {
		t.Fatal(err)
	}
	if len(suites.Suites) != 3 || suites.Suites[2].Failures != 1 || suites.Suites[2].Skipped != 1 || suites.Suites[2].Cases[1].Failure.Message != "timed out" {
		t.Errorf("report.xml reads back as %+v", suites)
	}
	page := read("report.html")
	for _, want := range []string{"pod &lt;starts&gt;", "waiting for pod", "event for pod: BackOff", "Ended early", "no swap here", "width:33.33%", "hung", "5m0s"} {
		if !strings.Contains(page, want) {
			t.Errorf("report.html has no %q", want)
		}
	}
	for _, never := range []string{"<script", "ZgotmplZ", "http://", "src="} {
		if strings.Contains(page, never) {
			t.Errorf("report.html has %q", never)
		}
	}
}

package pod

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite the decisions in testdata")

// TestExamples runs each file of testdata: a pod, the rest of a state, and what
// is decided about it.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no examples", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { example(t, file) })
	}
}

func example(t *testing.T, file string) {
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var s State
	for i, f := range a.Files {
		var got string
		switch f.Name {
		case "pod.yaml":
			s.Pod = &corev1.Pod{}
			read(t, f.Data, s.Pod)
			continue
		case "state.yaml":
			read(t, f.Data, &s)
			if s.Was.Phase == "" {
				s.Was = s.Pod.Status
			}
			s.Host = Host{IPs: []string{"10.0.0.1"}, Runtime: "cri"}
			continue
		case "next":
			got = describe(Next(s))
		case "status":
			got = summary(Status(s))
		case "status.yaml":
			b, err := yaml.Marshal(Status(s))
			if err != nil {
				t.Fatal(err)
			}
			got = string(b)
		default:
			t.Fatalf("unknown file %s", f.Name)
		}
		if got != string(f.Data) && !*update {
			t.Errorf("%s is\n%swant\n%s", f.Name, got, f.Data)
		}
		a.Files[i].Data = []byte(got)
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// read reads YAML in which durations are written as such.
func read(t *testing.T, data []byte, into any) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(string(data)) {
		if k, v, ok := strings.Cut(strings.TrimRight(line, "\n"), ": "); ok {
			if d, err := time.ParseDuration(v); err == nil && v != "0" {
				line = fmt.Sprintf("%s: %d\n", k, d)
			}
		}
		lines = append(lines, line)
	}
	if err := yaml.UnmarshalStrict([]byte(strings.Join(lines, "")), into); err != nil {
		t.Fatal(err)
	}
}

func describe(p Plan) string {
	var b strings.Builder
	if p.Ending {
		b.WriteString("ending\n")
	}
	for _, s := range p.Steps {
		b.WriteString(string(s.Op))
		for _, part := range []string{s.Container, s.ID} {
			if part != "" {
				b.WriteString(" " + part)
			}
		}
		if s.Op == Start || s.Op == CreateSandbox {
			fmt.Fprintf(&b, " attempt %d", s.Attempt)
		}
		if s.Backoff.Delay > 0 {
			fmt.Fprintf(&b, " then wait %v", s.Backoff.Delay)
		}
		if s.Op == Stop || s.Op == PreStop {
			fmt.Fprintf(&b, " within %v", s.Grace)
		}
		if s.Why != "" {
			b.WriteString(" because " + string(s.Why))
		}
		b.WriteString("\n")
	}
	if p.Wait > 0 {
		fmt.Fprintf(&b, "ask again in %v\n", p.Wait)
	}
	return b.String()
}

// summary is a status in a few lines.
func summary(st corev1.PodStatus) string {
	var b strings.Builder
	fmt.Fprintln(&b, strings.TrimSpace(fmt.Sprintln(cmp.Or(string(st.Phase), "-"), st.Reason, st.Message, st.PodIP)))
	for _, c := range st.Conditions {
		fmt.Fprintln(&b, strings.TrimSpace(fmt.Sprintln("condition", c.Type, c.Status, c.Reason, c.Message)))
	}
	for _, list := range [][]corev1.ContainerStatus{st.InitContainerStatuses, st.ContainerStatuses, st.EphemeralContainerStatuses} {
		for _, c := range list {
			fmt.Fprintf(&b, "%s: %s", c.Name, state(c.State))
			if c.LastTerminationState != (corev1.ContainerState{}) {
				fmt.Fprintf(&b, ", before %s", state(c.LastTerminationState))
			}
			if c.RestartCount > 0 {
				fmt.Fprintf(&b, ", restarted %d", c.RestartCount)
			}
			if c.Started != nil && *c.Started {
				b.WriteString(", started")
			}
			if c.Ready {
				b.WriteString(", ready")
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func state(s corev1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "running"
	case s.Terminated != nil:
		return strings.TrimSpace(fmt.Sprintln("exit", s.Terminated.ExitCode, s.Terminated.Reason, s.Terminated.Message))
	}
	return strings.TrimSpace(fmt.Sprintln("waiting", s.Waiting.Reason, s.Waiting.Message))
}

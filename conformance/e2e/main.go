// Command e2e runs the official conformance suite of Kubernetes, as it is,
// against a cluster and reports what came of it.
//
// It builds the suite at the version that this module requires, so that
// nothing of k8s.io/kubernetes is in knarr's own module. The cluster is
// whichever a kubeconfig names; only where none is given it asks knarr for
// the one on this machine.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"

	"github.com/knarr-dev/knarr/conformance/e2e/cluster"
	"github.com/knarr-dev/knarr/conformance/e2e/report"
	"github.com/knarr-dev/knarr/conformance/e2e/run"
	"github.com/knarr-dev/knarr/conformance/e2e/spec"
	"github.com/knarr-dev/knarr/conformance/e2e/suite"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	good, err := start(ctx, os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(2)
	case !good:
		os.Exit(1)
	}
}

// The flags. Each that is a word in capitals too may be given so in the
// environment, as a makefile does.
type flags struct {
	specs, area, focus string
	procs              int
	kubeconfig         string
	knarr, kubectl     string
	bound, specBound   time.Duration
	notReady           int
	again, list        bool
	build              bool
	module, out        string
}

func parse(args []string) (*flags, error) {
	f := &flags{}
	set := flag.NewFlagSet("e2e", flag.ContinueOnError)
	set.StringVar(&f.specs, "specs", os.Getenv("SPECS"), "a `file` with names of specs, plain or in columns (SPECS); all of conformance where there is none")
	set.StringVar(&f.area, "area", os.Getenv("AREA"), "only specs of this area (AREA)")
	set.StringVar(&f.focus, "focus", os.Getenv("FOCUS"), "only specs whose name matches this `expression` (FOCUS)")
	set.IntVar(&f.procs, "procs", 6, "how many specs at once (PROCS)")
	set.StringVar(&f.kubeconfig, "kubeconfig", os.Getenv("KUBECONFIG"), "the cluster (KUBECONFIG); knarr's own where there is none")
	set.StringVar(&f.knarr, "knarr", "bin/knarr", "the knarr to ask for its cluster")
	set.StringVar(&f.kubectl, "kubectl", "bin/kubectl", "the kubectl that specs use; one in PATH where it is not there")
	set.DurationVar(&f.bound, "bound", 2*time.Hour, "for the whole run")
	set.DurationVar(&f.specBound, "spec-bound", 15*time.Minute, "for each spec; the longest that passes takes ten minutes")
	set.IntVar(&f.notReady, "allowed-not-ready-nodes", 0, "how many nodes the suite puts up with that are not ready")
	set.BoolVar(&f.again, "again", true, "run what failed once more, alone")
	set.BoolVar(&f.list, "list", false, "only print the names of the chosen specs")
	set.BoolVar(&f.build, "build", false, "only build the suite")
	set.StringVar(&f.module, "module", "conformance/e2e", "the folder of the suite's module")
	set.StringVar(&f.out, "out", "bin/conformance", "where reports go")
	if text := os.Getenv("PROCS"); text != "" {
		if err := set.Set("procs", text); err != nil {
			return nil, fmt.Errorf("PROCS=%s: %w", text, err)
		}
	}
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	if set.NArg() > 0 {
		return nil, fmt.Errorf("what is %q for? there are only flags", set.Arg(0))
	}
	return f, nil
}

// start does what the flags say and tells whether all is good.
func start(ctx context.Context, args []string, out io.Writer) (good bool, err error) {
	f, err := parse(args)
	if err != nil {
		return false, err
	}
	say := speaker(out)
	s := &suite.Suite{Module: f.module, Cache: filepath.Join(f.module, ".cache"), Say: say}
	if s.Cache, err = filepath.Abs(s.Cache); err != nil {
		return false, err
	}
	if err := s.Build(ctx); err != nil {
		return false, err
	}
	chosen, err := choose(s, f)
	if err != nil || f.build {
		return f.build, err
	}
	if f.list {
		for _, c := range chosen {
			fmt.Fprintln(out, c.Name)
		}
		return true, nil
	}
	if f.kubeconfig == "" {
		if f.kubeconfig, err = ask(ctx, f.knarr); err != nil {
			return false, err
		}
	}
	return conform(ctx, f, s, chosen, say, out)
}

// choose reads which specs are meant. It is an error to name one that is not there.
func choose(s *suite.Suite, f *flags) ([]spec.Spec, error) {
	all, err := s.Specs()
	if err != nil {
		return nil, err
	}
	choice := spec.Choice{Area: f.area}
	if f.focus != "" {
		if choice.Focus, err = regexp.Compile(f.focus); err != nil {
			return nil, fmt.Errorf("FOCUS: %w", err)
		}
	}
	if f.specs != "" {
		file, err := os.Open(f.specs)
		if err != nil {
			return nil, fmt.Errorf("SPECS: %w", err)
		}
		defer func() { _ = file.Close() }() // only read
		if choice.List, err = spec.Read(file); err != nil {
			return nil, fmt.Errorf("SPECS: %s: %w", f.specs, err)
		}
	}
	return spec.Select(all, choice)
}

// ask asks knarr where the kubeconfig of its cluster is.
func ask(ctx context.Context, knarr string) (string, error) {
	text, err := exec.CommandContext(ctx, knarr, "status", "-o", "json").Output()
	if err != nil {
		return "", fmt.Errorf("no KUBECONFIG, and %s status says of no cluster here: %w", knarr, err)
	}
	var status struct {
		Kubeconfig string `json:"kubeconfig"`
	}
	if err := json.Unmarshal(text, &status); err != nil || status.Kubeconfig == "" {
		return "", fmt.Errorf("no KUBECONFIG, and %s status names none: %s", knarr, text)
	}
	return status.Kubeconfig, nil
}

// grace is how long a run that was stopped has for its specs' own cleaning up.
const grace = 3 * time.Minute

func conform(ctx context.Context, f *flags, s *suite.Suite, chosen []spec.Spec, say func(string, ...any), out io.Writer) (bool, error) {
	c, err := cluster.Open(f.kubeconfig)
	if err != nil {
		return false, err
	}
	nodes, err := c.Ready(ctx)
	if err != nil && nodes == 0 || err != nil && f.notReady == 0 {
		return false, err
	}
	if err := c.Remember(ctx); err != nil {
		return false, err
	}
	version, err := s.Version()
	if err != nil {
		return false, err
	}
	args, err := suiteArgs(f, nodes)
	if err != nil {
		return false, err
	}
	dir, err := filepath.Abs(filepath.Join(f.out, "rounds"))
	if err != nil {
		return false, err
	}
	r := &run.Runner{
		Ginkgo: s.Ginkgo(), Suite: s.Test(), Args: args, Dir: dir,
		Procs: f.procs, Bound: f.specBound, Grace: grace, Again: f.again, Say: say,
	}
	rep := &report.Report{
		Cluster: fmt.Sprintf("%s, %s", c.Server, c.Version), Suite: "Kubernetes " + version + " conformance",
		Nodes: nodes, Procs: f.procs, Started: time.Now(),
	}
	say("%d specs against %s, %d nodes; output in %s", len(chosen), rep.Cluster, nodes, dir)
	bounded, cancel := context.WithTimeoutCause(ctx, f.bound, fmt.Errorf("the bound of %s for the whole run", f.bound))
	defer cancel()
	rep.Specs, rep.Ended = r.Run(bounded, chosen)
	rep.Seconds = time.Since(rep.Started).Seconds()
	clean(ctx, c, say)
	rep.Text(out)
	if err := rep.Write(f.out); err != nil {
		return false, err
	}
	say("reports: %s/report.html, .json and .xml", f.out)
	return rep.Good(), nil
}

// clean removes what is left of the run, also when it was interrupted.
func clean(ctx context.Context, c *cluster.Cluster, say func(string, ...any)) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	left, err := c.Clean(ctx)
	if len(left) > 0 {
		say("removed what specs left: %d namespaces %v", len(left), left)
	}
	if err != nil {
		say("cleaning up: %v", err)
	}
}

// suiteArgs are the suite's own flags.
func suiteArgs(f *flags, nodes int) ([]string, error) {
	kubeconfig, err := filepath.Abs(f.kubeconfig)
	if err != nil {
		return nil, err
	}
	args := []string{
		"--provider=skeleton", "--kubeconfig=" + kubeconfig, fmt.Sprintf("--num-nodes=%d", nodes), "--disable-log-dump",
		fmt.Sprintf("--allowed-not-ready-nodes=%d", f.notReady),
	}
	kubectl, err := filepath.Abs(f.kubectl)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(kubectl); err == nil {
		args = append(args, "--kubectl-path="+kubectl)
	}
	return args, nil
}

// speaker prints a line each, with the time since the start.
func speaker(out io.Writer) func(format string, args ...any) {
	began := time.Now()
	var mu sync.Mutex
	return func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		at := time.Since(began).Round(time.Second)
		fmt.Fprintf(out, "%02d:%02d  %s\n", int(at.Minutes()), int(at.Seconds())%60, fmt.Sprintf(format, args...))
	}
}

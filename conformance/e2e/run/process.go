package run

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/knarr-dev/knarr/conformance/e2e/report"
	"github.com/knarr-dev/knarr/conformance/e2e/spec"
)

// A process is one run of Ginkgo.
type process struct {
	r     *Runner
	specs []spec.Spec
	cmd   *exec.Cmd
	file  string // the report it is to write
	log   string // what it prints
	err   error  // why it did not start
	watch *watch
	read  chan struct{} // closed when all it printed is read
}

// start starts a run of the specs, or keeps why it could not.
func (r *Runner) start(name string, specs []spec.Spec, procs int) *process {
	p := &process{
		r: r, specs: specs, file: filepath.Join(r.Dir, name+".json"), log: filepath.Join(r.Dir, name+".log"),
		watch: newWatch(specs, r.Bound, r.Say), read: make(chan struct{}),
	}
	p.err = p.launch(name, procs)
	return p
}

func (p *process) launch(name string, procs int) error {
	if err := os.MkdirAll(p.r.Dir, 0o755); err != nil {
		return err
	}
	if err := os.Remove(p.file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	log, err := os.Create(p.log)
	if err != nil {
		return err
	}
	args := []string{
		fmt.Sprintf("--procs=%d", procs), "--no-color", "--timeout=24h", "--keep-separate-reports=false",
		"--poll-progress-after=" + p.r.Bound.String(), "--poll-progress-interval=" + p.r.Bound.String(),
		"--output-dir=" + p.r.Dir, "--json-report=" + name + ".json",
	}
	for _, pattern := range spec.Patterns(p.specs) {
		args = append(args, "--focus="+pattern)
	}
	args = append(append(args, p.r.Suite, "--"), p.r.Args...)
	p.cmd = exec.Command(p.r.Ginkgo, args...)
	// A group of its own, so that it is stopped when we say and not when a terminal does.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, in := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = in, in
	// What it leaves running must not hold up our reading.
	p.cmd.WaitDelay = 10 * time.Second
	if err := p.cmd.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	go func() {
		defer close(p.read)
		p.watch.follow(io.TeeReader(out, log))
		_, _ = io.Copy(io.Discard, out)
		_ = log.Close()
	}()
	return nil
}

// wait waits for the end of the run, and brings it about when ctx ends or
// specs hang. hung are those and how long each had been running.
func (p *process) wait(ctx context.Context) (got report.Round, hung map[string]time.Duration, err error) {
	if p.err != nil {
		return got, nil, fmt.Errorf("start %s: %w", p.r.Ginkgo, p.err)
	}
	done := make(chan error, 1)
	go func() { done <- p.cmd.Wait() }()
	stop, kill := ctx.Done(), (<-chan time.Time)(nil)
	hang := p.watch.hang
	for running := true; running; {
		select {
		case err = <-done:
			running = false
			continue
		case <-kill:
			p.r.Say("the suite does not stop: killing it")
			p.signal(syscall.SIGKILL)
			continue
		case <-stop:
			p.r.Say("stopping: %v", context.Cause(ctx))
		case <-hang:
			p.r.Say("stopping the run, to go on without what hangs")
		}
		stop, hang = nil, nil
		p.signal(syscall.SIGINT)
		kill = time.After(p.r.Grace)
	}
	if closer, is := p.cmd.Stdout.(io.Closer); is {
		_ = closer.Close()
	}
	<-p.read
	got, loaded := report.Load(p.file)
	if loaded != nil {
		err = errors.Join(err, loaded)
	}
	return got, p.watch.hung(), err
}

func (p *process) signal(s syscall.Signal) {
	// The group may have ended meanwhile, which is what is wanted.
	_ = syscall.Kill(-p.cmd.Process.Pid, s)
}

// A watch reads what Ginkgo prints while it runs: which specs fail, how far
// it is, and which specs run longer than they may.
type watch struct {
	names map[string]bool
	bound time.Duration
	say   func(format string, args ...any)
	hang  chan struct{} // closed when the first spec hangs

	mu      sync.Mutex
	running map[string]time.Duration
}

func newWatch(specs []spec.Spec, bound time.Duration, say func(string, ...any)) *watch {
	w := &watch{names: map[string]bool{}, bound: bound, say: say, hang: make(chan struct{}), running: map[string]time.Duration{}}
	for _, s := range specs {
		w.names[s.Name] = true
	}
	return w
}

// every is how many finished specs are worth a line.
const every = 25

var (
	ended  = regexp.MustCompile(`^\S*• \[(\S+)\] \[([0-9.]+) seconds\]`)
	node   = regexp.MustCompile(`\[(It|[A-Z][A-Za-z]+(Each|All)|DeferCleanup[^\]]*)\] `) // where in a spec it failed
	lasted = regexp.MustCompile(`^\s*(.*) \(Spec Runtime: ([^)]+)\)$`)
)

func (w *watch) follow(r io.Reader) {
	lines := bufio.NewReader(r)
	finished, failed := 0, ""
	for {
		line, err := lines.ReadString('\n')
		text := strings.TrimRight(line, "\r\n")
		before := finished / every
		finished += strings.Count(text, "•")
		if finished/every > before {
			w.say("%d of %d ended", min(finished, len(w.names)), len(w.names))
		}
		if name := w.named(text); failed != "" && name != "" {
			w.say("%s %s", failed, name)
			failed = ""
		}
		if m := ended.FindStringSubmatch(text); m != nil {
			failed = strings.ToLower(strings.Trim(m[1], "!")) + " after " + m[2] + " s:"
		}
		if m := lasted.FindStringSubmatch(text); m != nil {
			w.lasts(strings.TrimSpace(m[1]), m[2])
		}
		if err != nil {
			return
		}
	}
}

// named is the spec that a line names, which may also say where in the spec
// and end in the spec's labels.
func (w *watch) named(line string) string {
	name := strings.TrimSpace(node.ReplaceAllString(line, ""))
	if w.names[name] {
		return name
	}
	if at := strings.LastIndex(name, " ["); at >= 0 && w.names[name[:at]] {
		return name[:at]
	}
	return ""
}

// lasts notes how long a spec has been running.
func (w *watch) lasts(name, text string) {
	d, err := time.ParseDuration(text)
	if err != nil || d < w.bound || !w.names[name] {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.running[name]; !known {
		w.say("HANGS, running for %s: %s", d.Round(time.Second), name)
	}
	if len(w.running) == 0 {
		close(w.hang)
	}
	w.running[name] = d
}

func (w *watch) hung() map[string]time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running
}

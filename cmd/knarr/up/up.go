// Package up runs a whole cluster in one process: it starts, tells of and
// ends what the packages below it and its siblings are the parts of.
//
// All that a cluster has is in its data directory, but for what the runtime
// and the kernel hold; down takes that away.
package up

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/knarr-dev/knarr/cmd/knarr/parts"
)

// Commands returns the commands that start, end and tell of a cluster.
func Commands() []*cobra.Command {
	return []*cobra.Command{upCommand(), downCommand(), statusCommand(), nodeCommand()}
}

// progressFD is where a process in the background tells of its progress.
const progressFD = 3

func upCommand() *cobra.Command {
	var (
		path       string
		foreground bool
		background bool
		nodes      int
	)
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a whole cluster on this machine",
		Long: "Start a whole cluster on this machine: API server, scheduler, controllers, kubelet and service proxy in one process\n" +
			"in the background, and a containerd of its own. A cluster that was stopped goes on where it was.",
		Args: cobra.NoArgs,
	}
	var o Options
	o.flags(cmd.Flags())
	cmd.Flags().StringVar(&path, "data-dir", defaultDir, "directory for all that the cluster keeps")
	cmd.Flags().IntVar(&nodes, "nodes", 1, "nodes that there are to be at least, this machine's own and further ones on it")
	cmd.Flags().BoolVar(&foreground, "foreground", false, "stay in the foreground and log to standard error, for a supervisor")
	cmd.Flags().BoolVar(&background, "tell-progress", false, "tell of progress to the process that started this one")
	if err := cmd.Flags().MarkHidden("tell-progress"); err != nil {
		panic(err) // the flag was added above
	}
	level := parts.Verbosity(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		d, had, err := open(path)
		if err != nil {
			return err
		}
		o, err := merged(had, cmd.Flags())
		if err == nil {
			err = o.complete()
		}
		if err != nil {
			return err
		}
		switch {
		case background:
			return inBackground(cmd.Context(), d, o, level())
		case foreground:
			parts.SetLog(os.Stderr, level())
			return host(cmd.Context(), d, o, &steps{to: screen{cmd.ErrOrStderr()}, last: time.Now()}, func() {})
		}
		return launch(cmd, d, o, nodes)
	}
	return cmd
}

// open opens a data directory and reads what its cluster was made with.
func open(path string) (*dir, *Options, error) {
	d, err := openDir(path)
	if err != nil {
		return nil, nil, err
	}
	plan, err := d.plan()
	if err != nil || plan == nil {
		return d, nil, err
	}
	return d, &plan.Options, nil
}

// inBackground runs a cluster and tells the process that started this one how
// far it has come.
func inBackground(ctx context.Context, d *dir, o Options, level slog.Level) error {
	parts.SetLog(os.Stderr, level)
	tell := os.NewFile(progressFD, "progress")
	if tell == nil {
		return errors.New("--tell-progress is for knarr itself")
	}
	to := newPipe(tell)
	done := func() {
		to.tell(step{Done: true})
		_ = tell.Close() // who waited has what it waited for
	}
	err := host(ctx, d, o, &steps{to: to, last: time.Now()}, done)
	if err != nil {
		to.tell(step{Error: err.Error()})
	}
	return err
}

// launch starts a cluster in the background and waits until it is ready.
func launch(cmd *cobra.Command, d *dir, o Options, nodes int) error {
	out := cmd.OutOrStdout()
	if pid, err := d.holder(); err != nil {
		return err
	} else if pid != 0 {
		if err := d.grow(cmd.Context(), nodes, &steps{to: screen{out}, last: time.Now()}); err != nil {
			return err
		}
		return alreadyUp(cmd.Context(), out, d)
	}
	if err := checkHost(d.path); err != nil {
		return err
	}
	began := time.Now()
	fmt.Fprintf(out, "Starting knarr in %s\n", d.path)
	progress, err := spawn(d)
	if err != nil {
		return err
	}
	defer func() { _ = progress.Close() }()
	if err := relay(progress, screen{out}); err != nil {
		return fmt.Errorf("%w (its log: %s)", err, d.file(logFile))
	}
	if err := d.startMembers(&o); err != nil {
		return err
	}
	if err := d.grow(cmd.Context(), nodes, &steps{to: screen{out}, last: time.Now()}); err != nil {
		return err
	}
	fmt.Fprintf(out, "The cluster is ready after %.1fs.\n\n", time.Since(began).Seconds())
	hints(out, d, o)
	return nil
}

// spawn starts this program again, in a session of its own. What it returns
// tells of its progress.
func spawn(d *dir) (progress *os.File, err error) {
	log, err := d.openLog()
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start in the background: %w", err)
	}
	defer func() { _ = write.Close() }() // likewise
	exe, err := os.Executable()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start in the background: %w", err), read.Close())
	}
	cmd := exec.Command(exe, append(os.Args[1:], "--tell-progress")...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{write}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start in the background: %w", err), read.Close())
	}
	return read, cmd.Process.Release()
}

// alreadyUp tells of a cluster that runs.
func alreadyUp(ctx context.Context, out io.Writer, d *dir) error {
	s, err := d.status(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "The cluster runs already.")
	s.print(out)
	return nil
}

// hints says what can be tried next.
func hints(out io.Writer, d *dir, o Options) {
	kubectl := "kubectl"
	if exe, err := os.Executable(); err == nil {
		if beside := strings.TrimSuffix(exe, "knarr") + "kubectl"; beside != "kubectl" {
			if _, err := os.Stat(beside); err == nil {
				kubectl = beside
			}
		}
	}
	w := bufio.NewWriter(out)
	fmt.Fprintf(w, `Try it:
  export KUBECONFIG=%s
  %[2]s get nodes -o wide
  %[2]s create deployment web --image=knarr.local/demo:latest --replicas=3
  %[2]s rollout status deployment web
  %[2]s expose deployment web --port=80 --target-port=8080
  curl "$(%[2]s get service web -o jsonpath='{.spec.clusterIP}')"
  curl http://%[3]s:%[4]d/pods
`, d.file(adminFile), kubectl, o.ReadOnlyAddress, o.ReadOnlyPort)
	fmt.Fprintf(w, "\n`knarr status` tells what runs, `knarr down` ends it and leaves nothing.\n")
	_ = w.Flush() // a person who has gone reads no hints
}

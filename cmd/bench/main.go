// Command bench measures the API server: rates, CPU time and size, each as a
// ratio to a limit that is measured in the same run on the same machine. The
// limit mostly is a plain handler that does the least that could be done:
// write the same bytes, or put the body into the same etcd.
//
// The server is bin/knarr in a process of its own beside bin/etcd, reached by
// TLS and HTTP/2 over loopback; the plain handler is one of this command's.
// What is measured stands in measurements.go, in the order of the table.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"
	"time"
)

// options say what is measured, and how long.
type options struct {
	bin     string         // directory of knarr and etcd
	only    *regexp.Regexp // names of the measurements wanted
	runs    int            // of each, of which the median counts
	objects int            // pods that are there
	heavy   int            // pods for the measure of memory
	span    time.Duration  // how long each side of a run takes, about
	growth  bool           // measure at other numbers of objects instead
	limit   time.Duration  // of everything
}

func main() {
	// A child dies with the thread that started it, and this one lives longest.
	runtime.LockOSThread()
	os.Exit(run(os.Args[1:]))
}

// run does what the arguments say and returns the exit status.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	if part, ok := parts[first(args)]; ok {
		err = part(ctx, args[1:])
	} else {
		err = bench(ctx, args)
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// parts are what this command is in processes of its own.
var parts = map[string]func(ctx context.Context, args []string) error{
	"plain":       plain,
	"first-write": firstWrite,
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// parse reads the flags.
func parse(args []string) (o options, err error) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	only, quick := "", false
	fs.StringVar(&o.bin, "bin", "bin", "`directory` of knarr and etcd; etcd is built there where it lacks")
	fs.StringVar(&only, "only", "", "measure only what has a name that the `regexp` matches: "+names())
	fs.IntVar(&o.runs, "runs", 3, "runs of each measurement, of which the median counts")
	fs.IntVar(&o.objects, "objects", 10000, "pods that are there")
	fs.IntVar(&o.heavy, "memory-objects", 50000, "pods for the measure of memory")
	fs.DurationVar(&o.span, "time", 2*time.Second, "how long a run measures")
	fs.DurationVar(&o.limit, "limit", 20*time.Minute, "most time for everything")
	fs.BoolVar(&o.growth, "growth", false, "measure instead how the server's figures change from 1,000 to 100,000 pods")
	fs.BoolVar(&quick, "quick", false, "one short run with 1,000 pods, for trying: its figures mean little")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("what is %q? bench takes flags only", fs.Arg(0))
	}
	if o.only, err = regexp.Compile(only); err != nil {
		return o, fmt.Errorf("-only: %w", err)
	}
	if quick {
		o.runs, o.objects, o.heavy, o.span = 1, 1000, 2000, 500*time.Millisecond
	}
	if o.runs < 1 || o.objects < nodeShare {
		return o, fmt.Errorf("needs 1 run and %d objects at the least", nodeShare)
	}
	o.bin, err = filepath.Abs(o.bin)
	return o, err
}

// bench measures what is wanted and prints the table.
func bench(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit, fmt.Errorf("everything took longer than %v", o.limit))
	defer cancel()
	if err := o.tools(ctx); err != nil {
		return err
	}
	if o.growth {
		return growth(ctx, os.Stdout, o)
	}
	rows, err := measure(ctx, o)
	return errors.Join(print(os.Stdout, o, rows), err)
}

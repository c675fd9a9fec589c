// Command images makes the images that the official conformance suite pulls,
// without a registry anywhere, and is the registry that hands them out.
//
// They are made of Debian packages, of Go programs at the versions that the
// suite names, and of busybox built from source; see recipes.go. A node pulls
// them as in life: its containerd is told that this registry mirrors the ones
// in the images' names (images hosts).
//
// It is a module of its own, for what packs images would stand in nobody
// else's go.mod.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/knarr-dev/knarr/conformance/images/debian"
	"github.com/knarr-dev/knarr/conformance/images/serve"
	"github.com/knarr-dev/knarr/conformance/images/store"
)

// errUsage is what somebody is told who names no command.
var errUsage = errors.New(`usage: images <command> [flags]

  build   make what changed
  list    the images, and which of them the suite names
  serve   hand them out, until interrupted
  hosts   have a containerd pull from such a server

images <command> -h lists the flags of a command`)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "images:", err)
		}
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	flags := flag.NewFlagSet("images "+args[0], flag.ContinueOnError)
	dir := flags.String("dir", "bin/images", "where the images are, as an OCI layout")
	switch args[0] {
	case "build":
		return build(ctx, flags, dir, args[1:], out)
	case "list":
		return list(ctx, flags, dir, args[1:], out)
	case "serve":
		return listen(ctx, flags, dir, args[1:], out)
	case "hosts":
		return hosts(flags, dir, args[1:])
	default:
		return fmt.Errorf("no command %q; %w", args[0], errUsage)
	}
}

func build(ctx context.Context, flags *flag.FlagSet, dir *string, args []string, out io.Writer) error {
	source := flags.String("source", "conformance", "the folder that holds the modules e2e and images")
	mirror := flags.String("mirror", debian.Mirror("/etc/apt"), "where Debian packages are from")
	release := flags.String("release", "trixie", "the release of Debian they are of")
	refresh := flags.Bool("refresh", false, "fetch the lists of packages anew")
	only := flags.String("only", "", "make only images whose name matches this `expression`")
	jobs := flags.Int("j", runtime.NumCPU(), "how many to make at once")
	if err := parse(flags, args); err != nil {
		return err
	}
	match, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	cache, err := filepath.Abs(filepath.Join(*dir, ".cache"))
	if err != nil {
		return err
	}
	k := &kitchen{
		source: *source, cache: cache, parts: parts,
		debian: &debian.Source{Dir: filepath.Join(cache, "debian"), Mirror: *mirror, Release: *release, Refresh: *refresh},
	}
	s, err := store.Open(*dir)
	if err != nil {
		return err
	}
	if err := cook(ctx, k, s, order{recipes: recipes, match: match, jobs: *jobs, out: out}); err != nil {
		return err
	}
	return s.Sweep(func(name string) bool { return named(name) })
}

func list(ctx context.Context, flags *flag.FlagSet, dir *string, args []string, out io.Writer) error {
	suite := flags.String("suite", "conformance/e2e/.cache/e2e.test", "the suite, to compare with what it names")
	if err := parse(flags, args); err != nil {
		return err
	}
	s, err := store.Open(*dir)
	if err != nil {
		return err
	}
	for _, r := range recipes {
		state := "not made"
		if s.Key(r.name) != "" {
			state = weight(s.Size(r.name))
		}
		fmt.Fprintf(out, "%-70s %s\n", r.name, state)
	}
	missing, err := unmade(ctx, *suite)
	if err != nil {
		return err
	}
	for _, name := range missing {
		fmt.Fprintf(out, "%-70s named by the suite, not made here\n", name)
	}
	return nil
}

func listen(ctx context.Context, flags *flag.FlagSet, dir *string, args []string, out io.Writer) error {
	var addresses []string
	flags.Func("listen", "`address` to listen at, may be given more than once (default 127.0.0.1:5005)", func(a string) error {
		addresses = append(addresses, a)
		return nil
	})
	user := flags.String("user", "user", "who may pull from private repositories")
	password := flags.String("password", "password", "the password for private repositories")
	if err := parse(flags, args); err != nil {
		return err
	}
	if len(addresses) == 0 {
		addresses = []string{"127.0.0.1:5005"}
	}
	s, err := store.Open(*dir)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           &serve.Registry{Store: s, Private: []string{private}, User: *user, Password: *password},
		ReadHeaderTimeout: time.Minute,
	}
	failed := make(chan error, len(addresses))
	for _, address := range addresses {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return errors.Join(err, server.Close())
		}
		fmt.Fprintf(out, "serving %s at http://%s\n", *dir, l.Addr())
		go func() { failed <- server.Serve(l) }()
	}
	select {
	case err := <-failed:
		return errors.Join(err, server.Close())
	case <-ctx.Done():
		slog.Debug("stop serving")
		return server.Close()
	}
}

func hosts(flags *flag.FlagSet, dir *string, args []string) error {
	certs := flags.String("certs", "", "the containerd's directory of registries (config_path)")
	registry := flags.String("registry", "127.0.0.1:5005", "the address at which it reaches the server")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *certs == "" {
		return errors.New("hosts needs -certs")
	}
	s, err := store.Open(*dir)
	if err != nil {
		return err
	}
	names, err := s.Names()
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fmt.Errorf("no images in %s: run images build first", *dir)
	}
	return serve.Mirror(*certs, *registry, serve.Hosts(names))
}

func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("what is %q for? this command takes only flags", strings.Join(flags.Args(), " "))
	}
	return nil
}

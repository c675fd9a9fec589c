// Package debian fetches Debian packages with all that they depend on, and
// Debian's sources. It asks apt, with a state of its own, so that nothing of
// the machine's own packages changes and root is not needed.
package debian

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/knarr-dev/knarr/conformance/images/layer"
)

// keyring is what Debian signs its lists with.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// A Source is a mirror and a release of Debian, and where to keep what came
// from it. It is safe for concurrent use: apt is asked one question at a time.
type Source struct {
	Dir     string // for lists and packages
	Mirror  string // the address of its root; see Mirror
	Release string // trixie
	Refresh bool   // fetch the lists though there are some

	mu    sync.Mutex
	ready bool
}

// A Package is one file of a release.
type Package struct {
	File string // its name in the mirror and in Dir
	Hash string // its checksum, as apt has it
}

// Closure lists the packages with all they depend on, by file name. It
// fetches the release's lists where there are none yet.
func (s *Source) Closure(ctx context.Context, names ...string) ([]Package, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.lists(ctx); err != nil {
		return nil, err
	}
	// Apt takes its time, and says the same until the lists change.
	said := s.path("closure-" + strings.Join(names, "-"))
	if out, err := os.ReadFile(said); err == nil {
		return parse(string(out))
	}
	// An empty archive makes apt name every package, those fetched before too.
	args := append([]string{"-qq", "--print-uris", "-o", "Dir::Cache::archives=" + s.path("nothing"), "--no-install-recommends", "install"}, names...)
	out, err := s.apt(ctx, args...)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", strings.Join(names, " "), err)
	}
	ps, err := parse(out)
	if err != nil {
		return nil, err
	}
	return ps, os.WriteFile(said, []byte(out), 0o644)
}

// parse reads what apt prints of each package: 'address' file size hash.
func parse(out string) (ps []Package, err error) {
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 3 || !strings.HasPrefix(f[0], "'") {
			continue
		}
		p := Package{File: f[1]}
		if len(f) > 3 {
			p.Hash = f[3]
		}
		ps = append(ps, p)
	}
	if len(ps) == 0 {
		return nil, fmt.Errorf("apt names no package in %q", out)
	}
	slices.SortFunc(ps, func(a, b Package) int { return strings.Compare(a.File, b.File) })
	return ps, nil
}

// Unpack fetches the packages with all they depend on and adds their files to
// the tree, without manuals, translations and the like. Their scripts are not
// run.
func (s *Source) Unpack(ctx context.Context, tree *layer.Tree, names ...string) error {
	ps, err := s.Closure(ctx, names...)
	if err != nil {
		return err
	}
	if err := s.fetch(ctx, names...); err != nil {
		return err
	}
	for _, p := range ps {
		if err := unpack(ctx, tree, filepath.Join(s.path("archives"), p.File)); err != nil {
			return fmt.Errorf("unpack %s: %w", p.File, err)
		}
	}
	return nil
}

func (s *Source) fetch(ctx context.Context, names ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	args := append([]string{"-qq", "-y", "--download-only", "--no-install-recommends", "install"}, names...)
	if _, err := s.apt(ctx, args...); err != nil {
		return fmt.Errorf("fetch %s: %w (where packages are gone from the mirror, -refresh fetches its lists anew)", strings.Join(names, " "), err)
	}
	return nil
}

// Sources fetches the source of a package into a directory, and is the path
// of its original archive.
func (s *Source) Sources(ctx context.Context, name, dir string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.lists(ctx); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	cmd := s.command(ctx, "-qq", "--download-only", "source", name)
	cmd.Dir = dir
	if _, err := run(cmd); err != nil {
		return "", fmt.Errorf("fetch source of %s: %w", name, err)
	}
	found, err := filepath.Glob(filepath.Join(dir, name+"_*.orig.tar.*"))
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("fetch source of %s: no original archive in %s", name, dir)
	}
	return slices.Max(found), nil
}

// lists fetches what the release consists of, once.
func (s *Source) lists(ctx context.Context) error {
	if s.ready {
		return nil
	}
	for _, dir := range []string{"lists/partial", "archives/partial", "nothing/partial"} {
		if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
			return err
		}
	}
	sources := fmt.Sprintf("deb [signed-by=%[1]s] %[2]s %[3]s main\ndeb-src [signed-by=%[1]s] %[2]s %[3]s main\n", keyring, s.Mirror, s.Release)
	for name, text := range map[string]string{"sources.list": sources, "status": ""} {
		if err := os.WriteFile(s.path(name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	have, err := filepath.Glob(filepath.Join(s.path("lists"), "*_Packages*"))
	if err != nil {
		return err
	}
	if len(have) == 0 || s.Refresh {
		if _, err := s.apt(ctx, "-qq", "update"); err != nil {
			return fmt.Errorf("fetch lists of %s from %s: %w", s.Release, s.Mirror, err)
		}
		said, err := filepath.Glob(s.path("closure-*"))
		if err != nil {
			return err
		}
		for _, file := range said {
			if err := os.Remove(file); err != nil {
				return err
			}
		}
	}
	s.ready = true
	return nil
}

func (s *Source) path(name string) string { return filepath.Join(s.Dir, name) }

func (s *Source) apt(ctx context.Context, args ...string) (string, error) {
	return run(s.command(ctx, args...))
}

func (s *Source) command(ctx context.Context, args ...string) *exec.Cmd {
	var opts []string
	for _, o := range []string{
		"Dir::State=" + s.Dir, "Dir::State::status=" + s.path("status"), "Dir::State::lists=" + s.path("lists"),
		"Dir::Cache=" + s.Dir, "Dir::Cache::archives=" + s.path("archives"),
		"Dir::Etc::sourcelist=" + s.path("sources.list"), "Dir::Etc::sourceparts=-",
		"Acquire::Languages=none", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false", "Acquire::Retries=3",
		"APT::Sandbox::User=root", "Debug::NoLocking=1",
	} {
		opts = append(opts, "-o", o)
	}
	// A later option counts: what the caller says goes last, but before the verb's arguments.
	cmd := exec.CommandContext(ctx, "apt-get", append(opts, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	return cmd
}

func run(cmd *exec.Cmd) (string, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), nil
}

// unpack adds the files of one package file.
func unpack(ctx context.Context, tree *layer.Tree, file string) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", file)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = tree.Unpack(out, wanted)
	if err != nil {
		// What is left has to be read, or dpkg-deb would wait for a reader.
		_, _ = io.Copy(io.Discard, out)
	}
	if waited := cmd.Wait(); err == nil && waited != nil {
		return fmt.Errorf("dpkg-deb: %w: %s", waited, bytes.TrimSpace(errs.Bytes()))
	}
	return err
}

// unwanted is what nobody in a test image reads.
var unwanted = []string{
	"usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/bug", "usr/share/info", "usr/share/bash-completion",
	"usr/lib/systemd", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/aarch64-linux-gnu/gconv", "etc/init.d", "etc/cron.daily", "etc/logrotate.d", "var/lib/dpkg",
	"etc/os-release", "usr/lib/os-release", "usr/share/i18n", "usr/share/zoneinfo",
}

func wanted(name string) bool {
	return !slices.ContainsFunc(unwanted, func(u string) bool { return name == u || strings.HasPrefix(name, u+"/") })
}

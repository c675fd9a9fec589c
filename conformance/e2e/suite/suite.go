// Package suite builds the official end-to-end suite and Ginkgo, as this
// module requires them, and knows which specs there are. What it built it
// keeps, until the requirements change.
package suite

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/onsi/ginkgo/v2/types"

	"github.com/knarr-dev/knarr/conformance/e2e/spec"
)

// What is built, and where the suite keeps its version.
const (
	tests      = "k8s.io/kubernetes/test/e2e"
	ginkgo     = "github.com/onsi/ginkgo/v2/ginkgo"
	kubernetes = "k8s.io/kubernetes"
	versioned  = "k8s.io/component-base/version"
)

// A Suite is the one that the module in Module requires, built in Cache.
type Suite struct {
	Module string // the folder of this module
	Cache  string
	Say    func(format string, args ...any)
}

// Test is the suite's binary.
func (s *Suite) Test() string { return filepath.Join(s.Cache, "e2e.test") }

// Ginkgo is the tool that runs it.
func (s *Suite) Ginkgo() string { return filepath.Join(s.Cache, "ginkgo") }

func (s *Suite) list() string { return filepath.Join(s.Cache, "specs.json") }

// Build builds what is not there yet, or was built from something else.
func (s *Suite) Build(ctx context.Context) error {
	version, err := s.Version()
	if err != nil {
		return err
	}
	key, err := s.key(ctx)
	if err != nil {
		return err
	}
	file := filepath.Join(s.Cache, "key")
	if have, err := os.ReadFile(file); err == nil && string(have) == key && s.whole() {
		return nil
	}
	s.Say("building the suite of %s: minutes, the first time", version)
	if err := errors.Join(os.MkdirAll(s.Cache, 0o755), remove(file)); err != nil {
		return err
	}
	major, minor, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	// The suite compares its version with the server's, and takes none for a very old one.
	flags := fmt.Sprintf("-s -w -X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s -X %[1]s.gitTreeState=clean", versioned, version, major, minor)
	if err := s.goes(ctx, "test", "-c", "-trimpath", "-ldflags", flags, "-o", s.Test(), tests); err != nil {
		return fmt.Errorf("build %s: %w", tests, err)
	}
	if err := s.goes(ctx, "build", "-trimpath", "-o", s.Ginkgo(), ginkgo); err != nil {
		return fmt.Errorf("build %s: %w", ginkgo, err)
	}
	if err := s.learn(ctx); err != nil {
		return fmt.Errorf("list the specs: %w", err)
	}
	return os.WriteFile(file, []byte(key), 0o644)
}

func (s *Suite) whole() bool {
	return !slices.ContainsFunc([]string{s.Test(), s.Ginkgo(), s.list()}, func(file string) bool {
		_, err := os.Stat(file)
		return err != nil
	})
}

var required = regexp.MustCompile(`(?m)^(?:require)?\s+` + regexp.QuoteMeta(kubernetes) + ` (v\S+)`)

// Version is that of the suite, as the module requires it.
func (s *Suite) Version() (string, error) {
	text, err := os.ReadFile(filepath.Join(s.Module, "go.mod"))
	if err != nil {
		return "", err
	}
	m := required.FindSubmatch(text)
	if m == nil {
		return "", fmt.Errorf("%s does not require %s", filepath.Join(s.Module, "go.mod"), kubernetes)
	}
	return string(m[1]), nil
}

// key says what is built from what: the module's requirements and the compiler.
func (s *Suite) key(ctx context.Context) (string, error) {
	sum := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(s.Module, name))
		if err != nil {
			return "", err
		}
		sum.Write(text)
	}
	version, err := exec.CommandContext(ctx, "go", "version").Output()
	if err != nil {
		return "", fmt.Errorf("go version: %w", err)
	}
	sum.Write(version)
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func (s *Suite) goes(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = s.Module
	// Without C, as the images' programs are: what both consist of is compiled once.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=readonly")
	return quiet(cmd)
}

// learn asks the suite which specs it has, without running any.
func (s *Suite) learn(ctx context.Context) error {
	file := filepath.Join(s.Cache, "dry-run.json")
	cmd := exec.CommandContext(ctx, s.Test(), "--ginkgo.dry-run", "--ginkgo.no-color", "--ginkgo.succinct", "--ginkgo.json-report="+file,
		"--provider=skeleton", "--kubeconfig=/nowhere")
	cmd.Dir = s.Cache
	if err := quiet(cmd); err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	specs, err := Specs(text)
	if err != nil {
		return err
	}
	list, err := json.Marshal(specs)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(s.list(), list, 0o644), os.Remove(file))
}

// Specs are those in a report of Ginkgo's.
func Specs(text []byte) (specs []spec.Spec, err error) {
	var reports []types.Report
	if err := json.Unmarshal(text, &reports); err != nil {
		return nil, err
	}
	for _, r := range reports {
		for _, s := range r.SpecReports {
			if !s.LeafNodeType.Is(types.NodeTypeIt) {
				continue
			}
			name := s.FullText()
			specs = append(specs, spec.Spec{
				Name: name, Area: spec.Area(name), Serial: s.IsSerial || slices.Contains(s.Labels(), "Serial"),
				Conformance: slices.Contains(s.Labels(), "Conformance"),
			})
		}
	}
	if len(specs) == 0 {
		return nil, errors.New("the suite has no specs")
	}
	return specs, nil
}

// Specs are all of the suite, which has to be built.
func (s *Suite) Specs() (specs []spec.Spec, err error) {
	text, err := os.ReadFile(s.list())
	if err != nil {
		return nil, err
	}
	return specs, json.Unmarshal(text, &specs)
}

// quiet runs a command and shows the end of what it printed only when it fails.
func quiet(cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err == nil {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.Join(lines[max(0, len(lines)-10):], "\n"))
}

func remove(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Package cgroup gives each pod a control group of its own in the one of its
// class of service, and says what its containers may use. The containers' own
// groups, inside the pod's, are the runtime's.
//
// It writes the kernel's files itself, for hosts with version 1, with version 2
// and with both. Groups that systemd keeps are not supported.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/kubelet"
)

// A Tree is the groups of all pods of a node, below a group Root.
type Tree struct {
	Root string // from the top of the hierarchies, such as / or /knarr
	// Memory is the node's, for how likely containers are to be killed.
	Memory func() int64
	// PidsLimit is how many processes a pod may have; zero is no limit.
	PidsLimit int64

	mounts []mount

	mu    sync.Mutex
	burst map[types.UID]int64 // milli-CPU that burstable pods ask for
}

// mount is where a hierarchy is: one with controllers of version 1, or the one
// of version 2.
type mount struct {
	dir         string
	controllers []string
	unified     bool
}

const (
	pods = "kubepods"
	// drain is how long processes that were killed may take to be gone.
	drain = 5 * time.Second
)

// classes are the groups between kubepods and a pod's, by class of service.
var classes = map[corev1.PodQOSClass]string{
	corev1.PodQOSGuaranteed: "", corev1.PodQOSBurstable: "burstable", corev1.PodQOSBestEffort: "besteffort",
}

// New returns the tree below root, with the hierarchies that are mounted.
func New(root string) (*Tree, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	t := &Tree{Root: root, mounts: mounts(string(b)), burst: map[types.UID]int64{}}
	if len(t.mounts) == 0 {
		return nil, errors.New("find cgroups: none are mounted")
	}
	return t, nil
}

// mounts finds the hierarchies in a list of mounts as the kernel writes it.
func mounts(info string) (list []mount) {
	for line := range strings.Lines(info) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 {
			continue
		}
		m := mount{dir: l[4]}
		switch r[0] {
		case "cgroup2":
			m.unified = true
		case "cgroup":
			m.controllers = strings.Split(r[2], ",")
		default:
			continue
		}
		if !slices.ContainsFunc(list, func(o mount) bool { return o.dir == m.dir }) {
			list = append(list, m)
		}
	}
	return list
}

// Hook is the groups' part in a pod's life.
func (t *Tree) Hook() kubelet.Hook {
	return kubelet.Hook{Name: "cgroup", Prepare: t.prepare, BeforeStart: t.container, Cleanup: t.cleanup}
}

// Path is a pod's group, from the top of the hierarchies.
func (t *Tree) Path(p *corev1.Pod) string {
	return path.Join(t.Root, pods, classes[qos(p)], "pod"+string(p.UID))
}

func (t *Tree) prepare(_ context.Context, s *kubelet.Sandbox) error {
	group := t.Path(s.Pod)
	s.Config.Linux.CgroupParent = group
	s.Config.Linux.Resources = sandboxResources(s.Pod)
	if err := t.make(group); err != nil {
		return err
	}
	if err := t.set(group, podLimits(s.Pod, t.PidsLimit)); err != nil {
		return err
	}
	return t.weigh(s.Pod.UID, s.Pod)
}

// make makes a group, and those above it, wherever pods are limited.
func (t *Tree) make(group string) error {
	for _, m := range t.mounts {
		if !m.unified && !slices.ContainsFunc(m.controllers, func(c string) bool { return c == "cpu" || c == "memory" || c == "pids" }) {
			continue // the runtime makes it where it needs it
		}
		if m.unified && len(t.mounts) > 1 {
			continue // beside version 1 it limits nothing
		}
		if err := os.MkdirAll(filepath.Join(m.dir, group), 0o755); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
		if m.unified {
			if err := delegate(m.dir, group); err != nil {
				return err
			}
		}
	}
	return nil
}

// delegate lets a group of version 2, and those above it, divide what they
// have among those below.
func delegate(dir, group string) error {
	at := dir
	for _, name := range append([]string{""}, strings.Split(strings.Trim(group, "/"), "/")...) {
		at = filepath.Join(at, name)
		have, err := os.ReadFile(filepath.Join(at, "cgroup.controllers"))
		if err != nil {
			return fmt.Errorf("delegate cgroup: %w", err)
		}
		for c := range strings.FieldsSeq(string(have)) {
			if !slices.Contains([]string{"cpu", "cpuset", "memory", "pids", "io", "hugetlb"}, c) {
				continue
			}
			if err := write(filepath.Join(at, "cgroup.subtree_control"), "+"+c); err != nil {
				return fmt.Errorf("delegate cgroup: %w", err)
			}
		}
	}
	return nil
}

// set writes limits to a group, for each hierarchy in its own way.
func (t *Tree) set(group string, l limits) error {
	for _, m := range t.mounts {
		files := l.version1(m.controllers)
		if m.unified {
			if len(t.mounts) > 1 {
				continue
			}
			files = l.version2()
		}
		for _, f := range files {
			// A limit below what is used is refused: the pod has it all the same
			// until a container is started anew.
			if err := write(filepath.Join(m.dir, group, f.name), f.value); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("limit cgroup: %w", err)
			}
		}
	}
	return nil
}

// write writes a file of the kernel's, unless it says that already.
func write(file, text string) error {
	if had, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(had)) == text {
		return nil
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// weigh notes what a pod asks for, nil for one that is no more, and gives the
// classes their shares of the processor by it: burstable pods what they ask
// for together, those of best effort next to nothing.
func (t *Tree) weigh(uid types.UID, p *corev1.Pod) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	had, known := t.burst[uid]
	delete(t.burst, uid)
	if p != nil && qos(p) == corev1.PodQOSBurstable {
		t.burst[uid] = request(p)
	}
	now, burstable := t.burst[uid]
	if had == now && known == burstable && p == nil {
		return nil
	}
	var sum int64
	for _, milli := range t.burst {
		sum += milli
	}
	for class, milli := range map[string]int64{"burstable": sum, "besteffort": 0} {
		group := path.Join(t.Root, pods, class)
		if err := t.make(group); err != nil {
			return err
		}
		if err := t.set(group, limits{shares: shares(milli)}); err != nil {
			return err
		}
	}
	return nil
}

// cleanup removes a pod's groups, of whichever class it was.
func (t *Tree) cleanup(ctx context.Context, uid types.UID) error {
	for _, m := range t.mounts {
		for _, class := range classes {
			if err := remove(ctx, filepath.Join(m.dir, t.Root, pods, class, "pod"+string(uid))); err != nil {
				return err
			}
		}
	}
	return t.weigh(uid, nil)
}

// Remove removes what is left of the tree when no pod runs any more, the root
// too where it is not the top.
func (t *Tree) Remove(ctx context.Context) error {
	group := path.Join(t.Root, pods)
	if path.Clean(t.Root) != "/" {
		group = t.Root
	}
	for _, m := range t.mounts {
		if err := remove(ctx, filepath.Join(m.dir, group)); err != nil {
			return err
		}
	}
	return nil
}

// remove removes a group with all below it, and ends what still runs there.
func remove(ctx context.Context, dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, drain)
	defer cancel()
	for {
		err := removeAll(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		kill(dir)
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove cgroup: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// removeAll removes directories only: the files in them are the kernel's.
func removeAll(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeAll(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return os.Remove(dir)
}

// kill ends the processes of a group and of those below it.
func kill(dir string) {
	_ = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return nil //nolint:nilerr // it is gone already
		}
		b, err := os.ReadFile(filepath.Join(p, "cgroup.procs"))
		if err != nil {
			return nil //nolint:nilerr // it is gone already
		}
		for line := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(line); err == nil && pid > 1 {
				if proc, err := os.FindProcess(pid); err == nil {
					_ = proc.Kill() // it may be gone already
				}
			}
		}
		return nil
	})
}

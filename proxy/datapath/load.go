package datapath

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	linkDir    = "links"
	versionDir = "maps-" // and a hash of the layout
)

// carried are the maps in which the kernel notes what goes on, rather than we
// what we want: another layout of the others is no reason to lose them.
var carried = []string{"affinity", "connections", "fragments", "peers", "sockets"}

// load opens the maps and loads the programs.
func (d *Datapath) load() error {
	socket, err := loadSocket()
	if err != nil {
		return fmt.Errorf("read socket programs: %w", err)
	}
	outside, err := loadOutside()
	if err != nil {
		return fmt.Errorf("read packet programs: %w", err)
	}
	if d.netns, err = netnsCookie(); err != nil {
		return err
	}
	if err := socket.Variables["node_netns"].Set(d.netns); err != nil {
		return fmt.Errorf("set node_netns: %w", err)
	}
	specs := maps.Clone(socket.Maps)
	maps.Copy(specs, outside.Maps)
	maps.DeleteFunc(specs, func(name string, _ *ebpf.MapSpec) bool { return strings.HasPrefix(name, ".") })
	if err := d.openMaps(specs); err != nil {
		return err
	}
	for _, spec := range []*ebpf.CollectionSpec{socket, outside} {
		if err := d.loadPrograms(spec); err != nil {
			return err
		}
	}
	return d.openTable()
}

// layout is a name for what the maps look like.
func layout(specs map[string]*ebpf.MapSpec) string {
	h := fnv.New64a()
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		s := specs[name]
		fmt.Fprintln(h, name, s.Type, s.KeySize, s.ValueSize, s.MaxEntries, s.Flags)
	}
	return fmt.Sprintf("%s%016x", versionDir, h.Sum64())
}

func (d *Datapath) openMaps(specs map[string]*ebpf.MapSpec) error {
	d.version = layout(specs)
	dir := filepath.Join(d.cfg.Dir, d.version)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make map directory: %w", err)
	}
	for name, spec := range specs {
		m, err := d.openMap(dir, name, spec)
		if err != nil {
			return fmt.Errorf("open map %s: %w", name, err)
		}
		d.maps[name] = m
	}
	return nil
}

// openMap takes over the map that an earlier process of ours pinned, or one of
// another layout that has the same in it, or makes one.
func (d *Datapath) openMap(dir, name string, spec *ebpf.MapSpec) (*ebpf.Map, error) {
	path := filepath.Join(dir, name)
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	if slices.Contains(carried, name) {
		m = d.fromOtherLayout(name, spec)
	}
	if m == nil {
		if m, err = ebpf.NewMap(spec); err != nil {
			return nil, err
		}
	}
	if err := m.Pin(path); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// fromOtherLayout returns nil where no other layout has a map like this.
func (d *Datapath) fromOtherLayout(name string, spec *ebpf.MapSpec) *ebpf.Map {
	paths, err := filepath.Glob(filepath.Join(d.cfg.Dir, versionDir+"*", name))
	if err != nil {
		return nil
	}
	for _, path := range paths {
		old, err := ebpf.LoadPinnedMap(path, nil)
		if err != nil {
			continue
		}
		m, err := old.Clone() // which may be pinned a second time
		if old.Close() != nil || err != nil {
			continue
		}
		if spec.Compatible(m) == nil {
			return m
		}
		if m.Close() != nil {
			continue
		}
	}
	return nil
}

func (d *Datapath) loadPrograms(spec *ebpf.CollectionSpec) error {
	shared := map[string]*ebpf.Map{}
	for name := range spec.Maps {
		if m, ok := d.maps[name]; ok {
			shared[name] = m
		}
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared})
	if err != nil {
		return fmt.Errorf("load programs: %w", err)
	}
	defer c.Close()
	for name := range c.Programs {
		d.programs[name] = c.DetachProgram(name)
	}
	return nil
}

// dropOtherLayouts forgets the maps that no attached program uses any more.
func (d *Datapath) dropOtherLayouts() error {
	dirs, err := filepath.Glob(filepath.Join(d.cfg.Dir, versionDir+"*"))
	if err != nil {
		return fmt.Errorf("list layouts: %w", err)
	}
	for _, dir := range dirs {
		if filepath.Base(dir) == d.version {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove maps of another layout: %w", err)
		}
	}
	return nil
}

// netnsCookie is the cookie of the calling thread's network namespace.
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return 0, fmt.Errorf("get network namespace cookie: %w", err)
	}
	return cookie, nil
}

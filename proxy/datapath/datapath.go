// Package datapath loads the eBPF programs that balance services, attaches
// them and holds their maps. It is the only package that talks to the kernel's
// BPF.
//
// Programs, maps and links are pinned: they go on working while no process of
// ours runs, and the next one takes them over. What goes into the maps is
// decided by package lb.
package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf"
)

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -type frontend -type entry -type entry_flags -type service -type backend -type backend_flags -type choice -type client -type source -type address -type talk socket socket.c -- -mcpu=v3 -O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -type interface -type flow outside outside.c -- -mcpu=v3 -O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu

// DefaultDir is where everything is pinned unless another place is named.
const DefaultDir = "/sys/fs/bpf/knarr"

// Config says where a Datapath is to be.
type Config struct {
	Dir    string // of pins, on a BPF file system or where one can be mounted
	Cgroup string // the cgroup2 directory whose processes are clients; empty for all
}

// A Datapath is the programs and maps of one node. Its methods may be called
// by several goroutines.
type Datapath struct {
	cfg      Config
	version  string // directory of this layout of the maps
	maps     map[string]*ebpf.Map
	programs map[string]*ebpf.Program
	netns    uint64 // cookie

	mu       sync.Mutex
	services mmapped[socketService]
	slots    mmapped[socketBackend]
	free     allocator
	sources  map[uint32][]socketSource // by service, as they are in the map
}

// Open loads the programs, and the maps that an earlier process left or new
// ones. Nothing is attached, and what is stays as it is.
func Open(cfg Config) (*Datapath, error) {
	if err := mount(cfg.Dir); err != nil {
		return nil, err
	}
	d := &Datapath{cfg: cfg, maps: map[string]*ebpf.Map{}, programs: map[string]*ebpf.Program{}}
	if err := d.load(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Close lets go of the datapath, which works on.
func (d *Datapath) Close() error {
	errs := []error{d.services.close(), d.slots.close()}
	for _, m := range d.maps {
		errs = append(errs, m.Close())
	}
	for _, p := range d.programs {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// Remove detaches everything that is pinned in dir, and takes the pins away.
// It is no error if there is nothing.
func Remove(dir string) error {
	if ok, err := isBPF(dir); err != nil || !ok {
		return err
	}
	links, err := filepath.Glob(filepath.Join(dir, linkDir, "*"))
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var errs []error
	for _, path := range links {
		errs = append(errs, detach(path))
	}
	_, mounted := os.Stat(filepath.Join(dir, mountMark))
	entries, err := os.ReadDir(dir)
	errs = append(errs, err)
	for _, e := range entries {
		if e.IsDir() { // the others are the kernel's
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return unmount(dir, mounted == nil)
}

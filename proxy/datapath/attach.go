package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// hooks are the programs of the socket level.
var hooks = []struct {
	name string
	at   ebpf.AttachType
}{
	// Who is asked for the address of the past comes before who changes it.
	{"recvmsg4", ebpf.AttachCGroupUDP4Recvmsg},
	{"recvmsg6", ebpf.AttachCGroupUDP6Recvmsg},
	{"getpeername4", ebpf.AttachCgroupInet4GetPeername},
	{"getpeername6", ebpf.AttachCgroupInet6GetPeername},
	{"connect4", ebpf.AttachCGroupInet4Connect},
	{"connect6", ebpf.AttachCGroupInet6Connect},
	{"sendmsg4", ebpf.AttachCGroupUDP4Sendmsg},
	{"sendmsg6", ebpf.AttachCGroupUDP6Sendmsg},
}

// Attach puts the socket level into force: its maps should be filled by now.
// What an earlier process attached is replaced, each program at once.
func (d *Datapath) Attach() error {
	path := d.cfg.Cgroup
	if path == "" {
		root, err := cgroupRoot()
		if err != nil {
			return err
		}
		path = root
	}
	var cgroup unix.Stat_t
	if err := unix.Stat(path, &cgroup); err != nil {
		return fmt.Errorf("look at cgroup %s: %w", path, err)
	}
	for _, h := range hooks {
		err := d.attach(h.name, h.name,
			func(i *link.Info) bool { c := i.Cgroup(); return c != nil && c.CgroupId == cgroup.Ino },
			func(p *ebpf.Program) (link.Link, error) {
				return link.AttachCgroup(link.CgroupOptions{Path: path, Attach: h.at, Program: p})
			})
		if err != nil {
			return err
		}
	}
	return d.dropOtherLayouts()
}

// attach gives the pinned link the program, or makes the link where there is
// none or not a fitting one.
func (d *Datapath) attach(pin, program string, fits func(*link.Info) bool, make func(*ebpf.Program) (link.Link, error)) error {
	path := filepath.Join(d.cfg.Dir, linkDir, pin)
	p := d.programs[program]
	done, err := update(path, p, fits)
	if done || err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make link directory: %w", err)
	}
	l, err := make(p)
	if err != nil {
		return fmt.Errorf("attach %s: %w", program, err)
	}
	if err := l.Pin(path); err != nil {
		return errors.Join(fmt.Errorf("pin %s: %w", path, err), l.Close())
	}
	return l.Close()
}

// update replaces the program of a pinned link. It takes away one that does
// not fit, and tells whether there is a link now.
func update(path string, p *ebpf.Program, fits func(*link.Info) bool) (bool, error) {
	l, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("take over %s: %w", path, err)
	}
	info, err := l.Info()
	if err == nil && fits(info) {
		if err = l.Update(p); err == nil {
			return true, l.Close()
		}
	}
	return false, errors.Join(l.Close(), detach(path))
}

// detach ends a link for good. One whose cgroup or interface is gone is
// detached already.
func detach(path string) error {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return fmt.Errorf("open link %s: %w", path, err)
	}
	gone := l.Detach()
	if errors.Is(gone, unix.ENOLINK) || errors.Is(gone, unix.ENODEV) || errors.Is(gone, unix.ENOENT) {
		gone = nil
	}
	return errors.Join(gone, l.Unpin(), l.Close())
}

// An Interface is one that packets from outside, or of pods, come by.
type Interface struct {
	Index    int
	V4, V6   netip.Addr // its first address, zero where it has none
	Inside   bool       // pods of this node are behind it
	Ethernet bool
}

// SetInterfaces puts the packet level into force on these interfaces, and
// ends it on all others.
func (d *Datapath) SetInterfaces(ifs []Interface) error {
	keep := map[string]bool{}
	var errs []error
	for _, i := range ifs {
		value := outsideInterface{V4: own(i.V4), V6: own(i.V6)}
		if i.Inside {
			value.Inside = 1
		}
		if err := d.maps["interfaces"].Put(uint32(i.Index), value); err != nil {
			errs = append(errs, fmt.Errorf("note interface %d: %w", i.Index, err))
			continue
		}
		for program, at := range map[string]ebpf.AttachType{"ingress": ebpf.AttachTCXIngress, "egress": ebpf.AttachTCXEgress} {
			pin := "interface-" + strconv.Itoa(i.Index) + "-" + program
			keep[pin] = true
			if !i.Ethernet {
				program += "_l3"
			}
			errs = append(errs, d.attach(pin, program,
				func(info *link.Info) bool { t := info.TCX(); return t != nil && int(t.Ifindex) == i.Index },
				func(p *ebpf.Program) (link.Link, error) {
					return link.AttachTCX(link.TCXOptions{Interface: i.Index, Attach: at, Program: p})
				}))
		}
	}
	errs = append(errs, d.dropInterfaces(keep))
	return errors.Join(errs...)
}

// own is the address as the programs have it, zero where there is none.
func own(a netip.Addr) (out outsideAddress) {
	if a.IsValid() {
		out.Word = addressOf(a).Word
	}
	return out
}

// dropInterfaces ends the packet level where it is not to be kept.
func (d *Datapath) dropInterfaces(keep map[string]bool) error {
	pins, err := filepath.Glob(filepath.Join(d.cfg.Dir, linkDir, "interface-*"))
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var errs []error
	for _, path := range pins {
		pin := filepath.Base(path)
		if keep[pin] {
			continue
		}
		errs = append(errs, detach(path))
		index, _, _ := strings.Cut(strings.TrimPrefix(pin, "interface-"), "-")
		if n, err := strconv.ParseUint(index, 10, 32); err == nil {
			errs = append(errs, absent(d.maps["interfaces"].Delete(uint32(n))))
		}
	}
	return errors.Join(errs...)
}

// SetAddresses tells which addresses are the node's own, and whether node
// ports are open there.
func (d *Datapath) SetAddresses(want map[netip.Addr]bool) error {
	m := d.maps["addresses"]
	var errs []error
	for a, nodePort := range want {
		flags := uint32(0)
		if nodePort {
			flags = uint32(socketEntryFlagsNODE_PORT)
		}
		errs = append(errs, m.Put(addressOf(a), flags))
	}
	var key socketAddress
	var value uint32
	var gone []socketAddress
	it := m.Iterate()
	for it.Next(&key, &value) {
		if _, ok := want[addrOf(key)]; !ok {
			gone = append(gone, key)
		}
	}
	errs = append(errs, it.Err())
	for _, k := range gone {
		errs = append(errs, absent(m.Delete(k)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("note the node's addresses: %w", err)
	}
	return nil
}

// Attached lists what is attached, by the names of the pins.
func (d *Datapath) Attached() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(d.cfg.Dir, linkDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	slices.Sort(out)
	return out, nil
}

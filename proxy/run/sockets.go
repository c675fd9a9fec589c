package run

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/knarr-dev/knarr/proxy/datapath"
	"github.com/knarr-dev/knarr/proxy/lb"
)

// stale picks the sockets whose backend is none of what they dialled any more.
// Addresses are the node's.
func stale(all []datapath.Socket, t lb.Table, addresses map[netip.Addr]bool) (out []datapath.Socket) {
	for _, s := range all {
		e, ok := t.Frontends[lb.Frontend{Addr: s.Dialled, Proto: lb.UDP}]
		if _, node := addresses[s.Dialled.Addr()]; !ok && node {
			anywhere := netip.IPv4Unspecified()
			if s.Dialled.Addr().Is6() {
				anywhere = netip.IPv6Unspecified()
			}
			e, ok = t.Frontends[lb.Frontend{Addr: netip.AddrPortFrom(anywhere, s.Dialled.Port()), Proto: lb.UDP}]
		}
		if !ok || !slices.ContainsFunc(t.Services[e.Service].Backends, func(b lb.Backend) bool { return b.Addr == s.Backend }) {
			out = append(out, s)
		}
	}
	return out
}

// endStale ends sockets that would send to nobody for as long as they live.
// Who has one learns at once that it is of no use, and gets another.
func (l *loop) endStale(ctx context.Context) error {
	if !l.lost {
		return nil
	}
	all, err := l.plane.Connected()
	if err != nil {
		return err
	}
	old := stale(all, l.state.Want(), l.addresses)
	if len(old) > 0 {
		if err := l.host.abort(ctx, old); err != nil {
			return err
		}
	}
	var errs []error
	for _, s := range old {
		errs = append(errs, l.plane.Forget(s))
	}
	l.lost = false
	return errors.Join(errs...)
}

// abort has all that is done with these sockets fail, in whatever namespace of
// this machine they are. What is closed already is no error.
func (h *host) abort(ctx context.Context, sockets []datapath.Socket) error {
	in := map[uint64]map[uint64]bool{} // cookies by that of the namespace
	for _, s := range sockets {
		if in[s.Netns] == nil {
			in[s.Netns] = map[uint64]bool{}
		}
		in[s.Netns][s.Cookie] = true
	}
	namespaces, err := namespaces()
	if err != nil {
		return err
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread goes with the goroutine
		var errs []error
		for _, f := range namespaces {
			if len(in) > 0 && ctx.Err() == nil {
				errs = append(errs, abortIn(f, in))
			}
			errs = append(errs, f.Close())
		}
		done <- errors.Join(errs...)
	}()
	return <-done
}

// namespaces opens the network namespaces of this thread and of all processes.
func namespaces() (out []*os.File, err error) {
	paths, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	seen := map[string]bool{}
	for _, path := range append([]string{"/proc/thread-self/ns/net"}, paths...) {
		// Processes end while we look at them, and others have no namespace.
		name, err := os.Readlink(path)
		if err != nil || seen[name] {
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		seen[name] = true
		out = append(out, f)
	}
	return out, nil
}

// abortIn moves the thread to a namespace and aborts the sockets there, which
// it takes out of the map.
func abortIn(ns *os.File, in map[uint64]map[uint64]bool) error {
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	cookie, err := netnsCookie()
	if err != nil {
		return err
	}
	wanted := in[cookie]
	delete(in, cookie)
	if len(wanted) == 0 {
		return nil
	}
	links, err := netlink.NewHandle(unix.NETLINK_INET_DIAG)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer links.Close()
	var errs []error
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		all, err := links.SocketDiagUDP(family)
		errs = append(errs, err)
		for _, s := range all {
			if c := s.ID.Cookie; wanted[uint64(c[1])<<32|uint64(c[0])] {
				errs = append(errs, destroy(s))
			}
		}
	}
	return errors.Join(errs...)
}

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

// destroy aborts a UDP socket of the thread's namespace.
func destroy(s *netlink.Socket) error {
	// The kernel's struct inet_diag_req_v2.
	b := []byte{s.Family, unix.IPPROTO_UDP, 0, 0}
	b = binary.NativeEndian.AppendUint32(b, 1<<s.State)
	b = binary.BigEndian.AppendUint16(b, s.ID.SourcePort)
	b = binary.BigEndian.AppendUint16(b, s.ID.DestinationPort)
	for _, ip := range [][]byte{s.ID.Source, s.ID.Destination} {
		var raw [16]byte
		if s.Family == unix.AF_INET {
			ip = ip[len(ip)-4:]
		}
		copy(raw[:], ip)
		b = append(b, raw[:]...)
	}
	b = binary.NativeEndian.AppendUint32(b, s.ID.Interface)
	b = binary.NativeEndian.AppendUint32(b, s.ID.Cookie[0])
	b = binary.NativeEndian.AppendUint32(b, s.ID.Cookie[1])
	req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	req.AddRawData(b)
	if _, err := req.Execute(unix.NETLINK_INET_DIAG, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("abort UDP socket to %v: %w", s.ID.Destination, err)
	}
	return nil
}

// Package proxytest gives tests of the proxy network namespaces, a cgroup and
// a BPF file system of their own, and takes them away again. Tests need to be
// root; without the means they are skipped, which they say.
package proxytest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Netns is a network namespace, with its loopback up.
type Netns struct {
	tb    testing.TB
	file  *os.File
	peers map[string]end // what its interfaces of Connect lead to
}

// An end is an interface in a namespace.
type end struct {
	at   *Netns
	name string
}

// NewNetns makes a namespace that is gone with the test, forwards packets and
// has a loopback.
func NewNetns(tb testing.TB) *Netns {
	tb.Helper()
	if os.Getuid() != 0 {
		tb.Skip("needs root")
	}
	n := &Netns{tb: tb, peers: map[string]end{}}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread goes with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			n.file, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		}
		made <- err
	}()
	if err := <-made; err != nil {
		tb.Skipf("no network namespace: %v", err)
	}
	tb.Cleanup(func() { n.must(n.file.Close()) })
	n.Link("lo", "127.0.0.1/8")
	n.Do(func() {
		for _, name := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
			n.must(os.WriteFile("/proc/sys/"+name, []byte("1"), 0o644))
		}
	})
	return n
}

func (n *Netns) must(err error) {
	n.tb.Helper()
	if err != nil {
		n.tb.Fatal(err)
	}
}

// Do calls f in the namespace, on a thread of its own. Goroutines that f
// starts are not in it, but sockets that f makes are for good.
func (n *Netns) Do(f func()) {
	n.tb.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			defer func() { done <- nil }() // also where f ends the goroutine by Fatal
			f()
			return
		}
		done <- err
	}()
	n.must(<-done)
}

// Path is where the namespace can be opened while the test runs.
func (n *Netns) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

// Link brings an interface up and gives it addresses, written as prefixes. If
// it is one of a pair that is up now, packets can pass when it returns.
func (n *Netns) Link(name string, addrs ...string) (index int) {
	n.tb.Helper()
	n.Do(func() {
		l, err := netlink.LinkByName(name)
		n.must(err)
		n.must(netlink.LinkSetUp(l))
		for _, a := range addrs {
			addr, err := netlink.ParseAddr(a)
			n.must(err)
			addr.Flags |= unix.IFA_F_NODAD
			if err := netlink.AddrAdd(l, addr); err != nil && !errors.Is(err, unix.EEXIST) {
				n.tb.Fatalf("add %s to %s: %v", a, name, err)
			}
		}
		index = l.Attrs().Index
	})
	n.settle(name)
	return index
}

// settle waits until both interfaces of a pair carry packets, if both are up.
// The kernel has the one that was up first begin only some time after the
// other came up, and drops what is sent on it until then.
func (n *Netns) settle(name string) {
	n.tb.Helper()
	peer, paired := n.peers[name]
	if !paired || !peer.state().up {
		return
	}
	n.must(Eventually(func() error {
		for _, e := range []end{{n, name}, peer} {
			if s := e.state(); s.oper != netlink.OperUp {
				return fmt.Errorf("%s is %v", e.name, s.oper)
			}
		}
		return nil
	}))
}

// A state is how an interface was set, and how it is.
type state struct {
	up   bool
	oper netlink.LinkOperState
}

func (e end) state() (s state) {
	e.at.tb.Helper()
	e.at.Do(func() {
		l, err := netlink.LinkByName(e.name)
		e.at.must(err)
		s = state{l.Attrs().Flags&net.FlagUp != 0, l.Attrs().OperState}
	})
	return s
}

// Connect makes a pair of interfaces, one here and one there. Both are down.
func (n *Netns) Connect(name string, there *Netns, peer string) {
	n.tb.Helper()
	n.Do(func() {
		veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: peer, PeerNamespace: netlink.NsFd(there.file.Fd())}
		veth.Name = name
		n.must(netlink.LinkAdd(veth))
	})
	n.peers[name], there.peers[peer] = end{there, peer}, end{n, name}
}

// Bridge makes a bridge, or gives it a port where it is there.
func (n *Netns) Bridge(name, port string) {
	n.tb.Helper()
	n.Do(func() {
		bridge, err := netlink.LinkByName(name)
		if err != nil {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = name
			bridge = &netlink.Bridge{LinkAttrs: attrs}
			n.must(netlink.LinkAdd(bridge))
			n.must(netlink.LinkSetUp(bridge))
		}
		if port == "" {
			return
		}
		l, err := netlink.LinkByName(port)
		n.must(err)
		n.must(netlink.LinkSetMaster(l, bridge))
		n.must(netlink.LinkSetUp(l))
	})
}

// Route sends packets for a prefix to a gateway.
func (n *Netns) Route(prefix, via string) {
	n.tb.Helper()
	n.Do(func() {
		_, dst, err := net.ParseCIDR(prefix)
		n.must(err)
		n.must(netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(via)}))
	})
}

// Run runs a command in the namespace and returns what it printed.
func (n *Netns) Run(name string, args ...string) string {
	n.tb.Helper()
	var out []byte
	var err error
	n.Do(func() { out, err = exec.Command(name, args...).CombinedOutput() })
	if err != nil {
		n.tb.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

var cgroups atomic.Int32

// Cgroup moves the test's process to a cgroup of its own until the test ends.
func Cgroup(tb testing.TB) (path string) {
	tb.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup2"))
	if err != nil || len(mounts) == 0 {
		tb.Skipf("no cgroup2: %v", err)
	}
	root := mounts[0].Mountpoint
	path = filepath.Join(root, fmt.Sprintf("knarr-test-%d-%d", os.Getpid(), cgroups.Add(1)))
	if err := os.Mkdir(path, 0o755); err != nil {
		tb.Skipf("no cgroup: %v", err)
	}
	move := func(to string) error {
		return os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644)
	}
	tb.Cleanup(func() {
		if err := errors.Join(move(root), Eventually(func() error { return os.Remove(path) })); err != nil {
			tb.Error(err)
		}
	})
	if err := move(path); err != nil {
		tb.Fatal(err)
	}
	return path
}

// PinDir is a directory that a BPF file system can be mounted on.
func PinDir(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	tb.Cleanup(func() {
		if ok, err := mountinfo.Mounted(dir); err == nil && ok {
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				tb.Error(err)
			}
		}
	})
	return dir
}

// Eventually tries until f succeeds, for five seconds, and returns the last
// error.
func Eventually(f func() error) (err error) {
	deadline := time.NewTimer(5 * time.Second)
	defer deadline.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		if err = f(); err == nil {
			return nil
		}
		select {
		case <-deadline.C:
			return err
		case <-again.C:
		}
	}
}

// Serve answers each TCP connection and UDP packet to addr with name and the
// address it saw the client at, and keeps connections open until the client
// closes them, answering each line.
func (n *Netns) Serve(name string, addr netip.AddrPort) {
	n.tb.Helper()
	n.Do(func() {
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
		n.must(err)
		u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		n.must(err)
		n.tb.Cleanup(func() { n.must(errors.Join(l.Close(), u.Close())) })
		go serveTCP(l, name)
		go serveUDP(u, name)
	})
}

func serveTCP(l net.Listener, name string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = c.Close() }() // the client sees to its end
			buf := make([]byte, 1500)
			for {
				if _, err := c.Read(buf); err != nil {
					return
				}
				if _, err := fmt.Fprintf(c, "%s %s\n", name, c.RemoteAddr()); err != nil {
					return
				}
			}
		}()
	}
}

func serveUDP(u *net.UDPConn, name string) {
	buf := make([]byte, 65536)
	for {
		_, from, err := u.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if _, err := u.WriteToUDPAddrPort(fmt.Appendf(nil, "%s %s\n", name, from), from); err != nil {
			return
		}
	}
}

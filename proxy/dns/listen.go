package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// How long a TCP connection may be idle, and how long a client may take to
// read what it asked for.
const (
	idleTimeout  = 10 * time.Second
	writeTimeout = 5 * time.Second
)

// A socket is an address that is listened on, in both ways.
type socket struct {
	udp net.PacketConn
	tcp net.Listener
}

// listen takes an address. A port of 0 stands for any that is free.
func listen(ctx context.Context, address string) (*socket, error) {
	var lc net.ListenConfig
	var err error
	// A port that is free for UDP may be taken for TCP.
	for range 10 {
		var udp net.PacketConn
		if udp, err = lc.ListenPacket(ctx, "udp", address); err != nil {
			return nil, err
		}
		host, port, bad := net.SplitHostPort(address)
		if bad != nil {
			return nil, errors.Join(bad, udp.Close())
		}
		var tcp net.Listener
		tcp, err = lc.Listen(ctx, "tcp", net.JoinHostPort(host, fmt.Sprint(udp.LocalAddr().(*net.UDPAddr).Port)))
		if err == nil {
			return &socket{udp, tcp}, nil
		}
		err = errors.Join(err, udp.Close())
		if port != "0" {
			break
		}
	}
	return nil, err
}

func (s *socket) addr() netip.AddrPort {
	a := s.udp.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func (s *socket) close() error { return errors.Join(s.udp.Close(), s.tcp.Close()) }

// servers are what serve the socket.
func (s *socket) servers(h dns.Handler, connections int, rejected func()) []*dns.Server {
	idle := func() time.Duration { return idleTimeout }
	return []*dns.Server{
		// A read that times out is only begun again.
		{PacketConn: s.udp, Handler: h, UDPSize: packetSize, ReadTimeout: time.Hour, MsgAcceptFunc: accept},
		{Listener: &limited{Listener: s.tcp, most: int32(connections), rejected: rejected}, Handler: h, IdleTimeout: idle, MsgAcceptFunc: accept},
	}
}

// accept looks at the header of a message. What is no question is answered
// with its like only where that cannot go on for ever.
func accept(h dns.Header) dns.MsgAcceptAction {
	const response = 1 << 15
	switch opcode := int(h.Bits >> 11 & 0xf); {
	case h.Bits&response != 0:
		return dns.MsgIgnore
	case opcode != dns.OpcodeQuery:
		return dns.MsgRejectNotImplemented
	case h.Qdcount != 1, h.Ancount > 1, h.Nscount > 1, h.Arcount > 2:
		return dns.MsgReject
	}
	return dns.MsgAccept
}

// own tells whether an address is one that this process listens on.
func own(sockets []*socket) (func(netip.AddrPort) bool, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("find the addresses of this machine: %w", err)
	}
	mine := map[netip.Addr]bool{}
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			mine[p.Addr().Unmap()] = true
		}
	}
	return func(to netip.AddrPort) bool {
		addr := to.Addr().Unmap().WithZone("")
		for _, s := range sockets {
			at := s.addr()
			if to.Port() != at.Port() {
				continue
			}
			if at.Addr() == addr || at.Addr().IsUnspecified() && (mine[addr] || addr.IsLoopback() || addr.IsUnspecified()) {
				return true
			}
		}
		return false
	}, nil
}

// limited takes so many connections at a time, and closes any more at once:
// who waits in line would only find out later.
type limited struct {
	net.Listener

	most     int32
	now      atomic.Int32
	rejected func()
}

// Accept is part of net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.now.Add(1) <= l.most {
			return &conn{Conn: c, gone: sync.OnceFunc(func() { l.now.Add(-1) })}, nil
		}
		l.now.Add(-1)
		l.rejected()
		_ = c.Close() // nothing was said on it
	}
}

type conn struct {
	net.Conn

	gone func()
}

// Close is part of net.Conn.
func (c *conn) Close() error {
	c.gone()
	return c.Conn.Close()
}

// Write is part of net.Conn.
func (c *conn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

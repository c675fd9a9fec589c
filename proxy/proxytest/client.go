package proxytest

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// patience is how long an answer may take.
const patience = time.Second

// An Answer is what a server of Serve said.
type Answer struct {
	Name   string
	Client netip.AddrPort // as the server saw it
}

// Ask dials network and addr from the namespace, once, and returns the answer.
func (n *Netns) Ask(network, addr string) (a Answer, err error) {
	n.Do(func() {
		var c net.Conn
		if c, err = net.DialTimeout(network, addr, patience); err != nil {
			return
		}
		defer func() { _ = c.Close() }() // the answer is what counts
		a, err = Talk(c)
	})
	return a, err
}

// Talk sends a line and reads the answer.
func Talk(c net.Conn) (a Answer, err error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return a, err
	}
	if _, err := c.Write([]byte("?\n")); err != nil {
		return a, err
	}
	buf := make([]byte, 1500)
	k, err := c.Read(buf)
	if err != nil {
		return a, err
	}
	return parse(string(buf[:k]))
}

func parse(line string) (a Answer, err error) {
	name, client, ok := strings.Cut(strings.TrimSpace(line), " ")
	if !ok {
		return a, fmt.Errorf("answer %q", line)
	}
	at, err := netip.ParseAddrPort(client)
	return Answer{name, netip.AddrPortFrom(at.Addr().Unmap(), at.Port())}, err
}

// Count asks k times and counts who answered.
func (n *Netns) Count(network, addr string, k int) (map[string]int, error) {
	by := map[string]int{}
	for range k {
		a, err := n.Ask(network, addr)
		if err != nil {
			return by, err
		}
		by[a.Name]++
	}
	return by, nil
}

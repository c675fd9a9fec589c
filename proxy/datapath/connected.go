package datapath

import (
	"fmt"
	"net/netip"
)

// A Socket is a UDP socket of this node that was connected to a service.
type Socket struct {
	Netns, Cookie    uint64 // the kernel's numbers of its network namespace and of itself
	Dialled, Backend netip.AddrPort
}

func (s Socket) key() socketTalk {
	return socketTalk{Cookie: s.Cookie, Addr: addressOf(s.Backend.Addr()), Port: wire(s.Backend.Port())}
}

// Connected lists the sockets that go on sending to the backend that they got
// when they were connected, whatever becomes of it. Some may be closed by now.
func (d *Datapath) Connected() ([]Socket, error) {
	var out []Socket
	var key socketTalk
	var value socketChoice
	it := d.maps["sockets"].Iterate()
	for it.Next(&key, &value) {
		if key.Forward != 0 || socketBackendFlags(value.Flags)&socketBackendFlagsCHOICE_SOCKET == 0 {
			continue
		}
		out = append(out, Socket{
			Netns: value.Used, Cookie: key.Cookie,
			Dialled: netip.AddrPortFrom(addrOf(value.Addr), wire(value.Port)),
			Backend: netip.AddrPortFrom(addrOf(key.Addr), wire(key.Port)),
		})
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read sockets: %w", err)
	}
	return out, nil
}

// Forget drops a socket from those that Connected lists.
func (d *Datapath) Forget(s Socket) error { return absent(d.maps["sockets"].Delete(s.key())) }

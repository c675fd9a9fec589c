// Package lb decides where connections to services go: it turns Services,
// EndpointSlices, host ports and the own node into the entries that the eBPF
// programs look up, and says what has to change in them.
//
// It knows what the maps hold, not how: package datapath has the kernel's
// maps, package run the informers that call this one.
package lb

import (
	"cmp"
	"net/netip"
	"slices"
)

// A Proto is an IP protocol number.
type Proto uint8

// The protocols that services may have.
const (
	TCP  Proto = 6
	UDP  Proto = 17
	SCTP Proto = 132
)

func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return "?"
}

// A Frontend is what a client dials. An unspecified address stands for every
// address of the node in that family.
type Frontend struct {
	Addr  netip.AddrPort
	Proto Proto
}

func (f Frontend) compare(g Frontend) int {
	return cmp.Or(f.Addr.Compare(g.Addr), cmp.Compare(f.Proto, g.Proto))
}

// An ID numbers a Service of a Table. Zero is none.
type ID uint32

// Flags say how a frontend differs from a plain one.
type Flags uint32

// The flags. "Inside" is a client on this node, in a pod or not.
const (
	LocalInside  Flags = 1 << iota // clients inside get backends of this node only
	LocalOutside                   // and clients outside
	NodePort                       // not on every address of the node, only on those for node ports
	Filtered                       // only for the service's Sources
	NodeAllowed                    // and for the node itself
)

// An Entry is what a frontend stands for.
type Entry struct {
	Service ID
	Flags   Flags
}

// A Backend is where packets go in the end.
type Backend struct {
	Addr  netip.AddrPort
	Local bool // on this node: replies come by here without our asking
}

// A Service is the backends of one or more frontends.
type Service struct {
	// Backends has first the Cluster ones for clients that may go anywhere,
	// and last the Local ones for those that stay on the node. A backend
	// for both is there once, so the two may overlap.
	Backends       []Backend
	Cluster, Local int

	Affinity uint32         // seconds that a client keeps its backend, 0 for none
	Sources  []netip.Prefix // who may use the Filtered frontends
}

func (s Service) equal(t Service) bool {
	return s.Cluster == t.Cluster && s.Local == t.Local && s.Affinity == t.Affinity &&
		slices.Equal(s.Backends, t.Backends) && slices.Equal(s.Sources, t.Sources)
}

// A Table is the wanted, or the present, contents of the maps.
type Table struct {
	Frontends map[Frontend]Entry
	Services  map[ID]Service
}

// NewTable returns an empty table.
func NewTable() Table {
	return Table{Frontends: map[Frontend]Entry{}, Services: map[ID]Service{}}
}

// Maps are the maps that the programs read, or a stand-in for them. A call
// that fails has changed nothing that a client can see, and may be repeated.
// What a client sees of a service changes at once, from the old to the new.
type Maps interface {
	Dump() (Table, error)
	PutService(ID, Service) error
	DeleteService(ID) error
	PutFrontend(Frontend, Entry) error
	DeleteFrontend(Frontend) error
}

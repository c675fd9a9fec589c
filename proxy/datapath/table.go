package datapath

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/knarr-dev/knarr/proxy/lb"
)

var _ lb.Maps = (*Datapath)(nil)

// mmapped is an array map as memory.
type mmapped[T any] struct {
	raw []byte
	at  []T
}

func mapMemory[T any](m *ebpf.Map) (mmapped[T], error) {
	size := int(unsafe.Sizeof(*new(T)))
	if int(m.ValueSize()) != size {
		return mmapped[T]{}, fmt.Errorf("map values of %v are %d bytes, not %d", m, m.ValueSize(), size)
	}
	n := int(m.MaxEntries())
	page := unix.Getpagesize()
	raw, err := unix.Mmap(m.FD(), 0, (n*size+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return mmapped[T]{}, fmt.Errorf("map %v into memory: %w", m, err)
	}
	return mmapped[T]{raw, unsafe.Slice((*T)(unsafe.Pointer(&raw[0])), n)}, nil
}

func (m *mmapped[T]) close() error {
	if m.raw == nil {
		return nil
	}
	raw := m.raw
	m.raw, m.at = nil, nil
	return unix.Munmap(raw)
}

// openTable finds out which slots are in use, and by whose sources.
func (d *Datapath) openTable() (err error) {
	if d.services, err = mapMemory[socketService](d.maps["services"]); err != nil {
		return err
	}
	if d.slots, err = mapMemory[socketBackend](d.maps["slots"]); err != nil {
		return err
	}
	d.free.init(len(d.slots.at))
	for i := range d.services.at {
		first, n := extent(&d.services.at[i])
		d.free.set(first, n, true)
	}
	d.sources = map[uint32][]socketSource{}
	var key socketSource
	var value uint32
	it := d.maps["sources"].Iterate()
	for it.Next(&key, &value) {
		d.sources[key.Service] = append(d.sources[key.Service], key)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read sources: %w", err)
	}
	return nil
}

// Dump implements lb.Maps.
func (d *Datapath) Dump() (lb.Table, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := lb.NewTable()
	var key socketFrontend
	var value socketEntry
	it := d.maps["frontends"].Iterate()
	for it.Next(&key, &value) {
		t.Frontends[frontendOf(key)] = lb.Entry{Service: lb.ID(value.Service), Flags: lb.Flags(value.Flags)}
	}
	if err := it.Err(); err != nil {
		return t, fmt.Errorf("read frontends: %w", err)
	}
	for i := range d.services.at {
		s := &d.services.at[i]
		if s.Present == 0 {
			continue
		}
		first, n := extent(s)
		svc := lb.Service{Cluster: count(s.Cluster), Local: count(s.Local), Affinity: s.Affinity}
		for _, b := range d.slots.at[first : first+n] {
			svc.Backends = append(svc.Backends, backendOf(b))
		}
		for _, src := range d.sources[uint32(i)] {
			svc.Sources = append(svc.Sources, prefixOf(src))
		}
		slices.SortFunc(svc.Sources, comparePrefix)
		t.Services[lb.ID(i)] = svc
	}
	return t, nil
}

// PutFrontend implements lb.Maps.
func (d *Datapath) PutFrontend(f lb.Frontend, e lb.Entry) error {
	return d.maps["frontends"].Put(keyOf(f), socketEntry{Service: uint32(e.Service), Flags: socketEntryFlags(e.Flags)})
}

// DeleteFrontend implements lb.Maps.
func (d *Datapath) DeleteFrontend(f lb.Frontend) error {
	return absent(d.maps["frontends"].Delete(keyOf(f)))
}

func absent(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// PutService implements lb.Maps. The backends are written where no program
// looks, and come into force with the store of their range. Where they were
// before is used again only when all other slots have been, long after the
// last program has read them there.
func (d *Datapath) PutService(id lb.ID, s lb.Service) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if int(id) >= len(d.services.at) {
		return fmt.Errorf("service number %d is too high", id)
	}
	n := len(s.Backends)
	if n > maxBackends {
		return fmt.Errorf("%d backends are more than a service may have", n)
	}
	first, ok := d.free.take(n)
	if !ok {
		return fmt.Errorf("no room for %d backends", n)
	}
	for i, b := range s.Backends {
		d.slots.at[first+i] = slotOf(b)
	}
	if err := d.putSources(uint32(id), s); err != nil {
		d.free.set(first, n, false)
		return err
	}
	at := &d.services.at[id]
	was, size := extent(at)
	version := version(at.Cluster) + 1
	atomic.StoreUint32(&at.Affinity, s.Affinity)
	atomic.StoreUint32(&at.Present, 1)
	atomic.StoreUint64(&at.Cluster, rangeOf(first, s.Cluster, version))
	atomic.StoreUint64(&at.Local, rangeOf(first+n-s.Local, s.Local, version))
	d.free.set(was, size, false)
	return nil
}

// DeleteService implements lb.Maps.
func (d *Datapath) DeleteService(id lb.ID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.putSources(uint32(id), lb.Service{}); err != nil {
		return err
	}
	at := &d.services.at[id]
	was, size := extent(at)
	version := version(at.Cluster) + 1
	atomic.StoreUint64(&at.Cluster, rangeOf(0, 0, version))
	atomic.StoreUint64(&at.Local, rangeOf(0, 0, version))
	atomic.StoreUint32(&at.Present, 0)
	d.free.set(was, size, false)
	return nil
}

// putSources opens the service to its new sources, then closes it to the others.
func (d *Datapath) putSources(id uint32, s lb.Service) error {
	m := d.maps["sources"]
	want := make([]socketSource, 0, len(s.Sources))
	for _, p := range s.Sources {
		k := sourceOf(id, p)
		if err := m.Put(k, uint32(1)); err != nil {
			return fmt.Errorf("open to %v: %w", p, err)
		}
		want = append(want, k)
	}
	for _, k := range d.sources[id] {
		if slices.Contains(want, k) {
			continue
		}
		if err := absent(m.Delete(k)); err != nil {
			return fmt.Errorf("close to %v: %w", prefixOf(k), err)
		}
	}
	if d.sources[id] = want; len(want) == 0 {
		delete(d.sources, id)
	}
	return nil
}

// extent is where the service's backends are, and how many.
func extent(s *socketService) (first, n int) {
	first = start(s.Cluster)
	return first, start(s.Local) + count(s.Local) - first
}

// An allocator hands out slots in turn, so that what was given back is used
// again as late as can be.
type allocator struct {
	used []uint64 // bits
	next int
}

func (a *allocator) init(n int) { *a = allocator{used: make([]uint64, n/64)} }

func (a *allocator) set(first, n int, used bool) {
	for i := first; i < first+n; i++ {
		if used {
			a.used[i/64] |= 1 << (i % 64)
		} else {
			a.used[i/64] &^= 1 << (i % 64)
		}
	}
}

// take finds n free slots in a row and marks them used.
func (a *allocator) take(n int) (first int, ok bool) {
	if n == 0 {
		return 0, true
	}
	end := len(a.used) * 64
	for _, from := range []int{a.next, 0} {
		for first := from; first+n <= end; {
			busy := a.busy(first, n)
			if busy < 0 {
				a.set(first, n, true)
				a.next = first + n
				return first, true
			}
			first = busy + 1
		}
	}
	return 0, false
}

// busy is the last used slot of n from first, -1 where there is none.
func (a *allocator) busy(first, n int) int {
	for i := first + n - 1; i >= first; {
		word := a.used[i/64] << (63 - i%64)
		if word == 0 {
			i -= i%64 + 1
			continue
		}
		i -= bits.LeadingZeros64(word)
		if i >= first {
			return i
		}
		return -1
	}
	return -1
}

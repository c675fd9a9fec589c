package dns

import (
	"container/list"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// How long answers of others are remembered at most, whatever they say: they
// may be wrong, and of what is not there often something is made soon.
const (
	maxHit  = 5 * time.Minute
	maxMiss = 30 * time.Second
)

// How much is remembered.
const (
	maxEntries = 4096
	maxBytes   = 2 << 20
)

// A question is what answers are remembered by.
type question struct {
	name   string // in lower case
	rtype  uint16
	do, cd bool // as RFC 4035: DNSSEC records wanted, unchecked answers taken
}

// A memory remembers answers of others, in the form that takes the least
// memory, and forgets first what was not asked for the longest.
type memory struct {
	mu      sync.Mutex
	entries map[question]*list.Element
	order   list.List // of *entry, last used first
	bytes   int
}

type entry struct {
	question       question
	packed         []byte
	stored, expiry time.Time
}

// get returns what is remembered as an answer, and what is left of its time.
func (c *memory) get(q question, now time.Time) *dns.Msg {
	c.mu.Lock()
	at := c.entries[q]
	if at == nil {
		c.mu.Unlock()
		return nil
	}
	e := at.Value.(*entry)
	if !now.Before(e.expiry) {
		c.remove(at)
		c.mu.Unlock()
		return nil
	}
	c.order.MoveToFront(at)
	c.mu.Unlock()

	m := new(dns.Msg)
	if err := m.Unpack(e.packed); err != nil {
		return nil // it was packed here, so this cannot be
	}
	age := uint32(now.Sub(e.stored) / time.Second)
	eachRecord(m, func(h *dns.RR_Header) {
		h.Ttl = min(h.Ttl-min(age, h.Ttl), uint32(maxHit/time.Second))
	})
	return m
}

// put remembers an answer for as long as it says.
func (c *memory) put(q question, m *dns.Msg, now time.Time) {
	keep := lifetime(m)
	if keep <= 0 {
		return
	}
	m.Compress = true
	packed, err := m.Pack()
	if err != nil || len(packed) > maxBytes/16 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		c.entries = map[question]*list.Element{}
	}
	if at := c.entries[q]; at != nil {
		c.remove(at)
	}
	c.entries[q] = c.order.PushFront(&entry{q, packed, now, now.Add(keep)})
	c.bytes += len(packed)
	for c.order.Len() > maxEntries || c.bytes > maxBytes {
		c.remove(c.order.Back())
	}
}

func (c *memory) remove(at *list.Element) {
	e := c.order.Remove(at).(*entry)
	c.bytes -= len(e.packed)
	delete(c.entries, e.question)
}

func (c *memory) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.order.Len()
}

// lifetime is for how long an answer may be remembered.
func lifetime(m *dns.Msg) time.Duration {
	if m.Truncated {
		return 0
	}
	switch {
	case m.Rcode == dns.RcodeSuccess && answers(m):
		least := uint32(maxHit / time.Second)
		eachRecord(m, func(h *dns.RR_Header) { least = min(least, h.Ttl) })
		return time.Duration(least) * time.Second
	case m.Rcode == dns.RcodeSuccess, m.Rcode == dns.RcodeNameError:
		// As RFC 2308: without a SOA nobody says for how long it is not there.
		for _, r := range m.Ns {
			if soa, ok := r.(*dns.SOA); ok {
				return min(maxMiss, time.Duration(min(soa.Hdr.Ttl, soa.Minttl))*time.Second)
			}
		}
	}
	return 0
}

// answers tells whether m answers its question, and not only with an alias.
func answers(m *dns.Msg) bool {
	for _, r := range m.Answer {
		if t := r.Header().Rrtype; t == m.Question[0].Qtype || m.Question[0].Qtype == dns.TypeANY {
			return true
		}
	}
	return false
}

// eachRecord calls f for every record but the one about the message itself.
func eachRecord(m *dns.Msg, f func(*dns.RR_Header)) {
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, r := range section {
			if h := r.Header(); h.Rrtype != dns.TypeOPT {
				f(h)
			}
		}
	}
}

// asked is what a message asks.
func asked(m *dns.Msg) question {
	q := question{name: strings.ToLower(m.Question[0].Name), rtype: m.Question[0].Qtype, cd: m.CheckingDisabled}
	if opt := m.IsEdns0(); opt != nil {
		q.do = opt.Do()
	}
	return q
}

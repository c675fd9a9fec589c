//go:build ignore

// Load balancing of packets, for what no socket of this node has dialled:
// clients outside, and inside those that speak SCTP or do without sockets.
//
// What comes in may get another destination and what goes out another source,
// never the other way round. So the kernel in between routes, filters and
// tracks packets between the client and the backend, and none of them seems to
// come from an address of its own.

#include "datapath.h"
#include "sctp.h"
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stddef.h>

#define MAX_CONNECTIONS 131072
#define MAX_FRAGMENTS 4096
#define MAX_INTERFACES 4096

#define NEXT -1 // to the next program, or the stack
#define DROP 2

#define AF_INET 2
#define AF_INET6 10
#define ICMPV6 58
#define FRAGMENT 44
#define FIN_SYN_RST_ACK 0x17
#define SYN 0x02

// Ports for connections whose source we replace lie below those that the
// kernel gives to sockets and outside those for node ports.
#define LOW_PORT 1024
#define HIGH_PORT 30000
#define PORT_TRIES 32

enum direction { IN, OUT };

struct flow {
	struct address src;
	struct address dst;
	__u16 sport;
	__u16 dport;
	__u8 proto;
	__u8 direction;
	__u16 pad;
};

// What becomes of the destination of a flow that comes IN, or of the source
// of one that goes OUT.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_CONNECTIONS);
	__type(key, struct flow);
	__type(value, struct choice);
} connections SEC(".maps");

// The ports of a packet that is in fragments, which only the first has.
struct fragment {
	struct address src;
	struct address dst;
	__u32 id;
	__u32 proto;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_FRAGMENTS);
	__type(key, struct fragment);
	__type(value, __u32);
} fragments SEC(".maps");

struct interface {
	struct address v4; // zero where there is none
	struct address v6;
	__u32 inside; // pods of this node are behind it
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_INTERFACES);
	__type(key, __u32);
	__type(value, struct interface);
} interfaces SEC(".maps");

struct packet {
	struct flow flow;
	__u32 l3, l4; // offsets
	__u32 size;   // bytes from l4
	__u8 tcp;     // flags
	bool v6;
	bool later; // a fragment other than the first: no ports to rewrite
	bool error; // an ICMP error, with the packet it is about from l4 + 8
};

// reassemble notes the ports of a first fragment and finds them for a later one.
static __always_inline bool reassemble(struct __sk_buff *skb, struct packet *p, __u32 id, bool more)
{
	struct fragment f = {.src = p->flow.src, .dst = p->flow.dst, .id = id, .proto = p->flow.proto};
	__u32 *ports, first;

	if (p->later) {
		ports = bpf_map_lookup_elem(&fragments, &f);
		if (!ports)
			return false;
		__builtin_memcpy(&p->flow.sport, ports, sizeof(*ports));
	} else if (more) {
		__builtin_memcpy(&first, &p->flow.sport, sizeof(first));
		bpf_map_update_elem(&fragments, &f, &first, BPF_ANY);
	}
	return true;
}

// parse4 and parse6 read the header at l3. Fragment is set to where the
// packet's part begins, in bytes, and more to whether another follows.
static __always_inline bool parse4(struct __sk_buff *skb, struct packet *p, __u32 *id, __u32 *fragment, bool *more)
{
	struct iphdr h;

	if (bpf_skb_load_bytes(skb, p->l3, &h, sizeof(h)))
		return false;
	p->flow.src.word[2] = p->flow.dst.word[2] = bpf_htonl(0xffff);
	p->flow.src.word[3] = h.saddr;
	p->flow.dst.word[3] = h.daddr;
	p->flow.proto = h.protocol;
	p->l4 = p->l3 + h.ihl * 4;
	p->size = bpf_ntohs(h.tot_len) - h.ihl * 4;
	*id = h.id;
	*fragment = bpf_ntohs(h.frag_off) & 0x1fff;
	*more = bpf_ntohs(h.frag_off) & 0x2000;
	return true;
}

static __always_inline bool parse6(struct __sk_buff *skb, struct packet *p, __u32 *id, __u32 *fragment, bool *more)
{
	struct ipv6hdr h;
	struct {
		__u8 next, reserved;
		__u16 offset;
		__u32 id;
	} f;

	if (bpf_skb_load_bytes(skb, p->l3, &h, sizeof(h)))
		return false;
	__builtin_memcpy(&p->flow.src, &h.saddr, sizeof(p->flow.src));
	__builtin_memcpy(&p->flow.dst, &h.daddr, sizeof(p->flow.dst));
	p->flow.proto = h.nexthdr;
	p->l4 = p->l3 + sizeof(h);
	p->size = bpf_ntohs(h.payload_len);
	if (h.nexthdr == FRAGMENT) {
		if (bpf_skb_load_bytes(skb, p->l4, &f, sizeof(f)))
			return false;
		p->flow.proto = f.next;
		p->l4 += sizeof(f);
		p->size -= sizeof(f);
		*id = f.id;
		*fragment = bpf_ntohs(f.offset) & 0xfff8;
		*more = bpf_ntohs(f.offset) & 1;
	}
	return true;
}

static __always_inline bool icmp_error(__u8 proto, __u8 type)
{
	return proto == ICMPV6 ? type >= 1 && type <= 4 : type == 3 || type == 11 || type == 12;
}

// parse reads what begins at p->l3, and returns false where that is nothing
// of ours.
static __always_inline bool parse(struct __sk_buff *skb, struct packet *p)
{
	__u32 id = 0, fragment = 0;
	bool more = false;
	__u8 type;

	if (p->v6 ? !parse6(skb, p, &id, &fragment, &more) : !parse4(skb, p, &id, &fragment, &more))
		return false;
	p->later = fragment;
	switch (p->flow.proto) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		break;
	case IPPROTO_ICMP:
	case ICMPV6:
		p->error = !p->later && !bpf_skb_load_bytes(skb, p->l4, &type, 1) && icmp_error(p->flow.proto, type);
		return p->error;
	default:
		return false;
	}
	if (!p->later && bpf_skb_load_bytes(skb, p->l4, &p->flow.sport, 4))
		return false;
	if (p->flow.proto == IPPROTO_TCP && !p->later && bpf_skb_load_bytes(skb, p->l4 + 13, &p->tcp, 1))
		p->tcp = 0;
	return reassemble(skb, p, id, more);
}

// checksum is where the packet's layer 4 has its checksum over the addresses,
// 0 where it has none.
static __always_inline __u32 checksum(const struct packet *p)
{
	switch (p->flow.proto) {
	case IPPROTO_TCP:
		return p->l4 + 16;
	case IPPROTO_UDP:
		return p->l4 + 6;
	case ICMPV6:
		return p->l4 + 2;
	}
	return 0;
}

// put_address replaces an address of the packet, with the checksums over it
// but for the one at no_sum.
static __always_inline void put_address(struct __sk_buff *skb, const struct packet *p, bool source, const struct address *to, __u32 sum)
{
	const struct address *from = source ? &p->flow.src : &p->flow.dst;
	__u64 flags = BPF_F_PSEUDO_HDR | (p->flow.proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0);
	__s64 diff = bpf_csum_diff((__be32 *)from->word, sizeof(*from), (__be32 *)to->word, sizeof(*to), 0);

	// IPv6 has no checksum to make up for the address in one over the whole packet.
	if (p->v6)
		bpf_skb_store_bytes(skb, p->l3 + (source ? 8 : 24), to->word, sizeof(to->word), BPF_F_RECOMPUTE_CSUM);
	else
		bpf_skb_store_bytes(skb, p->l3 + (source ? 12 : 16), &to->word[3], sizeof(to->word[3]), 0);
	if (!p->v6)
		bpf_l3_csum_replace(skb, p->l3 + offsetof(struct iphdr, check), 0, diff, 0);
	if (sum)
		bpf_l4_csum_replace(skb, sum, 0, diff, flags);
}

static __always_inline void put_port(struct __sk_buff *skb, const struct packet *p, bool source, __u16 to)
{
	__u16 from = source ? p->flow.sport : p->flow.dport;
	__u64 flags = sizeof(to) | (p->flow.proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0);
	__u32 sum;

	if (p->flow.proto != IPPROTO_SCTP) {
		bpf_l4_csum_replace(skb, checksum(p), from, to, flags);
	} else if (!bpf_skb_load_bytes(skb, p->l4 + 8, &sum, sizeof(sum)) && sum) { // 0: left to the hardware
		sum ^= crc_change((__u32)(from ^ to) << (source ? 0 : 16), p->size);
		bpf_skb_store_bytes(skb, p->l4 + 8, &sum, sizeof(sum), 0);
	}
	bpf_skb_store_bytes(skb, p->l4 + (source ? 0 : 2), &to, sizeof(to), 0);
}

// rewrite puts c in the place of the packet's source or destination.
static __always_inline int rewrite(struct __sk_buff *skb, const struct packet *p, bool source, const struct choice *c)
{
	put_address(skb, p, source, &c->addr, p->later ? 0 : checksum(p));
	if (!p->later && c->port != (source ? p->flow.sport : p->flow.dport))
		put_port(skb, p, source, c->port);
	return NEXT;
}

static __always_inline struct flow reverse(const struct flow *f, enum direction d)
{
	struct flow r = {.src = f->dst, .dst = f->src, .sport = f->dport, .dport = f->sport, .proto = f->proto, .direction = d};

	return r;
}

// rewrite_error does to an ICMP error what would be done to an answer to the
// packet that it is about, and undoes it in that packet. Its checksum does not
// change with an IPv4 address inside, which the checksum inside makes up for;
// that of the layer 4 inside nobody checks.
static __always_inline int rewrite_error(struct __sk_buff *skb, struct packet *p, enum direction d)
{
	struct packet inner = {.l3 = p->l4 + 8, .v6 = p->v6};
	bool out = d == OUT;
	struct choice *c;
	struct flow f;
	__u16 was;

	if (!parse(skb, &inner) || inner.later)
		return NEXT;
	f = reverse(&inner.flow, d);
	c = bpf_map_lookup_elem(&connections, &f);
	if (!c)
		return NEXT;
	was = out ? f.sport : f.dport;
	put_address(skb, &inner, !out, &c->addr, p->v6 ? p->l4 + 2 : 0);
	bpf_l4_csum_replace(skb, p->l4 + 2, was, c->port, sizeof(was));
	bpf_skb_store_bytes(skb, inner.l4 + (out ? 2 : 0), &c->port, sizeof(c->port), 0);
	if (!out || same(&p->flow.src, &f.src)) // a router on the way keeps its address
		put_address(skb, p, out, &c->addr, checksum(p));
	return NEXT;
}

// opens tells whether the packet may be the first of its connection.
static __always_inline bool opens(const struct packet *p)
{
	return !p->later && (p->flow.proto != IPPROTO_TCP || (p->tcp & FIN_SYN_RST_ACK) == SYN);
}

// holds tells whether c still goes for the packet. A TCP connection stays
// with its backend come what may, until the client opens it anew.
static __always_inline bool holds(struct choice *c, const struct packet *p)
{
	__u64 now = bpf_ktime_get_ns();
	struct service *s;

	if (!(c->flags & CHOICE_FORWARD) || !opens(p))
		return true;
	if (p->flow.proto == IPPROTO_UDP && now - c->used > UDP_IDLE)
		return false;
	s = bpf_map_lookup_elem(&services, &c->service);
	c->used = now;
	return s && stands(c, c->flags & CHOICE_LOCAL ? s->local : s->cluster);
}

// shortcut tells whether answers of the backend would not come by here unless
// they were sent to us, and sets out to the interface that leads to it.
static __always_inline bool shortcut(struct __sk_buff *skb, const struct packet *p, const struct choice *c, __u32 *out)
{
	struct bpf_fib_lookup fib = {.family = p->v6 ? AF_INET6 : AF_INET, .ifindex = skb->ifindex};

	if (p->v6) {
		__builtin_memcpy(fib.ipv6_src, &p->flow.src, sizeof(fib.ipv6_src));
		__builtin_memcpy(fib.ipv6_dst, &c->addr, sizeof(fib.ipv6_dst));
	} else {
		fib.ipv4_src = p->flow.src.word[3];
		fib.ipv4_dst = c->addr.word[3];
	}
	if (bpf_fib_lookup(skb, &fib, sizeof(fib), 0) == BPF_FIB_LKUP_RET_NOT_FWDED)
		return false; // the node itself
	*out = fib.ifindex;
	return *out == skb->ifindex || !(c->flags & BACKEND_LOCAL);
}

// own is the address of an interface in the packet's family.
static __always_inline bool own(__u32 ifindex, bool v6, struct address *a)
{
	struct interface *i = bpf_map_lookup_elem(&interfaces, &ifindex);

	if (!i)
		return false;
	*a = v6 ? i->v6 : i->v4;
	return a->word[3] != 0;
}

// masquerade makes the connection leave with an address of our own, and its
// answers find the client.
static __always_inline bool masquerade(const struct packet *p, const struct choice *c, __u32 out)
{
	struct flow there = {
		.src = p->flow.src, .dst = c->addr, .sport = p->flow.sport, .dport = c->port,
		.proto = p->flow.proto, .direction = OUT,
	};
	struct choice client = {.addr = p->flow.src, .port = p->flow.sport}, us = {};
	__u32 start = bpf_get_prandom_u32();
	struct flow back;

	if (!own(out, p->v6, &us.addr))
		return false;
	back = reverse(&there, IN);
	back.dst = us.addr;
	for (int i = 0; i < PORT_TRIES; i++) {
		back.dport = us.port = bpf_htons(LOW_PORT + (start + i) % (HIGH_PORT - LOW_PORT));
		if (!bpf_map_update_elem(&connections, &back, &client, BPF_NOEXIST)) {
			bpf_map_update_elem(&connections, &there, &us, BPF_ANY);
			return true;
		}
	}
	return false;
}

// track remembers where the connection goes and how its answers get back.
static __always_inline bool track(struct __sk_buff *skb, const struct packet *p, struct choice *c)
{
	struct choice dialled = {.addr = p->flow.dst, .port = p->flow.dport};
	struct flow answer = {
		.src = c->addr, .dst = p->flow.src, .sport = c->port, .dport = p->flow.sport,
		.proto = p->flow.proto, .direction = OUT,
	};
	__u32 out = 0;

	if (shortcut(skb, p, c, &out) && !masquerade(p, c, out))
		return false;
	c->flags |= CHOICE_FORWARD;
	bpf_map_update_elem(&connections, &answer, &dialled, BPF_ANY);
	return !bpf_map_update_elem(&connections, &p->flow, c, BPF_ANY);
}

// admits tells whether the frontend is open to the packet's source.
static __always_inline bool admits(const struct entry *e, const struct packet *p)
{
	struct source s = {.bits = 32 + 128, .service = e->service, .addr = p->flow.src};

	return !(e->flags & FILTERED) || bpf_map_lookup_elem(&sources, &s);
}

// select finds a backend for the packet. It returns false where there is a
// service, but the packet must not get to it.
static __always_inline bool select(struct __sk_buff *skb, const struct packet *p, const struct entry *e, struct choice *c)
{
	struct client who = {.addr = p->flow.src, .service = e->service};
	__u32 ifindex = skb->ifindex;
	struct interface *i = bpf_map_lookup_elem(&interfaces, &ifindex);
	bool local = e->flags & (i && i->inside ? LOCAL_INSIDE : LOCAL_OUTSIDE);
	struct service *s = bpf_map_lookup_elem(&services, &who.service);

	if (!s || !admits(e, p))
		return false;
	c->service = who.service;
	c->flags = local ? CHOICE_LOCAL : 0;
	c->range = *(volatile __u64 *)(local ? &s->local : &s->cluster);
	if (COUNT(c->range))
		return choose(c, s, &who);
	if (COUNT(s->cluster))
		return false;
	// Nobody there: our own stack refuses what comes to port 0, and the
	// refusal finds its way back as any answer does.
	c->port = 0;
	return own(ifindex, p->v6, &c->addr);
}

static __always_inline int come(struct __sk_buff *skb, struct packet *p)
{
	struct frontend f = {.addr = p->flow.dst, .port = p->flow.dport, .proto = p->flow.proto};
	struct choice *known, c = {};
	struct entry *e;

	p->flow.direction = IN;
	known = bpf_map_lookup_elem(&connections, &p->flow);
	if (known && holds(known, p)) {
		c = *known;
		return rewrite(skb, p, false, &c);
	}
	if (!opens(p))
		return NEXT;
	e = find(&f, false);
	if (!e)
		return NEXT;
	if (!select(skb, p, e, &c) || !track(skb, p, &c))
		return DROP;
	return rewrite(skb, p, false, &c);
}

static __always_inline int go(struct __sk_buff *skb, struct packet *p)
{
	struct frontend f = {.addr = p->flow.dst, .port = p->flow.dport, .proto = p->flow.proto};
	struct choice *known, c;

	p->flow.direction = OUT;
	known = bpf_map_lookup_elem(&connections, &p->flow);
	if (known) {
		c = *known;
		return rewrite(skb, p, true, &c);
	}
	// What one of our own sockets sends to a service is what the socket
	// level left to be dropped.
	if (!skb->ingress_ifindex && opens(p) && find(&f, true))
		return DROP;
	return NEXT;
}

static __always_inline int handle(struct __sk_buff *skb, enum direction d, __u32 l2)
{
	struct packet p = {.l3 = l2, .v6 = skb->protocol == bpf_htons(ETH_P_IPV6)};

	if (!p.v6 && skb->protocol != bpf_htons(ETH_P_IP))
		return NEXT;
	if (!parse(skb, &p))
		return NEXT;
	if (p.error)
		return rewrite_error(skb, &p, d);
	return d == IN ? come(skb, &p) : go(skb, &p);
}

SEC("tcx/ingress")
int ingress(struct __sk_buff *skb)
{
	return handle(skb, IN, ETH_HLEN);
}

SEC("tcx/egress")
int egress(struct __sk_buff *skb)
{
	return handle(skb, OUT, ETH_HLEN);
}

// The same for interfaces without Ethernet.
SEC("tcx/ingress")
int ingress_l3(struct __sk_buff *skb)
{
	return handle(skb, IN, 0);
}

SEC("tcx/egress")
int egress_l3(struct __sk_buff *skb)
{
	return handle(skb, OUT, 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";

// What the programs of both levels share: the maps, and how a backend is
// chosen. The structs are the only statement of the maps' layout, bpf2go makes
// their Go twins. Addresses and ports are in network order everywhere, and an
// IPv4 address is one that is mapped into IPv6, so that one path serves both.
//
// Kernel 6.6 or later.

#include <linux/bpf.h>
#include <linux/in.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_FRONTENDS 262144
#define MAX_SERVICES 65536 // lb.MaxServices
#define MAX_SLOTS 262144
#define MAX_ADDRESSES 4096
#define MAX_SOURCES 65536
#define MAX_CLIENTS 65536

#define SECOND 1000000000ULL
// A UDP client that was silent for so long is a new one: what conntrack gives
// a stream.
#define UDP_IDLE (120 * SECOND)

struct address {
	__u32 word[4];
};

struct frontend {
	struct address addr; // all zero but for the family: any address of the node
	__u16 port;
	__u8 proto;
	__u8 pad;
};

enum entry_flags { // lb.Flags
	LOCAL_INSIDE = 1,
	LOCAL_OUTSIDE = 2,
	NODE_PORT = 4,
	FILTERED = 8,
	NODE_ALLOWED = 16,
};

struct entry {
	__u32 service;
	enum entry_flags flags;
};

// A range of slots is one word, so that a service goes from its old backends
// to its new ones in one store: first slot (24 bits), how many (16), and a
// version (24) that makes a range that comes back in the same place another.
#define FIRST(range) ((__u32)(range) & 0xffffff)
#define COUNT(range) ((__u32)((range) >> 24) & 0xffff)

struct service {
	__u64 cluster; // ranges
	__u64 local;
	__u32 affinity; // seconds, 0 for none
	__u32 present;
};

enum backend_flags {
	BACKEND_LOCAL = 1,  // on this node
	CHOICE_FORWARD = 2, // the way to a backend, not the way back
	CHOICE_LOCAL = 4,   // taken from the local range
	CHOICE_SOCKET = 8,  // of a connected socket
};

struct backend {
	struct address addr;
	__u16 port;
	__u16 pad;
	enum backend_flags flags;
};

// A choice is an address put in place of another, and the range and service
// it was taken from if it is a backend's.
struct choice {
	struct address addr;
	__u16 port;
	__u16 flags; // backend_flags
	__u32 service;
	__u64 range;
	__u64 used; // ns since boot; of a connected socket the cookie of its network namespace
};

// A client is who has affinity: a network namespace on this node, by its
// cookie, or an address outside.
struct client {
	struct address addr;
	__u32 service;
	__u32 inside;
};

struct source {
	__u32 bits; // 32 of service and then those of the address
	__u32 service;
	struct address addr;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_FRONTENDS);
	__type(key, struct frontend);
	__type(value, struct entry);
} frontends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_SERVICES);
	__type(key, __u32);
	__type(value, struct service);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_SLOTS);
	__type(key, __u32);
	__type(value, struct backend);
} slots SEC(".maps");

// The node's own addresses, and NODE_PORT if node ports are open there.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_ADDRESSES);
	__type(key, struct address);
	__type(value, __u32);
} addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_SOURCES);
	__type(key, struct source);
	__type(value, __u32);
} sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_CLIENTS);
	__type(key, struct client);
	__type(value, struct choice);
} affinity SEC(".maps");

static __always_inline bool same(const struct address *a, const struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] && a->word[3] == b->word[3];
}

static __always_inline bool mapped(const struct address *a)
{
	return !a->word[0] && !a->word[1] && a->word[2] == bpf_htonl(0xffff);
}

static __always_inline bool loopback(const struct address *a)
{
	if (mapped(a))
		return (a->word[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return !a->word[0] && !a->word[1] && !a->word[2] && a->word[3] == bpf_htonl(1);
}

// find looks up what the client dialled: as it is, or as one of the node's
// addresses. A loopback address is the node's only for the node itself.
static __always_inline struct entry *find(const struct frontend *dialled, bool node)
{
	struct frontend f = *dialled;
	struct entry *e;
	__u32 *open;

	if (!node && loopback(&f.addr))
		return NULL;
	e = bpf_map_lookup_elem(&frontends, &f);
	if (e)
		return e;
	open = bpf_map_lookup_elem(&addresses, &f.addr);
	if (!open)
		return NULL;
	if (mapped(&f.addr))
		f.addr.word[3] = 0;
	else
		__builtin_memset(&f.addr, 0, sizeof(f.addr));
	e = bpf_map_lookup_elem(&frontends, &f);
	if (e && (e->flags & NODE_PORT) && !(*open & NODE_PORT))
		return NULL;
	return e;
}

struct search {
	struct address addr;
	__u32 first;
	__u16 port;
	bool found;
};

static long match(__u32 i, struct search *s)
{
	__u32 slot = s->first + i;
	struct backend *b = bpf_map_lookup_elem(&slots, &slot);

	s->found = b && b->port == s->port && same(&b->addr, &s->addr);
	return s->found;
}

// stands tells whether c is still among the backends of range, which it is
// at a glance if the range is the one that it was taken from. It notes the
// range in c.
static __always_inline bool stands(struct choice *c, __u64 range)
{
	struct search s = {.addr = c->addr, .first = FIRST(range), .port = c->port};

	if (c->range == range)
		return COUNT(range) > 0;
	bpf_loop(COUNT(range), match, &s, 0);
	if (s.found)
		c->range = range;
	return s.found;
}

// choose picks a backend from c->range, which is not empty: the one that the
// client had if the service remembers its clients, else any. Returns false
// where the slot is out of range.
static __always_inline bool choose(struct choice *c, const struct service *s, const struct client *who)
{
	__u64 now = bpf_ktime_get_ns();
	struct backend *b;
	struct choice *had;
	__u32 slot;

	c->used = now;
	if (s->affinity) {
		had = bpf_map_lookup_elem(&affinity, who);
		if (had && now - had->used < s->affinity * SECOND && stands(had, c->range)) {
			had->used = now;
			c->addr = had->addr;
			c->port = had->port;
			c->flags |= had->flags & BACKEND_LOCAL;
			return true;
		}
	}
	slot = FIRST(c->range) + bpf_get_prandom_u32() % COUNT(c->range);
	b = bpf_map_lookup_elem(&slots, &slot);
	if (!b)
		return false;
	c->addr = b->addr;
	c->port = b->port;
	c->flags |= b->flags;
	if (s->affinity)
		bpf_map_update_elem(&affinity, who, c, BPF_ANY);
	return true;
}

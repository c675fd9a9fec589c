//go:build ignore

// Load balancing where a socket is told its peer: what a process on this node
// dials is replaced by a backend before the first packet is made, so that no
// packet costs anything.

#include "datapath.h"

#define MAX_SOCKETS 65536

#define DENY 0
#define ALLOW 1

#define ECONNREFUSED 111

// The cookie of the node's network namespace.
volatile const __u64 node_netns;

// What UDP sockets have been told. FORWARD is by the address that was dialled
// and has the backend, the other way is by the backend.
struct talk {
	__u64 cookie;
	struct address addr;
	__u16 port;
	__u16 forward;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_SOCKETS);
	__type(key, struct talk);
	__type(value, struct choice);
} sockets SEC(".maps");

// What a connected TCP socket dialled, and the backend in its place.
struct peer {
	struct address dialled;
	struct address backend;
	__u16 dialled_port;
	__u16 backend_port;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct peer);
} peers SEC(".maps");

enum verdict {
	LEAVE,	// not a service, or one whose packets decide what becomes of them
	REFUSE, // nobody there
	TAKE,	// the choice
};

// choose_for chooses for a socket that has sent to this service before, or not.
static __always_inline bool choose_for(struct talk *talk, struct choice *c, const struct service *s, const struct client *who)
{
	struct choice *had = bpf_map_lookup_elem(&sockets, talk);
	__u64 now = bpf_ktime_get_ns();

	if (had && had->service == c->service && now - had->used < UDP_IDLE && stands(had, c->range)) {
		had->used = now;
		*c = *had;
		return true;
	}
	if (!choose(c, s, who))
		return false;
	bpf_map_update_elem(&sockets, talk, c, BPF_ANY);
	return true;
}

// balance sets c to the backend that takes the place of the one dialled.
// Sends is for a socket that names its peer with every packet.
static __always_inline enum verdict balance(struct bpf_sock_addr *ctx, struct frontend *dialled, struct choice *c, bool sends)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	struct client who = {.addr.word = {netns, netns >> 32}, .inside = 1};
	bool node = netns == node_netns, local, ok;
	struct service *s;
	struct entry *e;

	dialled->proto = ctx->protocol;
	e = find(dialled, node);
	if (!e)
		return LEAVE;
	// Who may come in is decided by a pod's address, which only packets have.
	if ((e->flags & FILTERED) && !(node && (e->flags & NODE_ALLOWED)))
		return LEAVE;
	c->service = who.service = e->service;
	local = e->flags & LOCAL_INSIDE;
	s = bpf_map_lookup_elem(&services, &c->service);
	if (!s)
		return LEAVE;
	c->range = *(volatile __u64 *)(local ? &s->local : &s->cluster);
	if (!COUNT(c->range))
		return COUNT(s->cluster) ? LEAVE : REFUSE; // dropped, or refused
	if (sends) {
		struct talk talk = {.cookie = bpf_get_socket_cookie(ctx), .addr = dialled->addr, .port = dialled->port, .forward = 1};
		ok = choose_for(&talk, c, s, &who);
	} else {
		ok = choose(c, s, &who);
	}
	return ok ? TAKE : LEAVE;
}

// remember notes what the socket dialled, for those who ask who its peer is.
static __always_inline void remember(struct bpf_sock_addr *ctx, const struct frontend *dialled, const struct choice *c, bool sends)
{
	if (dialled->proto == IPPROTO_UDP) {
		struct talk talk = {.cookie = bpf_get_socket_cookie(ctx), .addr = c->addr, .port = c->port};
		struct choice back = {.addr = dialled->addr, .port = dialled->port, .service = c->service, .range = c->range};

		if (!sends) {
			back.flags = CHOICE_SOCKET;
			back.used = bpf_get_netns_cookie(ctx);
		}
		bpf_map_update_elem(&sockets, &talk, &back, BPF_ANY);
		return;
	}
	struct peer *p, peer = {
		.dialled = dialled->addr, .dialled_port = dialled->port,
		.backend = c->addr, .backend_port = c->port,
	};
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return;
	p = bpf_sk_storage_get(&peers, sk, &peer, BPF_SK_STORAGE_GET_F_CREATE);
	if (p)
		*p = peer;
}

// recall turns the address of a backend into the one that the socket dialled.
static __always_inline bool recall(struct bpf_sock_addr *ctx, struct address *addr, __u16 *port)
{
	if (ctx->protocol == IPPROTO_UDP) {
		struct talk talk = {.cookie = bpf_get_socket_cookie(ctx), .addr = *addr, .port = *port};
		struct choice *c = bpf_map_lookup_elem(&sockets, &talk);

		if (!c)
			return false;
		*addr = c->addr;
		*port = c->port;
		return true;
	}
	struct bpf_sock *sk = ctx->sk;
	struct peer *p;

	if (!sk)
		return false;
	p = bpf_sk_storage_get(&peers, sk, NULL, 0);
	if (!p || p->backend_port != *port || !same(&p->backend, addr))
		return false;
	*addr = p->dialled;
	*port = p->dialled_port;
	return true;
}

static __always_inline struct address address4(struct bpf_sock_addr *ctx)
{
	struct address a = {.word = {0, 0, bpf_htonl(0xffff), ctx->user_ip4}};

	return a;
}

static __always_inline struct address address6(struct bpf_sock_addr *ctx)
{
	struct address a = {.word = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}};

	return a;
}

// set puts the address and port into the socket call.
static __always_inline void set(struct bpf_sock_addr *ctx, bool v6, const struct address *a, __u16 port)
{
	if (v6) {
		ctx->user_ip6[0] = a->word[0];
		ctx->user_ip6[1] = a->word[1];
		ctx->user_ip6[2] = a->word[2];
		ctx->user_ip6[3] = a->word[3];
	} else {
		ctx->user_ip4 = a->word[3];
	}
	ctx->user_port = port;
}

// dial is connect and sendmsg. It writes the backend's address over the one
// dialled, or refuses the call.
static __always_inline int dial(struct bpf_sock_addr *ctx, bool v6, bool sends)
{
	struct frontend f = {.addr = v6 ? address6(ctx) : address4(ctx), .port = ctx->user_port};
	struct choice c = {};

	switch (balance(ctx, &f, &c, sends)) {
	case LEAVE:
		return ALLOW;
	case REFUSE:
		bpf_set_retval(-ECONNREFUSED);
		return DENY;
	case TAKE:
		remember(ctx, &f, &c, sends);
		set(ctx, v6, &c.addr, c.port);
	}
	return ALLOW;
}

// ask is recvmsg and getpeername. It writes the address dialled over the
// backend's.
static __always_inline int ask(struct bpf_sock_addr *ctx, bool v6)
{
	struct address addr = v6 ? address6(ctx) : address4(ctx);
	__u16 port = ctx->user_port;

	if (recall(ctx, &addr, &port))
		set(ctx, v6, &addr, port);
	return ALLOW;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	return dial(ctx, false, false);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	return dial(ctx, true, false);
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	return dial(ctx, false, true);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	return dial(ctx, true, true);
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	return ask(ctx, false);
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	return ask(ctx, true);
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	return ask(ctx, false);
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	return ask(ctx, true);
}

char _license[] SEC("license") = "Dual BSD/GPL";

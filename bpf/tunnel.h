/* Into and out of tunnels: route of the outer packet, room for the header, the header, and the way out.
 *
 * Inner and outer may be of either family. A GSO packet stays one: when its segments with the new header fit the
 * outer path, their size is kept; TCP's are made smaller otherwise (the kernel does it in bpf_skb_adjust_room). What
 * does not fit goes to the stack with a mark that selects a route with the right MTU, locked (path_mtu.h); the stack answers
 * with "fragmentation needed" / "packet too big" or fragments, and what it then sends meets the egress program.
 */
#ifndef LOCUM_TUNNEL_H
#define LOCUM_TUNNEL_H

#ifndef BPF_F_ADJ_ROOM_DECAP_L3_IPV4
#define BPF_F_ADJ_ROOM_DECAP_L3_IPV4 (1ULL << 7)
#define BPF_F_ADJ_ROOM_DECAP_L3_IPV6 (1ULL << 8)
#endif
#ifndef BPF_FIB_LOOKUP_SKIP_NEIGH
#define BPF_FIB_LOOKUP_SKIP_NEIGH (1U << 2)
#endif

#define EINVAL 22
#define LOOPBACK 1 /* the outer packet is this host's own: its route is looked up as one from the loopback device */
#define OUTER_HOPS 64
#define LARGE 1000 /* bytes: for such packets it matters how wide a path is; the daemon probes with 1200 and more */
#define ECT_1 1 /* RFC 3168 section 5 */
#define ECT_0 2
#define CE 3

#define FORWARDED 1 /* this node is a hop of the inner packet */
#define AT_EGRESS 2
#define FROM_TAP 4
#define ENDS_HERE 8 /* its tunnel ends where it begins, on this host */
#define AS_ITSELF 16 /* a stand-in's host speaks for itself, not for a home address that was translated elsewhere */
#define TO_SEVERAL 32 /* in a broadcast or multicast frame */
#define SIGNALLING 64 /* between a home address and its home agent, or of this host's daemon on a link */
#define RENEWED 128 /* its segmentation state is no longer that of its tunnel */

/* Ports or SPI by which rules decide, in host order. */
struct transport {
	__u32 spi;
	__u16 source_port;
	__u16 destination_port;
	__u8 known; /* of LOCUM_SPI, LOCUM_SOURCE_PORT and LOCUM_DESTINATION_PORT */
};

#define FOLLOWS 1 /* a fragment: the ports are those of its packet's first */
#define FOLLOWS_UNKNOWN 2 /* a later fragment whose first is not known */
#define FOLLOWS_QUOTED 3 /* an ICMP error: its flow is that of the packet that it quotes, in `about` */

/* A packet on its way through the programs: the inner (or only) headers, and the outer ones still before them. */
struct work {
	struct packet packet;
	__u32 tap;
	__u32 uses; /* tables that are not empty */
	struct locum_address tunnel_source; /* of a tunnel that ends here as well */
	struct locum_address tunnel_end;    /* where the tunnel ends that the packet came out of */
	__u32 gre_key; /* of this tunnel, if it is keyed */
	__u8 keyed;
	__u16 strip; /* bytes of outer headers */
	__u16 rule;  /* that takes the packet; 0: none does */
	__u16 asks;  /* the rule of a filter that takes the packet and asks for a page; 0: none does */
	struct transport transport;
	struct locum_flow_key about; /* `local` is where the packet goes to */
	__u8 follows;
	__u8 refused; /* why it may not go on; 0: it may */
	__u8 ruled;  /* there are rules, and they were asked */
	__u8 paged;  /* the rule holds the packet until the device is awake */
	__u8 flags;
	__u8 outer_family;
	__u8 outer_tos;
	__u8 encapsulation;
};

/* One a CPU, where the stack has no room for it. A copy that is sent meets egress programs within the program that sends
 * it: they have the second place.
 */
struct under_way {
	__u32 copying;
	struct work work[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct under_way);
} works SEC(".maps");

/* translate.h */
int translate(struct __sk_buff *skb, struct work *w, const struct locum_address *tunnel);

struct route {
	struct bpf_redir_neigh hop;
	__u32 ifindex;
	__u32 mtu;
};

static __always_inline int passed(struct __sk_buff *skb, __u32 outcome)
{
	skb->cb[0] = outcome;
	skb->cb[1] = 0;
	return TC_ACT_UNSPEC;
}

static __always_inline int dropped(struct __sk_buff *skb, __u32 reason)
{
	if (reason)
		count_reason(reason);
	skb->cb[0] = DROPPED;
	skb->cb[1] = reason;
	return TC_ACT_SHOT;
}

static __always_inline int store_ethertype(struct __sk_buff *skb, __be16 type)
{
	return bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &type, 2, 0);
}

static __always_inline int set_ethertype(struct __sk_buff *skb, __u8 family)
{
	if (!LINK_HEADER)
		return 0; /* the kernel has the family with the buffer */
	return store_ethertype(skb, family == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6));
}

/* A link-layer header before a packet that came, or would leave, without one. Its addresses are zero: of nobody. */
static __always_inline int put_link_header(struct __sk_buff *skb)
{
	return bpf_skb_change_head(skb, ETHERNET, 0) || store_ethertype(skb, skb->protocol);
}

/* Redirections to a link with link-layer headers take no packet without one. */
static __always_inline int as_frame(struct __sk_buff *skb)
{
	return LINK_HEADER ? 0 : put_link_header(skb);
}

#include "renew.h"
#include "family.h"

/* Take the outer headers away. */
__noinline int decapsulate(struct __sk_buff *skb, struct work *w)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;
	__u8 family;
	int failed;

	if (!w || !w->strip)
		return 0;
	family = w->packet.family;
	if (family != w->outer_family)
		flags |= family == 4 ? BPF_F_ADJ_ROOM_DECAP_L3_IPV4 : BPF_F_ADJ_ROOM_DECAP_L3_IPV6;
	failed = bpf_skb_adjust_room(skb, -(__s32)w->strip, BPF_ADJ_ROOM_MAC, flags);
	if (failed == -EINVAL && family != w->outer_family)
		failed = decapsulate_family(skb, w->strip, family);
	if (failed)
		return -1;
	if (family != w->outer_family && set_ethertype(skb, family))
		return -1;
	w->packet.payload -= w->strip;
	if (w->packet.route)
		w->packet.route -= w->strip;
	w->packet.offset = LINK_HEADER;
	w->strip = 0;
	return 0;
}

/* To the stack, as the inner packet. */
static __always_inline int pass_inner(struct __sk_buff *skb, struct work *w, __u32 outcome)
{
	if (decapsulate(skb, w))
		return dropped(skb, DECAPSULATION_FAILED);
	return passed(skb, outcome);
}

/* Sum in one's complement arithmetic. */
static __always_inline __u16 add_ones(__u16 a, __u16 b)
{
	__u32 sum = (__u32)a + b;

	return sum + (sum >> 16);
}

static __always_inline int decrement_hops(struct __sk_buff *skb, const struct packet *p)
{
	__be16 field[2]; /* TTL and protocol, checksum */
	__u8 hops = p->hops - 1;
	__be16 old;

	if (p->family == 6)
		return bpf_skb_store_bytes(skb, p->offset + offsetof(struct ipv6hdr, hop_limit), &hops, 1, 0);
	if (bpf_skb_load_bytes(skb, p->offset + offsetof(struct iphdr, ttl), field, 4))
		return -1;
	old = field[0];
	field[0] = bpf_htons(bpf_ntohs(old) - 0x100);
	field[1] = ~add_ones(add_ones(~field[1], ~old), field[0]); /* RFC 1624 equation 3 */
	return bpf_skb_store_bytes(skb, p->offset + offsetof(struct iphdr, ttl), field, 4, 0);
}

/* RFC 6040 section 4.2 (figure 4): congestion marks of the outer header go into the inner one. -1: drop. */
static __always_inline int copy_congestion(struct __sk_buff *skb, struct work *w)
{
	struct packet *p = &w->packet;
	__u8 outer = w->outer_tos & 3, inner = p->tos & 3, shift;
	__be16 old, new;

	if (outer == CE && !inner)
		return -1;
	if (!(outer == CE && inner != CE) && !(outer == ECT_1 && inner == ECT_0))
		return 0;
	p->tos = (p->tos & ~3) | outer;
	if (bpf_skb_load_bytes(skb, p->offset, &old, 2))
		return -1;
	shift = p->family == 6 ? 4 : 0;
	new = (old & ~bpf_htons(3 << shift)) | bpf_htons(outer << shift);
	if (p->family == 4 && bpf_l3_csum_replace(skb, p->offset + offsetof(struct iphdr, check), old, new, 2))
		return -1;
	return bpf_skb_store_bytes(skb, p->offset, &new, 2, 0);
}

/* minimal.h */
static int write_minimal(struct __sk_buff *skb, struct work *w, const struct locum_tunnel *t);

/* nesting.h */
static __u32 circular(struct __sk_buff *skb, const struct work *w, const struct locum_tunnel *t);

/* path_mtu.h */
static __u32 mark_for(const struct work *w, __u32 wanted);
static __u32 narrowed(const struct locum_address *destination, __u32 mtu);
static int tell_large(const struct work *w, const struct locum_tunnel *t);
int too_big(struct __sk_buff *skb, struct work *w, const struct locum_tunnel *t, __u32 mtu);
static int in_pieces(struct __sk_buff *skb, struct work *w, const struct locum_tunnel *t, __u32 mtu);

/* To the stack, which answers "time exceeded". By the mark it has a route, one of those for packets which are too big for a
 * tunnel: its own route may be "unreachable", and that would be its answer. */
static __always_inline int expired(struct __sk_buff *skb, struct work *w)
{
	skb->mark = mark_for(w, 0xffff);
	return pass_inner(skb, w, PASSED);
}

/* Route of an outer packet of `length` bytes. 0; 1: does not fit `mtu`; -1: none. */
static __noinline int find_route(struct __sk_buff *skb, const struct locum_tunnel *t, struct route *r, __u32 length,
				 __u32 egress)
{
	struct bpf_fib_lookup fib;
	long found;

	__builtin_memset(&fib, 0, sizeof(fib));
	fib.tot_len = length > 0xffff ? 0xffff : length;
	fib.ifindex = LOOPBACK;
	if (is_v4(&t->destination)) {
		fib.family = 2;
		fib.ipv4_src = v4_of(&t->source);
		fib.ipv4_dst = v4_of(&t->destination);
	} else {
		fib.family = 10;
		__builtin_memcpy(fib.ipv6_src, &t->source, 16);
		__builtin_memcpy(fib.ipv6_dst, &t->destination, 16);
	}
	found = bpf_fib_lookup(skb, &fib, sizeof(fib), BPF_FIB_LOOKUP_SKIP_NEIGH);
	if (found == -EINVAL) { /* before Linux 6.3 */
		fib.tot_len = length > 0xffff ? 0xffff : length;
		found = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	}
	r->mtu = fib.mtu_result;
	r->ifindex = fib.ifindex;
	if (found == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return 1;
	if (found == BPF_FIB_LKUP_RET_FWD_DISABLED && egress) {
		/* A host that does not forward: the device that was chosen for the inner packet. */
		r->hop.nh_family = 0;
		r->ifindex = skb->ifindex;
		r->mtu = 0;
		if (bpf_check_mtu(skb, r->ifindex, &r->mtu, 0, 0) < 0)
			return -1;
		return length > r->mtu;
	}
	if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return -1;
	r->hop.nh_family = fib.family;
	__builtin_memcpy(r->hop.ipv6_nh, fib.ipv6_dst, 16);
	return 0;
}

static __always_inline void write_v4(struct iphdr *ip, const struct locum_tunnel *t, __u8 protocol, __u32 length,
				     __u8 tos)
{
	const __u16 *half = (const __u16 *)ip;
	__u32 sum = 0;
	int i;

	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = 5;
	ip->tos = tos;
	ip->tot_len = bpf_htons(length);
	ip->frag_off = bpf_htons(0x4000);
	ip->ttl = OUTER_HOPS;
	ip->protocol = protocol;
	ip->saddr = v4_of(&t->source);
	ip->daddr = v4_of(&t->destination);
#pragma unroll
	for (i = 0; i < 10; i++)
		sum += half[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = ~sum;
}

static __always_inline void write_v6(struct ipv6hdr *ip, const struct locum_tunnel *t, __u8 protocol, __u32 payload,
				     __u8 tos)
{
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 6;
	ip->priority = tos >> 4;
	ip->flow_lbl[0] = (tos & 0xf) << 4;
	ip->payload_len = bpf_htons(payload);
	ip->nexthdr = protocol;
	ip->hop_limit = OUTER_HOPS;
	__builtin_memcpy(&ip->saddr, &t->source, 16);
	__builtin_memcpy(&ip->daddr, &t->destination, 16);
}

/* Write the headers between the outer IP header and the inner packet; returns their length. */
static __always_inline __u32 write_shim(__u8 *shim, const struct locum_tunnel *t, const struct packet *p)
{
	__be16 *half = (__be16 *)shim;

	__builtin_memset(shim, 0, 12);
	if (t->encapsulation == GRE) {
		half[0] = t->has_key ? bpf_htons(0x2000) : 0;
		half[1] = p->family == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
		if (!t->has_key)
			return 4;
		half[2] = bpf_htonl(t->gre_key) & 0xffff;
		half[3] = bpf_htonl(t->gre_key) >> 16;
		return 8;
	}
	if (t->encapsulation == UDP) { /* the UDP checksum is zero: RFC 3519 section 4.5, RFC 6935 */
		half[0] = t->source_port;
		half[1] = t->destination_port;
		half[2] = bpf_htons(p->length + 12);
		shim[8] = MIP_TUNNEL_DATA;
		shim[9] = p->family == 4 ? IPPROTO_IPIP : IPPROTO_IPV6;
		return 12;
	}
	return 0;
}

__noinline int write_headers(struct __sk_buff *skb, const struct locum_tunnel *t, const struct packet *p)
{
	struct {
		__u16 padding;
		__be16 type; /* the end of the link-layer header: written at once with what follows */
		union {
			struct iphdr v4;
			struct ipv6hdr v6;
		};
	} outer;
	__u8 shim[12] __attribute__((aligned(4)));
	__u32 extra, at;
	__u8 protocol;
	bool v4;
	int failed;

	if (!t || !p)
		return -1;
	extra = write_shim(shim, t, p);
	protocol = p->family == 4 ? IPPROTO_IPIP : IPPROTO_IPV6;
	v4 = is_v4(&t->destination);
	if (t->encapsulation == GRE)
		protocol = IPPROTO_GRE;
	else if (t->encapsulation == UDP)
		protocol = IPPROTO_UDP;
	outer.type = v4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	if (v4) {
		write_v4(&outer.v4, t, protocol, p->length + extra + sizeof(outer.v4), p->tos);
		failed = LINK_HEADER ? bpf_skb_store_bytes(skb, ETHERNET - 2, &outer.type, 2 + sizeof(outer.v4), 0)
				     : bpf_skb_store_bytes(skb, 0, &outer.v4, sizeof(outer.v4), 0);
		at = LINK_HEADER + sizeof(outer.v4);
	} else {
		write_v6(&outer.v6, t, protocol, p->length + extra, p->tos);
		failed = LINK_HEADER ? bpf_skb_store_bytes(skb, ETHERNET - 2, &outer.type, 2 + sizeof(outer.v6), 0)
				     : bpf_skb_store_bytes(skb, 0, &outer.v6, sizeof(outer.v6), 0);
		at = LINK_HEADER + sizeof(outer.v6);
	}
	if (failed)
		return -1;
	if (extra == 4)
		return bpf_skb_store_bytes(skb, at, shim, 4, 0);
	if (extra == 8)
		return bpf_skb_store_bytes(skb, at, shim, 8, 0);
	if (extra == 12)
		return bpf_skb_store_bytes(skb, at, shim, 12, 0);
	return 0;
}

/* The packet came out of a tunnel of this tunnel's shape. */
static __always_inline bool same_shape(const struct work *w, const struct locum_tunnel *t)
{
	__u8 encapsulation = t->encapsulation == MINIMAL ? IPIP : t->encapsulation;

	return w->strip == overhead_of(t) && w->encapsulation == encapsulation &&
	       w->outer_family == (is_v4(&t->destination) ? 4 : 6);
}

/* Room for this tunnel's headers. A packet that leaves one tunnel for another of the same shape has it already. */
__noinline int make_room(struct __sk_buff *skb, struct work *w, const struct locum_tunnel *t, __u32 shrink)
{
	__u32 overhead;
	__u64 flags;
	int failed;
	bool v4;

	if (!w || !t)
		return -1;
	overhead = overhead_of(t);
	v4 = is_v4(&t->destination);
	flags = v4 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;
	if (!shrink && same_shape(w, t))
		return 0;
	if (decapsulate(skb, w))
		return -1;
	if (t->encapsulation == GRE)
		flags |= BPF_F_ADJ_ROOM_ENCAP_L4_GRE;
	else if (t->encapsulation == UDP)
		flags |= BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
	if (!shrink)
		flags |= BPF_F_ADJ_ROOM_FIXED_GSO;
	failed = bpf_skb_adjust_room(skb, overhead, BPF_ADJ_ROOM_MAC, flags);
	if (failed && !skb->gso_size)
		failed = make_plain_room(skb, overhead, w->packet.family, v4 ? 4 : 6);
	return failed;
}

/* Route into this tunnel, and the MTU of its path. 0; 1: the packet does not fit; -1: none. */
__noinline int find_path(struct __sk_buff *skb, struct work *w, const struct locum_tunnel *t, struct route *r)
{
	__u32 needed;
	int found;

	if (!w || !t || !r)
		return -1;
	needed = segment_length(skb, &w->packet);
	if (!is_shrinkable(skb, &w->packet))
		needed += overhead_of(t);
	found = find_route(skb, t, r, needed, w->flags & AT_EGRESS);
	if (found >= 0 && needed >= LARGE && w->uses & LOCUM_PROBES)
		tell_large(w, t);
	if (found >= 0 && w->uses & LOCUM_NARROW) {
		r->mtu = narrowed(&t->destination, r->mtu);
		found = needed > r->mtu;
	}
	return found;
}

/* The packet has gone into the tunnel: only then it counts. */
static __always_inline bool sent(const struct __sk_buff *skb, int action)
{
	return action == TC_ACT_REDIRECT && skb->cb[0] == ENCAPSULATED;
}

/* Send the packet into the tunnel. */
__noinline int encapsulate(struct __sk_buff *skb, struct work *w, const struct locum_tunnel *t)
{
	__u32 overhead, shrink, mark, refusal;
	struct route r = {};
	struct packet *p;
	int found, cut;

	if (!w || !t)
		return dropped(skb, ENCAPSULATION_FAILED);
	p = &w->packet;
	overhead = overhead_of(t);
	if (p->length + overhead > 0xffff)
		return dropped(skb, TOO_LARGE);
	if (p->unsound)
		return dropped(skb, BAD_CHECKSUM);
	refusal = circular(skb, w, t);
	if (refusal)
		return dropped(skb, refusal);
	if ((w->flags & FORWARDED) && p->hops <= 1)
		return expired(skb, w);
	found = find_path(skb, w, t, &r);
	if (found < 0)
		return dropped(skb, NO_ROUTE);
	cut = found > 0;
	if (cut && !is_minimal(skb, p))
		return too_big(skb, w, t, r.mtu);
	shrink = is_shrinkable(skb, p) && segment_length(skb, p) + overhead > r.mtu;
	if (w->strip && (shrink || !same_shape(w, t))) {
		found = renew(skb, w);
		if (found)
			return found;
	}
	if ((w->flags & FORWARDED) && decrement_hops(skb, p))
		return dropped(skb, ENCAPSULATION_FAILED);
	if (w->uses & LOCUM_TRANSLATES) {
		found = translate(skb, w, &t->destination);
		if (found < 0)
			return dropped(skb, -found);
	}
	found = t->encapsulation == MINIMAL ? write_minimal(skb, w, t) : 1;
	if (found < 0 || (found && (make_room(skb, w, t, shrink) || write_headers(skb, t, p))))
		return dropped(skb, ENCAPSULATION_FAILED);
	if (cut)
		return in_pieces(skb, w, t, r.mtu);
	if (as_frame(skb))
		return dropped(skb, ENCAPSULATION_FAILED);
	mark = skb->mark & LOCUM_MARK_MASK;
	if (!skb->mark || (mark >= LOCUM_MARK_MTU && mark <= LOCUM_MARK_LOCAL))
		skb->mark = LOCUM_MARK_SENT;
	skb->cb[0] = ENCAPSULATED;
	skb->cb[1] = 0;
	if (!r.hop.nh_family)
		return bpf_redirect_neigh(r.ifindex, NULL, 0, 0);
	return bpf_redirect_neigh(r.ifindex, &r.hop, sizeof(r.hop), 0);
}

/* Out of the tunnel, to `next_hop` on a link; packets that do not fit the link, or have no hops left, go to the stack. */
__noinline int deliver(struct __sk_buff *skb, struct work *w, const struct locum_acceptance *a)
{
	struct bpf_redir_neigh hop = {};
	struct locum_address to;
	__u32 mtu = 0, ifindex;
	struct packet *p;
	int found;
	bool v4;

	if (!w || !a)
		return dropped(skb, DECAPSULATION_FAILED);
	p = &w->packet;
	v4 = p->family == 4;
	ifindex = a->ifindex;
	to = a->next_hop;
	if (p->hops <= 1 || stays_on_link(&p->destination))
		return pass_inner(skb, w, PASSED);
	if (w->uses & LOCUM_TRANSLATES) {
		found = translate(skb, w, NULL);
		if (found < 0)
			return dropped(skb, -found);
	}
	if (decapsulate(skb, w))
		return dropped(skb, DECAPSULATION_FAILED);
	skb->mark = LOCUM_MARK_LOCAL; /* as it leaves, or in pieces: it has had its decision */
	if (bpf_check_mtu(skb, ifindex, &mtu, 0, 0) || (skb->gso_size && segment_length(skb, p) > mtu))
		return passed(skb, PASSED);
	if (decrement_hops(skb, p) || as_frame(skb))
		return dropped(skb, DECAPSULATION_FAILED);
	if ((!to.high && !to.low) || is_v4(&to) != v4)
		to = p->destination;
	if (v4) {
		hop.nh_family = 2;
		hop.ipv4_nh = v4_of(&to);
	} else {
		hop.nh_family = 10;
		__builtin_memcpy(hop.ipv6_nh, &to, 16);
	}
	skb->cb[0] = DELIVERED;
	skb->cb[1] = 0;
	return bpf_redirect_neigh(ifindex, &hop, sizeof(hop), 0);
}

#endif

/* The forwarding decision of a Locum node, at the ingress and egress of its interfaces.
 *
 * `locum.dataplane.model` is the same decision in Python; a test compares the two over random packets. A packet that
 * is not ours passes: every return that does not drop or redirect lets later programs and the stack have it.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "locum.h"
#include "parse.h"
#include "tables.h"
#include "tunnel.h"
#include "translate.h"
#include "multicast.h"
#include "service.h"

#define UNDECIDED 1000

static __always_inline void flow_to(const struct packet *p, struct locum_flow_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->local = p->destination;
	key->peer = p->source;
	key->local_port = p->destination_port;
	key->peer_port = p->source_port;
	key->protocol = p->protocol;
}

/* Into the queue. The packet itself ends here. */
static __noinline int hold(struct __sk_buff *skb, struct work *w, __u32 reason)
{
	struct packet *p = &w->packet;
	__u32 cpu = bpf_get_smp_processor_id();
	struct scratch *s = bpf_map_lookup_elem(&scratches, &cpu);
	__u32 length = p->length;

	if (!s || length >= HELD_BYTES)
		return dropped(skb, TOO_LARGE);
	length &= HELD_BYTES - 1;
	if (!length || bpf_skb_load_bytes(skb, p->offset, s->bytes, length))
		return dropped(skb, HOLD_OVERFLOW);
	flow_to(p, &s->header.flow);
	s->header.time = bpf_ktime_get_ns();
	s->header.length = p->length;
	s->header.gso_size = skb->gso_size;
	s->header.ifindex = skb->ifindex;
	s->header.reason = reason;
	if (bpf_ringbuf_output(&held, s, sizeof(s->header) + length, 0))
		return dropped(skb, HOLD_OVERFLOW);
	skb->cb[0] = HELD;
	skb->cb[1] = 0;
	return TC_ACT_SHOT;
}

/* Copies for the second and later tunnels go by the re-injection device, whose egress program encapsulates them. */
static __noinline int send_copies(struct __sk_buff *skb, struct work *w, __u32 tunnels)
{
	__u32 i;

	if (decapsulate(skb, w))
		return -1;
	if (w->flags & FORWARDED) {
		if (w->packet.hops <= 1 || decrement_hops(skb, &w->packet))
			return -1;
		w->packet.hops--;
		w->flags &= ~FORWARDED;
	}
	for (i = 1; i < LOCUM_MAX_TUNNELS; i++) {
		if (i >= tunnels)
			break;
		skb->mark = LOCUM_MARK_COPY | i;
		bpf_clone_redirect(skb, w->tap, 0);
	}
	skb->mark = 0;
	return 0;
}

static __noinline int to_tunnels(struct __sk_buff *skb, struct work *w, const struct locum_binding *b)
{
	struct locum_counter *counter;
	int action;

	if (!b)
		return TC_ACT_UNSPEC;
	if (b->tunnels > 1) {
		if ((w->flags & FORWARDED) && w->packet.hops <= 1)
			return pass_inner(skb, w, PASSED);
		if (send_copies(skb, w, b->tunnels))
			return dropped(skb, ENCAPSULATION_FAILED);
	}
	action = encapsulate(skb, w, &b->tunnel);
	if (action == TC_ACT_REDIRECT) {
		counter = bpf_map_lookup_elem(&binding_count, &w->packet.destination);
		count(counter, w->packet.length);
	}
	return action;
}

/* The stand-in that talks to the home address means the device. */
static __noinline int from_peer(struct __sk_buff *skb, struct work *w, const struct locum_binding_more *more,
				__u32 flags)
{
	struct locum_counter *counter;
	int action;

	if (!more || !(flags & LOCUM_PEER_TUNNEL))
		return dropped(skb, PEER_UNREACHABLE);
	action = encapsulate(skb, w, &more->peer_tunnel);
	if (action == TC_ACT_REDIRECT) {
		counter = bpf_map_lookup_elem(&binding_count, &w->packet.destination);
		count(counter, w->packet.length);
	}
	return action;
}

/* What the flow table says of a packet to one of our home addresses, or UNDECIDED. */
static __always_inline int by_flow(struct __sk_buff *skb, struct work *w)
{
	struct locum_flow_key key;
	struct locum_flow *flow;

	flow_to(&w->packet, &key);
	flow = bpf_map_lookup_elem(&flows, &key);
	if (!flow)
		return UNDECIDED;
	if (flow->verdict == FLOW_DELIVER || (w->flags & FROM_TAP))
		return pass_inner(skb, w, PASSED);
	return hold(skb, w, HELD_FLOW);
}

static __always_inline int guard(struct __sk_buff *skb, struct work *w)
{
	__u8 protocol = w->packet.protocol;

	if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6 || has_socket(skb, w))
		return pass_inner(skb, w, PASSED);
	return dropped(skb, NO_SESSION);
}

/* What is delivered to this host, at the stand-in's own address. */
static __always_inline int to_interface(struct __sk_buff *skb, struct work *w)
{
	struct locum_translation_key key;
	struct locum_translation *t;
	__u32 *own;
	int found;

	if (!(w->uses & LOCUM_TRANSLATES) || (w->flags & AT_EGRESS))
		return UNDECIDED;
	__builtin_memset(&key, 0, sizeof(key));
	key.home_address = w->packet.destination;
	t = bpf_map_lookup_elem(&translations, &key);
	if (!t)
		return UNDECIDED;
	own = bpf_map_lookup_elem(&endpoints, &t->interface_address);
	if (!own || !(*own & LOCUM_OWN) || (!w->strip && same(&t->interface_address, &w->packet.destination)))
		return UNDECIDED;
	found = translate(skb, w, NULL);
	if (found < 0)
		return dropped(skb, -found);
	return found ? pass_inner(skb, w, PASSED) : UNDECIDED;
}

/* Packets to a home address. UNDECIDED when there is no entry of it. */
static __always_inline int by_binding(struct __sk_buff *skb, struct work *w)
{
	struct locum_binding *b = bpf_map_lookup_elem(&bindings, &w->packet.destination);
	struct locum_binding_more *more;
	int action;

	if (!b)
		return to_interface(skb, w);
	if ((b->flags & LOCUM_FLOWS || b->verdict == GUARD) && !(w->flags & AT_EGRESS)) {
		action = by_flow(skb, w);
		if (action != UNDECIDED)
			return action;
	}
	if (b->flags & LOCUM_PEER) {
		more = bpf_map_lookup_elem(&binding_more, &w->packet.destination);
		if (more && same(&more->peer, &w->packet.source))
			return from_peer(skb, w, more, b->flags);
	}
	switch (b->verdict) {
	case ENCAPSULATE:
		return to_tunnels(skb, w, b);
	case HOLD:
	case REPORT:
		if ((w->flags & FROM_TAP) || (skb->mark & LOCUM_MARK_MASK) == LOCUM_MARK_RELEASED)
			break;
		return hold(skb, w, b->verdict == HOLD ? HELD_BINDING : HELD_REPORT);
	case DROP:
		return dropped(skb, BINDING_DROP);
	}
	action = to_interface(skb, w);
	if (action == UNDECIDED && b->verdict == GUARD && !(w->flags & AT_EGRESS))
		return guard(skb, w);
	return action;
}

/* Flows that a translation sent to this source get their home address back. 0: they have it; -1: not from one. */
static __noinline int from_interface(struct __sk_buff *skb, struct work *w)
{
	struct locum_translation_key key;
	struct locum_translation *t;

	if (w->packet.registration || bpf_map_lookup_elem(&endpoints, &w->packet.destination))
		return UNDECIDED;
	if (find_translated(skb, w, 0))
		return translate_back(skb, w) ? dropped(skb, TRANSLATION_FAILED) : 0;
	__builtin_memset(&key, 0, sizeof(key));
	key.home_address = w->packet.source;
	t = bpf_map_lookup_elem(&translations, &key);
	return t && same(&t->interface_address, &w->packet.source) ? UNDECIDED : 0; /* elsewhere made of a home address */
}

/* Packets from a home address. */
static __always_inline int by_source(struct __sk_buff *skb, struct work *w, __u32 ifindex)
{
	struct locum_outbound_key key = {w->packet.source, ifindex, 0};
	struct locum_tunnel *t;
	int action;

	if (w->uses & LOCUM_TRANSLATES) {
		action = from_interface(skb, w);
		if (action)
			return action;
		key.home_address = w->packet.source;
	}
	t = bpf_map_lookup_elem(&outbound, &key);
	if (!t || w->packet.registration || bpf_map_lookup_elem(&endpoints, &w->packet.destination))
		return UNDECIDED;
	action = encapsulate(skb, w, t);
	if (action == TC_ACT_REDIRECT)
		count(bpf_map_lookup_elem(&outbound_count, &key), w->packet.length);
	return action;
}

static __always_inline bool ours_to_judge(const struct packet *p)
{
	return !stays_on_link(&p->destination) && !stays_on_link(&p->source) && !neighbour_discovery(p);
}

/* A tunnel packet to one of our end points: only from an outer source that is registered for the inner address. */
static __noinline int from_tunnel(struct __sk_buff *skb, struct work *w)
{
	struct locum_acceptance_key key;
	struct locum_acceptance *a;
	struct tunnelled t;
	__u32 end = w->packet.offset + w->packet.length;
	int action;

	if (parse_tunnel(skb, &w->packet, &t))
		return UNDECIDED;
	if (w->packet.fragment) {
		count_reason(TUNNEL_FRAGMENT);
		return passed(skb, PASSED); /* raw sockets of the node get it whole */
	}
	if (t.malformed || t.inner > end)
		return dropped(skb, MALFORMED_TUNNEL);
	__builtin_memset(&key, 0, sizeof(key));
	key.outer_source = w->packet.source;
	w->outer_family = w->packet.family;
	w->outer_tos = w->packet.tos;
	w->strip = t.inner - w->packet.offset;
	w->encapsulation = t.encapsulation;
	if (parse_packet(skb, &w->packet, t.inner, end, t.family))
		return dropped(skb, MALFORMED_TUNNEL);
	key.home_address = w->packet.destination;
	key.side = TO_HOME_ADDRESS;
	a = bpf_map_lookup_elem(&acceptances, &key);
	if (!a) {
		key.home_address = w->packet.source;
		key.side = FROM_HOME_ADDRESS;
		a = bpf_map_lookup_elem(&acceptances, &key);
	}
	if (!a && (w->uses & LOCUM_TRANSLATES) && find_translated(skb, w, 1)) {
		struct translating *room = translating_room();

		if (room)
			key.home_address = room->entry.key.home_address;
		a = bpf_map_lookup_elem(&acceptances, &key);
		if (a && translate_back(skb, w))
			return dropped(skb, TRANSLATION_FAILED);
	}
	if (!a)
		return dropped(skb, UNREGISTERED_SOURCE);
	count(bpf_map_lookup_elem(&acceptance_count, &key), w->packet.length);
	if (copy_congestion(skb, w))
		return dropped(skb, CONGESTED);
	if (a->ifindex)
		return deliver(skb, w, a);
	if (ours_to_judge(&w->packet)) {
		action = by_binding(skb, w);
		if (action != UNDECIDED)
			return action;
	}
	return pass_inner(skb, w, PASSED);
}

static __always_inline int read_packet(struct __sk_buff *skb, struct work *w)
{
	struct locum_settings *s;
	__u32 zero = 0, family;

	s = bpf_map_lookup_elem(&settings, &zero);
	if (s) {
		w->tap = s->tap_ifindex;
		w->uses = s->uses;
	}
	if (skb->protocol == bpf_htons(ETH_P_IP))
		family = 4;
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		family = 6;
	else
		return -1;
	return parse_packet(skb, &w->packet, ETHERNET, skb->len, family);
}

SEC("tc")
int locum_ingress(struct __sk_buff *skb)
{
	struct work w = {};
	__u32 *own;
	int action;

	if (read_packet(skb, &w))
		return passed(skb, PASSED);
	w.flags = FORWARDED;
	own = bpf_map_lookup_elem(&endpoints, &w.packet.destination);
	if (own && (*own & LOCUM_ENDPOINT)) { /* from the TUN as well: what raw sockets put together comes back by it */
		action = from_tunnel(skb, &w);
		return action == UNDECIDED ? passed(skb, PASSED) : action;
	}
	if (skb->ifindex == w.tap) {
		w.flags |= FROM_TAP;
		skb->mark = LOCUM_MARK_RELEASED;
	}
	if ((w.uses & LOCUM_GROUPS) && is_multicast(&w.packet.destination))
		forward_group(skb, &w);
	if (!ours_to_judge(&w.packet))
		return passed(skb, PASSED);
	action = by_binding(skb, &w);
	if (action == UNDECIDED)
		action = by_source(skb, &w, skb->ifindex);
	return action == UNDECIDED ? passed(skb, PASSED) : action;
}

static __always_inline bool suspended(const struct packet *p)
{
	struct locum_binding *b = bpf_map_lookup_elem(&bindings, &p->source);
	struct locum_flow_key key;
	struct locum_flow *flow;

	if (!b || !(b->flags & LOCUM_FLOWS))
		return false;
	__builtin_memset(&key, 0, sizeof(key));
	key.local = p->source;
	key.peer = p->destination;
	key.local_port = p->source_port;
	key.peer_port = p->destination_port;
	key.protocol = p->protocol;
	flow = bpf_map_lookup_elem(&flows, &key);
	return flow && flow->verdict == FLOW_SUSPEND;
}

/* A copy for one of the later tunnels of a simultaneous binding (RFC 5944 section 3.6.1.1). */
static __noinline int send_copy(struct __sk_buff *skb, struct work *w)
{
	struct locum_binding_more *more = bpf_map_lookup_elem(&binding_more, &w->packet.destination);
	struct locum_binding *b = bpf_map_lookup_elem(&bindings, &w->packet.destination);
	__u32 number = (skb->mark & 0xffff) - 1;
	int action;

	if (!b || !more || number >= LOCUM_MAX_TUNNELS - 1 || number + 1 >= b->tunnels)
		return dropped(skb, STRAY);
	action = encapsulate(skb, w, &more->others[number]);
	if (action == TC_ACT_REDIRECT)
		count(bpf_map_lookup_elem(&binding_count, &w->packet.destination), w->packet.length);
	return action;
}

static __always_inline int leave(struct __sk_buff *skb, struct work *w)
{
	struct tunnelled t;
	__u32 *own;
	int action;

	own = bpf_map_lookup_elem(&endpoints, &w->packet.source);
	if (own && (*own & LOCUM_ENDPOINT) && !parse_tunnel(skb, &w->packet, &t))
		return UNDECIDED; /* our own tunnel packet */
	if (skb->ifindex == w->tap && (skb->mark & LOCUM_MARK_MASK) == LOCUM_MARK_COPY)
		return send_copy(skb, w);
	if (!ours_to_judge(&w->packet))
		return UNDECIDED;
	if (suspended(&w->packet))
		return dropped(skb, SUSPENDED);
	action = by_binding(skb, w);
	if (action == UNDECIDED)
		action = by_source(skb, w, skb->ingress_ifindex);
	return action;
}

SEC("tc")
int locum_egress(struct __sk_buff *skb)
{
	struct work w = {};
	int action = UNDECIDED;
	bool whole = !read_packet(skb, &w);

	if (whole) {
		w.flags = AT_EGRESS;
		action = leave(skb, &w);
	}
	if (action != UNDECIDED)
		return action;
	if (skb->ifindex != w.tap)
		return passed(skb, PASSED);
	return dropped(skb, whole && ours_to_judge(&w.packet) ? STRAY : REASON_NONE);
}

/* For the measurement of the cost of one packet: the ingress decision, and then the packet as it was, to run again. */
SEC("tc")
int locum_measure(struct __sk_buff *skb)
{
	struct work w = {};
	__u32 before = skb->len, hops;
	int action;

	if (read_packet(skb, &w) || w.packet.family != 4)
		return TC_ACT_SHOT;
	if (bpf_skb_load_bytes(skb, ETHERNET + offsetof(struct iphdr, ttl), &hops, 4))
		return TC_ACT_SHOT;
	w.flags = FORWARDED;
	action = by_binding(skb, &w);
	if (action == UNDECIDED)
		return passed(skb, PASSED);
	if (skb->len <= before)
		return action;
	if (bpf_skb_adjust_room(skb, -(__s32)(skb->len - before), BPF_ADJ_ROOM_MAC, 0) ||
	    bpf_skb_store_bytes(skb, ETHERNET + offsetof(struct iphdr, ttl), &hops, 4, 0))
		return TC_ACT_SHOT;
	return action;
}

char locum_license[] SEC("license") = "GPL";

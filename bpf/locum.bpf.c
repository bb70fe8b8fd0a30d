/* The forwarding decision of a Locum node, at the ingress and egress of its interfaces.
 *
 * `locum.dataplane.model.decision` is the same decision in Python; a test compares the two over random packets. A packet that
 * is not ours passes: every return that does not drop or redirect lets later programs and the stack have it.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
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
#include "scope.h"
#include "tables.h"
#include "sizes.h"
#include "tunnel.h"
#include "quoted.h"
#include "follow.h"
#include "rules.h"
#include "translate.h"
#include "multicast.h"
#include "service.h"
#include "access.h"
#include "local_end.h"
#include "path_mtu.h"
#include "checksums.h"
#include "minimal.h"
#include "nesting.h"
#include "home.h"
#include "change.h"

/* Registrations of a home address with its own home agent need neither tunnel nor leave. The port alone says nothing: any
 * packet can have it. */
static __noinline int signalling(struct work *w)
{
	struct locum_acceptance_key key = {w->packet.destination, w->packet.source, TO_HOME_ADDRESS, 0, 0};

	if (word_of(bpf_map_lookup_elem(&acceptances, &key)))
		return 1;
	key.side = TO_END;
	return word_of(bpf_map_lookup_elem(&acceptances, &key)) ? 1 : 0;
}

/* Flows that a translation sent to this source get their home address back; then filters and tunnels see it. 0: go on. */
static __noinline int from_interface(struct __sk_buff *skb, struct work *w)
{
	struct locum_translation_key key;
	const struct locum_translation *t;

	if (w->flags & SIGNALLING || own_address(&w->packet.destination))
		return 0;
	if (find_translated(skb, w, 0))
		return translate_back(skb, w) ? dropped(skb, TRANSLATION_FAILED) : 0;
	__builtin_memset(&key, 0, sizeof(key));
	key.home_address = w->packet.source;
	t = find_translation(&key);
	if (t && same(&t->interface_address, &w->packet.source))
		w->flags |= AS_ITSELF;
	return 0;
}

/* Packets from a home address. */
static __always_inline int by_source(struct __sk_buff *skb, struct work *w, __u32 ifindex)
{
	struct locum_outbound_key key = {w->packet.source, ifindex, 0};
	struct locum_entry *e;
	const struct locum_tunnel *t = find_outbound(&key, &e);
	int action;

	if (!t || !e || w->flags & (AS_ITSELF | SIGNALLING) || own_address(&w->packet.destination))
		return UNDECIDED;
	if (t->local) { /* the home agent is this host: nothing to go into, and counted where it entered (R17) */
		if (!(w->flags & AT_EGRESS) || !ifindex)
			count(&e->counter, w->packet.length);
		return UNDECIDED;
	}
	action = encapsulate(skb, w, t);
	if (sent(skb, action))
		count(&e->counter, w->packet.length);
	return action;
}

static __always_inline bool ours_to_judge(const struct packet *p)
{
	return !stays_on_link(&p->destination) && !stays_on_link(&p->source);
}

#define FRAGMENT_BURST 1000
#define FRAGMENT_INTERVAL (500 * 1000ULL) /* nanoseconds: 2000 a second */

/* A fragment of a tunnel packet goes to the stack, and raw sockets of the node get the packet whole. That is work for the
 * daemon: only for sources that some acceptance names, and for so many a second. */
static __noinline int tunnel_fragment(struct __sk_buff *skb, struct work *w)
{
	struct locum_address source = w->packet.source;
	struct locum_source *s = bpf_map_lookup_elem(&tunnel_sources, &source);
	__u64 now = bpf_ktime_get_ns(), more, left;

	if (!s)
		return dropped(skb, UNREGISTERED_SOURCE);
	left = s->fragments;
	more = now > s->time ? (now - s->time) / FRAGMENT_INTERVAL : 0;
	if (more) {
		left = left + more > FRAGMENT_BURST ? FRAGMENT_BURST : left + more;
		s->time = now;
	}
	if (!left)
		return dropped(skb, TUNNEL_FRAGMENT_LIMIT);
	s->fragments = left - 1;
	count_reason(TUNNEL_FRAGMENT);
	return passed(skb, PASSED);
}

/* A tunnel packet to one of our end points: only from an outer source that is registered for the inner address. */
__noinline int from_tunnel(struct __sk_buff *skb, struct work *w)
{
	struct locum_acceptance_key key;
	const struct locum_acceptance *a;
	struct locum_entry *e;
	struct tunnelled t;
	__u32 link = skb->ifindex, refusal, end;
	__be16 port;
	bool datagrams;
	int action;

	if (!w)
		return UNDECIDED;
	end = w->packet.offset + w->packet.length;
	if (w->packet.unread == CHAIN_UNREAD) /* raw sockets would get it as a tunnel packet */
		return dropped(skb, UNREAD_HEADERS);
	if (parse_tunnel(skb, &w->packet, &t))
		return UNDECIDED;
	if (w->flags & TO_SEVERAL)
		return dropped(skb, LINK_BROADCAST);
	if ((skb->mark & LOCUM_MARK_MASK) == LOCUM_MARK_RENEWED) {
		skb->mark = 0;
		w->flags |= RENEWED;
	}
	if (w->packet.fragment)
		return tunnel_fragment(skb, w);
	if (t.malformed || t.inner > end)
		return dropped(skb, MALFORMED_TUNNEL);
	if (w->packet.unsound)
		return dropped(skb, BAD_CHECKSUM);
	if (w->packet.protocol == IPPROTO_MINIMAL) {
		refusal = widen(skb, w, &t);
		if (refusal)
			return dropped(skb, refusal);
		end = w->packet.offset + w->packet.length;
	}
	__builtin_memset(&key, 0, sizeof(key));
	key.outer_source = w->packet.source;
	key.keyed = t.keyed;
	key.gre_key = bpf_ntohl(t.gre_key);
	w->tunnel_end = w->packet.destination;
	w->outer_family = w->packet.family;
	w->outer_tos = w->packet.tos;
	w->strip = t.inner - w->packet.offset;
	w->encapsulation = t.encapsulation;
	port = t.encapsulation == UDP ? w->packet.source_port : 0;
	if (parse_packet(skb, &w->packet, t.inner, end, t.family))
		return dropped(skb, MALFORMED_TUNNEL);
	refusal = refused(&w->packet);
	if (refusal)
		return dropped(skb, refusal);
	if (t.covered && bpf_map_lookup_elem(&tunnel_sources, &key.outer_source) &&
	    wrong_checksum(skb, w, &key.outer_source, &t, end))
		return dropped(skb, BAD_CHECKSUM);
	key.home_address = w->packet.destination;
	key.side = TO_HOME_ADDRESS;
	a = find_acceptance(&key, &e);
	if (a) {
		a = at_its_end(w, &key, a, &e);
	} else {
		key.home_address = w->packet.source;
		key.side = FROM_HOME_ADDRESS;
		a = find_acceptance(&key, &e);
	}
	if (!a) {
		key.home_address = w->packet.destination;
		a = at_its_end(w, &key, NULL, &e);
	}
	if (!a && (w->uses & LOCUM_TRANSLATES) && find_translated(skb, w, 1)) {
		struct translating *room = translating_room();

		if (room)
			key.home_address = room->entry.key.home_address;
		key.side = FROM_HOME_ADDRESS;
		a = find_acceptance(&key, &e);
		if (a && translate_back(skb, w))
			return dropped(skb, TRANSLATION_FAILED);
	}
	if (!a || !e || (a->source_port && a->source_port != port))
		return dropped(skb, UNREGISTERED_SOURCE);
	if (key.side != FROM_HOME_ADDRESS && word_of(bpf_map_lookup_elem(&access_links, &link)))
		return dropped(skb, FROM_ACCESS_LINK);
	if (bound_to_link(&w->packet) && !asked_for(&w->packet, &key))
		return dropped(skb, LINK_SCOPE);
	datagrams = w->encapsulation == UDP && w->packet.protocol == IPPROTO_UDP;
	if (datagrams) { /* the kernel would cut them as if the tunnel's headers were still there */
		action = renew(skb, w);
		if (action)
			return action;
	}
	if (datagrams || !(w->flags & RENEWED)) /* others were renewed after they had counted */
		count(&e->counter, w->packet.length);
	if (copy_congestion(skb, w))
		return dropped(skb, CONGESTED);
	if (on_a_link(a)) {
		action = to_visitor(skb, w, a);
		if (action != UNDECIDED)
			return action;
	}
	if (!ours_to_judge(&w->packet))
		return pass_inner(skb, w, PASSED);
	return key.side != FROM_HOME_ADDRESS ? ARRIVED : RETURNED;
}

static __always_inline struct work *begin(const struct locum_settings *s, __u32 flags)
{
	__u32 zero = 0;
	struct under_way *u = bpf_map_lookup_elem(&works, &zero);
	struct work *w;

	if (!u || !s)
		return NULL;
	w = &u->work[u->copying & 1];
	__builtin_memset(w, 0, sizeof(*w));
	w->tap = s->tap_ifindex;
	w->uses = s->uses;
	w->flags = flags;
	return w;
}

static __always_inline int read_packet(struct __sk_buff *skb, struct work *w)
{
	__u32 family;

	if (skb->protocol == bpf_htons(ETH_P_IP))
		family = 4;
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		family = 6;
	else
		return -1;
	return parse_packet(skb, &w->packet, LINK_HEADER, skb->len, family);
}

static __always_inline int ingress(struct __sk_buff *skb)
{
	__u32 zero = 0, refusal;
	struct locum_settings *s = bpf_map_lookup_elem(&settings, &zero);
	struct work *w = begin(s, FORWARDED);
	__u64 own;
	int action;

	if (w && skb->ifindex == w->tap && (skb->mark & LOCUM_MARK_MASK) == LOCUM_MARK_VOID)
		return TC_ACT_SHOT; /* counted where it was suspended */
	if (!w)
		return passed(skb, PASSED);
	if (skb->ifindex != w->tap) { /* a frame there may have been made for another device */
		if (of_others(skb))
			return passed(skb, PASSED);
		if (to_several(skb))
			w->flags |= TO_SEVERAL;
	}
	if (read_packet(skb, w))
		return passed(skb, PASSED);
	refusal = refused(&w->packet);
	if (refusal)
		return dropped(skb, refusal);
	own = own_address(&w->packet.destination);
	if (skb->ifindex != w->tap && spoofed(skb, w, own))
		return dropped(skb, SPOOFED_SOURCE);
	if (own & LOCUM_ENDPOINT) { /* from the TUN as well: packets reassembled by raw sockets come back by it */
		action = from_tunnel(skb, w);
		if (action == ARRIVED)
			action = arrived(skb, w);
		else if (action == RETURNED)
			action = to_home_address(skb, w);
		return action == UNDECIDED ? pass_inner(skb, w, PASSED) : action;
	}
	if (skb->ifindex == w->tap) {
		if (skb->mark == (LOCUM_MARK_LOCAL | 1))
			return here(skb, w);
		w->flags |= FROM_TAP;
		skb->mark = LOCUM_MARK_RELEASED;
	}
	if ((w->uses & LOCUM_GROUPS) && is_multicast(&w->packet.destination))
		forward_group(skb, w);
	if (!is_routed(&w->packet.destination) || stays_on_link(&w->packet.source))
		return passed(skb, PASSED);
	if (w->flags & TO_SEVERAL) /* the stack sends it nowhere, but a home address may be its own */
		return find_binding(&w->packet.destination) ? dropped(skb, LINK_BROADCAST)
									      : passed(skb, PASSED);
	if (w->packet.registration && signalling(w))
		w->flags |= SIGNALLING;
	if (w->uses & LOCUM_TRANSLATES) {
		action = from_interface(skb, w);
		if (action)
			return action;
	}
	if (w->uses & LOCUM_FILTERED(FROM_VISITOR) && !own && !(w->flags & (FROM_TAP | SIGNALLING))) {
		action = filtered(skb, w, FROM_VISITOR);
		if (action)
			return dropped(skb, action);
	}
	/* The stack answers for the home addresses that it is a proxy of; what it sends on is judged as it leaves. */
	if (stays_on_link(&w->packet.destination) || neighbour_discovery(&w->packet))
		return passed(skb, PASSED);
	action = to_home_address(skb, w);
	if (action == UNDECIDED && (w->flags & FROM_TAP))
		action = at_visited(skb, w); /* held packets follow a visitor that is elsewhere now (620) */
	if (action == UNDECIDED)
		action = by_source(skb, w, skb->ifindex);
	return action == UNDECIDED ? passed(skb, PASSED) : action;
}

SEC("tc")
int locum_ingress(struct __sk_buff *skb)
{
	return ingress(skb);
}

/* At the ingress of a link without link-layer headers (WireGuard, TUN, PPP): the packet gets one, and is like any other then.
 * The stack does not mind it, for it has the offset of the network header.
 */
SEC("tc")
int locum_bare(struct __sk_buff *skb)
{
	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6))
		return passed(skb, PASSED);
	if (put_link_header(skb))
		return dropped(skb, DECAPSULATION_FAILED);
	return ingress(skb);
}

/* The flow is suspended, or it may be: w->refused. */
static __noinline int suspended(struct __sk_buff *skb, struct work *w)
{
	const struct locum_binding *b = find_binding(&w->packet.source);
	struct locum_flow_key key;

	if (!b || !(b->flags & LOCUM_FLOWS))
		return 0;
	find_transport(skb, w, OF_SOURCE);
	if (w->refused || lacks_first(w))
		return 0;
	flow_of(w, OF_SOURCE, &key);
	return word_of(bpf_map_lookup_elem(&flows, &key)) == (LOCUM_THERE | FLOW_SUSPEND);
}

/* A visitor's filter holds as well for packets that came in no tunnel, or were held: the stack routes them to its link.
 * What this host itself says, and what the filter has seen (LOCUM_MARK_LOCAL), is not asked about. */
static __noinline int unfiltered(struct __sk_buff *skb, struct work *w)
{
	__u32 link = skb->ifindex;

	if (!skb->ingress_ifindex || !word_of(bpf_map_lookup_elem(&access_links, &link)))
		return 0;
	return filtered_to_visitor(skb, w);
}

/* Into no tunnel, as an address of it is of one link, but a router may send it on. */
static __noinline int filtered_as_it_leaves(struct __sk_buff *skb, struct work *w)
{
	int reason = 0;

	if (w->uses & LOCUM_FILTERED(EMISSION) && !skb->ingress_ifindex)
		reason = filtered(skb, w, EMISSION);
	if (!reason && w->uses & LOCUM_FILTERED(TO_VISITOR))
		reason = unfiltered(skb, w);
	return reason;
}

static __always_inline int leave(struct __sk_buff *skb, struct work *w)
{
	struct tunnelled t;
	__u32 refusal = refused(&w->packet);
	int action, reason;

	if (refusal)
		return dropped(skb, refusal);
	if ((skb->mark & LOCUM_MARK_MASK) == LOCUM_MARK_LOCAL) {
		if (skb->mark & 1)
			return dropped(skb, UNCLAIMED);
		skb->mark = 0;
		return UNDECIDED;
	}
	if (skb->ifindex == w->tap && (skb->mark & LOCUM_MARK_MASK) == LOCUM_MARK_COPY)
		return send_copy(skb, w);
	/* Our own tunnel packet. That of a forwarded packet has a mark, and has not come so far. */
	if (!skb->ingress_ifindex && (own_address(&w->packet.source) & LOCUM_ENDPOINT) &&
	    !parse_tunnel(skb, &w->packet, &t))
		return UNDECIDED;
	if (!is_routed(&w->packet.destination) || neighbour_discovery(&w->packet))
		return UNDECIDED;
	if (!ours_to_judge(&w->packet)) {
		reason = filtered_as_it_leaves(skb, w);
		return reason ? dropped(skb, reason) : UNDECIDED;
	}
	if (skb->mark == LOCUM_MARK_SIGNALLING || (w->packet.registration && signalling(w)))
		w->flags |= SIGNALLING;
	if (skb->mark == LOCUM_MARK_SIGNALLING || (skb->mark & LOCUM_MARK_MASK) == LOCUM_MARK_ANSWER) {
		skb->mark = 0;
	} else if (suspended(skb, w)) {
		/* To its socket the packet is sent, and lost later: TCP does not count a refused packet as sent, and then its
		 * probes end the connection after a few seconds. tcx knows no verdict for that but a redirection. */
		dropped(skb, SUSPENDED);
		skb->mark = LOCUM_MARK_VOID;
		return bpf_redirect(w->tap, BPF_F_INGRESS);
	}
	if (w->refused)
		return dropped(skb, w->refused);
	if (w->uses & LOCUM_TRANSLATES) {
		action = from_interface(skb, w);
		if (action)
			return action;
	}
	if (w->uses & LOCUM_FILTERED(EMISSION) && !skb->ingress_ifindex) {
		action = filtered(skb, w, EMISSION);
		if (action)
			return dropped(skb, action);
	}
	action = to_home_address(skb, w);
	if (action == UNDECIDED)
		action = by_source(skb, w, skb->ingress_ifindex);
	if (action == UNDECIDED && w->uses & LOCUM_FILTERED(TO_VISITOR)) {
		reason = unfiltered(skb, w);
		if (reason)
			return dropped(skb, reason);
	}
	return action;
}

SEC("tc")
int locum_egress(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct locum_settings *s = bpf_map_lookup_elem(&settings, &zero);
	struct work *w;
	int action = UNDECIDED;
	bool whole;

	if (s && skb->ifindex != s->tap_ifindex && (skb->mark == LOCUM_MARK_SENT || skb->mark == LOCUM_MARK_LOCAL)) {
		skb->mark = 0; /* decided already */
		return passed(skb, PASSED);
	}
	w = begin(s, AT_EGRESS);
	if (!w || (skb->ifindex != w->tap && sent_for_others(skb)))
		return passed(skb, PASSED);
	whole = !read_packet(skb, w);
	if (whole)
		action = leave(skb, w);
	if (action != UNDECIDED)
		return action;
	if (skb->ifindex != w->tap)
		return passed(skb, PASSED);
	return dropped(skb, whole && ours_to_judge(&w->packet) ? STRAY : REASON_NONE);
}

/* At the egress of the device that renews segmentation state. */
SEC("tc")
int locum_renewed(struct __sk_buff *skb)
{
	return back_to_ingress(skb);
}

/* For the measurement of the cost of one packet: the ingress decision, and then the packet as it was, to run again. */
SEC("tc")
int locum_measure(struct __sk_buff *skb)
{
	__u32 zero = 0, before = skb->len, hops;
	struct work *w = begin(bpf_map_lookup_elem(&settings, &zero), FORWARDED);
	int action;

	if (!w || read_packet(skb, w) || w->packet.family != 4)
		return TC_ACT_SHOT;
	if (bpf_skb_load_bytes(skb, LINK_HEADER + offsetof(struct iphdr, ttl), &hops, 4))
		return TC_ACT_SHOT;
	action = to_home_address(skb, w);
	if (action == UNDECIDED)
		return passed(skb, PASSED);
	if (skb->len <= before)
		return action;
	if (bpf_skb_adjust_room(skb, -(__s32)(skb->len - before), BPF_ADJ_ROOM_MAC, 0) ||
	    bpf_skb_store_bytes(skb, LINK_HEADER + offsetof(struct iphdr, ttl), &hops, 4, 0))
		return TC_ACT_SHOT;
	return action;
}

char locum_license[] SEC("license") = "GPL";

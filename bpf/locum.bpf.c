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
#include "tables.h"
#include "tunnel.h"
#include "rules.h"
#include "translate.h"
#include "multicast.h"
#include "service.h"
#include "local_end.h"
#include "home.h"

/* Flows that a translation sent to this source get their home address back; then filters and tunnels see it. 0: go on. */
static __noinline int from_interface(struct __sk_buff *skb, struct work *w)
{
	struct locum_translation_key key;
	struct locum_translation *t;

	if (w->packet.registration || bpf_map_lookup_elem(&endpoints, &w->packet.destination))
		return 0;
	if (find_translated(skb, w, 0))
		return translate_back(skb, w) ? dropped(skb, TRANSLATION_FAILED) : 0;
	__builtin_memset(&key, 0, sizeof(key));
	key.home_address = w->packet.source;
	t = bpf_map_lookup_elem(&translations, &key);
	if (t && same(&t->interface_address, &w->packet.source))
		w->flags |= AS_ITSELF;
	return 0;
}

/* Packets from a home address. */
static __always_inline int by_source(struct __sk_buff *skb, struct work *w, __u32 ifindex)
{
	struct locum_outbound_key key = {w->packet.source, ifindex, 0};
	struct locum_tunnel *t = bpf_map_lookup_elem(&outbound, &key);
	int action;

	if (!t || w->flags & AS_ITSELF || w->packet.registration || bpf_map_lookup_elem(&endpoints, &w->packet.destination))
		return UNDECIDED;
	if (t->local) { /* the home agent is this host: nothing to go into, and counted where it entered (R17) */
		if (!(w->flags & AT_EGRESS) || !ifindex)
			count(bpf_map_lookup_elem(&outbound_count, &key), w->packet.length);
		return UNDECIDED;
	}
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
	__u32 link = skb->ifindex;
	__be16 port;
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
	w->tunnel_end = w->packet.destination;
	w->outer_family = w->packet.family;
	w->outer_tos = w->packet.tos;
	w->strip = t.inner - w->packet.offset;
	w->encapsulation = t.encapsulation;
	port = t.encapsulation == UDP ? w->packet.source_port : 0;
	if (parse_packet(skb, &w->packet, t.inner, end, t.family))
		return dropped(skb, MALFORMED_TUNNEL);
	key.home_address = w->packet.destination;
	key.side = TO_HOME_ADDRESS;
	a = bpf_map_lookup_elem(&acceptances, &key);
	if (a) {
		a = at_its_end(w, &key, a);
	} else {
		key.home_address = w->packet.source;
		key.side = FROM_HOME_ADDRESS;
		a = bpf_map_lookup_elem(&acceptances, &key);
	}
	if (!a) {
		key.home_address = w->packet.destination;
		a = at_its_end(w, &key, NULL);
	}
	if (!a && (w->uses & LOCUM_TRANSLATES) && find_translated(skb, w, 1)) {
		struct translating *room = translating_room();

		if (room)
			key.home_address = room->entry.key.home_address;
		key.side = FROM_HOME_ADDRESS;
		a = bpf_map_lookup_elem(&acceptances, &key);
		if (a && translate_back(skb, w))
			return dropped(skb, TRANSLATION_FAILED);
	}
	if (!a || (a->source_port && a->source_port != port))
		return dropped(skb, UNREGISTERED_SOURCE);
	if (key.side != FROM_HOME_ADDRESS && bpf_map_lookup_elem(&access_links, &link))
		return dropped(skb, FROM_ACCESS_LINK);
	count(bpf_map_lookup_elem(&acceptance_count, &key), w->packet.length);
	if (copy_congestion(skb, w))
		return dropped(skb, CONGESTED);
	if (a->ifindex) {
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
	return parse_packet(skb, &w->packet, ETHERNET, skb->len, family);
}

SEC("tc")
int locum_ingress(struct __sk_buff *skb)
{
	__u32 zero = 0, *own;
	struct locum_settings *s = bpf_map_lookup_elem(&settings, &zero);
	struct work *w = begin(s, FORWARDED);
	int action;

	if (w && skb->ifindex == w->tap && (skb->mark & LOCUM_MARK_MASK) == LOCUM_MARK_VOID)
		return TC_ACT_SHOT; /* counted where it was suspended */
	if (!w || read_packet(skb, w))
		return passed(skb, PASSED);
	own = bpf_map_lookup_elem(&endpoints, &w->packet.destination);
	if (own && (*own & LOCUM_ENDPOINT)) { /* from the TUN as well: packets reassembled by raw sockets come back by it */
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
	if (!ours_to_judge(&w->packet))
		return passed(skb, PASSED);
	if (w->uses & LOCUM_TRANSLATES) {
		action = from_interface(skb, w);
		if (action)
			return action;
	}
	if (w->uses & LOCUM_FILTERED(FROM_VISITOR) && !own && !(w->flags & FROM_TAP) && !w->packet.registration &&
	    filtered(skb, &w->packet, &w->packet.source, FROM_VISITOR) >= 0)
		return dropped(skb, FILTERED_FROM_VISITOR);
	action = to_home_address(skb, w);
	if (action == UNDECIDED && (w->flags & FROM_TAP))
		action = at_visited(skb, w); /* held packets follow a visitor that is elsewhere now (620) */
	if (action == UNDECIDED)
		action = by_source(skb, w, skb->ifindex);
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

static __always_inline int leave(struct __sk_buff *skb, struct work *w)
{
	struct tunnelled t;
	__u32 *own;
	int action;

	if ((skb->mark & LOCUM_MARK_MASK) == LOCUM_MARK_LOCAL) {
		if (skb->mark & 1)
			return dropped(skb, UNCLAIMED);
		skb->mark = 0;
		return UNDECIDED;
	}
	own = bpf_map_lookup_elem(&endpoints, &w->packet.source);
	if (own && (*own & LOCUM_ENDPOINT) && !parse_tunnel(skb, &w->packet, &t))
		return UNDECIDED; /* our own tunnel packet */
	if (skb->ifindex == w->tap && (skb->mark & LOCUM_MARK_MASK) == LOCUM_MARK_COPY)
		return send_copy(skb, w);
	if (!ours_to_judge(&w->packet))
		return UNDECIDED;
	if ((skb->mark & LOCUM_MARK_MASK) == LOCUM_MARK_ANSWER) {
		skb->mark = 0;
	} else if (suspended(&w->packet)) {
		/* To its socket the packet is sent, and lost later: TCP does not count a refused packet as sent, and then its
		 * probes end the connection after a few seconds. tcx knows no verdict for that but a redirection. */
		dropped(skb, SUSPENDED);
		skb->mark = LOCUM_MARK_VOID;
		return bpf_redirect(w->tap, BPF_F_INGRESS);
	}
	if (w->uses & LOCUM_TRANSLATES) {
		action = from_interface(skb, w);
		if (action)
			return action;
	}
	if (w->uses & LOCUM_FILTERED(EMISSION) && !skb->ingress_ifindex &&
	    filtered(skb, &w->packet, &w->packet.source, EMISSION) >= 0)
		return dropped(skb, FILTERED_EMISSION);
	action = to_home_address(skb, w);
	if (action == UNDECIDED)
		action = by_source(skb, w, skb->ingress_ifindex);
	return action;
}

SEC("tc")
int locum_egress(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct locum_settings *s = bpf_map_lookup_elem(&settings, &zero);
	struct work *w = begin(s, AT_EGRESS);
	int action = UNDECIDED;
	bool whole;

	if (!w)
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

/* For the measurement of the cost of one packet: the ingress decision, and then the packet as it was, to run again. */
SEC("tc")
int locum_measure(struct __sk_buff *skb)
{
	__u32 zero = 0, before = skb->len, hops;
	struct work *w = begin(bpf_map_lookup_elem(&settings, &zero), FORWARDED);
	int action;

	if (!w || read_packet(skb, w) || w->packet.family != 4)
		return TC_ACT_SHOT;
	if (bpf_skb_load_bytes(skb, ETHERNET + offsetof(struct iphdr, ttl), &hops, 4))
		return TC_ACT_SHOT;
	action = to_home_address(skb, w);
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

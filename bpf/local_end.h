/* Packets that end on this host: the hold queue, the flow table, and an access node's entry of a visitor elsewhere.
 *
 * None of this is asked before the home agent's entry (home.h), if there is one.
 */
#ifndef LOCUM_LOCAL_END_H
#define LOCUM_LOCAL_END_H

#define UNDECIDED 1000
#define LOCALLY 1001 /* the tunnel ends on this host; w->tunnel_source and tunnel_end are its addresses */
#define ARRIVED 1002 /* out of a tunnel for its destination */
#define RETURNED 1003 /* out of a tunnel from its source */

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
	__u64 rest = (__u64)p->length - 1; /* behind the first byte: a comparison with 0 teaches the verifier of 6.1 nothing */

	asm volatile("" : "+r"(rest));
	if (!s || rest >= HELD_BYTES - 1)
		return dropped(skb, TOO_LARGE);
	if (bpf_skb_load_bytes(skb, p->offset, s->bytes, rest + 1))
		return dropped(skb, HOLD_OVERFLOW);
	flow_to(p, &s->header.flow);
	s->header.time = bpf_ktime_get_ns();
	s->header.length = p->length;
	s->header.gso_size = skb->gso_size;
	s->header.ifindex = skb->ifindex;
	s->header.reason = reason;
	if (bpf_ringbuf_output(&held, s, sizeof(s->header) + rest + 1, 0))
		return dropped(skb, HOLD_OVERFLOW);
	skb->cb[0] = HELD;
	skb->cb[1] = 0;
	return TC_ACT_SHOT;
}

/* To the stack of this host, which is the end of the packet's tunnel. It must not send it on: by the mark it cannot. */
static __always_inline int pass_here(struct __sk_buff *skb, struct work *w)
{
	skb->mark = LOCUM_MARK_LOCAL | 1;
	if (!(w->flags & AT_EGRESS))
		return pass_inner(skb, w, LOCAL);
	skb->cb[0] = LOCAL;
	skb->cb[1] = 0;
	return bpf_redirect(w->tap, BPF_F_INGRESS);
}

/* To the stack of this host. */
static __always_inline int pass_up(struct __sk_buff *skb, struct work *w)
{
	return w->flags & ENDS_HERE ? pass_here(skb, w) : pass_inner(skb, w, PASSED);
}

/* The flow table's verdict for a packet to one of our home addresses, or UNDECIDED. */
static __always_inline int by_flow(struct __sk_buff *skb, struct work *w)
{
	struct locum_flow_key key;
	struct locum_flow *flow;

	flow_to(&w->packet, &key);
	flow = bpf_map_lookup_elem(&flows, &key);
	if (!flow)
		return UNDECIDED;
	if (flow->verdict == FLOW_DELIVER || (w->flags & FROM_TAP))
		return pass_up(skb, w);
	return hold(skb, w, HELD_FLOW);
}

static __always_inline int guard(struct __sk_buff *skb, struct work *w)
{
	__u8 protocol = w->packet.protocol;

	if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6)
		return pass_up(skb, w);
	if (is_watched(&w->packet) && opens(skb, &w->packet))
		return w->flags & FROM_TAP ? pass_up(skb, w) : hold(skb, w, HELD_OPENING);
	if (has_socket(skb, w))
		return pass_up(skb, w);
	return dropped(skb, NO_SESSION);
}

/* The verdicts that need no tunnel. */
static __always_inline int by_verdict(struct __sk_buff *skb, struct work *w, __u32 verdict)
{
	switch (verdict) {
	case HOLD:
	case REPORT:
		if ((w->flags & FROM_TAP) || (skb->mark & LOCUM_MARK_MASK) == LOCUM_MARK_RELEASED)
			return UNDECIDED;
		return hold(skb, w, verdict == HOLD ? HELD_BINDING : HELD_REPORT);
	case DROP:
		return dropped(skb, BINDING_DROP);
	}
	return UNDECIDED;
}

/* Delivery to this host, at the stand-in's own address. */
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
	return found ? pass_up(skb, w) : UNDECIDED;
}

/* Packets to a home address that end on this host; b: its binding, or NULL. */
static __noinline int at_local_end(struct __sk_buff *skb, struct work *w, const struct locum_binding *b)
{
	int action = UNDECIDED;

	if (w->flags & AT_EGRESS)
		return UNDECIDED;
	if (b && (b->flags & LOCUM_FLOWS || b->local == GUARD))
		action = by_flow(skb, w);
	if (action == UNDECIDED && b && b->flags & LOCUM_LOCAL && b->local != GUARD)
		action = by_verdict(skb, w, b->local);
	if (action == UNDECIDED)
		action = to_interface(skb, w);
	if (action == UNDECIDED && b && b->local == GUARD)
		action = guard(skb, w);
	return action;
}

static __always_inline bool ends_here(const struct work *w, const struct locum_binding *b)
{
	return (b && b->flags & (LOCUM_FLOWS | LOCUM_LOCAL)) || w->uses & LOCUM_TRANSLATES;
}

/* Packets that came out of their tunnel on this host, which is the visitor's access node, or where it has left. */
static __noinline int at_visited(struct __sk_buff *skb, struct work *w)
{
	struct locum_binding *v = bpf_map_lookup_elem(&visited, &w->packet.destination);
	int action;

	if (!v)
		return UNDECIDED;
	if (v->verdict != ENCAPSULATE)
		return by_verdict(skb, w, v->verdict);
	if (v->tunnel.local)
		return UNDECIDED;
	action = encapsulate(skb, w, &v->tunnel);
	if (action == TC_ACT_REDIRECT)
		count_rule(&w->packet.destination, VISITED, 0, w->packet.length);
	return action;
}

/* On the access link, if the visitor's filter lets it. UNDECIDED when whom it is for is on this very host (R17). */
static __noinline int to_visitor(struct __sk_buff *skb, struct work *w, const struct locum_acceptance *a)
{
	if ((w->uses & LOCUM_FILTERED(TO_VISITOR)) && filtered(skb, &w->packet, &w->packet.destination, TO_VISITOR) >= 0)
		return dropped(skb, FILTERED_TO_VISITOR);
	return a->flags & LOCUM_HERE ? UNDECIDED : deliver(skb, w, a);
}

/* The acceptance of one tunnel's end goes before `a`, that of any tunnel from there: the stand-in's before a visitor's. */
static __always_inline struct locum_acceptance *at_its_end(const struct work *w, struct locum_acceptance_key *key,
							   struct locum_acceptance *a)
{
	struct locum_acceptance *own;

	if (a && !(a->flags & LOCUM_ENDS))
		return a;
	key->side = TO_END;
	own = bpf_map_lookup_elem(&acceptances, key);
	if (own && same(&own->next_hop, &w->tunnel_end))
		return own;
	key->side = TO_HOME_ADDRESS;
	return a;
}

/* A tunnel that ends on the host where it begins: as if the packet had just come out of it (R17). */
static __always_inline int locally(struct __sk_buff *skb, struct work *w)
{
	struct locum_acceptance_key key = {w->tunnel_source, w->packet.destination, TO_HOME_ADDRESS, 0};
	struct locum_acceptance *a = bpf_map_lookup_elem(&acceptances, &key);
	struct locum_binding *b;
	int action = UNDECIDED;

	w->flags |= ENDS_HERE;
	a = at_its_end(w, &key, a);
	if (a) {
		count(bpf_map_lookup_elem(&acceptance_count, &key), w->packet.length);
		if (a->ifindex)
			action = to_visitor(skb, w, a);
		if (action != UNDECIDED)
			return action;
	}
	b = bpf_map_lookup_elem(&bindings, &w->packet.destination);
	if (b && b->flags & LOCUM_VISITED)
		action = at_visited(skb, w);
	if (action == UNDECIDED && ends_here(w, b))
		action = at_local_end(skb, w, b);
	return action == UNDECIDED ? pass_here(skb, w) : action;
}

/* Packets to a home address that came out of a tunnel for it: their home agent has decided already. */
static __always_inline int arrived(struct __sk_buff *skb, struct work *w)
{
	struct locum_binding *b = bpf_map_lookup_elem(&bindings, &w->packet.destination);
	int action = UNDECIDED;

	if (b && b->flags & LOCUM_VISITED)
		action = at_visited(skb, w);
	if (action == UNDECIDED && ends_here(w, b))
		action = at_local_end(skb, w, b);
	return action;
}

/* Back from the egress of an interface, because the packet's tunnel ends here. */
static __noinline int here(struct __sk_buff *skb, struct work *w)
{
	struct locum_binding *b = bpf_map_lookup_elem(&bindings, &w->packet.destination);
	int action = UNDECIDED;

	bpf_skb_change_type(skb, PACKET_HOST); /* its frame was made for a neighbour */
	if (ends_here(w, b))
		action = at_local_end(skb, w, b);
	return action == UNDECIDED ? passed(skb, LOCAL) : action;
}

#endif

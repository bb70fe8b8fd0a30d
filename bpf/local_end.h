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

/* The records of a home address in the ring, until the daemon has read past `end`. An account that was forgotten or mixed up
 * with another allows too many or too few packets until then, and decides nothing else. */
struct held_share {
	__u64 end; /* position in the ring behind the last of them */
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct locum_address);
	__type(value, struct held_share);
} held_shares SEC(".maps");

#define RECORD (sizeof(struct locum_held) + 16) /* the ring's own header before each record, and its padding */

/* The account of a home address if its share of the ring has room for a record, or NULL. A share is twice the room that is
 * left (dynamic thresholds, Choudhury and Hahne 1998): one flooded address leaves a third of the ring to all others, and n
 * of them 1/(2n + 1), so that an address with nothing there finds room. */
static __noinline struct held_share *share_of(const struct locum_address *home, __u64 record)
{
	const struct held_share none = {};
	struct locum_address key;
	struct held_share *share;
	__u64 room = bpf_ringbuf_query(&held, BPF_RB_RING_SIZE), used = bpf_ringbuf_query(&held, BPF_RB_AVAIL_DATA);

	if (!home)
		return NULL;
	key = *home;
	share = bpf_map_lookup_elem(&held_shares, &key);
	if (!share) {
		bpf_map_update_elem(&held_shares, &key, &none, BPF_NOEXIST);
		share = bpf_map_lookup_elem(&held_shares, &key);
		if (!share)
			return NULL;
	}
	/* Not within the ring: the daemon has read them, or they were in an earlier ring. */
	if (share->end - bpf_ringbuf_query(&held, BPF_RB_CONS_POS) - 1 >= room)
		share->bytes = 0;
	return used < room && share->bytes + record <= 2 * (room - used) ? share : NULL;
}

static __always_inline void charge(struct held_share *share, __u64 record)
{
	__sync_fetch_and_add(&share->bytes, record);
	share->end = bpf_ringbuf_query(&held, BPF_RB_PROD_POS);
}

/* Into the queue. The packet itself ends here. */
__noinline int hold(struct __sk_buff *skb, struct work *w, __u32 reason)
{
	struct packet *p;
	__u32 cpu = bpf_get_smp_processor_id();
	struct scratch *s = bpf_map_lookup_elem(&scratches, &cpu);
	struct held_share *share;
	__u64 rest; /* behind the first byte: a comparison with 0 teaches the verifier of 6.1 nothing */

	if (!w)
		return dropped(skb, HOLD_OVERFLOW);
	p = &w->packet;
	rest = (__u64)p->length - 1;
	asm volatile("" : "+r"(rest));
	if (!s || rest >= HELD_BYTES - 1)
		return dropped(skb, TOO_LARGE);
	if (bpf_skb_load_bytes(skb, p->offset, s->bytes, rest + 1))
		return dropped(skb, HOLD_OVERFLOW);
	flow_of(w, OF_DESTINATION, &s->header.flow);
	share = share_of(&s->header.flow.local, RECORD + rest);
	if (!share)
		return dropped(skb, HOLD_SHARE);
	s->header.time = bpf_ktime_get_ns();
	s->header.length = p->length;
	s->header.gso_size = skb->gso_size;
	s->header.ifindex = skb->ifindex;
	s->header.reason = reason;
	s->header.rule = reason == HELD_PAGE ? w->rule : 0;
	if (bpf_ringbuf_output(&held, s, sizeof(s->header) + rest + 1, 0))
		return dropped(skb, HOLD_OVERFLOW);
	charge(share, RECORD + rest);
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
	if (as_frame(skb))
		return dropped(skb, DECAPSULATION_FAILED);
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
	__u64 flow;

	find_transport(skb, w, OF_DESTINATION);
	if (w->refused || lacks_first(w))
		return dropped(skb, w->refused);
	flow_of(w, OF_DESTINATION, &key);
	flow = word_of(bpf_map_lookup_elem(&flows, &key));
	if (!flow)
		return UNDECIDED;
	if (flow == (LOCUM_THERE | FLOW_DELIVER) || (w->flags & FROM_TAP))
		return pass_up(skb, w);
	return hold(skb, w, HELD_FLOW);
}

#define SECOND 1000000000ULL

/* Its first bytes to the daemon, if the home address's proxy logs packets that nothing takes. */
static __noinline int tell_headers(struct __sk_buff *skb, struct work *w)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct scratch *s = bpf_map_lookup_elem(&scratches, &cpu);
	struct held_share *share;
	struct locum_address home; /* on the stack: 6.1 takes no key elsewhere */
	struct locum_logged *log;
	__u64 now, rest; /* behind the first byte, as in `hold` */

	if (!w || !s)
		return 0;
	home = w->packet.destination;
	log = bpf_map_lookup_elem(&logged, &home);
	if (!log)
		return 0;
	now = bpf_ktime_get_ns();
	if (now - log->second >= SECOND) {
		log->second = now;
		log->sent = 0;
	}
	rest = (__u64)w->packet.length - 1;
	if (rest >= LOCUM_LOGGED_BYTES)
		rest = LOCUM_LOGGED_BYTES - 1;
	asm volatile("" : "+r"(rest));
	flow_of(w, OF_DESTINATION, &s->header.flow);
	share = log->sent < log->most ? share_of(&home, RECORD + rest) : NULL;
	if (!share || rest >= LOCUM_LOGGED_BYTES || bpf_skb_load_bytes(skb, w->packet.offset, s->bytes, rest + 1)) {
		__sync_fetch_and_add(&log->left_out, 1);
		return 0;
	}
	log->sent += 1;
	s->header.time = now;
	s->header.length = rest + 1;
	s->header.gso_size = log->left_out;
	s->header.ifindex = w->packet.length;
	s->header.reason = HELD_HEADERS;
	s->header.rule = 0;
	if (!bpf_ringbuf_output(&held, s, sizeof(s->header) + rest + 1, 0))
		charge(share, RECORD + rest);
	return 0;
}

/* Packets that one rule of a filter took since its last report. An account that is forgotten makes one report too many. */
struct asked {
	__u64 time; /* of the last report, in nanoseconds since boot */
	__u64 left_out;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct locum_rule_key);
	__type(value, struct asked);
} asked SEC(".maps");

/* The first bytes of a packet whose rule asks for a page to the daemon, at most once a second for each rule. */
static __noinline int tell_asking(struct __sk_buff *skb, struct work *w)
{
	struct locum_rule_key key = {w->packet.destination, TO_VISITOR, w->asks, 0};
	__u32 cpu = bpf_get_smp_processor_id();
	struct scratch *s = bpf_map_lookup_elem(&scratches, &cpu);
	struct asked fresh = {}, *before;
	struct held_share *share;
	__u64 rest; /* behind the first byte, as in `hold` */

	if (!s)
		return 0;
	fresh.time = bpf_ktime_get_ns();
	before = bpf_map_lookup_elem(&asked, &key);
	if (before && fresh.time - before->time < SECOND) {
		__sync_fetch_and_add(&before->left_out, 1);
		return 0;
	}
	rest = (__u64)w->packet.length - 1;
	if (rest >= LOCUM_LOGGED_BYTES)
		rest = LOCUM_LOGGED_BYTES - 1;
	asm volatile("" : "+r"(rest));
	share = share_of(&key.home_address, RECORD + rest);
	if (!share || rest >= LOCUM_LOGGED_BYTES || bpf_skb_load_bytes(skb, w->packet.offset, s->bytes, rest + 1))
		return 0;
	flow_of(w, OF_DESTINATION, &s->header.flow);
	s->header.time = fresh.time;
	s->header.length = rest + 1;
	s->header.gso_size = before ? before->left_out : 0;
	s->header.ifindex = w->packet.length;
	s->header.reason = HELD_CLASSIFIED;
	s->header.rule = w->asks;
	if (bpf_ringbuf_output(&held, s, sizeof(s->header) + rest + 1, 0))
		return 0;
	charge(share, RECORD + rest);
	bpf_map_update_elem(&asked, &key, &fresh, BPF_ANY);
	return 0;
}

/* A filter's decision about a packet to a visitor, and the report if its rule asks for a page. */
static __noinline int filtered_to_visitor(struct __sk_buff *skb, struct work *w)
{
	int reason = filtered(skb, w, TO_VISITOR);

	if (w->asks)
		tell_asking(skb, w);
	return reason;
}

static __always_inline int guard(struct __sk_buff *skb, struct work *w)
{
	__u8 protocol = w->packet.protocol;
	int found;

	if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6)
		return pass_up(skb, w);
	found = has_socket(skb, w);
	if (found != OF_PROXY && is_watched(&w->packet) && opens(skb, &w->packet))
		return w->flags & FROM_TAP ? pass_up(skb, w) : hold(skb, w, HELD_OPENING);
	if (found)
		return pass_up(skb, w);
	tell_headers(skb, w);
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
	const struct locum_translation *t;
	int found;

	if (!(w->uses & LOCUM_TRANSLATES) || (w->flags & AT_EGRESS))
		return UNDECIDED;
	__builtin_memset(&key, 0, sizeof(key));
	key.home_address = w->packet.destination;
	t = find_translation(&key);
	if (!t)
		return UNDECIDED;
	if (!(own_address(&t->interface_address) & LOCUM_OWN) || (!w->strip && same(&t->interface_address, &w->packet.destination)))
		return UNDECIDED;
	found = translate(skb, w, NULL);
	if (found < 0)
		return dropped(skb, -found);
	return found ? pass_up(skb, w) : UNDECIDED;
}

/* Packets to a home address that end on this host; b: its binding, or NULL. */
__noinline int at_local_end(struct __sk_buff *skb, struct work *w, const struct locum_binding *b)
{
	int action = UNDECIDED;

	if (!w || w->flags & AT_EGRESS)
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
__noinline int at_visited(struct __sk_buff *skb, struct work *w)
{
	const struct locum_binding *v;
	int action;

	if (!w)
		return UNDECIDED;
	v = find_visited(&w->packet.destination);
	if (!v)
		return UNDECIDED;
	if (v->verdict != ENCAPSULATE)
		return by_verdict(skb, w, v->verdict);
	if (v->tunnel.local)
		return UNDECIDED;
	action = encapsulate(skb, w, &v->tunnel);
	if (sent(skb, action))
		count_rule(&w->packet.destination, VISITED, 0, w->packet.length);
	return action;
}

static __always_inline bool on_a_link(const struct locum_acceptance *a)
{
	return a->ifindex && !(a->flags & LOCUM_BY_ROUTE);
}

/* On the access link, if the visitor's filter lets it. UNDECIDED when whom it is for is on this very host (R17). */
static __always_inline int to_visitor(struct __sk_buff *skb, struct work *w, const struct locum_acceptance *a)
{
	int reason = w->uses & LOCUM_FILTERED(TO_VISITOR) ? filtered_to_visitor(skb, w) : 0;

	if (reason)
		return dropped(skb, reason);
	return a->flags & LOCUM_HERE ? UNDECIDED : deliver(skb, w, a);
}

/* The acceptance of one tunnel's end goes before `a`, that of any tunnel from there: the stand-in's before a visitor's. */
static __always_inline const struct locum_acceptance *at_its_end(const struct work *w,
								 struct locum_acceptance_key *key,
								 const struct locum_acceptance *a,
								 struct locum_entry **entry)
{
	const struct locum_acceptance *own;
	struct locum_entry *e;

	if (a && !(a->flags & LOCUM_ENDS))
		return a;
	key->side = TO_END;
	own = find_acceptance(key, &e);
	if (own && same(&own->next_hop, &w->tunnel_end)) {
		*entry = e;
		return own;
	}
	key->side = TO_HOME_ADDRESS;
	return a;
}

/* A tunnel that ends on the host where it begins: as if the packet had just come out of it (R17). */
static __always_inline int locally(struct __sk_buff *skb, struct work *w)
{
	struct locum_acceptance_key key = {w->tunnel_source, w->packet.destination, TO_HOME_ADDRESS, w->keyed,
					   w->gre_key};
	struct locum_entry *e;
	const struct locum_acceptance *a = find_acceptance(&key, &e);
	const struct locum_binding *b;
	int action = UNDECIDED;

	w->flags |= ENDS_HERE;
	a = at_its_end(w, &key, a, &e);
	if (a && e) {
		count(&e->counter, w->packet.length);
		if (on_a_link(a))
			action = to_visitor(skb, w, a);
		if (action != UNDECIDED)
			return action;
	}
	b = find_binding(&key.home_address);
	if (b && b->flags & LOCUM_VISITED)
		action = at_visited(skb, w);
	if (action == UNDECIDED && ends_here(w, b))
		action = at_local_end(skb, w, b);
	return action == UNDECIDED ? pass_here(skb, w) : action;
}

/* Packets to a home address that came out of a tunnel for it: their home agent has decided already. */
static __always_inline int arrived(struct __sk_buff *skb, struct work *w)
{
	const struct locum_binding *b = find_binding(&w->packet.destination);
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
	const struct locum_binding *b = find_binding(&w->packet.destination);
	int action = UNDECIDED;

	bpf_skb_change_type(skb, PACKET_HOST); /* its frame was made for a neighbour */
	if (ends_here(w, b))
		action = at_local_end(skb, w, b);
	return action == UNDECIDED ? passed(skb, LOCAL) : action;
}

#endif

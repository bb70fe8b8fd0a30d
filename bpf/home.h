/* The home agent's decision about packets to a home address: the stand-in's own, flow rules, tunnels. */
#ifndef LOCUM_HOME_H
#define LOCUM_HOME_H

/* Copies for the second and later tunnels go by the re-injection device, whose egress program encapsulates them. */
static __noinline int send_copies(struct __sk_buff *skb, struct work *w, __u32 tunnels)
{
	__u32 i, zero = 0;
	struct under_way *u = bpf_map_lookup_elem(&works, &zero);

	if (!u || decapsulate(skb, w))
		return -1;
	if (w->flags & FORWARDED) {
		if (w->packet.hops <= 1 || decrement_hops(skb, &w->packet))
			return -1;
		w->packet.hops--;
		w->flags &= ~FORWARDED;
	}
	if (as_frame(skb))
		return -1;
	u->copying = 1;
	for (i = 1; i < LOCUM_MAX_TUNNELS; i++) {
		if (i >= tunnels)
			break;
		skb->mark = LOCUM_MARK_COPY | i;
		bpf_clone_redirect(skb, w->tap, 0);
	}
	u->copying = 0;
	skb->mark = 0;
	return 0;
}

/* `e`: the entry of the home address, which counts. */
static __always_inline int into_tunnel(struct __sk_buff *skb, struct work *w, const struct locum_tunnel *t,
				       struct locum_entry *e)
{
	int action;

	if (t->local) {
		w->tunnel_source = t->source;
		w->tunnel_end = t->destination;
		w->keyed = t->has_key;
		w->gre_key = t->gre_key;
		return LOCALLY;
	}
	action = encapsulate(skb, w, t);
	if (sent(skb, action))
		count(&e->counter, w->packet.length);
	return action;
}

static __noinline int to_tunnels(struct __sk_buff *skb, struct work *w, const struct locum_binding *b,
				 struct locum_entry *e)
{
	int action;

	if (!b || !e)
		return TC_ACT_UNSPEC;
	if (b->tunnels > 1) {
		if ((w->flags & FORWARDED) && w->packet.hops <= 1)
			return expired(skb, w);
		action = too_big_for_one(skb, w, b);
		if (action != UNDECIDED)
			return action;
		if (w->strip) {
			action = renew(skb, w);
			if (action)
				return action;
		}
		if (send_copies(skb, w, b->tunnels))
			return dropped(skb, ENCAPSULATION_FAILED);
		if (!LINK_HEADER) { /* the packet is a frame now, so it goes the way of its copies */
			skb->mark = LOCUM_MARK_COPY;
			skb->cb[0] = ENCAPSULATED;
			skb->cb[1] = 0;
			return bpf_redirect(w->tap, 0);
		}
	}
	return into_tunnel(skb, w, &b->tunnel, e);
}

/* Flows of a binding are shared among its tunnels. */
static __noinline const struct locum_tunnel *shared(struct __sk_buff *skb, struct work *w,
						    const struct locum_binding *b)
{
	struct locum_address home = w->packet.destination;
	const struct locum_binding_more *more = find_more(&home);
	struct subject *s;
	__u32 number;

	if (!more)
		return &b->tunnel;
	s = describe(skb, w, OF_DESTINATION);
	if (!s || lacks_first(w))
		return &b->tunnel;
	number = choose(more->weights, b->tunnels, flow_hash(s));
	if (!number || number >= LOCUM_MAX_TUNNELS)
		return &b->tunnel;
	return &more->others[number - 1];
}

/* The binding's decision about packets that are not the stand-in's and that match no rule. */
static __always_inline int remaining(struct __sk_buff *skb, struct work *w, const struct locum_binding *b,
				     struct locum_entry *e)
{
	const struct locum_tunnel *t;

	if (b->verdict != ENCAPSULATE)
		return by_verdict(skb, w, b->verdict);
	if (b->flags & LOCUM_SHARED) {
		t = shared(skb, w, b);
		return w->refused ? dropped(skb, w->refused) : into_tunnel(skb, w, t, e);
	}
	return to_tunnels(skb, w, b, e);
}

static __always_inline const struct locum_tunnel *no_rule(struct work *w, const struct search *search)
{
	if (search->found == UNSURE)
		w->refused = unsure_because(search->subject);
	return NULL;
}

/* The tunnel of the rule that takes the packet; NULL when none does, or when the rule drops or holds it. The rule is noted. */
static __noinline const struct locum_tunnel *by_rules(struct __sk_buff *skb, struct work *w)
{
	struct locum_address home = w->packet.destination;
	__u64 word = word_of(bpf_map_lookup_elem(&rules, &home));
	const struct locum_rules_many *many = NULL;
	const struct locum_rules_few *few = NULL;
	struct search search;
	const struct locum_rule *r;
	__u32 place, id = word;

	if (word & LOCUM_LARGE)
		many = bpf_map_lookup_elem(&rules_many, &id);
	else if (id)
		few = bpf_map_lookup_elem(&rules_few, &id);
	if (!few && !many)
		return NULL;
	search.found = NO_RULE;
	search.subject = describe(skb, w, OF_DESTINATION);
	if (!search.subject)
		return NULL;
	if (few) {
		search.rules = few->rule;
		bpf_loop(few->head.count, try_few, &search, 0);
		if (search.found >= LOCUM_FEW)
			return no_rule(w, &search);
		r = &few->rule[search.found];
		if (r->candidates > 1 && lacks_first(w))
			return NULL;
		place = way_of(r, search.subject);
		w->rule = r->identifier;
		w->paged = r->verdict == RULE_PAGE;
		if (w->paged || r->verdict == RULE_DROP || place >= LOCUM_FEW_TUNNELS)
			return NULL;
		return &few->tunnel[place];
	}
	search.rules = many->rule;
	bpf_loop(many->head.count, try_many, &search, 0);
	if (search.found >= LOCUM_MANY)
		return no_rule(w, &search);
	r = &many->rule[search.found];
	if (r->candidates > 1 && lacks_first(w))
		return NULL;
	place = way_of(r, search.subject);
	w->rule = r->identifier;
	w->paged = r->verdict == RULE_PAGE;
	return w->paged || r->verdict == RULE_DROP || place >= LOCUM_MANY_TUNNELS ? NULL : &many->tunnel[place];
}

/* Packets to a home address whose home agent this is. */
static __always_inline int at_home(struct __sk_buff *skb, struct work *w, const struct locum_address *home,
				   const struct locum_binding *b, struct locum_entry *e)
{
	const struct locum_binding_more *more;
	const struct locum_tunnel *t;

	if (b->flags & LOCUM_PEER) { /* the stand-in that talks to the home address means the device */
		more = find_more(home);
		if (more && same(&more->peer, &w->packet.source)) {
			if (!(b->flags & LOCUM_PEER_TUNNEL))
				return dropped(skb, PEER_UNREACHABLE);
			return into_tunnel(skb, w, &more->peer_tunnel, e);
		}
	}
	if (b->flags & LOCUM_RULES) {
		w->ruled = 1;
		t = by_rules(skb, w);
		if (t)
			return into_tunnel(skb, w, t, e);
		if (w->refused)
			return dropped(skb, w->refused);
		if (w->paged)
			return hold(skb, w, HELD_PAGE);
		if (w->rule)
			return dropped(skb, RULE_DROPPED);
	}
	return remaining(skb, w, b, e);
}

/* True if the packet has gone to the target of its rule or binding, or waits by its rule: only then it counts. */
static __always_inline bool went(const struct __sk_buff *skb, const struct work *w)
{
	__u32 outcome = skb->cb[0], reason = skb->cb[1];

	if (outcome == HELD)
		return w->paged;
	if (outcome == DROPPED)
		return reason == RULE_DROPPED || reason == BINDING_DROP;
	return outcome == ENCAPSULATED || outcome == DELIVERED || outcome == LOCAL;
}

/* Packets to a home address. UNDECIDED when there is no entry of it. */
__noinline int to_home_address(struct __sk_buff *skb, struct work *w)
{
	struct locum_address home;
	struct locum_entry *e;
	const struct locum_binding *b;
	int action = UNDECIDED;

	if (!w)
		return UNDECIDED;
	home = w->packet.destination;
	b = counted_binding(&home, &e);
	if (b && !(b->flags & LOCUM_IMPLICIT)) {
		action = at_home(skb, w, &home, b, e);
		if (action == LOCALLY)
			action = locally(skb, w);
		if (w->ruled && (action == UNDECIDED ? b->verdict == NATIVE && !(w->flags & AT_EGRESS) : went(skb, w)))
			count_rule(&home, FLOW_RULES, w->rule, w->packet.length);
	}
	if (action == UNDECIDED && ends_here(w, b))
		action = at_local_end(skb, w, b);
	return action;
}

/* A copy for one of the later tunnels of a simultaneous binding (RFC 5944 section 3.6.1.1). */
static __noinline int send_copy(struct __sk_buff *skb, struct work *w)
{
	const struct locum_binding_more *more = find_more(&w->packet.destination);
	struct locum_entry *e;
	const struct locum_binding *b = counted_binding(&w->packet.destination, &e);
	__u32 copy = skb->mark & 0xffff, number = copy - 1;
	int action;

	if (!b || !more || b->tunnels < 2 || copy >= b->tunnels)
		return dropped(skb, STRAY);
	if (!copy)
		action = into_tunnel(skb, w, &b->tunnel, e);
	else if (number < LOCUM_MAX_TUNNELS - 1)
		action = into_tunnel(skb, w, &more->others[number], e);
	else
		return dropped(skb, STRAY);
	return action == LOCALLY ? locally(skb, w) : action;
}

#endif

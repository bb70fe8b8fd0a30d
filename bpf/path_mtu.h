/* Packets that do not fit the path to the end of their tunnel.
 *
 * The kernel knows the MTU of the route; `paths` has the MTUs that routers on the way have told of (RFC 1191, RFC 8201).
 * A packet that is too big goes to the stack, by a route with the MTU that the tunnel leaves, or the next smaller one
 * of the routes that the daemon has made; the daemon is told, and makes the missing one. An IPv6 packet of at most 1280
 * bytes cannot be refused: the tunnel packet itself leaves in fragments (RFC 2473 section 7.1), which the daemon makes.
 * Where routers tell nothing, the daemon finds the MTU by probes; it has to know where large packets go.
 */
#ifndef LOCUM_PATH_MTU_H
#define LOCUM_PATH_MTU_H

#define SMALL 500 /* bytes of a packet that fits any path: 552 is the least MTU that is believed, 52 the largest overhead */

static __always_inline __u32 path_seal(const struct locum_address *key, const struct locum_path *p)
{
	__u64 mixed = (key->high ^ p->until) * 0x9e3779b97f4a7c15ULL ^ (key->low ^ p->mtu) * 0xff51afd7ed558ccdULL;

	return mixed >> 32;
}

/* Keys are copied to the stack: Linux 6.1 takes no others from a global function's argument. */
static __noinline __u32 narrowed(const struct locum_address *destination, __u32 mtu)
{
	struct locum_address key;
	struct locum_path *known, path;

	if (!destination)
		return mtu;
	key = *destination;
	known = bpf_map_lookup_elem(&paths, &key);
	if (!known)
		return mtu;
	path = *known;
	if (path.seal != path_seal(&key, &path)) /* the element was given to another key meanwhile */
		return mtu;
	return path.mtu < mtu && path.until > bpf_ktime_get_boot_ns() ? path.mtu : mtu;
}

static __always_inline void name_tunnel(struct locum_held *h, const struct locum_tunnel *t, __u32 reason, __u32 mtu)
{
	h->flow.local = t->source;
	h->flow.peer = t->destination;
	h->time = bpf_ktime_get_ns();
	h->gso_size = mtu;
	h->ifindex = overhead_of(t);
	h->reason = reason;
}

/* Tell the daemon of this MTU, once. */
static __noinline int tell_path(const struct locum_tunnel *t, __u32 mtu)
{
	struct locum_address key;
	struct locum_held h;
	__u32 *told;

	if (!t)
		return 0;
	key = t->destination;
	told = bpf_map_lookup_elem(&told_paths, &key);
	if (told && *told == mtu)
		return 0;
	__builtin_memset(&h, 0, sizeof(h));
	name_tunnel(&h, t, HELD_PATH, mtu);
	if (!bpf_ringbuf_output(&held, &h, sizeof(h), 0))
		bpf_map_update_elem(&told_paths, &key, &mtu, BPF_ANY);
	return 0;
}

#define TOLD_LARGE_EACH (20 * 1000 * 1000 * 1000ULL) /* nanoseconds between two records about one end of tunnels */
#define TOLD_LARGE_ALL (10 * 1000 * 1000ULL)         /* between two records of one CPU */

/* Tell the daemon now and then that large packets go to the end of this tunnel: it probes the path (RFC 8899). */
static __noinline int tell_large(const struct work *w, const struct locum_tunnel *t)
{
	struct locum_address key;
	struct locum_held h;
	__u64 now = bpf_ktime_get_boot_ns(), next, *each, *all;
	__u32 zero = 0;

	if (!w || !t)
		return 0;
	key = t->destination;
	each = bpf_map_lookup_elem(&told_large, &key);
	if (each && now < *each)
		return 0;
	all = bpf_map_lookup_elem(&large_told, &zero);
	if (!all || now < *all)
		return 0;
	*all = now + TOLD_LARGE_ALL;
	next = now + TOLD_LARGE_EACH;
	__builtin_memset(&h, 0, sizeof(h));
	h.flow.local = w->packet.source;
	h.flow.peer = w->packet.destination;
	h.reason = HELD_LARGE;
	if (!bpf_ringbuf_output(&held, &h, sizeof(h), 0))
		bpf_map_update_elem(&told_large, &key, &next, BPF_ANY);
	return 0;
}

/* Place and MTU: the largest among those of the routes that is not above `wanted`; the smallest of all if none is. */
__noinline __u32 inner_mtu(__u32 wanted)
{
	__u32 zero = 0, found = 0, i;
	struct locum_inner_mtus *m = bpf_map_lookup_elem(&inner_mtus, &zero);

	if (!m)
		return 0;
	for (i = 0; i < LOCUM_INNER_MTUS; i++) {
		if (!m->mtu[i])
			break;
		found = m->mtu[i];
		if ((found & 0xffff) <= wanted)
			break;
	}
	return found;
}

/* Of a packet that goes to the stack by the route with this MTU, or the next smaller one. */
static __noinline __u32 mark_for(const struct work *w, __u32 wanted)
{
	return LOCUM_MARK_MTU | LOCUM_NUMBER(w->uses) << 8 | (inner_mtu(wanted) >> 16 & 0xff);
}

__noinline int too_big(struct __sk_buff *skb, struct work *w, const struct locum_tunnel *t, __u32 mtu)
{
	__u32 overhead, wanted;

	if (!w || !t)
		return dropped(skb, TOO_LARGE);
	overhead = overhead_of(t);
	wanted = mtu > overhead ? mtu - overhead : 0;
	if (w->packet.family == 6 && wanted < MIN_IPV6_MTU)
		wanted = MIN_IPV6_MTU;
	if ((inner_mtu(wanted) & 0xffff) != wanted || w->flags & AT_EGRESS)
		tell_path(t, mtu);
	if (w->flags & AT_EGRESS)
		return dropped(skb, TOO_LARGE);
	skb->mark = mark_for(w, wanted);
	return pass_inner(skb, w, TOO_BIG);
}

/* The whole tunnel packet goes to the daemon, which cuts it: the kernel could do so for its own packets alone. */
static __noinline int in_pieces(struct __sk_buff *skb, struct work *w, const struct locum_tunnel *t, __u32 mtu)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct scratch *s = bpf_map_lookup_elem(&scratches, &cpu);
	struct held_share *share;
	__u64 rest = (__u64)w->packet.length + overhead_of(t) - 1;

	asm volatile("" : "+r"(rest));
	if (!s || rest >= HELD_BYTES - 1)
		return dropped(skb, TOO_LARGE);
	if (bpf_skb_load_bytes(skb, LINK_HEADER, s->bytes, rest + 1))
		return dropped(skb, ENCAPSULATION_FAILED);
	__builtin_memset(&s->header, 0, sizeof(s->header));
	name_tunnel(&s->header, t, HELD_PIECES, mtu);
	s->header.length = rest + 1;
	share = share_of(&w->packet.destination, RECORD + rest);
	if (!share)
		return dropped(skb, HOLD_SHARE);
	if (bpf_ringbuf_output(&held, s, sizeof(s->header) + rest + 1, 0))
		return dropped(skb, HOLD_OVERFLOW);
	charge(share, RECORD + rest);
	skb->cb[0] = ENCAPSULATED;
	skb->cb[1] = 0;
	skb->mark = LOCUM_MARK_VOID;
	return bpf_redirect(w->tap, BPF_F_INGRESS);
}

/* A packet with several tunnels has to fit all of them before a copy leaves. UNDECIDED: it does. */
static __noinline int too_big_for_one(struct __sk_buff *skb, struct work *w, const struct locum_binding *b)
{
	struct locum_address home = w->packet.destination;
	const struct locum_binding_more *more = find_more(&home);
	const struct locum_tunnel *t, *worst = NULL;
	__u32 i, least = 0, mtu = 0, left;

	if (!b || !more || w->packet.length <= SMALL || is_minimal(skb, &w->packet))
		return UNDECIDED;
	for (i = 0; i < LOCUM_MAX_TUNNELS; i++) {
		struct route r = {};

		if (i >= b->tunnels)
			break;
		t = i ? &more->others[i - 1] : &b->tunnel;
		if (t->local || find_path(skb, w, t, &r) <= 0)
			continue;
		left = r.mtu - overhead_of(t);
		if (worst && left >= least)
			continue;
		worst = t;
		least = left;
		mtu = r.mtu;
	}
	return worst ? too_big(skb, w, worst, mtu) : UNDECIDED;
}

#endif

/* Home address <-> interface address of a stand-in (R12), at the home agent, the access node or the stand-in itself.
 *
 * Towards the stand-in the destination becomes its interface address, and the flow is remembered; packets of a
 * remembered flow that come back get the home address as their source. A flow that the stand-in's host begins is no
 * such flow and stays as it is. Checksums change by the difference, so a checksum that is still to be filled in by the
 * device, and a UDP checksum that is not used, stay what they are. An ICMP error speaks of a flow's packet, and is
 * changed with its quoted packet. Later fragments have no ports: the destination is changed as it is, the source after what
 * became of their first fragment.
 */
#ifndef LOCUM_TRANSLATE_H
#define LOCUM_TRANSLATE_H

#define SECOND 1000000000ULL
#define TRANSLATED_IDLE (300 * SECOND) /* then another home address may have the flow */
#define FRAGMENT_LIFE (30 * SECOND)    /* RFC 8200 section 4.5: reassembly takes no longer than 60 s */

#ifndef BPF_F_IPV6
#define BPF_F_IPV6 (1ULL << 7)
#endif

#define DESTINATION 0
#define SOURCE 1

/* Too large for the stack of a program that has come so far. */
struct translating {
	struct quoted quoted;
	struct locum_flow_key flow;
	struct locum_translated entry;
	struct locum_translated_fragment fragment;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct translating);
} translating SEC(".maps");

static __always_inline struct translating *translating_room(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&translating, &zero);
}

/* The translation of a key, or NULL. */
static __always_inline const struct locum_translation *find_translation(const struct locum_translation_key *key)
{
	struct locum_translation_entry *e = bpf_map_lookup_elem(&translations, key);
	__u32 id = word_of((const struct locum_entry *)e);

	return id ? bpf_map_lookup_elem(&translation_values, &id) : NULL;
}

/* The seal of a remembered flow over the five words of its key and over its value; never 0. */
static __noinline __u64 translated_seal(const __u64 *word, const struct locum_translated *entry)
{
	__u64 seal = 1;
	int i;

	if (!word || !entry)
		return 0;
#pragma unroll
	for (i = 0; i < 5; i++)
		seal = stir(seal, word[i]);
	seal = stir(seal, entry->key.home_address.high);
	seal = stir(seal, entry->key.home_address.low);
	seal = stir(seal, entry->key.tunnel.high);
	seal = stir(seal, entry->key.tunnel.low);
	return stir(seal, entry->epoch) | 1;
}

/* Copies the value of a flow (or fragment) to `room->entry`. The element that it came from, or NULL: there is none, or
 * other CPUs gave the element away each time while it was copied. Only the time may be written to the element: at worst
 * another flow is then forgotten later. */
static __always_inline struct locum_translated *recall(void *table, const void *key, struct translating *room)
{
	struct locum_translated *known;
	int i;

	for (i = 0; i < RECALLS; i++) {
		known = bpf_map_lookup_elem(table, key);
		if (!known)
			return NULL;
		room->entry = *known;
		if (room->entry.seal == translated_seal(key, &room->entry))
			return known;
	}
	return NULL;
}

static __always_inline __u32 folded(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* Growth of a ones' complement sum when one address replaces the other; never 0. */
static __always_inline __u32 growth(const struct locum_address *from, const struct locum_address *to)
{
	__u32 sum = 0;
	int i;

	if (!from || !to)
		return 0;
#pragma unroll
	for (i = 0; i < 4; i++) {
		sum += (__u16)~(__u16)(from->high >> (16 * i)) + (__u16)(to->high >> (16 * i));
		sum += (__u16)~(__u16)(from->low >> (16 * i)) + (__u16)(to->low >> (16 * i));
	}
	return folded(sum);
}

/* Where the checksum that covers the addresses stands in the transport header; 0: there is none. */
static __always_inline __u32 checksum_place(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return 16;
	case IPPROTO_UDP:
		return 6;
	case IPPROTO_ICMPV6:
		return 2;
	}
	return 0;
}

/* Source or destination of the packet's own header, and the checksums that cover it. */
static __noinline int readdress(struct __sk_buff *skb, const struct packet *p, const struct locum_address *from,
				const struct locum_address *to, __u32 source)
{
	__u32 grown, place, end;
	__u64 flags = BPF_F_PSEUDO_HDR;
	__be32 v4;

	if (!p || !from || !to)
		return -1;
	grown = growth(from, to);
	place = checksum_place(p->protocol);
	end = p->offset + p->length;
	if (place && !p->later_fragment && p->payload + place + 2 <= end) {
		if (p->protocol == IPPROTO_UDP)
			flags |= BPF_F_MARK_MANGLED_0;
		if (bpf_l4_csum_replace(skb, p->payload + place, 0, grown,
					p->family == 6 ? flags | BPF_F_IPV6 : flags) &&
		    (p->family == 4 || bpf_l4_csum_replace(skb, p->payload + place, 0, grown, flags)))
			return -1; /* the second attempt is for kernels that do not know the flag */
	}
	if (p->family == 6)
		return bpf_skb_store_bytes(skb, p->offset + (source ? 8 : 24), to, 16, 0);
	v4 = v4_of(to);
	if (bpf_l3_csum_replace(skb, p->offset + offsetof(struct iphdr, check), 0, grown, 0))
		return -1;
	return bpf_skb_store_bytes(skb, p->offset + (source ? 12 : 16), &v4, 4, 0);
}

/* A checksum in a quoted packet, which no device fills in. Returns the growth of the sum over it. */
static __noinline int requote_checksum(struct __sk_buff *skb, __u32 at, __u32 grown, __u32 udp)
{
	__u16 old, new;

	if (at > 0xffff || bpf_skb_load_bytes(skb, at, &old, 2))
		return -1;
	if (udp && !old)
		return 0;
	new = ~folded((__u16)~old + grown);
	if (udp && !new)
		new = 0xffff;
	if (bpf_skb_store_bytes(skb, at, &new, 2, 0))
		return -1;
	return (__u16)~old + new;
}

/* Source or destination of the quoted header, the checksums in the quotation, and that of the error over them all. */
static __noinline int readdress_quoted(struct __sk_buff *skb, const struct packet *p, const struct quoted *q,
				       const struct locum_address *to, __u32 source)
{
	__u32 grown, sum, place, end;
	__be32 v4;
	int more;

	if (!p || !q || !to)
		return -1;
	grown = growth(source ? &q->source : &q->destination, to);
	sum = grown;
	end = p->offset + p->length;
	place = checksum_place(q->protocol);
	if (place && !q->later_fragment && q->payload + place + 2 <= end) {
		more = requote_checksum(skb, q->payload + place, grown, q->protocol == IPPROTO_UDP);
		if (more < 0)
			return -1;
		sum += more;
	}
	if (q->family == 4) {
		more = requote_checksum(skb, q->offset + offsetof(struct iphdr, check), grown, 0);
		v4 = v4_of(to);
		if (more < 0 || bpf_skb_store_bytes(skb, q->offset + (source ? 12 : 16), &v4, 4, 0))
			return -1;
		sum += more;
	} else if (bpf_skb_store_bytes(skb, q->offset + (source ? 8 : 24), to, 16, 0)) {
		return -1;
	}
	return bpf_l4_csum_replace(skb, p->payload + 2, 0, folded(sum), 0);
}

/* The flow of a packet (or of its quoted packet), seen from the interface address `local`. */
static __noinline int flow_at(struct __sk_buff *skb, const struct packet *p, struct translating *room,
			      const struct locum_address *local, __u32 towards)
{
	struct locum_flow_key *flow;
	struct quoted *q;
	__be16 identifier;

	if (!p || !room || !local)
		return -1;
	flow = &room->flow;
	q = &room->quoted;
	__builtin_memset(flow, 0, sizeof(*flow));
	flow->local = *local;
	if (icmp_error(p)) { /* the stand-in's packets are quoted to it, and the reverse */
		flow->peer = towards ? q->destination : q->source;
		flow->local_port = towards ? q->source_port : q->destination_port;
		flow->peer_port = towards ? q->destination_port : q->source_port;
		flow->protocol = q->protocol;
		if (q->protocol == IPPROTO_ICMP || q->protocol == IPPROTO_ICMPV6)
			flow->peer_port = 0;
		return 0;
	}
	flow->peer = towards ? p->source : p->destination;
	flow->protocol = p->protocol;
	flow->local_port = towards ? p->destination_port : p->source_port;
	flow->peer_port = towards ? p->source_port : p->destination_port;
	if (icmp_with_identifier(p->protocol, p->type) && p->payload + 8 <= p->offset + p->length) {
		if (bpf_skb_load_bytes(skb, p->payload + 4, &identifier, 2))
			return -1;
		flow->local_port = identifier;
	}
	return 0;
}

/* The translation that a remembered flow belongs to, if it is still the same one. */
static __always_inline const struct locum_translation *still_valid(const struct locum_translated *entry)
{
	const struct locum_translation *t = find_translation(&entry->key);

	return t && t->epoch == entry->epoch ? t : NULL;
}

static __always_inline void count_translation(const struct locum_translation_key *key, __u32 back, __u32 bytes)
{
	struct locum_translation_entry *e = bpf_map_lookup_elem(&translations, key);

	if (e)
		count(back ? &e->back : &e->towards, bytes);
}

/* Remember that this flow goes to `key->home_address`; -1: it belongs to another home address. */
static __always_inline int remember(struct translating *room, const struct locum_translation_key *key,
				    const struct locum_translation *t)
{
	struct locum_translated *known = recall(&translated, &room->flow, room), *entry = &room->entry;
	__u64 now = bpf_ktime_get_ns();

	if (known && same(&entry->key.home_address, &key->home_address) && same(&entry->key.tunnel, &key->tunnel) &&
	    entry->epoch == t->epoch) {
		known->seen = now;
		return 0;
	}
	if (known && !same(&entry->key.home_address, &key->home_address) && still_valid(entry) &&
	    now - entry->seen < TRANSLATED_IDLE)
		return -1;
	entry->key = *key;
	entry->epoch = t->epoch;
	entry->seen = now;
	entry->seal = translated_seal((const __u64 *)&room->flow, entry);
	bpf_map_update_elem(&translated, &room->flow, &room->entry, BPF_ANY);
	return 0;
}

/* An error about a known flow: its quoted packet came from the home address, for its sender. */
static __always_inline int translate_error(struct __sk_buff *skb, const struct packet *p, struct translating *room,
					   const struct locum_translation_key *key,
					   const struct locum_translation *t)
{
	if (p->fragment || read_quoted(skb, p, &room->quoted) ||
	    !same(&room->quoted.source, &key->home_address) || flow_at(skb, p, room, &t->interface_address, 1))
		return 0;
	if (!recall(&translated, &room->flow, room) ||
	    !same(&room->entry.key.home_address, &key->home_address) || room->entry.epoch != t->epoch)
		return 0;
	if (!same(&key->home_address, &t->interface_address) &&
	    readdress_quoted(skb, p, &room->quoted, &t->interface_address, SOURCE))
		return -TRANSLATION_FAILED;
	return 1;
}

/* To the interface address, for packets that take the tunnel to `tunnel`, or (null) are delivered here.
 * 1: done; 0: nothing to do; less: dropped for this reason. The packet's description stays that of the packet as it came. */
__noinline int translate(struct __sk_buff *skb, struct work *w, const struct locum_address *tunnel)
{
	struct locum_translation_key key;
	const struct locum_translation *t;
	struct translating *room;
	struct packet *p;
	int found = 1;

	if (!w)
		return 0;
	p = &w->packet;
	__builtin_memset(&key, 0, sizeof(key));
	key.home_address = p->destination;
	if (tunnel)
		key.tunnel = *tunnel;
	t = find_translation(&key);
	room = translating_room();
	if (!t || !room)
		return 0;
	if (icmp_error(p))
		found = translate_error(skb, p, room, &key, t);
	else if (!p->later_fragment && (flow_at(skb, p, room, &t->interface_address, 1) || remember(room, &key, t)))
		return -TRANSLATION_CONFLICT;
	if (found <= 0)
		return found;
	count_translation(&key, 0, p->length);
	if (!same(&p->destination, &t->interface_address) &&
	    readdress(skb, p, &p->destination, &t->interface_address, DESTINATION))
		return -TRANSLATION_FAILED;
	return 1;
}

static __always_inline void fragment_key(const struct packet *p, struct locum_translated_fragment *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->source = p->source;
	key->destination = p->destination;
	key->protocol = p->protocol;
	key->identification = p->identification;
}

/* The remembered flow that this packet, on its way from the stand-in, belongs to is `room->entry`; false: none. */
static __always_inline bool flow_back(struct __sk_buff *skb, const struct packet *p, struct translating *room)
{
	if (p->fragment)
		fragment_key(p, &room->fragment);
	if (p->later_fragment)
		return recall(&translated_fragments, &room->fragment, room) &&
		       bpf_ktime_get_ns() - room->entry.seen < FRAGMENT_LIFE;
	if (!icmp_error(p)) {
		if (flow_at(skb, p, room, &p->source, 0))
			return false;
	} else if (p->fragment || read_quoted(skb, p, &room->quoted) ||
		   flow_at(skb, p, room, &room->quoted.destination, 0)) {
		return false;
	}
	return recall(&translated, &room->flow, room);
}

/* Whether a packet belongs to a remembered flow: 1, and `room->entry` says of whom; else 0. `in_tunnel`: of flows that
 * were sent into a tunnel (home agent), else of those that were delivered. */
__noinline int find_translated(struct __sk_buff *skb, struct work *w, __u32 in_tunnel)
{
	struct translating *room = translating_room();

	if (!w || !room || !flow_back(skb, &w->packet, room) || !still_valid(&room->entry))
		return 0;
	return !in_tunnel == (!room->entry.key.tunnel.high && !room->entry.key.tunnel.low);
}

/* From the interface address: the source becomes the home address that `find_translated` found. */
__noinline int translate_back(struct __sk_buff *skb, struct work *w)
{
	struct translating *room = translating_room();
	struct locum_address *home, *local;
	struct packet *p;

	if (!w || !room)
		return -1;
	p = &w->packet;
	home = &room->entry.key.home_address;
	local = icmp_error(p) ? &room->quoted.destination : &p->source;
	count_translation(&room->entry.key, 1, p->length);
	if (p->fragment && !p->later_fragment) {
		room->entry.seen = bpf_ktime_get_ns();
		room->entry.seal = translated_seal((const __u64 *)&room->fragment, &room->entry);
		bpf_map_update_elem(&translated_fragments, &room->fragment, &room->entry, BPF_ANY);
	}
	if (same(home, local))
		return 0;
	if (icmp_error(p)) {
		if (readdress_quoted(skb, p, &room->quoted, home, DESTINATION))
			return -1;
		if (!same(&p->source, &room->quoted.destination))
			return 0;
	}
	if (readdress(skb, p, &p->source, home, SOURCE))
		return -1;
	p->source = *home;
	return 0;
}

#endif

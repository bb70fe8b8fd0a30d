/* Packets that go where others go: later fragments have the ports of their packet's first fragment, and ICMP errors are of
 * the flow that they are about.
 *
 * Asked only where ports decide: at flows, the guard, flow rules and filters. A datagram never goes two ways: a later
 * fragment whose first is not known is dropped where its way depends on ports, and so is a second first fragment with
 * other ports. `locum.dataplane.model.following` is the same in Python.
 */
#ifndef LOCUM_FOLLOW_H
#define LOCUM_FOLLOW_H

#define IPPROTO_WITH_PORTS(P)                                                                                  \
	((P) == IPPROTO_TCP || (P) == IPPROTO_UDP || (P) == IPPROTO_DCCP || (P) == IPPROTO_SCTP || \
	 (P) == IPPROTO_UDPLITE)
#define PORTS (LOCUM_SOURCE_PORT | LOCUM_DESTINATION_PORT)
#define FRAGMENT_AGE (30ULL * 1000 * 1000 * 1000)

/* The home address that a packet is about. */
#define OF_DESTINATION 0
#define OF_SOURCE 1

/* One a CPU, as `works` is. */
struct following {
	struct locum_fragment_key key;
	struct locum_fragment own;
	struct locum_fragment first;
	struct quoted quoted;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct following);
} followings SEC(".maps");

static __always_inline void read_transport(struct __sk_buff *skb, const struct packet *p, struct transport *t)
{
	__u32 end = p->offset + p->length, at = p->payload;
	__be16 ports[2];
	__be32 spi;

	if (IPPROTO_WITH_PORTS(p->protocol)) {
		if (at + 8 > end || bpf_skb_load_bytes(skb, at, ports, 4))
			return;
		t->source_port = bpf_ntohs(ports[0]);
		t->destination_port = bpf_ntohs(ports[1]);
		t->known = PORTS;
	} else if (p->protocol == IPPROTO_ESP || p->protocol == IPPROTO_AH) {
		if (p->protocol == IPPROTO_AH)
			at += 4;
		if (at + 8 > end || bpf_skb_load_bytes(skb, at, &spi, 4))
			return;
		t->spi = bpf_ntohl(spi);
		t->known = LOCUM_SPI;
	}
}

static __always_inline bool has_parts(__u8 protocol)
{
	return IPPROTO_WITH_PORTS(protocol) || protocol == IPPROTO_ESP || protocol == IPPROTO_AH;
}

/* Whether fragments of this protocol may have ports or an SPI; behind extension headers only the first one tells. */
static __always_inline bool may_have_ports(__u8 protocol)
{
	return has_parts(protocol) || is_extension(protocol);
}

static __always_inline __u32 fragment_place(const struct locum_address *peer, __be32 identification)
{
	__u64 low = peer->high ^ peer->low;
	__u32 number = bpf_ntohl(identification);

	low ^= low >> 32;
	low ^= low >> 16;
	low ^= low >> 8;
	number += number >> 16; /* the 16 bits of IPv4 are the upper ones */
	return low % LOCUM_FRAGMENT_PEERS * LOCUM_FRAGMENT_NUMBERS + number % LOCUM_FRAGMENT_NUMBERS;
}

static __always_inline bool same_datagram(const struct locum_fragment *a, const struct locum_fragment *b)
{
	return same(&a->source, &b->source) && same(&a->destination, &b->destination) &&
	       a->identification == b->identification && a->header == b->header;
}

/* Over the words of the key and of the value. A copy of which another CPU has written a part meanwhile has another seal. */
__noinline __u64 fragment_seal(const struct locum_fragment_key *key, const struct locum_fragment *value)
{
	const __u64 *words = (const __u64 *)key;
	__u64 seal = 1;
	int i;

	if (!key || !value)
		return 0;
#pragma unroll
	for (i = 0; i < 3; i++)
		seal = stir(seal, words[i]);
	words = (const __u64 *)value;
#pragma unroll
	for (i = 0; i < 7; i++)
		seal = stir(seal, words[i]);
	return seal;
}

/* The place `f->key` among those of its home address, or NULL. */
static __always_inline struct locum_fragment *place_of(const struct following *f)
{
	struct locum_fragments *own;
	__u32 place = f->key.place;

	if (place >= LOCUM_FRAGMENT_PLACES)
		return NULL;
	own = bpf_map_lookup_elem(&first_fragments, &f->key.home_address);
	if (!own)
		return NULL;
	asm volatile("" : "+r"(own)); /* else the compiler adds before these checks, and the verifier refuses that */
	return &own->place[place];
}

/* Copies the first fragment that stands at `f->key` to `f->first`; false: none, or it is being replaced. */
static __always_inline bool recall_first(struct following *f)
{
	const struct locum_fragment *found = place_of(f);
	int i;

	if (!found)
		return false;
	for (i = 0; i < RECALLS; i++) {
		barrier();
		f->first = *found;
		if (f->first.seal == fragment_seal(&f->key, &f->first))
			return true;
	}
	return false;
}

/* Where there is no room its later fragments are dropped, as those of one that was not seen. */
static __always_inline void remember_first(struct following *f)
{
	struct locum_fragment *place = place_of(f);
	const struct locum_fragments *none;
	__u32 zero = 0;

	f->own.seal = fragment_seal(&f->key, &f->own);
	if (!place) {
		none = bpf_map_lookup_elem(&no_fragments, &zero);
		if (!none)
			return;
		bpf_map_update_elem(&first_fragments, &f->key.home_address, none, BPF_NOEXIST);
		place = place_of(f);
		if (!place)
			return;
	}
	*place = f->own;
}

static __always_inline void follow_first(struct work *w, const struct locum_fragment *first)
{
	struct packet *p = &w->packet;

	p->protocol = first->protocol;
	w->transport.spi = first->spi;
	w->transport.source_port = first->source_port;
	w->transport.destination_port = first->destination_port;
	w->transport.known = first->known;
	if (is_extension(p->protocol))
		p->unread = CHAIN_UNREAD;
	else if (has_parts(p->protocol) && !first->known)
		p->unread = TRANSPORT_UNREAD;
	if (p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP) {
		p->source_port = bpf_htons(first->source_port);
		p->destination_port = bpf_htons(first->destination_port);
	}
	w->follows = FOLLOWS;
	count_reason(FRAGMENT_FOLLOWS);
}

/* A fragment is remembered (the first one) or gets its ports (the others). Done once for each packet. */
__noinline int follow_fragment(struct work *w, __u32 of)
{
	struct packet *p;
	struct following *f;
	__u32 zero = 0;
	bool alike;

	if (!w || w->follows || !may_have_ports(w->packet.protocol))
		return 0;
	p = &w->packet;
	f = bpf_map_lookup_elem(&followings, &zero);
	if (!f)
		return 0;
	__builtin_memset(f, 0, sizeof(*f));
	f->key.home_address = of == OF_SOURCE ? p->source : p->destination;
	f->key.place = fragment_place(of == OF_SOURCE ? &p->destination : &p->source, p->identification);
	f->own.source = p->source;
	f->own.destination = p->destination;
	f->own.time = bpf_ktime_get_ns();
	f->own.identification = p->identification;
	f->own.header = p->family == 4 ? p->protocol : 0;
	alike = recall_first(f) && same_datagram(&f->first, &f->own) && f->own.time - f->first.time <= FRAGMENT_AGE;
	if (p->later_fragment) {
		if (alike)
			follow_first(w, &f->first);
		else
			w->follows = FOLLOWS_UNKNOWN;
		return 0;
	}
	w->follows = FOLLOWS;
	f->own.spi = w->transport.spi;
	f->own.source_port = w->transport.source_port;
	f->own.destination_port = w->transport.destination_port;
	f->own.known = w->transport.known;
	f->own.protocol = p->protocol;
	if (alike && (f->first.spi != f->own.spi || f->first.source_port != f->own.source_port ||
		      f->first.destination_port != f->own.destination_port || f->first.known != f->own.known ||
		      f->first.protocol != f->own.protocol)) {
		w->refused = FRAGMENT_CONFLICT;
		return 0;
	}
	remember_first(f);
	return 0;
}

/* An error goes the way of packets that answer the one that it quotes: to the quoted source, with its ports. One from a home
 * address is only of this host's flow if the quoted packet was sent there: else it is a router's. */
__noinline int follow_quoted(struct __sk_buff *skb, struct work *w, __u32 of)
{
	struct packet *p;
	struct following *f;
	__u32 zero = 0;
	__be16 ports[2];

	if (!w)
		return 0;
	p = &w->packet;
	f = bpf_map_lookup_elem(&followings, &zero);
	if (!f || read_quoted(skb, p, &f->quoted) || !same(&f->quoted.source, &p->destination) ||
	    (of == OF_SOURCE && !same(&f->quoted.destination, &p->source)))
		return 0;
	__builtin_memset(&w->about, 0, sizeof(w->about));
	w->about.local = f->quoted.source;
	w->about.peer = f->quoted.destination;
	w->about.protocol = f->quoted.protocol;
	w->follows = FOLLOWS_QUOTED;
	if (f->quoted.later_fragment || !IPPROTO_WITH_PORTS(f->quoted.protocol) ||
	    f->quoted.payload + 4 > (__u32)p->offset + p->length || bpf_skb_load_bytes(skb, f->quoted.payload, ports, 4))
		return 0;
	w->transport.source_port = bpf_ntohs(ports[1]);
	w->transport.destination_port = bpf_ntohs(ports[0]);
	w->transport.known = PORTS;
	if (w->about.protocol == IPPROTO_TCP || w->about.protocol == IPPROTO_UDP) {
		w->about.local_port = ports[0];
		w->about.peer_port = ports[1];
	}
	return 0;
}

/* What ports and SPI decide about this packet by, in w->transport. Sets w->refused for a fragment that may not go on. */
static __always_inline void find_transport(struct __sk_buff *skb, struct work *w, __u32 of)
{
	if (w->follows)
		return;
	__builtin_memset(&w->transport, 0, sizeof(w->transport));
	if (icmp_error(&w->packet) && !w->packet.fragment) {
		follow_quoted(skb, w, of);
		return;
	}
	if (!w->packet.later_fragment)
		read_transport(skb, &w->packet, &w->transport);
	if (w->packet.fragment)
		follow_fragment(w, of);
}

/* The flow of a packet to or from a home address, which is `local`. After find_transport. */
static __always_inline void flow_of(const struct work *w, __u32 of, struct locum_flow_key *key)
{
	const struct packet *p = &w->packet;
	bool from = of == OF_SOURCE;

	__builtin_memset(key, 0, sizeof(*key));
	if (w->follows == FOLLOWS_QUOTED) {
		key->local = from ? w->about.peer : w->about.local;
		key->peer = from ? w->about.local : w->about.peer;
		key->local_port = from ? w->about.peer_port : w->about.local_port;
		key->peer_port = from ? w->about.local_port : w->about.peer_port;
		key->protocol = w->about.protocol;
		return;
	}
	key->local = from ? p->source : p->destination;
	key->peer = from ? p->destination : p->source;
	key->local_port = from ? p->source_port : p->destination_port;
	key->peer_port = from ? p->destination_port : p->source_port;
	key->protocol = p->protocol;
}

/* Where ports decide and are not known, because a packet's first fragment is not. */
static __always_inline bool lacks_first(struct work *w)
{
	if (w->follows != FOLLOWS_UNKNOWN)
		return false;
	w->refused = FRAGMENT_UNKNOWN;
	return true;
}

#endif

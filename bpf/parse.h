/* A packet's addresses, protocol and ports. Reads through bpf_skb_load_bytes, so paged data needs no pull.
 * parse_packet returns 0, or -1 for all but whole IP packets: these are never ours. Of a packet whose further headers cannot be
 * read, `unread` tells that: it has addresses, and is forwarded by them, but passes no filter.
 */
#ifndef LOCUM_PARSE_H
#define LOCUM_PARSE_H

#define ETHERNET 14
/* Length of the link-layer header before the packet. LOCUM_BARE: this object is for packets that leave by links without one. */
#ifdef LOCUM_BARE
#define LINK_HEADER 0
#else
#define LINK_HEADER ETHERNET
#endif
#define MAX_EXTENSIONS 8
#define PORT_REGISTRATION 434
#define MIP_TUNNEL_DATA 4
#define IPPROTO_MINIMAL 55 /* RFC 2004 */

#define CHAIN_UNREAD 1     /* extension headers go on past their limit, the packet or the fragment: the protocol is one of them */
#define TRANSPORT_UNREAD 2 /* the fixed part of the upper-layer header is not whole */

struct packet {
	struct locum_address source;
	struct locum_address destination;
	__u32 length;  /* from the network header on, by that header */
	__u16 offset;  /* of the network header */
	__u16 payload; /* offset of the payload after the IP headers */
	__be16 source_port;
	__be16 destination_port;
	__u8 family; /* 4 or 6 */
	__u8 protocol;
	__u8 tos;
	__u8 hops; /* TTL or hop limit */
	__u8 fragment;
	__u8 later_fragment;
	__u8 registration; /* UDP port 434, message type 1 or 3; 255: the answer to a call */
	__u8 type;         /* ICMP: its type; UDP port 434: the message's */
	__u8 unread;
	__u8 source_routed; /* by a routing header of type 0 */
	__u8 unsound; /* the checksum of its IPv4 header is wrong */
	__u8 detours;       /* by other source routes, with destinations that no rule is compared with */
	__u16 route;        /* offset of a routing header that names another final destination; 0: none */
	__u32 identification; /* of a fragmented packet, network order */
	__u32 flow_label;
};

static __always_inline struct locum_address mapped(__be32 v4)
{
	struct locum_address a = {0, ((__u64)v4 << 32) | bpf_htonl(0x0000ffff)};

	return a;
}

static __always_inline bool is_v4(const struct locum_address *a)
{
	return !a->high && (__u32)a->low == bpf_htonl(0x0000ffff);
}

static __always_inline __be32 v4_of(const struct locum_address *a)
{
	return a->low >> 32;
}

static __always_inline bool same(const struct locum_address *a, const struct locum_address *b)
{
	return a->high == b->high && a->low == b->low;
}

static __always_inline __u8 first_byte(const struct locum_address *a)
{
	return a->high & 0xff;
}

/* Multicast, broadcast, link-local, loopback, unspecified: never a home address, never forwarded by us. */
static __always_inline bool stays_on_link(const struct locum_address *a)
{
	if (is_v4(a)) {
		__u32 v4 = bpf_ntohl(v4_of(a));

		return v4 >> 28 >= 0xe || v4 >> 24 == 127 || v4 >> 24 == 0 || v4 >> 16 == 0xa9fe;
	}
	if (first_byte(a) == 0xff)
		return true;
	if ((bpf_be64_to_cpu(a->high) >> 54) == 0x3fa) /* fe80::/10 */
		return true;
	return !a->high && bpf_be64_to_cpu(a->low) <= 1;
}

/* Why the packet goes nowhere: a reason; 0: it may go on. A mapped address would meet the entries of an IPv4 address. */
static __always_inline __u32 refused(const struct packet *p)
{
	if (p->family != 6)
		return 0;
	if (is_v4(&p->source) || is_v4(&p->destination))
		return MAPPED_ADDRESS;
	return p->source_routed ? ROUTING_HEADER : 0;
}

/* A router sends on IPv4 packets to and from link-local and class E addresses. */
static __always_inline bool is_routed(const struct locum_address *a)
{
	__u32 v4;

	if (!stays_on_link(a))
		return true;
	v4 = is_v4(a) ? bpf_ntohl(v4_of(a)) : 0;
	return v4 >> 16 == 0xa9fe || (v4 >> 28 == 0xf && v4 != 0xffffffff);
}

/* From a neighbour, and not sent on: RFC 4861 section 7.1 demands the hop limit. */
static __always_inline bool neighbour_discovery(const struct packet *p)
{
	return p->family == 6 && p->protocol == IPPROTO_ICMPV6 && p->type >= 133 && p->type <= 137 && p->hops == 255;
}

/* Bytes of the fixed part of an upper-layer header; all of them stand in the first fragment (RFC 7112 section 5). */
static __always_inline __u32 transport_bytes(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return 20;
	case IPPROTO_SCTP:
	case IPPROTO_DCCP:
	case IPPROTO_AH:
		return 12;
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_ESP:
		return 8;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return 4;
	}
	return 0;
}

static __always_inline void parse_transport(struct __sk_buff *skb, struct packet *p)
{
	__u8 bytes[12];
	__u32 end = p->offset + p->length;

	if (p->later_fragment || p->unread)
		return;
	if (p->payload + transport_bytes(p->protocol) > end)
		p->unread = TRANSPORT_UNREAD;
	if (p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP) {
		__be16 ports[2];

		if (p->payload + 8 > end || bpf_skb_load_bytes(skb, p->payload, ports, 4))
			return;
		p->source_port = ports[0];
		p->destination_port = ports[1];
		if (p->protocol == IPPROTO_UDP &&
		    (ports[0] == bpf_htons(PORT_REGISTRATION) || ports[1] == bpf_htons(PORT_REGISTRATION)) &&
		    p->payload + 9 <= end && !bpf_skb_load_bytes(skb, p->payload + 8, bytes, 1)) {
			p->type = bytes[0];
			p->registration = bytes[0] == 1 || bytes[0] == 3 || bytes[0] == 255;
		}
	} else if (p->protocol == IPPROTO_ICMP || p->protocol == IPPROTO_ICMPV6) {
		if (p->payload + 4 <= end && !bpf_skb_load_bytes(skb, p->payload, bytes, 1))
			p->type = bytes[0];
	}
}

#define OPTION_WORDS 10 /* the most of an IPv4 header */

struct option_words {
	struct __sk_buff *skb;
	__u32 at;
	__u32 words;
	__u64 sum;
};

static long add_option(__u32 number, struct option_words *o)
{
	__u32 word;

	if (number >= o->words || bpf_skb_load_bytes(o->skb, o->at + number * 4, &word, 4))
		return 1;
	o->sum += word;
	return 0;
}

/* True if the header with these first bytes has a wrong checksum. Packets with GSO were merged, or are not finished: theirs is right. */
static __always_inline bool wrong_sum(struct __sk_buff *skb, const struct iphdr *ip, __u32 at)
{
	const __u32 *word = (const __u32 *)ip;
	__u64 sum = (__u64)word[0] + word[1] + word[2] + word[3] + word[4];

	if (skb->gso_size)
		return false;
	if (ip->ihl > 5) {
		struct option_words o = {skb, at + sizeof(*ip), ip->ihl - 5, sum};

		bpf_loop(OPTION_WORDS, add_option, &o, 0);
		sum = o.sum;
	}
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16) != 0xffff;
}

#define LOOSE_ROUTE 131
#define STRICT_ROUTE 137

struct option_search {
	struct __sk_buff *skb;
	__u32 at;
	__u32 end;
	__u32 found;
};

static long try_option(__u32 number, struct option_search *s)
{
	__u8 option[2];

	if (s->at + 2 > s->end || bpf_skb_load_bytes(s->skb, s->at, option, 2) || !option[0])
		return 1;
	if (option[0] == LOOSE_ROUTE || option[0] == STRICT_ROUTE) {
		s->found = 1;
		return 1;
	}
	if (option[0] != 1 && option[1] < 2)
		return 1;
	s->at += option[0] == 1 ? 1 : option[1];
	return 0;
}

/* Whether one of the options from `at` to `end` is a source route (RFC 791 section 3.1, RFC 7126 sections 4.3 and 4.4). */
static __always_inline bool has_source_route(struct __sk_buff *skb, __u32 at, __u32 end)
{
	struct option_search s = {skb, at, end, 0};

	bpf_loop(OPTION_WORDS * 4, try_option, &s, 0);
	return s.found;
}

static __always_inline int parse_v4(struct __sk_buff *skb, struct packet *p, __u32 available)
{
	struct iphdr ip;
	__u32 header;

	if (available < sizeof(ip) || bpf_skb_load_bytes(skb, p->offset, &ip, sizeof(ip)))
		return -1;
	header = ip.ihl * 4;
	p->length = bpf_ntohs(ip.tot_len);
	if (!p->length && skb->gso_size)
		p->length = available; /* of segments that are more than 64 KiB together, before they are cut */
	if (ip.version != 4 || header < sizeof(ip) || p->length < header || p->length > available)
		return -1;
	p->source = mapped(ip.saddr);
	p->destination = mapped(ip.daddr);
	p->family = 4;
	p->protocol = ip.protocol;
	p->tos = ip.tos;
	p->hops = ip.ttl;
	p->fragment = !!(ip.frag_off & bpf_htons(0x3fff));
	p->later_fragment = !!(ip.frag_off & bpf_htons(0x1fff));
	p->identification = ip.id;
	p->payload = p->offset + header;
	p->unsound = wrong_sum(skb, &ip, p->offset);
	p->detours = header > sizeof(ip) && has_source_route(skb, p->offset + sizeof(ip), p->payload);
	return 0;
}

/* The final destination is the first address after the header in types 2 (RFC 6275) and 4 (RFC 8754), and the only one that is
 * left if one segment is. */
static __always_inline void note_route(struct packet *p, const __u8 *ext, __u32 at)
{
	if (!ext[3]) /* segments left */
		return;
	if (!ext[2])
		p->source_routed = 1;
	if ((ext[2] != 2 && ext[2] != 4) || ext[1] < 2 || ext[3] > 1 || p->route)
		p->detours = 1;
	if ((ext[2] == 2 || ext[2] == 4) && ext[1] >= 2)
		p->route = at;
}

static __always_inline bool is_extension(__u8 kind)
{
	return kind == IPPROTO_HOPOPTS || kind == IPPROTO_ROUTING || kind == IPPROTO_DSTOPTS ||
	       kind == IPPROTO_FRAGMENT;
}

static __always_inline int parse_v6(struct __sk_buff *skb, struct packet *p, __u32 available)
{
	struct ipv6hdr ip;
	__u32 at, end;
	__u8 ext[8];
	int i;

	if (available < sizeof(ip) || bpf_skb_load_bytes(skb, p->offset, &ip, sizeof(ip)))
		return -1;
	p->length = bpf_ntohs(ip.payload_len) + sizeof(ip);
	if (!ip.payload_len && skb->gso_size)
		p->length = available; /* as above; all other jumbograms (RFC 2675) have an unread chain */
	if (ip.version != 6 || p->length > available)
		return -1;
	__builtin_memcpy(&p->source, &ip.saddr, 16);
	__builtin_memcpy(&p->destination, &ip.daddr, 16);
	p->family = 6;
	p->tos = (ip.priority << 4) | (ip.flow_lbl[0] >> 4);
	p->flow_label = (ip.flow_lbl[0] & 0xf) << 16 | ip.flow_lbl[1] << 8 | ip.flow_lbl[2];
	p->hops = ip.hop_limit;
	p->protocol = ip.nexthdr;
	at = p->offset + sizeof(ip);
	end = p->offset + p->length;
	for (i = 0; i < MAX_EXTENSIONS; i++) {
		__u8 kind = p->protocol;

		if (!is_extension(kind) || at + 8 > end || bpf_skb_load_bytes(skb, at, ext, sizeof(ext)))
			break;
		if (kind == IPPROTO_FRAGMENT) {
			__u16 field = (ext[2] << 8) | ext[3];

			p->fragment |= !!(field & 0xfff9);
			p->later_fragment |= !!(field & 0xfff8);
			__builtin_memcpy(&p->identification, ext + 4, 4);
			at += 8;
		} else if (at + (ext[1] + 1) * 8 > end) {
			break;
		} else {
			if (kind == IPPROTO_ROUTING)
				note_route(p, ext, at);
			at += (ext[1] + 1) * 8;
		}
		p->protocol = ext[0];
		if (p->later_fragment)
			break;
	}
	if (!p->later_fragment && is_extension(p->protocol))
		p->unread = CHAIN_UNREAD;
	p->payload = at;
	return 0;
}

/* Network header at `offset`; family 4 or 6, as the layer below said.
 *
 * Global, as most functions are that are no small part of another: the verifier goes through such a function once, and through
 * a static one at each call in each state of its caller. Its time is most of a daemon's start (tests/dataplane/kernel/test_start_cost.py).
 * A global function gets no arguments but numbers, the packet and pointers to a whole struct, asks whether these are NULL, and
 * copies what is to be a key of a map to its stack: Linux 6.1 takes none from its arguments.
 */
__noinline int parse_packet(struct __sk_buff *skb, struct packet *p, __u32 offset, __u32 end, __u32 family)
{
	int failed;

	if (!p)
		return -1;
	__builtin_memset(p, 0, sizeof(*p));
	if (offset > 0xfff || end < offset)
		return -1;
	p->offset = offset;
	failed = family == 4 ? parse_v4(skb, p, end - offset) : parse_v6(skb, p, end - offset);
	if (failed)
		return -1;
	parse_transport(skb, p);
	return 0;
}

/* The content of a packet to one of our tunnel end points. */
struct tunnelled {
	__u16 inner;  /* offset of the inner network header */
	__u8 family;  /* of the inner packet; 0: not a tunnel packet */
	__u8 encapsulation;
	__u8 malformed;
	__u8 keyed; /* with this GRE key */
	__be32 gre_key;
	__u16 covered; /* where the part begins that the tunnel's own checksum covers; 0: it has none */
};

static __always_inline void parse_gre(struct __sk_buff *skb, const struct packet *p, struct tunnelled *t)
{
	__be16 gre[2];
	__u32 length = 4;

	t->encapsulation = GRE;
	if (bpf_skb_load_bytes(skb, p->payload, gre, 4) || (gre[0] & bpf_htons(0x4c07))) {
		t->malformed = 1; /* bits of RFC 1701, or another version (RFC 2784 sections 2.3 and 2.3.1) */
		return;
	}
	if (gre[0] & bpf_htons(0x8000)) {
		t->covered = p->payload;
		length += 4;
	}
	if (gre[0] & bpf_htons(0x2000)) {
		t->keyed = 1;
		if (bpf_skb_load_bytes(skb, p->payload + length, &t->gre_key, 4))
			t->malformed = 1;
		length += 4;
	}
	if (gre[0] & bpf_htons(0x1000))
		length += 4;
	t->inner = p->payload + length;
	if (t->malformed)
		return;
	if (gre[1] == bpf_htons(ETH_P_IP))
		t->family = 4;
	else if (gre[1] == bpf_htons(ETH_P_IPV6))
		t->family = 6;
	else
		t->malformed = 1;
}

static __always_inline void parse_mip_tunnel(struct __sk_buff *skb, const struct packet *p, struct tunnelled *t)
{
	__u8 header[6]; /* checksum; RFC 3519 section 3.2: type, next header, reserved */

	t->encapsulation = UDP;
	t->inner = p->payload + 12;
	if (bpf_skb_load_bytes(skb, p->payload + 6, header, 6)) {
		t->malformed = 1;
		return;
	}
	if (header[0] | header[1])
		t->covered = p->payload;
	if (header[3] == IPPROTO_IPIP)
		t->family = 4;
	else if (header[3] == IPPROTO_IPV6)
		t->family = 6;
	else
		t->malformed = 1;
}

/* A first fragment without the byte that tells. */
static __always_inline bool may_be_tunnel(const struct packet *p)
{
	const __be16 port = bpf_htons(PORT_REGISTRATION);

	return p->fragment && !p->later_fragment && p->payload + 9 > (__u32)p->offset + p->length &&
	       (p->unread || p->source_port == port || p->destination_port == port);
}

/* Is this, addressed to an end point, a tunnel packet? Sets malformed or family if so; -1 if not. */
static __always_inline int parse_tunnel(struct __sk_buff *skb, const struct packet *p, struct tunnelled *t)
{
	__builtin_memset(t, 0, sizeof(*t));
	switch (p->protocol) {
	case IPPROTO_IPIP:
		t->family = 4;
		t->inner = p->payload;
		break;
	case IPPROTO_IPV6:
		t->family = 6;
		t->inner = p->payload;
		break;
	case IPPROTO_MINIMAL: /* `widen` reads it */
		if (p->family != 4)
			return -1;
		t->family = 4;
		t->inner = p->payload;
		break;
	case IPPROTO_GRE:
		if (!p->fragment)
			parse_gre(skb, p, t);
		break;
	case IPPROTO_UDP:
		if (p->type != MIP_TUNNEL_DATA)
			return may_be_tunnel(p) ? 0 : -1;
		parse_mip_tunnel(skb, p, t);
		break;
	default:
		return -1;
	}
	return 0;
}

#endif

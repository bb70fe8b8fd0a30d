/* A packet's addresses, protocol and ports. Reads through bpf_skb_load_bytes, so paged data needs no pull.
 * parse_packet returns 0, or -1 for all but whole IP packets: these are never ours.
 */
#ifndef LOCUM_PARSE_H
#define LOCUM_PARSE_H

#define ETHERNET 14
#define MAX_EXTENSIONS 8
#define PORT_REGISTRATION 434
#define MIP_TUNNEL_DATA 4

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
	__u8 registration; /* UDP port 434, message type 1 or 3 */
	__u8 type;         /* ICMP: its type; UDP port 434: the message's */
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

static __always_inline bool neighbour_discovery(const struct packet *p)
{
	return p->family == 6 && p->protocol == IPPROTO_ICMPV6 && p->type >= 133 && p->type <= 137;
}

static __always_inline void parse_transport(struct __sk_buff *skb, struct packet *p)
{
	__u8 bytes[12];
	__u32 end = p->offset + p->length;

	if (p->later_fragment)
		return;
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
			p->registration = bytes[0] == 1 || bytes[0] == 3;
		}
	} else if (p->protocol == IPPROTO_ICMP || p->protocol == IPPROTO_ICMPV6) {
		if (p->payload + 4 <= end && !bpf_skb_load_bytes(skb, p->payload, bytes, 1))
			p->type = bytes[0];
	}
}

static __always_inline int parse_v4(struct __sk_buff *skb, struct packet *p, __u32 available)
{
	struct iphdr ip;
	__u32 header;

	if (available < sizeof(ip) || bpf_skb_load_bytes(skb, p->offset, &ip, sizeof(ip)))
		return -1;
	header = ip.ihl * 4;
	p->length = bpf_ntohs(ip.tot_len);
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
	return 0;
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

		if (kind != IPPROTO_HOPOPTS && kind != IPPROTO_ROUTING && kind != IPPROTO_DSTOPTS &&
		    kind != IPPROTO_FRAGMENT)
			break;
		if (at + 8 > end || bpf_skb_load_bytes(skb, at, ext, sizeof(ext)))
			return -1;
		p->protocol = ext[0];
		if (kind == IPPROTO_FRAGMENT) {
			__u16 field = (ext[2] << 8) | ext[3];

			p->fragment |= !!(field & 0xfff9);
			p->later_fragment |= !!(field & 0xfff8);
			__builtin_memcpy(&p->identification, ext + 4, 4);
			at += 8;
			if (p->later_fragment)
				break;
		} else {
			at += (ext[1] + 1) * 8;
		}
		if (at > end)
			return -1;
	}
	p->payload = at;
	return 0;
}

/* Network header at `offset`; family 4 or 6, as the layer below said. Global, as `encapsulate` and `deliver` are: the
 * verifier goes through such a function once, not once for every way to it, and a daemon starts in half the time. */
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
};

static __always_inline void parse_gre(struct __sk_buff *skb, const struct packet *p, struct tunnelled *t)
{
	__be16 gre[2];
	__u32 length = 4;

	t->encapsulation = GRE;
	if (bpf_skb_load_bytes(skb, p->payload, gre, 4) || (gre[0] & bpf_htons(0x4007))) {
		t->malformed = 1; /* routing bit or another version (RFC 2784 section 2.3.1) */
		return;
	}
	if (gre[0] & bpf_htons(0x8000))
		length += 4;
	if (gre[0] & bpf_htons(0x2000))
		length += 4;
	if (gre[0] & bpf_htons(0x1000))
		length += 4;
	t->inner = p->payload + length;
	if (gre[1] == bpf_htons(ETH_P_IP))
		t->family = 4;
	else if (gre[1] == bpf_htons(ETH_P_IPV6))
		t->family = 6;
	else
		t->malformed = 1;
}

static __always_inline void parse_mip_tunnel(struct __sk_buff *skb, const struct packet *p, struct tunnelled *t)
{
	__u8 header[4]; /* RFC 3519 section 3.2: type, next header, reserved */

	t->encapsulation = UDP;
	t->inner = p->payload + 12;
	if (bpf_skb_load_bytes(skb, p->payload + 8, header, 4))
		t->malformed = 1;
	else if (header[1] == IPPROTO_IPIP)
		t->family = 4;
	else if (header[1] == IPPROTO_IPV6)
		t->family = 6;
	else
		t->malformed = 1;
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
	case IPPROTO_GRE:
		if (!p->fragment)
			parse_gre(skb, p, t);
		break;
	case IPPROTO_UDP:
		if (p->type != MIP_TUNNEL_DATA)
			return -1;
		parse_mip_tunnel(skb, p, t);
		break;
	default:
		return -1;
	}
	return 0;
}

#endif

/* Packets that go into no tunnel, because they would come back for ever.
 *
 * RFC 2003 section 3.2 forbids to tunnel a packet from the encapsulating node itself, or from the end of the tunnel. Two nodes
 * that send each other's tunnel packets into tunnels are not found by that: each time around, the packet is in one tunnel more.
 * So a packet that is in LOCUM_NESTING tunnels goes into no other: the default of RFC 2473 section 6.6, without its
 * option, which IPv4 has not. That option of others is honoured where it says 0.
 */
#ifndef LOCUM_NESTING_H
#define LOCUM_NESTING_H

#define LOCUM_NESTING 4
#define OPTIONS 8 /* that are read of a header before the encapsulation limit */
#define PAD1 0
#define ENCAPSULATION_LIMIT 4

/* The way through a packet's headers or options, one a round: Linux 6.1 would verify each round of a loop anew. */
struct descent {
	struct __sk_buff *skb;
	__u32 at;
	__u32 end;
	__u32 found;
	__u8 protocol;
};

static long next_option(__u32 number, struct descent *d)
{
	__u8 option[3];

	if (d->at + 3 > d->end || bpf_skb_load_bytes(d->skb, d->at, option, 3))
		return 1;
	if (option[0] == ENCAPSULATION_LIMIT && option[1] == 1) {
		d->found = !option[2];
		return 1;
	}
	d->at += option[0] == PAD1 ? 1 : 2 + option[1];
	return 0;
}

/* The outermost header is one of destination options, with an encapsulation limit of 0 (RFC 2473 section 4.1.1). */
static __noinline bool at_its_limit(struct __sk_buff *skb, const struct packet *p)
{
	struct descent d = {skb, p->offset + sizeof(struct ipv6hdr), 0, 0, 0};
	__u8 head[2];

	if (p->family != 6 || p->payload <= d.at ||
	    bpf_skb_load_bytes(skb, p->offset + offsetof(struct ipv6hdr, nexthdr), head, 1) ||
	    head[0] != IPPROTO_DSTOPTS || bpf_skb_load_bytes(skb, d.at, head, 2))
		return false;
	d.end = d.at + (head[1] + 1) * 8;
	d.at += 2;
	bpf_loop(OPTIONS, next_option, &d, 0);
	return d.found;
}

/* Length of the header between a tunnel's outer IP header and the inner packet; -1: this is no tunnel packet. */
static __always_inline int between(struct __sk_buff *skb, __u32 at, __u8 protocol)
{
	__be16 port[2];
	__u8 head[2];

	switch (protocol) {
	case IPPROTO_IPIP:
	case IPPROTO_IPV6:
		return 0;
	case IPPROTO_GRE:
		if (bpf_skb_load_bytes(skb, at, head, 1))
			return -1;
		return 4 + (head[0] >> 7 & 1) * 4 + (head[0] >> 5 & 1) * 4 + (head[0] >> 4 & 1) * 4;
	case IPPROTO_UDP:
		if (bpf_skb_load_bytes(skb, at, port, 4) || bpf_skb_load_bytes(skb, at + 8, head, 1))
			return -1;
		if (port[0] != bpf_htons(PORT_REGISTRATION) && port[1] != bpf_htons(PORT_REGISTRATION))
			return -1;
		return head[0] == MIP_TUNNEL_DATA ? 12 : -1;
	}
	return -1;
}

static long next_tunnel(__u32 number, struct descent *d)
{
	int more = between(d->skb, d->at, d->protocol);
	__u8 head[10];

	if (d->protocol == IPPROTO_MINIMAL && !bpf_skb_load_bytes(d->skb, d->at, head, 2)) { /* with no header of its own inside */
		d->protocol = head[0];
		d->at += head[1] & SOURCE_PRESENT ? sizeof(struct minimal) : offsetof(struct minimal, source);
		d->found++;
		return 0;
	}
	if (more < 0 || bpf_skb_load_bytes(d->skb, d->at + more, head, sizeof(head)))
		return 1;
	if (head[0] >> 4 == 4) {
		d->protocol = head[9];
		d->at += more + (head[0] & 0xf) * 4;
	} else {
		d->protocol = head[6];
		d->at += more + sizeof(struct ipv6hdr);
	}
	d->found++;
	return 0;
}

/* The packet is in so many tunnels that it goes into no other. IPv6 headers inside with extensions end the count. */
static __noinline bool too_deep(struct __sk_buff *skb, const struct packet *p)
{
	struct descent d = {skb, p->payload, 0, 0, p->protocol};

	bpf_loop(LOCUM_NESTING, next_tunnel, &d, 0);
	return d.found >= LOCUM_NESTING;
}

/* Why the packet may not go into this tunnel: a reason; 0: it may. The end of a tunnel in UDP may be a NAT, which speaks for
 * others as well. */
static __noinline __u32 circular(struct __sk_buff *skb, const struct work *w, const struct locum_tunnel *t)
{
	const struct packet *p = &w->packet;

	if (t->encapsulation != UDP && same(&p->source, &t->destination))
		return TUNNEL_LOOP;
	if ((w->flags & FORWARDED) && !(w->flags & FROM_TAP) && same(&p->source, &t->source))
		return TUNNEL_LOOP;
	if (p->later_fragment)
		return 0;
	switch (p->protocol) {
	case IPPROTO_IPIP:
	case IPPROTO_IPV6:
	case IPPROTO_GRE:
	case IPPROTO_MINIMAL:
		break;
	case IPPROTO_UDP:
		if (p->type == MIP_TUNNEL_DATA)
			break;
	default:
		return at_its_limit(skb, p) ? NESTING_LIMIT : 0;
	}
	return too_deep(skb, p) || at_its_limit(skb, p) ? NESTING_LIMIT : 0;
}

#endif

/* The packet that an ICMP error quotes (RFC 792, RFC 4443). `locum.dataplane.model.quoted` is the same in Python. */
#ifndef LOCUM_QUOTED_H
#define LOCUM_QUOTED_H

/* The packet that an ICMP error is about: only its addresses, protocol and ports are sure to be there. */
struct quoted {
	struct locum_address source;
	struct locum_address destination;
	__u32 offset;
	__u32 payload;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 later_fragment;
	__u8 family;
};

static __always_inline bool icmp_error(const struct packet *p)
{
	if (p->protocol == IPPROTO_ICMP)
		return p->type == 3 || p->type == 4 || p->type == 5 || p->type == 11 || p->type == 12;
	return p->protocol == IPPROTO_ICMPV6 && p->type >= 1 && p->type <= 4;
}

static __always_inline bool icmp_with_identifier(__u8 protocol, __u8 type)
{
	if (protocol == IPPROTO_ICMP)
		return type == 0 || type == 8 || type == 13 || type == 14;
	return protocol == IPPROTO_ICMPV6 && (type == 128 || type == 129);
}

static __always_inline int quoted_ports(struct __sk_buff *skb, struct quoted *q, __u32 end)
{
	__be16 words[4];

	if (q->later_fragment || q->payload + 8 > end || bpf_skb_load_bytes(skb, q->payload, words, 8))
		return 0;
	if (q->protocol == IPPROTO_TCP || q->protocol == IPPROTO_UDP) {
		q->source_port = words[0];
		q->destination_port = words[1];
	} else if (icmp_with_identifier(q->protocol, bpf_ntohs(words[0]) >> 8)) {
		q->source_port = q->destination_port = words[2];
	}
	return 0;
}

/* The packet quoted in the error `p`; -1: too short a quote. */
__noinline int read_quoted(struct __sk_buff *skb, const struct packet *p, struct quoted *q)
{
	__u32 end, at;
	struct ipv6hdr six;
	struct iphdr four;
	__u8 ext[4];

	if (!p || !q)
		return -1;
	__builtin_memset(q, 0, sizeof(*q));
	end = p->offset + p->length;
	at = p->payload + 8;
	q->offset = at;
	q->family = p->family;
	if (p->family == 4) {
		if (at + sizeof(four) > end || bpf_skb_load_bytes(skb, at, &four, sizeof(four)))
			return -1;
		if (four.version != 4 || four.ihl < 5)
			return -1;
		q->source = mapped(four.saddr);
		q->destination = mapped(four.daddr);
		q->protocol = four.protocol;
		q->later_fragment = !!(four.frag_off & bpf_htons(0x1fff));
		q->payload = at + four.ihl * 4;
		return quoted_ports(skb, q, end);
	}
	if (at + sizeof(six) > end || bpf_skb_load_bytes(skb, at, &six, sizeof(six)) || six.version != 6)
		return -1;
	__builtin_memcpy(&q->source, &six.saddr, 16);
	__builtin_memcpy(&q->destination, &six.daddr, 16);
	q->protocol = six.nexthdr;
	q->payload = at + sizeof(six);
	if (q->protocol == IPPROTO_FRAGMENT) {
		if (q->payload + 8 > end || bpf_skb_load_bytes(skb, q->payload, ext, sizeof(ext)))
			return -1;
		q->protocol = ext[0];
		q->later_fragment = !!((ext[2] << 8 | ext[3]) & 0xfff8);
		q->payload += 8;
	}
	return quoted_ports(skb, q, end);
}

#endif

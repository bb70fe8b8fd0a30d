/* Sizes: of a tunnel's headers, and of the packets that a GSO packet stands for. */
#ifndef LOCUM_SIZES_H
#define LOCUM_SIZES_H

#define MIN_IPV6_MTU 1280

/* A minimal tunnel leaves as much to a packet as IP in IP, for that is how fragments go through it. */
static __always_inline __u32 overhead_of(const struct locum_tunnel *t)
{
	__u32 bytes = is_v4(&t->destination) ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);

	if (t->encapsulation == GRE)
		bytes += t->has_key ? 8 : 4;
	else if (t->encapsulation == UDP)
		bytes += 12;
	return bytes;
}

/* Length of one segment, headers included; of the packet if it is not GSO. */
static __always_inline __u32 segment_length(struct __sk_buff *skb, const struct packet *p)
{
	__u32 headers = p->payload - p->offset;
	__u8 offset;

	if (!skb->gso_size)
		return p->length;
	if (p->protocol != IPPROTO_TCP)
		return headers + 8 + skb->gso_size;
	if (bpf_skb_load_bytes(skb, p->payload + 12, &offset, 1))
		return p->length;
	return headers + (offset >> 4) * 4 + skb->gso_size;
}

/* May not be refused for its size: RFC 8200 section 5. */
static __always_inline bool is_minimal(const struct __sk_buff *skb, const struct packet *p)
{
	return p->family == 6 && p->length <= MIN_IPV6_MTU && !skb->gso_size;
}

/* Only a TCP packet with GSO: its segments can be made smaller. */
static __always_inline bool is_shrinkable(const struct __sk_buff *skb, const struct packet *p)
{
	return skb->gso_size && p->protocol == IPPROTO_TCP;
}

#endif

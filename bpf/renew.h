/* Packets whose segmentation state is of a tunnel that they have left.
 *
 * The kernel marks a GSO packet in a tunnel with the shape of that tunnel. bpf_skb_adjust_room takes the headers away and
 * leaves the mark: the kernel then refuses another shape (EALREADY), and cuts UDP datagrams at the wrong place. Only its own
 * decapsulation takes the mark away. So the frame goes, whole, through one: an IPv6 packet to a segment of this host's
 * (RFC 8986 section 4.10, End.DX2) on a device of its own. Its egress program, `locum_renewed`, sends the frame back
 * to the ingress that it came from. The source of its link-layer header has the index of that interface meanwhile.
 */
#ifndef LOCUM_RENEW_H
#define LOCUM_RENEW_H

#define IPPROTO_ETHERNET_FRAME 143
#define RENEWAL_FLOWS 1024
#define RENEWAL_FOLLOWS 4 /* ticks of the kernel's clock: at least 3 ms, at most 40 */
#define RENEWAL_SOURCE 0x4c02 /* of a renewed frame, in memory: 02:4c, then the index */

struct renewal_header { /* of the IPv6 packet, and of the frame in it */
	struct ipv6hdr ip;
	struct ethhdr frame;
} __attribute__((packed));

struct renewal_source {
	__u16 kind;
	__u32 ifindex;
} __attribute__((packed));

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct locum_renewal);
} renewal SEC(".maps");

/* When a packet of such a flow was renewed last: small packets behind it go the same way, so that none overtakes it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RENEWAL_FLOWS);
	__type(key, __u32);
	__type(value, __u64);
} renewed_flows SEC(".maps");

static __always_inline bool in_renewal(struct __sk_buff *skb, const struct packet *p)
{
	__u64 both = p->source.low ^ p->source.high ^ p->destination.low ^ p->destination.high, now = bpf_jiffies64(), *last;
	__u32 index = both ^ both >> 32 ^ p->source_port ^ p->destination_port;

	index = (index ^ index >> 10 ^ index >> 20) % RENEWAL_FLOWS;
	last = bpf_map_lookup_elem(&renewed_flows, &index);
	if (!last)
		return false;
	if (skb->gso_size)
		*last = now;
	return now - *last < RENEWAL_FOLLOWS;
}

/* Send the frame through the renewal. 0: it goes on as it is, because it needs none or there is none. */
__noinline int renew(struct __sk_buff *skb, struct work *w)
{
	struct renewal_header head;
	struct renewal_source source;
	struct locum_renewal *r;
	__u32 zero = 0;

	if (!w || w->flags & (RENEWED | AT_EGRESS) || !in_renewal(skb, &w->packet))
		return 0;
	r = bpf_map_lookup_elem(&renewal, &zero);
	if (!r || !r->ifindex || skb->len > 0xffff)
		return 0;
	__builtin_memset(&head, 0, sizeof(head));
	if (bpf_skb_load_bytes(skb, 0, &head.frame, sizeof(head.frame)))
		return 0;
	__builtin_memcpy(&source, head.frame.h_source, sizeof(source));
	if (source.kind == RENEWAL_SOURCE && source.ifindex == skb->ifindex)
		return 0; /* it has been there, and lost its mark */
	source.kind = RENEWAL_SOURCE;
	source.ifindex = skb->ifindex;
	__builtin_memcpy(head.frame.h_source, &source, sizeof(source));
	head.ip.version = 6;
	head.ip.payload_len = bpf_htons(skb->len);
	head.ip.nexthdr = IPPROTO_ETHERNET_FRAME;
	head.ip.hop_limit = 64;
	head.ip.saddr.in6_u.u6_addr32[0] = bpf_htonl(0xfe800000);
	head.ip.saddr.in6_u.u6_addr32[3] = bpf_htonl(LOCUM_RENEWAL_SOURCE);
	head.ip.daddr.in6_u.u6_addr32[0] = bpf_htonl(0xfe800000);
	head.ip.daddr.in6_u.u6_addr32[3] = bpf_htonl(LOCUM_RENEWAL_SEGMENT);
	if (bpf_skb_adjust_room(skb, sizeof(head), BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return 0;
	if (bpf_skb_store_bytes(skb, 0, r->address, 6, 0) || set_ethertype(skb, 6) ||
	    bpf_skb_store_bytes(skb, ETHERNET, &head, sizeof(head), BPF_F_RECOMPUTE_CSUM))
		return dropped(skb, DECAPSULATION_FAILED);
	skb->cb[0] = RENEWING;
	skb->cb[1] = 0;
	return bpf_redirect(r->ifindex, BPF_F_INGRESS);
}

/* At the egress of the renewal's device: the frame without the IPv6 packet. End.DX2 leaves the offset of its network
 * header at its first byte; a new link-layer header before it and the old one away put that right.
 */
static __always_inline int back_to_ingress(struct __sk_buff *skb)
{
	struct ethhdr frame;
	struct renewal_source source;

	if (bpf_skb_load_bytes(skb, 0, &frame, sizeof(frame)))
		return TC_ACT_SHOT;
	__builtin_memcpy(&source, frame.h_source, sizeof(source));
	if (source.kind != RENEWAL_SOURCE)
		return TC_ACT_UNSPEC; /* none of ours: the kernel's own on this device */
	if (bpf_skb_change_head(skb, ETHERNET, 0) || bpf_skb_store_bytes(skb, 0, &frame, sizeof(frame), 0) ||
	    bpf_skb_adjust_room(skb, -ETHERNET, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return dropped(skb, DECAPSULATION_FAILED);
	skb->mark = LOCUM_MARK_RENEWED;
	return bpf_redirect(source.ifindex, BPF_F_INGRESS);
}

#endif

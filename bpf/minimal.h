/* Minimal encapsulation (RFC 2004): the packet's own IPv4 header leads to the end of the tunnel, and a short header behind it has
 * the addresses and the protocol that it had.
 *
 * A packet that came so is widened to IP in IP before anything else looks at it. Into such a tunnel go whole packets without
 * options. Its end takes IP in IP as well, and that is how others go: fragments (section 3 forbids them) and IPv6; packets with
 * options, on which routers in the tunnel would act; packets that are still to be cut, which the kernel can do only in
 * tunnels that it knows; and larger ones without "don't fragment", which the far end would have to put together.
 */
#ifndef LOCUM_MINIMAL_H
#define LOCUM_MINIMAL_H

#define SOURCE_PRESENT 0x80

struct minimal {
	__u8 protocol;
	__u8 flags;
	__be16 check;
	__be32 destination;
	__be32 source; /* with SOURCE_PRESENT */
};

struct widened {
	struct iphdr outer;
	struct iphdr inner;
	__u32 option[OPTION_WORDS];
};

/* Makes the packet one of a tunnel IP in IP, from `t->inner` on. A reason to drop it; 0: done. */
static __noinline __u32 widen(struct __sk_buff *skb, struct work *w, struct tunnelled *t)
{
	struct packet *p = &w->packet;
	struct widened h = {};
	struct minimal m = {};
	__u32 end = p->offset + p->length, size = offsetof(struct minimal, source), total, growth;
	__u64 rest = (__u64)p->payload - p->offset - 1; /* behind the first byte of the IP header, as in `hold` */

	if (p->payload + size > end || bpf_skb_load_bytes(skb, p->payload, &m, offsetof(struct minimal, source)))
		return MALFORMED_TUNNEL;
	if (m.flags & SOURCE_PRESENT) {
		size = sizeof(m);
		if (p->payload + size > end ||
		    bpf_skb_load_bytes(skb, p->payload + offsetof(struct minimal, source), &m.source, sizeof(m.source)))
			return MALFORMED_TUNNEL;
	}
	if (fold_words(&m, sizeof(m) / 4, 0) != 0xffff)
		return BAD_CHECKSUM;
	total = p->length - size;
	if (total + sizeof(h.outer) > 0xffff)
		return TOO_LARGE;
	asm volatile("" : "+r"(rest));
	if (skb->gso_size || rest >= sizeof(h) - sizeof(h.outer) ||
	    bpf_skb_load_bytes(skb, p->offset, &h.inner, rest + 1))
		return DECAPSULATION_FAILED;
	h.outer = h.inner;
	h.outer.ihl = sizeof(h.outer) / 4;
	h.outer.tot_len = bpf_htons(total + sizeof(h.outer));
	h.outer.protocol = IPPROTO_IPIP;
	h.outer.check = 0;
	h.outer.check = ~fold_words(&h.outer, sizeof(h.outer) / 4, 0);
	h.inner.tot_len = bpf_htons(total);
	h.inner.protocol = m.protocol;
	h.inner.daddr = m.destination;
	if (m.flags & SOURCE_PRESENT)
		h.inner.saddr = m.source;
	h.inner.check = 0;
	h.inner.check = ~fold_words(&h.inner, sizeof(h.inner) / 4 + OPTION_WORDS, 0);
	growth = sizeof(h.outer) - size;
	if (bpf_skb_adjust_room(skb, growth, BPF_ADJ_ROOM_MAC, 0) ||
	    bpf_skb_store_bytes(skb, LINK_HEADER, &h, sizeof(h.outer) + rest + 1, BPF_F_RECOMPUTE_CSUM))
		return DECAPSULATION_FAILED;
	p->length += growth;
	p->payload = LINK_HEADER + sizeof(h.outer);
	p->protocol = IPPROTO_IPIP;
	t->inner = p->payload;
	return 0;
}

/* Into the tunnel by minimal encapsulation. 0: done; 1: the packet goes IP in IP; -1: the kernel has made no room. */
static __noinline int write_minimal(struct __sk_buff *skb, struct work *w, const struct locum_tunnel *t)
{
	const struct packet *p = &w->packet;
	struct {
		struct iphdr ip;
		struct minimal m;
	} h = {};
	__u32 size = sizeof(h.m);

	if (p->family != 4 || p->fragment || skb->gso_size || p->payload - p->offset != sizeof(h.ip) ||
	    !is_v4(&t->destination) || bpf_skb_load_bytes(skb, p->offset, &h.ip, sizeof(h.ip)))
		return 1;
	if (p->length > SMALL && !(h.ip.frag_off & bpf_htons(0x4000)))
		return 1;
	if (h.ip.saddr == v4_of(&t->source))
		size = offsetof(struct minimal, source);
	else
		h.m.source = h.ip.saddr;
	if (decapsulate(skb, w) || bpf_skb_adjust_room(skb, size, BPF_ADJ_ROOM_MAC, 0))
		return -1;
	h.m.protocol = h.ip.protocol;
	h.m.flags = size == sizeof(h.m) ? SOURCE_PRESENT : 0;
	h.m.destination = h.ip.daddr;
	h.m.check = ~fold_words(&h.m, sizeof(h.m) / 4, 0);
	h.ip.tot_len = bpf_htons(p->length + size);
	h.ip.protocol = IPPROTO_MINIMAL;
	h.ip.saddr = v4_of(&t->source);
	h.ip.daddr = v4_of(&t->destination);
	h.ip.check = 0;
	h.ip.check = ~fold_words(&h.ip, sizeof(h.ip) / 4, 0);
	if (size == sizeof(h.m))
		return bpf_skb_store_bytes(skb, LINK_HEADER, &h, sizeof(h), 0);
	return bpf_skb_store_bytes(skb, LINK_HEADER, &h, sizeof(h) - sizeof(h.m.source), 0);
}

#endif

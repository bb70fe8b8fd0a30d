/* Multicast groups of visitors (C4): packets on the link on which this host joined the group are copied to access
 * links. The copies live in the kernel alone, so they go on while no daemon runs. The packet itself goes to the stack,
 * for this host is a member too.
 */
#ifndef LOCUM_MULTICAST_H
#define LOCUM_MULTICAST_H

static __always_inline bool is_multicast(const struct locum_address *a)
{
	if (is_v4(a))
		return bpf_ntohl(v4_of(a)) >> 28 == 0xe;
	return first_byte(a) == 0xff;
}

__noinline int copy_to(struct __sk_buff *skb, const struct work *w, const struct locum_group_link *link)
{
	__u32 mtu = 0;

	if (!w || !link || bpf_check_mtu(skb, link->ifindex, &mtu, 0, 0) ||
	    (skb->gso_size && segment_length(skb, &w->packet) > mtu))
		return -1;
	return bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_source), link->address, ETH_ALEN, 0) ||
	       bpf_clone_redirect(skb, link->ifindex, 0);
}

/* The packet that stays has one hop less, and a link-layer source of ours; no program of this host uses either. */
__noinline int forward_group(struct __sk_buff *skb, struct work *w)
{
	struct locum_group_key key;
	const struct locum_group *g;
	struct locum_entry *e;
	__u32 i;

	if (!w)
		return 0;
	__builtin_memset(&key, 0, sizeof(key));
	key.group = w->packet.destination;
	key.ifindex = skb->ifindex;
	g = find_group(&key, &e);
	if (!g || !e || w->packet.hops <= 1 || decrement_hops(skb, &w->packet))
		return 0;
	for (i = 0; i < LOCUM_GROUP_LINKS; i++) {
		if (i >= g->count)
			break;
		if (copy_to(skb, w, &g->links[i]))
			count_reason(GROUP_NOT_FORWARDED);
		else
			count(&e->counter, w->packet.length);
	}
	return 0;
}

#endif

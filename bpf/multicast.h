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

/* The packet that stays has one hop less, and a link-layer source of ours; no program of this host uses either. */
static __noinline int forward_group(struct __sk_buff *skb, struct work *w)
{
	struct locum_group_key key;
	struct locum_group *g;
	__u32 i, mtu;

	__builtin_memset(&key, 0, sizeof(key));
	key.group = w->packet.destination;
	key.ifindex = skb->ifindex;
	g = bpf_map_lookup_elem(&groups, &key);
	if (!g || w->packet.hops <= 1 || decrement_hops(skb, &w->packet))
		return 0;
	for (i = 0; i < LOCUM_GROUP_LINKS; i++) {
		if (i >= g->count)
			break;
		mtu = 0;
		if (bpf_check_mtu(skb, g->links[i].ifindex, &mtu, 0, 0) ||
		    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_source), g->links[i].address, ETH_ALEN, 0) ||
		    bpf_clone_redirect(skb, g->links[i].ifindex, 0)) {
			count_reason(GROUP_NOT_FORWARDED);
			continue;
		}
		count(bpf_map_lookup_elem(&group_count, &key), w->packet.length);
	}
	return 0;
}

#endif

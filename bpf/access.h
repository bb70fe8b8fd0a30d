/* Who may send by an access link under which source address (RFC 2827): registered visitors under their home addresses, each
 * on its own link, and the hosts of the link's networks. A device that is not registered yet may register.
 */
#ifndef LOCUM_ACCESS_H
#define LOCUM_ACCESS_H

/* `hardware`: six bytes as in a frame, then zeros; 0: it may come from any. */
static __always_inline bool by_its_hardware(struct __sk_buff *skb, __u64 hardware)
{
	__u64 from = 0;

	if (!hardware)
		return true;
	return !bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_source), &from, ETH_ALEN) && from == hardware;
}

/* Whether the packet came from an address that is not its sender's: on any link one of this host's own, on an access link all
 * but those of its hosts. `own`: the destination is this host, which also hears sources without a meaning beyond the link. */
static __noinline int spoofed(struct __sk_buff *skb, struct work *w, __u64 own)
{
	struct locum_outbound_key key = {w->packet.source, skb->ifindex, 0};
	struct locum_link_network network = {160, skb->ifindex, w->packet.source};
	__u64 flags, sender;

	if (!is_routed(&w->packet.destination) || (own && (stays_on_link(&w->packet.source) || neighbour_discovery(&w->packet))))
		return 0;
	if (own_address(&w->packet.source))
		return 1;
	if (!(w->uses & LOCUM_SOURCES))
		return 0;
	flags = word_of(bpf_map_lookup_elem(&access_links, &key.ifindex));
	if (!(flags & LOCUM_CHECKED))
		return 0;
	sender = word_of(bpf_map_lookup_elem(&senders, &key));
	if (sender)
		return flags & LOCUM_BY_HARDWARE && !by_its_hardware(skb, sender & ~LOCUM_THERE);
	if (w->packet.registration && own)
		return 0;
	key.ifindex = 0; /* a visitor's on any link */
	if (word_of(bpf_map_lookup_elem(&senders, &key)))
		return 1;
	return !bpf_map_lookup_elem(&link_networks, &network);
}

#endif

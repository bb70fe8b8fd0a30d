/* Frames that are not for this interface or not for this host, and packets that belong to one link.
 *
 * `locum.dataplane.model.scope` is the same in Python.
 */
#ifndef LOCUM_SCOPE_H
#define LOCUM_SCOPE_H

#define VLAN_IDENTIFIER 0x0fff

/* The stack gives a tagged frame to its VLAN's own interface, and drops a frame for another host, which arrives here where the
 * interface is promiscuous. A tag without a VLAN (IEEE 802.1Q: priority) is taken off: a tunnel packet must not leave with it. */
static __always_inline bool of_others(struct __sk_buff *skb)
{
	if (skb->vlan_present && !(skb->vlan_tci & VLAN_IDENTIFIER))
		bpf_skb_vlan_pop(skb);
	return skb->vlan_present || skb->pkt_type == PACKET_OTHERHOST;
}

/* The frame is for several hosts: no host sends on a unicast packet in it (RFC 1812 section 5.3.4). */
static __always_inline bool to_several(const struct __sk_buff *skb)
{
	return skb->pkt_type == PACKET_BROADCAST || skb->pkt_type == PACKET_MULTICAST;
}

/* At egress: a frame of a VLAN's interface, which has its own programs, or one that a bridge sends on. What this host sends or
 * forwards is for "this host" until it has left. */
static __always_inline bool sent_for_others(const struct __sk_buff *skb)
{
	return skb->vlan_present || skb->pkt_type == PACKET_OTHERHOST || to_several(skb);
}

static __always_inline bool link_scope(const struct locum_address *a)
{
	if (!stays_on_link(a))
		return false;
	if (is_v4(a)) {
		__u32 v4 = bpf_ntohl(v4_of(a));

		return v4 >> 28 != 0xe || v4 >> 8 == 0xe00000; /* 224.0.0.0/24 */
	}
	return first_byte(a) != 0xff || (a->high >> 8 & 0xf) <= 2; /* RFC 4291 section 2.7 */
}

/* Protocols between the hosts of one link: IGMP and MLD, router and neighbour discovery, redirects. */
static __always_inline bool link_protocol(const struct packet *p)
{
	__u8 type = p->type;

	if (p->family == 4)
		return p->protocol == IPPROTO_IGMP ||
		       (p->protocol == IPPROTO_ICMP && (type == 5 || type == 9 || type == 10));
	if (p->protocol == IPPROTO_ICMPV6)
		return (type >= 130 && type <= 137) || type == 143 || type == 148 || type == 149 ||
		       (type >= 151 && type <= 153);
	return p->unread == CHAIN_UNREAD && p->hops == 255; /* it may be neighbour discovery, which needs that limit */
}

/* A packet of one link, which no router forwards: out of a tunnel it would act on a link that it was not sent on. Groups of a
 * wider scope are let through, for a multicast router beside a home agent (RFC 5944 section 4.4). */
static __always_inline bool bound_to_link(const struct packet *p)
{
	return stays_on_link(&p->source) || link_scope(&p->destination) || link_protocol(p);
}

/* A broadcast of the home network, at a device that has asked for them (RFC 5944 section 4.3): its acceptance is for the
 * broadcast address. */
static __always_inline bool asked_for(const struct packet *p, const struct locum_acceptance_key *key)
{
	return key->side == TO_HOME_ADDRESS && p->family == 4 && v4_of(&p->destination) == 0xffffffff &&
	       !stays_on_link(&p->source) && !link_protocol(p);
}

#endif

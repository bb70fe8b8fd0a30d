/* Headers of the other family, where bpf_skb_adjust_room cannot change the family of the packet's buffer. */
#ifndef LOCUM_FAMILY_H
#define LOCUM_FAMILY_H

#define FAMILIES_DIFFER (sizeof(struct ipv6hdr) - sizeof(struct iphdr)) /* by these bytes in bpf_skb_change_proto */

static __always_inline int change_family(struct __sk_buff *skb, __u32 family)
{
	return bpf_skb_change_proto(skb, family == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6), 0);
}

/* Outer headers of the other family, before Linux 6.3: bpf_skb_adjust_room has no flag for it. */
static __noinline int decapsulate_family(struct __sk_buff *skb, __u32 strip, __u32 family)
{
	if (change_family(skb, family))
		return -1;
	strip = family == 4 ? strip - FAMILIES_DIFFER : strip + FAMILIES_DIFFER;
	return bpf_skb_adjust_room(skb, -(__s32)strip, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO);
}

/* Room for a packet that is not GSO, where the kernel still has the mark of a tunnel that was taken away (EALREADY). */
static __noinline int make_plain_room(struct __sk_buff *skb, __u32 overhead, __u32 from, __u32 to)
{
	if (from == to)
		return bpf_skb_adjust_room(skb, overhead, BPF_ADJ_ROOM_MAC, 0);
	overhead = to == 4 ? overhead + FAMILIES_DIFFER : overhead - FAMILIES_DIFFER;
	return bpf_skb_adjust_room(skb, overhead, BPF_ADJ_ROOM_MAC, 0) || change_family(skb, to);
}

#endif

/* Emission filters (R20): the packets that the sockets of an application proxy may send, at the egress of the stand-in's
 * control group, before routes and tunnels. A socket's storage names the proxy's policy; sockets that a listener accepts
 * inherit it. A packet of a socket without policy passes.
 * A proxy could point its sockets at services of the stand-in's own host: packets that would go there are refused.
 *
 * `locum.dataplane.emitting.emission` writes the policies. The program has no state of the forwarding decision.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define LOOPBACK 1 /* index of this interface in every network namespace */
#define EMISSION_RULES 32
#define EMISSION_POLICIES 1024

/* Words of addresses are as they are on the wire, IPv4 mapped into IPv6. Ports are in host order. */
struct emission_rule {
	__u64 high;
	__u64 low;
	__u64 high_mask;
	__u64 low_mask;
	__u16 first_port;
	__u16 last_port;
	__u8 protocol; /* 0: any */
	__u8 version; /* of IP; 0: any */
	__u8 reserved[2];
};

struct emission_policy {
	__u32 rules; /* EMISSION_RULES + 1: everything may leave */
	__u32 also; /* number + 1 of another policy that has to permit the packet; 0: none */
	__u32 local; /* 0: nothing to this host's own addresses */
	__u32 reserved;
	struct emission_rule rule[EMISSION_RULES];
};

struct emission_count {
	__u64 sent;
	__u64 refused;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, __u32);
} emission_owner SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, EMISSION_POLICIES);
	__type(key, __u32);
	__type(value, struct emission_policy);
} emission_policies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EMISSION_POLICIES);
	__type(key, __u32);
	__type(value, struct emission_count);
} emission_counts SEC(".maps");

struct target {
	__u64 high;
	__u64 low;
	__u16 port;
	__u8 protocol;
	__u8 version;
};

/* 0: the headers could be read. A packet that starts at its IP header. */
static __always_inline int target_of(struct __sk_buff *skb, struct target *to)
{
	struct ipv6hdr six;
	struct iphdr four;
	__u16 ports[2];
	__u32 at;

	if (bpf_skb_load_bytes(skb, 0, &to->version, 1))
		return -1;
	to->version >>= 4;
	if (to->version == 4) {
		if (bpf_skb_load_bytes(skb, 0, &four, sizeof(four)))
			return -1;
		to->high = 0;
		to->low = (__u64)bpf_htonl(0xffff) | (__u64)four.daddr << 32;
		to->protocol = four.protocol;
		at = four.ihl * 4;
	} else {
		if (bpf_skb_load_bytes(skb, 0, &six, sizeof(six)))
			return -1;
		__builtin_memcpy(&to->high, &six.daddr.s6_addr[0], 8);
		__builtin_memcpy(&to->low, &six.daddr.s6_addr[8], 8);
		to->protocol = six.nexthdr;
		at = sizeof(six);
	}
	if (to->protocol != IPPROTO_TCP && to->protocol != IPPROTO_UDP)
		return -1; /* extension headers and raw protocols: sockets of proxies have none */
	if (bpf_skb_load_bytes(skb, at, ports, sizeof(ports)))
		return -1;
	to->port = bpf_ntohs(ports[1]);
	return 0;
}

static __always_inline int permitted(const struct emission_policy *policy, const struct target *to)
{
	if (policy->rules > EMISSION_RULES)
		return 1;
	for (__u32 i = 0; i < EMISSION_RULES; i++) {
		const struct emission_rule *rule = &policy->rule[i];

		if (i >= policy->rules)
			break;
		if (rule->protocol && rule->protocol != to->protocol)
			continue;
		if (rule->version && rule->version != to->version)
			continue;
		if (to->port < rule->first_port || to->port > rule->last_port)
			continue;
		if ((to->high & rule->high_mask) == rule->high && (to->low & rule->low_mask) == rule->low)
			return 1;
	}
	return 0;
}

SEC("cgroup_skb/egress")
int emission(struct __sk_buff *skb)
{
	const struct emission_policy *policy;
	struct emission_count *count;
	struct bpf_sock *socket = skb->sk;
	struct target to = {};
	__u32 *owner, key;

	if (!socket)
		return 1;
	socket = bpf_sk_fullsock(socket);
	if (!socket)
		return 1;
	owner = bpf_sk_storage_get(&emission_owner, socket, 0, 0);
	if (!owner)
		return 1;
	key = *owner;
	policy = bpf_map_lookup_elem(&emission_policies, &key);
	count = bpf_map_lookup_elem(&emission_counts, &key);
	if (!policy || !count)
		return 0;
	if ((skb->ifindex == LOOPBACK && !policy->local) || target_of(skb, &to) || !permitted(policy, &to)) {
		count->refused++;
		return 0;
	}
	if (policy->also) {
		key = policy->also - 1;
		policy = bpf_map_lookup_elem(&emission_policies, &key);
		if (!policy || !permitted(policy, &to)) {
			count->refused++;
			return 0;
		}
	}
	count->sent++;
	return 1;
}

char _license[] SEC("license") = "GPL";

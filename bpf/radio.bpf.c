/* A radio that sleeps, for the lab (P13): at the interface of a device it drops what arrives and what leaves outside the slots
 * in which the device listens, and loses frames by chance. Slots are on the wall clock: slot n begins at offset + n * cycle
 * nanoseconds since 1970. The kernel gives programs the time of CLOCK_TAI, which follows each step of the wall clock.
 *
 * A sleeping device says nothing unless it was called. A message of its daemon, which has a mark, therefore switches the radio on;
 * it stays on while frames are exchanged, and for `stay` nanoseconds more.
 * `locum.lab.network.radio` loads this program. It is at the generic place of XDP, before captures, and at the egress of clsact.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include "locum.h"

#define PER_MILLE 1000

struct radio_settings {
	__u64 cycle; /* 0: it always listens */
	__u64 offset;
	__u64 length;
	__u64 tai; /* that CLOCK_TAI is ahead of the wall clock */
	__u64 stay;
	__u64 loss; /* per mille, in each direction */
};

struct radio_state {
	__u64 on_until; /* of CLOCK_MONOTONIC */
	__u64 heard;
	__u64 sent;
	__u64 deaf; /* frames that came outside the slots */
	__u64 mute; /* frames that would have left outside the slots */
	__u64 lost;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct radio_settings);
} radio_settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct radio_state);
} radio_state SEC(".maps");

static __always_inline int on(const struct radio_settings *radio, struct radio_state *state)
{
	__u64 now = bpf_ktime_get_ns();

	if (now < state->on_until) {
		state->on_until = now + radio->stay;
		return 1;
	}
	if (!radio->cycle)
		return 1;
	now = bpf_ktime_get_tai_ns() - radio->tai;
	return (now - radio->offset) % radio->cycle < radio->length;
}

static __always_inline int lost(const struct radio_settings *radio)
{
	return radio->loss && bpf_get_prandom_u32() % PER_MILLE < radio->loss;
}

SEC("xdp")
int radio_in(struct xdp_md *frame)
{
	__u32 zero = 0;
	struct radio_settings *radio = bpf_map_lookup_elem(&radio_settings, &zero);
	struct radio_state *state = bpf_map_lookup_elem(&radio_state, &zero);

	if (!radio || !state)
		return XDP_PASS;
	if (!on(radio, state)) {
		__sync_fetch_and_add(&state->deaf, 1);
		return XDP_DROP;
	}
	if (lost(radio)) {
		__sync_fetch_and_add(&state->lost, 1);
		return XDP_DROP;
	}
	__sync_fetch_and_add(&state->heard, 1);
	return XDP_PASS;
}

SEC("tc")
int radio_out(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct radio_settings *radio = bpf_map_lookup_elem(&radio_settings, &zero);
	struct radio_state *state = bpf_map_lookup_elem(&radio_state, &zero);

	if (!radio || !state)
		return TC_ACT_UNSPEC;
	if (skb->mark == LOCUM_MARK_SIGNALLING)
		state->on_until = bpf_ktime_get_ns() + radio->stay;
	if (!on(radio, state)) {
		__sync_fetch_and_add(&state->mute, 1);
		return TC_ACT_STOLEN; /* the sender is told nothing */
	}
	if (lost(radio)) {
		__sync_fetch_and_add(&state->lost, 1);
		return TC_ACT_STOLEN; /* the sender is told nothing */
	}
	__sync_fetch_and_add(&state->sent, 1);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "GPL";

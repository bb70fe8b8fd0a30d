/* The maps. Sizes are set by the loader from its limits; hashes are not preallocated, so room costs nothing until used. */
#ifndef LOCUM_TABLES_H
#define LOCUM_TABLES_H

#define TABLE(NAME, KEY, VALUE)                       \
	struct {                                      \
		__uint(type, BPF_MAP_TYPE_HASH);      \
		__uint(map_flags, BPF_F_NO_PREALLOC); \
		__uint(max_entries, 1024);            \
		__type(key, KEY);                     \
		__type(value, VALUE);                 \
	} NAME SEC(".maps")

TABLE(endpoints, struct locum_address, __u32);
TABLE(bindings, struct locum_address, struct locum_binding);
TABLE(binding_more, struct locum_address, struct locum_binding_more);
TABLE(access_links, __u32, __u32); /* index of an interface on which visitors are served */
TABLE(acceptances, struct locum_acceptance_key, struct locum_acceptance);
TABLE(outbound, struct locum_outbound_key, struct locum_tunnel);
TABLE(flows, struct locum_flow_key, struct locum_flow);
TABLE(visited, struct locum_address, struct locum_binding);
TABLE(rules_few, struct locum_address, struct locum_rules_few);
TABLE(rules_many, struct locum_address, struct locum_rules_many);
TABLE(filters_few, struct locum_filter_key, struct locum_filter_few);
TABLE(filters_many, struct locum_filter_key, struct locum_filter_many);

TABLE(translations, struct locum_translation_key, struct locum_translation);
TABLE(translation_count, struct locum_translation_key, struct locum_translation_count);
TABLE(services, struct locum_service_key, __u32);
TABLE(watched, struct locum_watched_key, __u32);
TABLE(groups, struct locum_group_key, struct locum_group);
TABLE(group_count, struct locum_group_key, struct locum_counter);

/* Bounded: unused entries make room. */
#define BOUNDED(NAME, KEY, VALUE)                    \
	struct {                                     \
		__uint(type, BPF_MAP_TYPE_LRU_HASH); \
		__uint(max_entries, 1024);           \
		__type(key, KEY);                    \
		__type(value, VALUE);                \
	} NAME SEC(".maps")

BOUNDED(translated, struct locum_flow_key, struct locum_translated);
BOUNDED(translated_fragments, struct locum_translated_fragment, struct locum_translated);

/* Counters stand beside their entries, so that an update of the entry does not lose them. */
TABLE(binding_count, struct locum_address, struct locum_counter);
TABLE(acceptance_count, struct locum_acceptance_key, struct locum_counter);
TABLE(outbound_count, struct locum_outbound_key, struct locum_counter);
TABLE(rule_count, struct locum_rule_key, struct locum_counter);

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct locum_fragment_key);
	__type(value, struct locum_fragment);
} fragments SEC(".maps");

/* Sysctls as they were found: name -> value. Only the daemon uses it; here it outlives the daemon. */
struct sysctl_name {
	char text[96];
};
struct sysctl_value {
	char text[32];
};
TABLE(found_sysctls, struct sysctl_name, struct sysctl_value);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct locum_settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASON_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} reasons SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} held SEC(".maps");

/* One a CPU: a per-CPU map's value may not be larger than 32 KiB, so this is an array with a place for each. */
#define HELD_BYTES 65536
struct scratch {
	struct locum_held header;
	__u8 bytes[HELD_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

static __always_inline void count_reason(__u32 reason)
{
	__u64 *value = bpf_map_lookup_elem(&reasons, &reason);

	if (value)
		*value += 1;
}

static __always_inline void count(struct locum_counter *counter, __u32 bytes)
{
	if (counter) {
		__sync_fetch_and_add(&counter->packets, 1);
		__sync_fetch_and_add(&counter->bytes, bytes);
	}
}

#endif

/* The maps. Sizes are set by the loader from its limits; hashes are not preallocated, so room costs nothing until used.
 *
 * The kernel gives an element of a hash that is replaced or deleted to another key at once, also while a program still has
 * a pointer to it. So nothing that programs read is ever replaced, or deleted before all programs that may read it have ended:
 *
 * - ENTRIES: an element stays where it is. Its word is replaced in place, by one store of the program `locum_change`; word 0
 *   means "nothing here". The daemon deletes an element a second after its word has become 0.
 * - VALUES: written once, under an identifier that no value has had before, and then read-only. A word has the identifier.
 *   The daemon deletes a value a second after the last word with its identifier.
 *
 * A program that loads a word once therefore has one whole value of the right key, old or new, until it ends. Counters are
 * in the entries, so a change of the value keeps them. TABLE is for keys without a value (their presence is the answer),
 * and for maps that no program reads.
 */
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
#define ENTRIES(NAME, KEY) TABLE(NAME, KEY, struct locum_entry)
#define VALUES(NAME, VALUE) TABLE(NAME, __u32, VALUE)

TABLE(tunnel_sources, struct locum_address, struct locum_source); /* programs write the measure of the rate alone */
TABLE(services, struct locum_service_key, __u32);
TABLE(watched, struct locum_watched_key, __u32);
TABLE(logged, struct locum_address, struct locum_logged); /* programs write counts; those of another key do no harm */

ENTRIES(endpoints, struct locum_address); /* the word: LOCUM_ENDPOINT, LOCUM_OWN */
ENTRIES(flows, struct locum_flow_key);    /* the word: LOCUM_THERE and the verdict */
ENTRIES(access_links, __u32);             /* index of an interface on which visitors are served; the word: LOCUM_SERVED ... */
ENTRIES(senders, struct locum_outbound_key); /* a visitor on a link; the word: LOCUM_THERE and its hardware address */
ENTRIES(rule_count, struct locum_rule_key);
ENTRIES(bindings, struct locum_address);
ENTRIES(visited, struct locum_address);
VALUES(binding_values, struct locum_binding);
ENTRIES(binding_more, struct locum_address);
VALUES(more_values, struct locum_binding_more);
ENTRIES(acceptances, struct locum_acceptance_key);
VALUES(acceptance_values, struct locum_acceptance);
ENTRIES(outbound, struct locum_outbound_key);
VALUES(tunnel_values, struct locum_tunnel);
ENTRIES(rules, struct locum_address); /* LOCUM_LARGE in the word: the value is the large one */
VALUES(rules_few, struct locum_rules_few);
VALUES(rules_many, struct locum_rules_many);
ENTRIES(filters, struct locum_filter_key);
VALUES(filters_few, struct locum_filter_few);
VALUES(filters_many, struct locum_filter_many);
ENTRIES(groups, struct locum_group_key);
VALUES(group_values, struct locum_group);
TABLE(translations, struct locum_translation_key, struct locum_translation_entry);
VALUES(translation_values, struct locum_translation);

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct locum_link_network);
	__type(value, __u32);
} link_networks SEC(".maps");

/* Bounded: unused entries make room, and the kernel gives their elements to other keys at once. Programs write these
 * tables, so a value has a seal over its key and itself; readers copy the value and check the seal of the copy.
 */
#define BOUNDED(NAME, KEY, VALUE)                    \
	struct {                                     \
		__uint(type, BPF_MAP_TYPE_LRU_HASH); \
		__uint(max_entries, 1024);           \
		__type(key, KEY);                    \
		__type(value, VALUE);                \
	} NAME SEC(".maps")

BOUNDED(translated, struct locum_flow_key, struct locum_translated);
BOUNDED(translated_fragments, struct locum_translated_fragment, struct locum_translated);

/* By home address: one with rules, filters, flows or a guard, so there are no more than of those. Programs make elements, with
 * the one value of `no_fragments`; the daemon deletes them when the address has none of these any more. */
TABLE(first_fragments, struct locum_address, struct locum_fragments);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct locum_fragments);
} no_fragments SEC(".maps");

TABLE(paths, struct locum_address, struct locum_path); /* by the end of the tunnel */
BOUNDED(told_paths, struct locum_address, __u32);      /* MTUs that the daemon has been told of */

/* By the end of a tunnel: when the daemon may be told of a large packet again, in nanoseconds since boot. */
BOUNDED(told_large, struct locum_address, __u64);

/* The same for all ends together, of one CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} large_told SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct locum_inner_mtus);
} inner_mtus SEC(".maps");

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

/* Asked before `endpoints`, for most addresses of packets are of other hosts. The daemon sets a bit before the entry. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct locum_own_addresses);
} own_addresses SEC(".maps");

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
	__sync_fetch_and_add(&counter->packets, 1);
	__sync_fetch_and_add(&counter->bytes, bytes);
}

/* The word of an entry, loaded once; 0: there is none. */
static __always_inline __u64 word_of(const struct locum_entry *e)
{
	return e ? *(const volatile __u64 *)&e->word : 0;
}

/* LOCUM_ENDPOINT and LOCUM_OWN of an address of this host; 0: it is none. */
static __always_inline __u64 own_address(const struct locum_address *a)
{
	__u32 zero = 0;
	const struct locum_own_addresses *own = bpf_map_lookup_elem(&own_addresses, &zero);

	if (!own || !(own->bits >> ((a->high ^ a->low) * 0x9e3779b97f4a7c15ULL >> 58) & 1))
		return 0;
	return word_of(bpf_map_lookup_elem(&endpoints, a));
}

/* The value that the entry of a key has at this moment, or NULL; `*entry` has its counter. */
#define FINDER(NAME, KEY, VALUE, TABLE_OF, VALUES_OF)                                                \
	static __always_inline const VALUE *NAME(const KEY *key, struct locum_entry **entry)         \
	{                                                                                            \
		__u32 id;                                                                            \
                                                                                                     \
		*entry = bpf_map_lookup_elem(&TABLE_OF, key);                                        \
		id = word_of(*entry);                                                                \
		return id ? bpf_map_lookup_elem(&VALUES_OF, &id) : NULL;                             \
	}

FINDER(counted_binding, struct locum_address, struct locum_binding, bindings, binding_values)
FINDER(find_acceptance, struct locum_acceptance_key, struct locum_acceptance, acceptances, acceptance_values)
FINDER(find_outbound, struct locum_outbound_key, struct locum_tunnel, outbound, tunnel_values)
FINDER(find_group, struct locum_group_key, struct locum_group, groups, group_values)

static __always_inline const struct locum_binding *find_binding(const struct locum_address *home)
{
	struct locum_entry *entry;

	return counted_binding(home, &entry);
}

static __always_inline const struct locum_binding_more *find_more(const struct locum_address *home)
{
	__u32 id = word_of(bpf_map_lookup_elem(&binding_more, home));

	return id ? bpf_map_lookup_elem(&more_values, &id) : NULL;
}

static __always_inline const struct locum_binding *find_visited(const struct locum_address *home)
{
	struct locum_address key = *home;
	__u32 id = word_of(bpf_map_lookup_elem(&visited, &key));

	return id ? bpf_map_lookup_elem(&binding_values, &id) : NULL;
}

/* Copies of a value whose seal is wrong are made so often; then the value counts as missing. */
#define RECALLS 3

static __always_inline __u64 stir(__u64 hash, __u64 value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 32;
}

#endif

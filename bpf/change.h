/* Changes of entries, in place: the daemon puts them into `changes` and runs `locum_change` on them (see tables.h).
 *
 * The daemon is the only one to change words, one change after another.
 */
#ifndef LOCUM_CHANGE_H
#define LOCUM_CHANGE_H

/* The daemon has it in its memory. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, LOCUM_CHANGES);
	__type(key, __u32);
	__type(value, struct locum_change);
} changes SEC(".maps");

/* An entry that is new starts with no packets counted; `fresh` has none. */
#define STORE(TABLE_OF, ENTRY)                                                                   \
	do {                                                                                     \
		ENTRY *e = bpf_map_lookup_elem(&TABLE_OF, c->key), fresh = {.word = c->word};    \
		__s64 reset = c->result;                                                         \
                                                                                                 \
		c->result = 0;                                                                   \
		c->word = 0;                                                                     \
		if (!e) {                                                                        \
			if (fresh.word)                                                          \
				c->result = bpf_map_update_elem(&TABLE_OF, c->key, &fresh, BPF_NOEXIST); \
			break;                                                                   \
		}                                                                                \
		c->word = e->word;                                                               \
		if (!c->word || reset)                                                           \
			__builtin_memset((__u64 *)e + 1, 0, sizeof(*e) - sizeof(e->word));       \
		*(volatile __u64 *)&e->word = fresh.word;                                        \
	} while (0)

static long change_one(__u32 place, const __u32 *table)
{
	struct locum_change *c = bpf_map_lookup_elem(&changes, &place);

	if (!c)
		return 1;
	switch (*table) {
	case CHANGE_ENDPOINTS:
		STORE(endpoints, struct locum_entry);
		break;
	case CHANGE_FLOWS:
		STORE(flows, struct locum_entry);
		break;
	case CHANGE_RULE_COUNT:
		STORE(rule_count, struct locum_entry);
		break;
	case CHANGE_BINDINGS:
		STORE(bindings, struct locum_entry);
		break;
	case CHANGE_VISITED:
		STORE(visited, struct locum_entry);
		break;
	case CHANGE_BINDING_MORE:
		STORE(binding_more, struct locum_entry);
		break;
	case CHANGE_ACCEPTANCES:
		STORE(acceptances, struct locum_entry);
		break;
	case CHANGE_OUTBOUND:
		STORE(outbound, struct locum_entry);
		break;
	case CHANGE_RULES:
		STORE(rules, struct locum_entry);
		break;
	case CHANGE_FILTERS:
		STORE(filters, struct locum_entry);
		break;
	case CHANGE_GROUPS:
		STORE(groups, struct locum_entry);
		break;
	case CHANGE_ACCESS_LINKS:
		STORE(access_links, struct locum_entry);
		break;
	case CHANGE_SENDERS:
		STORE(senders, struct locum_entry);
		break;
	case CHANGE_TRANSLATIONS:
		STORE(translations, struct locum_translation_entry);
		break;
	}
	return 0;
}

/* The order of the daemon: the context of the program. */
struct change_order {
	__u32 table; /* enum locum_changed */
	__u32 number;
};

/* Run by the daemon, never attached. A program without a packet, for the kernel makes a socket for each run of one with it. */
SEC("syscall")
int locum_change(struct change_order *order)
{
	__u32 table = order->table;

	bpf_loop(order->number, change_one, &table, 0);
	return 0;
}

#endif

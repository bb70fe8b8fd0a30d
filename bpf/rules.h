/* Flow rules and filters: which rule takes a packet (RFC 6088 selectors, first match), and which of equal ways its flow has.
 *
 * `locum.dataplane.model.matching` is the same in Python. Addresses, ports and the rest are compared in host order.
 */
#ifndef LOCUM_RULES_H
#define LOCUM_RULES_H

#define NO_RULE 0xffff
#define UNSURE 0xfffe /* a rule takes the packet or not, by ports that are not known */

/* A packet as selectors see it. */
struct subject {
	struct locum_address source;
	struct locum_address destination; /* the final one */
	struct locum_address by_way;      /* by a routing header: that of the packet's own header */
	__u32 spi;
	__u32 flow_label;
	__u16 source_port;
	__u16 destination_port;
	__u8 family;
	__u8 protocol;
	__u8 dscp;
	__u8 known; /* of LOCUM_SPI, LOCUM_SOURCE_PORT and LOCUM_DESTINATION_PORT */
	__u8 unknown; /* of the same and LOCUM_PROTOCOL: in a first fragment that was not seen */
	__u8 unread;  /* of the same: in headers that cannot be read */
	__u8 route;   /* `by_way` is set */
	__u8 detours;
	__u8 released; /* it has waited here: no rule pages for it once more */
};

/* One a CPU: programs of one CPU do not interrupt each other, and the stack has no room for it. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct subject);
} subjects SEC(".maps");

static __always_inline struct locum_address in_host_order(const struct locum_address *a)
{
	struct locum_address turned = {bpf_be64_to_cpu(a->high), bpf_be64_to_cpu(a->low)};

	return turned;
}

/* The parts of a selector that later fragments of this protocol do not show. */
static __always_inline __u8 parts_of(__u8 protocol)
{
	if (IPPROTO_WITH_PORTS(protocol))
		return PORTS;
	if (protocol == IPPROTO_ESP || protocol == IPPROTO_AH)
		return LOCUM_SPI;
	return PORTS | LOCUM_SPI | LOCUM_PROTOCOL; /* behind extension headers */
}

/* The parts that the packet may have in headers that cannot be read. */
static __always_inline __u8 unread_parts(const struct packet *p, __u8 known)
{
	if (!p->unread)
		return 0;
	return p->unread == TRANSPORT_UNREAD && !has_parts(p->protocol) ? 0 : parts_of(p->protocol) & ~known;
}

/* Describes the packet in `subjects`; -1: it may not go on, and w->refused says why. */
__noinline int describe_packet(struct __sk_buff *skb, struct work *w, __u32 of)
{
	const struct packet *p;
	__u32 zero = 0;
	struct subject *s = bpf_map_lookup_elem(&subjects, &zero);
	struct locum_address final;
	bool quoted;

	if (!w || !s)
		return -1;
	p = &w->packet;
	final = p->destination;
	if (p->route && bpf_skb_load_bytes(skb, p->route + 8, &final, sizeof(final)))
		return -1;
	find_transport(skb, w, of);
	if (w->refused)
		return -1;
	quoted = w->follows == FOLLOWS_QUOTED;
	s->source = in_host_order(quoted ? &w->about.peer : &p->source);
	s->destination = in_host_order(&final); /* that of the packet's own header is also the quoted source */
	s->by_way = in_host_order(&p->destination);
	s->spi = w->transport.spi;
	s->flow_label = p->flow_label;
	s->source_port = w->transport.source_port;
	s->destination_port = w->transport.destination_port;
	s->family = p->family;
	s->protocol = quoted ? w->about.protocol : p->protocol;
	s->dscp = p->tos >> 2;
	s->known = w->transport.known;
	s->unknown = w->follows == FOLLOWS_UNKNOWN ? parts_of(p->protocol) : 0;
	s->unread = unread_parts(p, s->known);
	s->route = p->route != 0;
	s->detours = p->detours;
	s->released = w->flags & FROM_TAP || (skb->mark & LOCUM_MARK_MASK) == LOCUM_MARK_RELEASED;
	return 0;
}

/* NULL: the packet may not go on; w->refused says why. */
static __always_inline struct subject *describe(struct __sk_buff *skb, struct work *w, __u32 of)
{
	__u32 zero = 0;

	return describe_packet(skb, w, of) ? NULL : bpf_map_lookup_elem(&subjects, &zero);
}

static __always_inline bool outside(const struct locum_range *r, const struct locum_address *a)
{
	if (a->high < r->first.high || (a->high == r->first.high && a->low < r->first.low))
		return true;
	return a->high > r->last.high || (a->high == r->last.high && a->low > r->last.low);
}

#define OUTSIDE(RANGE, VALUE) ((VALUE) < (RANGE)[0] || (VALUE) > (RANGE)[1])

static __always_inline bool drops(const struct locum_rule *r)
{
	return r->verdict == RULE_DROP || r->verdict == RULE_DROP_PAGE;
}

/* Whether the destination of a rule is that of the packet. Of a source-routed one, all destinations have to be allowed. */
static __always_inline bool goes_to(const struct locum_rule *r, const struct subject *s)
{
	bool at_last = !outside(&r->destination, &s->destination);
	bool allows = r->verdict == RULE_ALLOW || r->verdict == RULE_ALLOW_PAGE;

	if (drops(r) && s->detours)
		return true;
	if (!s->route || r->verdict == RULE_FORWARD || r->verdict == RULE_PAGE || at_last != allows)
		return at_last;
	return !outside(&r->destination, &s->by_way);
}

/* Whether the rule takes the packet: 1, 0, or UNSURE where parts that are not known decide it. A rule that drops may take what
 * headers hide that cannot be read (RFC 7112 section 5). */
__noinline __u32 matches(const struct locum_rule *r, const struct subject *s)
{
	__u32 unsure, parts;

	if (!r || !s || (r->verdict == RULE_PAGE && s->released))
		return 0;
	unsure = r->parts & (drops(r) ? s->unknown | s->unread : s->unknown);
	parts = r->parts & ~unsure;
	if (r->family != s->family || (parts & (PORTS | LOCUM_SPI) & ~s->known))
		return 0;
	if ((parts & LOCUM_PROTOCOL) && OUTSIDE(r->protocol, s->protocol))
		return 0;
	if ((parts & LOCUM_DESTINATION_PORT) && OUTSIDE(r->destination_port, s->destination_port))
		return 0;
	if ((parts & LOCUM_SOURCE_PORT) && OUTSIDE(r->source_port, s->source_port))
		return 0;
	if ((parts & LOCUM_SOURCE) && outside(&r->source, &s->source))
		return 0;
	if ((parts & LOCUM_DESTINATION) && !goes_to(r, s))
		return 0;
	if ((parts & LOCUM_DSCP) && OUTSIDE(r->dscp, s->dscp))
		return 0;
	if ((parts & LOCUM_SPI) && OUTSIDE(r->spi, s->spi))
		return 0;
	if ((parts & LOCUM_FLOW_LABEL) && OUTSIDE(r->flow_label, s->flow_label))
		return 0;
	return unsure ? UNSURE : 1;
}

static __always_inline __u32 unsure_because(const struct subject *s)
{
	return s->unread ? UNREAD_HEADERS : FRAGMENT_UNKNOWN;
}

struct search {
	const struct locum_rule *rules;
	const struct subject *subject;
	__u64 found; /* the verifier of 6.1 forgets the bounds of 32 bits that went through the stack */
};

static long try_few(__u32 place, struct search *s)
{
	__u32 taken;

	if (place >= LOCUM_FEW)
		return 1;
	taken = matches(s->rules + place, s->subject);
	if (!taken)
		return 0;
	s->found = taken == UNSURE ? UNSURE : place;
	return 1;
}

static long try_many(__u32 place, struct search *s)
{
	__u32 taken;

	if (place >= LOCUM_MANY)
		return 1;
	taken = matches(s->rules + place, s->subject);
	if (!taken)
		return 0;
	s->found = taken == UNSURE ? UNSURE : place;
	return 1;
}

/* A number of the flow: the same for each of its packets, as long as the network sees it as one flow. */
static __always_inline __u64 flow_hash(const struct subject *s)
{
	__u64 hash = stir(0, s->source.high);

	hash = stir(hash, s->source.low);
	hash = stir(hash, s->destination.high);
	hash = stir(hash, s->destination.low);
	hash = stir(hash, (__u64)s->protocol << 32 | s->spi);
	return stir(hash, (__u32)s->source_port << 16 | s->destination_port);
}

/* Which of `number` ways a flow has: each as often as its weight says. */
static __always_inline __u32 choose(const __u16 *weights, __u32 number, __u64 hash)
{
	__u32 sum = 0, i, mine;

#pragma unroll
	for (i = 0; i < LOCUM_MAX_TUNNELS; i++)
		sum += i < number ? weights[i] : 0;
	mine = (__u64)(__u32)hash * sum >> 32;
#pragma unroll
	for (i = 0; i < LOCUM_MAX_TUNNELS - 1; i++) {
		if (i + 1 >= number || mine < weights[i])
			return i;
		mine -= weights[i];
	}
	return LOCUM_MAX_TUNNELS - 1;
}

/* The tunnel, as its place among those of the rules, that a rule gives this flow. */
static __always_inline __u32 way_of(const struct locum_rule *r, const struct subject *s)
{
	if (r->candidates < 2)
		return r->tunnel[0];
	return r->tunnel[choose(r->weight, r->candidates, flow_hash(s)) & (LOCUM_MAX_TUNNELS - 1)];
}

static __always_inline void count_rule(const struct locum_address *home, __u32 place, __u32 identifier, __u32 bytes)
{
	struct locum_rule_key key = {*home, place, identifier, 0};
	struct locum_entry *e = bpf_map_lookup_elem(&rule_count, &key);

	if (e)
		count(&e->counter, bytes);
}

/* A filter's decision about the packet: the reason of the drop, or REASON_NONE: allowed, or no filter is there. The rule has
 * been counted then. A packet that selectors cannot read is dropped, whatever the filter says (RFC 7112 section 5). */
__noinline int filtered(struct __sk_buff *skb, struct work *w, __u32 place)
{
	__u32 of = place == TO_VISITOR ? OF_DESTINATION : OF_SOURCE;
	const struct locum_filter_many *many = NULL;
	const struct locum_filter_few *few = NULL;
	struct locum_filter_key key = {};
	struct search search;
	__u32 verdict, identifier = 0, id;
	__u64 word;

	if (!w)
		return UNREAD_HEADERS;
	key.home_address = of == OF_SOURCE ? w->packet.source : w->packet.destination;
	key.place = place;
	word = word_of(bpf_map_lookup_elem(&filters, &key));
	id = word;
	if (word & LOCUM_LARGE)
		many = bpf_map_lookup_elem(&filters_many, &id);
	else if (id)
		few = bpf_map_lookup_elem(&filters_few, &id);
	if (!few && !many)
		return REASON_NONE;
	if (w->packet.unread)
		return UNREAD_HEADERS;
	if (w->packet.detours)
		return ROUTING_HEADER;
	search.found = NO_RULE;
	search.subject = describe(skb, w, of);
	if (!search.subject)
		return w->refused;
	if (few) {
		verdict = few->head.otherwise;
		search.rules = few->rule;
		bpf_loop(few->head.count, try_few, &search, 0);
		if (search.found < LOCUM_FEW) {
			verdict = few->rule[search.found].verdict;
			identifier = few->rule[search.found].identifier;
		}
	} else {
		verdict = many->head.otherwise;
		search.rules = many->rule;
		bpf_loop(many->head.count, try_many, &search, 0);
		if (search.found < LOCUM_MANY) {
			verdict = many->rule[search.found].verdict;
			identifier = many->rule[search.found].identifier;
		}
	}
	if (search.found == UNSURE)
		return w->refused = unsure_because(search.subject);
	count_rule(&key.home_address, place, identifier, w->packet.length);
	if (verdict >= RULE_ALLOW_PAGE && !search.subject->released)
		w->asks = identifier;
	return verdict == RULE_DROP || verdict == RULE_DROP_PAGE ? FILTERED_TO_VISITOR + place - TO_VISITOR : REASON_NONE;
}

#endif

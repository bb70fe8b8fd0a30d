/* Flow rules and filters: which rule takes a packet (RFC 6088 selectors, first match), and which of equal ways its flow has.
 *
 * `locum.dataplane.model.matching` is the same in Python. Addresses, ports and the rest are compared in host order.
 */
#ifndef LOCUM_RULES_H
#define LOCUM_RULES_H

#define IPPROTO_WITH_PORTS(P)                                                                                  \
	((P) == IPPROTO_TCP || (P) == IPPROTO_UDP || (P) == IPPROTO_DCCP || (P) == IPPROTO_SCTP || \
	 (P) == IPPROTO_UDPLITE)
#define PORTS (LOCUM_SOURCE_PORT | LOCUM_DESTINATION_PORT)
#define FRAGMENT_AGE (30ULL * 1000 * 1000 * 1000)
#define NO_RULE 0xffff

/* A packet as selectors see it. */
struct subject {
	struct locum_address source;
	struct locum_address destination;
	__u32 spi;
	__u32 flow_label;
	__u16 source_port;
	__u16 destination_port;
	__u8 family;
	__u8 protocol;
	__u8 dscp;
	__u8 known; /* of LOCUM_SPI, LOCUM_SOURCE_PORT and LOCUM_DESTINATION_PORT */
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

static __always_inline void read_transport(struct __sk_buff *skb, const struct packet *p, struct subject *s)
{
	__u32 end = p->offset + p->length, at = p->payload;
	__be16 ports[2];
	__be32 spi;

	if (IPPROTO_WITH_PORTS(p->protocol)) {
		if (at + 8 > end || bpf_skb_load_bytes(skb, at, ports, 4))
			return;
		s->source_port = bpf_ntohs(ports[0]);
		s->destination_port = bpf_ntohs(ports[1]);
		s->known = PORTS;
	} else if (p->protocol == IPPROTO_ESP || p->protocol == IPPROTO_AH) {
		if (p->protocol == IPPROTO_AH)
			at += 4;
		if (at + 8 > end || bpf_skb_load_bytes(skb, at, &spi, 4))
			return;
		s->spi = bpf_ntohl(spi);
		s->known = LOCUM_SPI;
	}
}

/* The ports of a first fragment are kept for the later ones. */
static __always_inline void read_fragment(const struct packet *p, struct subject *s)
{
	struct locum_fragment_key key = {
		p->source, p->destination, p->identification, p->family == 4 ? p->protocol : 0,
	};
	__u64 now = bpf_ktime_get_ns();

	if (p->later_fragment) {
		struct locum_fragment *first = bpf_map_lookup_elem(&fragments, &key);

		if (!first || now - first->time > FRAGMENT_AGE) {
			count_reason(FRAGMENT_UNKNOWN);
			return;
		}
		s->spi = first->spi;
		s->source_port = first->source_port;
		s->destination_port = first->destination_port;
		s->protocol = first->protocol;
		s->known = first->known;
		count_reason(FRAGMENT_FOLLOWS);
	} else {
		struct locum_fragment first = {
			.time = now,
			.spi = s->spi,
			.source_port = s->source_port,
			.destination_port = s->destination_port,
			.known = s->known,
			.protocol = s->protocol,
		};

		bpf_map_update_elem(&fragments, &key, &first, BPF_ANY);
	}
}

static __noinline struct subject *describe(struct __sk_buff *skb, const struct packet *p)
{
	__u32 zero = 0;
	struct subject *s = bpf_map_lookup_elem(&subjects, &zero);

	if (!s)
		return NULL;
	s->source = in_host_order(&p->source);
	s->destination = in_host_order(&p->destination);
	s->spi = 0;
	s->flow_label = p->flow_label;
	s->source_port = 0;
	s->destination_port = 0;
	s->family = p->family;
	s->protocol = p->protocol;
	s->dscp = p->tos >> 2;
	s->known = 0;
	if (!p->later_fragment)
		read_transport(skb, p, s);
	if (p->fragment)
		read_fragment(p, s);
	return s;
}

static __always_inline bool outside(const struct locum_range *r, const struct locum_address *a)
{
	if (a->high < r->first.high || (a->high == r->first.high && a->low < r->first.low))
		return true;
	return a->high > r->last.high || (a->high == r->last.high && a->low > r->last.low);
}

#define OUTSIDE(RANGE, VALUE) ((VALUE) < (RANGE)[0] || (VALUE) > (RANGE)[1])

static __always_inline bool matches(const struct locum_rule *r, const struct subject *s)
{
	__u32 parts = r->parts;

	if (r->family != s->family || (parts & (PORTS | LOCUM_SPI) & ~s->known))
		return false;
	if ((parts & LOCUM_PROTOCOL) && OUTSIDE(r->protocol, s->protocol))
		return false;
	if ((parts & LOCUM_DESTINATION_PORT) && OUTSIDE(r->destination_port, s->destination_port))
		return false;
	if ((parts & LOCUM_SOURCE_PORT) && OUTSIDE(r->source_port, s->source_port))
		return false;
	if ((parts & LOCUM_SOURCE) && outside(&r->source, &s->source))
		return false;
	if ((parts & LOCUM_DESTINATION) && outside(&r->destination, &s->destination))
		return false;
	if ((parts & LOCUM_DSCP) && OUTSIDE(r->dscp, s->dscp))
		return false;
	if ((parts & LOCUM_SPI) && OUTSIDE(r->spi, s->spi))
		return false;
	return !(parts & LOCUM_FLOW_LABEL) || !OUTSIDE(r->flow_label, s->flow_label);
}

struct search {
	const struct locum_rule *rules;
	const struct subject *subject;
	__u64 found; /* the verifier of 6.1 forgets the bounds of 32 bits that went through the stack */
};

static long try_few(__u32 place, struct search *s)
{
	if (place >= LOCUM_FEW)
		return 1;
	if (!matches(s->rules + place, s->subject))
		return 0;
	s->found = place;
	return 1;
}

static long try_many(__u32 place, struct search *s)
{
	if (place >= LOCUM_MANY)
		return 1;
	if (!matches(s->rules + place, s->subject))
		return 0;
	s->found = place;
	return 1;
}

static __always_inline __u64 stir(__u64 hash, __u64 value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 32;
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

	count(bpf_map_lookup_elem(&rule_count, &key), bytes);
}

/* A filter's decision about the packet: the identifier of the rule that drops it, 0 if the rest is dropped, or
 * -1: allowed. It has been counted then. */
static __noinline int filtered(struct __sk_buff *skb, const struct packet *p, const struct locum_address *home,
			       __u32 place)
{
	struct locum_filter_key key = {*home, place, 0};
	struct locum_filter_few *few = bpf_map_lookup_elem(&filters_few, &key);
	struct locum_filter_many *many = NULL;
	struct search search;
	__u32 verdict, identifier = 0;

	if (!few) {
		many = bpf_map_lookup_elem(&filters_many, &key);
		if (!many)
			return -1;
	}
	search.found = NO_RULE;
	search.subject = describe(skb, p);
	if (!search.subject)
		return -1;
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
	count_rule(home, place, identifier, p->length);
	return verdict == RULE_DROP ? (int)identifier : -1;
}

#endif

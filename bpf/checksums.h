/* Checksums of a tunnel packet's outer headers, which the stack would look at only behind our programs.
 *
 * A checksum over the whole packet is added up where the other end has made one: of UDP if it is not zero (RFC 3519 section 4.5,
 * RFC 6935 for IPv6), of GRE if it is there (RFC 2784 section 2.3). Not where a device has verified it; and not where its
 * sender's stack left one to a device, as it does between the namespaces of one host: it is in no packet then.
 */
#ifndef LOCUM_CHECKSUMS_H
#define LOCUM_CHECKSUMS_H

#define SUM_STEP 512 /* bytes: the most that bpf_csum_diff takes */
#define SUM_STEPS (HELD_BYTES / SUM_STEP)

struct summing {
	__u8 *bytes;
	__u32 length;
	__u32 sum;
};

static long sum_step(__u32 number, struct summing *s)
{
	__u32 at = number * SUM_STEP, size;
	__s64 sum;

	if (number >= SUM_STEPS || at >= s->length)
		return 1;
	size = (s->length - at + 3) & ~3U;
	if (size > SUM_STEP)
		size = SUM_STEP;
	sum = bpf_csum_diff(NULL, 0, (__be32 *)(s->bytes + at), size, s->sum);
	if (sum < 0)
		return 1;
	s->sum = sum;
	return 0;
}

typedef __u32 __attribute__((may_alias)) any_word;

static __always_inline __u32 fold_words(const void *data, int words, __u64 sum)
{
	const any_word *word = data;
	int i;

#pragma unroll
	for (i = 0; i < words; i++)
		sum += word[i];
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return folded(sum);
}

/* Sum of the pseudo header. The prefix of a mapped address is 0xffff: nothing, in this arithmetic. */
static __noinline __u32 pseudo_sum(const struct locum_address *source, const struct locum_address *destination,
				   __u32 length, __u32 protocol)
{
	__u32 word[10];

	if (!source || !destination)
		return 0;
	__builtin_memcpy(word, source, 16);
	__builtin_memcpy(word + 4, destination, 16);
	word[8] = bpf_htonl(length);
	word[9] = bpf_htonl(protocol);
	return fold_words(word, 10, 0);
}

/* The inner packet's checksum covers its pseudo header alone: a device was to fill it in. */
static __always_inline bool left_to_device(struct __sk_buff *skb, const struct packet *p)
{
	__u32 place = checksum_place(p->protocol), length = p->offset + p->length - p->payload;
	__u16 field;

	if (!place || p->protocol == IPPROTO_ICMPV6 || p->fragment || length < place + 2 ||
	    bpf_skb_load_bytes(skb, p->payload + place, &field, 2))
		return false;
	return field == pseudo_sum(&p->source, &p->destination, length, p->protocol);
}

/* The checksum of the tunnel's own header, between `t->covered` and `end`, is wrong; w->packet is the inner packet. */
static __noinline bool wrong_checksum(struct __sk_buff *skb, const struct work *w, const struct locum_address *source,
				      const struct tunnelled *t, __u32 end)
{
	__u32 cpu = bpf_get_smp_processor_id(), pseudo = 0;
	struct scratch *s = bpf_map_lookup_elem(&scratches, &cpu);
	struct summing summing = {};
	__u64 rest = (__u64)end - t->covered - 1;
	__be16 udp[2]; /* length, checksum */

	if (skb->gso_size || bpf_csum_level(skb, BPF_CSUM_LEVEL_QUERY) >= 0)
		return false;
	if (t->encapsulation == UDP) {
		if (bpf_skb_load_bytes(skb, t->covered + 4, udp, 4))
			return true;
		if (!udp[1])
			return false;
		rest = (__u64)bpf_ntohs(udp[0]) - 1;
		if (t->covered + rest + 1 > end)
			return true;
		pseudo = pseudo_sum(source, &w->tunnel_end, rest + 1, IPPROTO_UDP);
		if (udp[1] == pseudo)
			return false;
	}
	asm volatile("" : "+r"(rest));
	if (!s || rest >= HELD_BYTES - 4)
		return true;
	if (bpf_skb_load_bytes(skb, t->covered, s->bytes, rest + 1))
		return true;
	__builtin_memset(&s->bytes[rest + 1], 0, 3); /* up to a whole word */
	summing.bytes = s->bytes;
	summing.length = rest + 1;
	summing.sum = pseudo;
	bpf_loop(SUM_STEPS, sum_step, &summing, 0);
	return fold_words(&summing.sum, 1, 0) != 0xffff && !left_to_device(skb, &w->packet);
}

#endif

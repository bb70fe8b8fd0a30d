/* Traffic of a guarded home address besides its flows: connections of this host itself, services that it
 * offers, listeners of application proxies, which their mark tells, and ports whose new connections the daemon decides on: it gives back those that it accepts. A live connection of the absent device has no socket here: it is neither answered nor reset.
 */
#ifndef LOCUM_SERVICE_H
#define LOCUM_SERVICE_H

#define TCP_FLAGS 13 /* offset in the header */
#define TCP_SYN 0x02
#define TCP_RST_ACK 0x14
#define TCP_HEADER 20

static __always_inline bool offered(const struct packet *p)
{
	struct locum_service_key key;

	__builtin_memset(&key, 0, sizeof(key));
	key.port = p->destination_port;
	key.protocol = p->protocol;
	return bpf_map_lookup_elem(&services, &key);
}

static __always_inline bool is_watched(const struct packet *p)
{
	struct locum_watched_key key;

	__builtin_memset(&key, 0, sizeof(key));
	key.home_address = p->destination;
	key.port = p->destination_port;
	return p->protocol == IPPROTO_TCP && !p->later_fragment && bpf_map_lookup_elem(&watched, &key);
}

static __always_inline __u32 tuple_of(const struct packet *p, struct bpf_sock_tuple *tuple)
{
	__builtin_memset(tuple, 0, sizeof(*tuple));
	if (p->family == 4) {
		tuple->ipv4.saddr = v4_of(&p->source);
		tuple->ipv4.daddr = v4_of(&p->destination);
		tuple->ipv4.sport = p->source_port;
		tuple->ipv4.dport = p->destination_port;
		return sizeof(tuple->ipv4);
	}
	__builtin_memcpy(tuple->ipv6.saddr, &p->source, sizeof(p->source));
	__builtin_memcpy(tuple->ipv6.daddr, &p->destination, sizeof(p->destination));
	tuple->ipv6.sport = p->source_port;
	tuple->ipv6.dport = p->destination_port;
	return sizeof(tuple->ipv6);
}

/* Only a SYN may reach a listener: it answers everything else with a reset. */
static __always_inline bool opens(struct __sk_buff *skb, const struct packet *p)
{
	__u8 flags;

	if (p->payload + TCP_HEADER > (__u32)p->offset + p->length ||
	    bpf_skb_load_bytes(skb, p->payload + TCP_FLAGS, &flags, 1))
		return false;
	return (flags & (TCP_SYN | TCP_RST_ACK)) == TCP_SYN;
}

#define OF_HOST 1
#define OF_PROXY 2 /* a listener, or a UDP socket */

/* OF_HOST, OF_PROXY, or 0 where no socket may get the packet. */
static __noinline int has_socket(struct __sk_buff *skb, struct work *w)
{
	struct packet *p = &w->packet;
	struct bpf_sock_tuple tuple;
	__u32 size = tuple_of(p, &tuple), mark = 0;
	struct bpf_sock *sk, *whole;
	bool listens;

	if (p->protocol == IPPROTO_UDP) {
		sk = bpf_sk_lookup_udp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
		if (!sk)
			return 0;
		mark = sk->mark;
		bpf_sk_release(sk);
		if ((mark & LOCUM_MARK_MASK) == LOCUM_MARK_PROXY)
			return OF_PROXY;
		return offered(p) ? OF_HOST : 0;
	}
	if (p->protocol != IPPROTO_TCP)
		return 0;
	sk = bpf_skc_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	listens = sk->state == BPF_TCP_LISTEN;
	if (listens) {
		whole = bpf_sk_fullsock(sk);
		if (whole)
			mark = whole->mark;
	}
	bpf_sk_release(sk);
	if (!listens)
		return OF_HOST;
	if (p->later_fragment || !opens(skb, p))
		return 0;
	if ((mark & LOCUM_MARK_MASK) == LOCUM_MARK_PROXY)
		return OF_PROXY;
	return offered(p) ? OF_HOST : 0;
}

#endif

/* Programs of `locum run`: sockets that they make get a mark, which policy rules lead to the home address (home) or around it
 * (around). What they ask a name server goes to the resolver of that side: the one that the host has is of the other side.
 *
 * `locum.dataplane.emitting.marking` attaches the programs to a control group of each command, and writes the resolvers. They
 * stay as long as the control group, also when the daemon dies. IPv6 name servers are left alone.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MARK_HOME 0x4c48
#define MARK_AROUND 0x4c57
#define HOME 0
#define AROUND 1
#define DNS bpf_htons(53)

struct asked {
	__u32 address; /* as the program named it */
	__u32 resolver; /* that was asked instead */
};

/* Address of the resolver of each side, in network order; 0: names are asked as the program says. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} uses_resolvers SEC(".maps");

/* The name server that a socket without connection asked last, by the socket's cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct asked);
} uses_asked SEC(".maps");

static __always_inline void to_resolver(struct bpf_sock_addr *to, __u32 side)
{
	__u32 *resolver = bpf_map_lookup_elem(&uses_resolvers, &side);
	__u64 cookie = bpf_get_socket_cookie(to);
	struct asked asked;

	if (to->user_port != DNS || !resolver || !*resolver || to->user_ip4 == *resolver)
		return;
	asked.address = to->user_ip4;
	asked.resolver = *resolver;
	if (!bpf_map_update_elem(&uses_asked, &cookie, &asked, BPF_ANY))
		to->user_ip4 = asked.resolver;
}

/* The answer, or the name of the peer, is from the address that the program named. */
static __always_inline void from_resolver(struct bpf_sock_addr *from)
{
	__u64 cookie = bpf_get_socket_cookie(from);
	struct asked *asked = bpf_map_lookup_elem(&uses_asked, &cookie);

	if (asked && from->user_port == DNS && from->user_ip4 == asked->resolver)
		from->user_ip4 = asked->address;
}

SEC("cgroup/sock_create")
int home_create(struct bpf_sock *socket)
{
	socket->mark = MARK_HOME;
	return 1;
}

SEC("cgroup/sock_create")
int around_create(struct bpf_sock *socket)
{
	socket->mark = MARK_AROUND;
	return 1;
}

SEC("cgroup/connect4")
int home_connect(struct bpf_sock_addr *to)
{
	to_resolver(to, HOME);
	return 1;
}

SEC("cgroup/connect4")
int around_connect(struct bpf_sock_addr *to)
{
	to_resolver(to, AROUND);
	return 1;
}

SEC("cgroup/sendmsg4")
int home_sendmsg(struct bpf_sock_addr *to)
{
	to_resolver(to, HOME);
	return 1;
}

SEC("cgroup/sendmsg4")
int around_sendmsg(struct bpf_sock_addr *to)
{
	to_resolver(to, AROUND);
	return 1;
}

SEC("cgroup/recvmsg4")
int any_recvmsg(struct bpf_sock_addr *from)
{
	from_resolver(from);
	return 1;
}

SEC("cgroup/getpeername4")
int any_getpeername(struct bpf_sock_addr *from)
{
	from_resolver(from);
	return 1;
}

char _license[] SEC("license") = "GPL";

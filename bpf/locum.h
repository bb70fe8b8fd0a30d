/* Shared by the kernel side and `locum.dataplane.layout.maps`: map keys, map values, codes. A test compares the layouts by BTF.
 *
 * An address is 16 bytes in network order, IPv4 mapped into IPv6 (::ffff:a.b.c.d), so that one table serves both
 * families. Ports are in network order; everything else is in host order.
 */
#ifndef LOCUM_H
#define LOCUM_H

struct locum_address {
	__u64 high;
	__u64 low;
};

enum locum_encapsulation { IPIP = 0, GRE = 1, UDP = 2 };

struct locum_tunnel {
	struct locum_address source;
	struct locum_address destination;
	__u32 gre_key;
	__u16 source_port;
	__u16 destination_port;
	__u8 encapsulation;
	__u8 has_key;
	__u8 local; /* the destination is an end point on this host: no tunnel at all */
	__u8 reserved[5];
};

enum locum_verdict { NATIVE = 0, ENCAPSULATE = 1, HOLD = 2, REPORT = 3, DROP = 4, GUARD = 5 };

/* Flags of a binding. FLOWS: the flow table has entries of this home address. IMPLICIT: the home agent has nothing to
 * say of it, the entry exists for what follows. RULES: there are flow rules. SHARED: flows are shared among the tunnels
 * by weight. LOCAL: `local` is the verdict where packets end on this host. VISITED: table `visited` has an entry. */
#define LOCUM_FLOWS 1
#define LOCUM_PEER 2
#define LOCUM_PEER_TUNNEL 4
#define LOCUM_IMPLICIT 8
#define LOCUM_RULES 16
#define LOCUM_SHARED 32
#define LOCUM_LOCAL 64
#define LOCUM_VISITED 128

#define LOCUM_MAX_TUNNELS 4

struct locum_binding {
	__u8 verdict;
	__u8 tunnels;
	__u8 flags;
	__u8 local;
	__u8 reserved[4];
	struct locum_tunnel tunnel;
};

/* The part that few bindings have, so that the common entry stays small. Written before the binding that needs it. */
struct locum_binding_more {
	struct locum_address peer;
	struct locum_tunnel peer_tunnel;
	struct locum_tunnel others[LOCUM_MAX_TUNNELS - 1];
	__u16 weights[LOCUM_MAX_TUNNELS];
};

/* The parts of a selector (RFC 6088). PORTS and SPI also mark the known fields of a packet. */
#define LOCUM_SOURCE 1
#define LOCUM_DESTINATION 2
#define LOCUM_SPI 4
#define LOCUM_FLOW_LABEL 8
#define LOCUM_SOURCE_PORT 16
#define LOCUM_DESTINATION_PORT 32
#define LOCUM_DSCP 64
#define LOCUM_PROTOCOL 128

/* From first to last, both included; in host order, so that it compares as two numbers. */
struct locum_range {
	struct locum_address first;
	struct locum_address last;
};

/* Fields stand in the order of comparison. A range that is not among the parts is never read. */
struct locum_rule {
	__u8 parts;
	__u8 family; /* 4 or 6: of the selector */
	__u8 verdict;
	__u8 candidates;
	__u8 protocol[2];
	__u8 dscp[2];
	__u16 source_port[2];
	__u16 destination_port[2];
	__u32 spi[2];
	__u32 flow_label[2];
	struct locum_range source;
	struct locum_range destination;
	__u8 tunnel[LOCUM_MAX_TUNNELS]; /* place among the tunnels of the rules */
	__u16 weight[LOCUM_MAX_TUNNELS];
	__u16 identifier;
	__u16 reserved;
};

enum locum_rule_verdict { RULE_FORWARD = 0, RULE_DROP = 1, RULE_ALLOW = 2 };

/* All rules of a home address are one value, so that a packet meets the old ones or the new ones. Two sizes: most have few. */
#define LOCUM_FEW 8
#define LOCUM_MANY 80
#define LOCUM_FEW_TUNNELS 8
#define LOCUM_MANY_TUNNELS 256

struct locum_rules_head {
	__u32 count;
	__u32 otherwise; /* of a filter: RULE_ALLOW or RULE_DROP */
};

struct locum_rules_few {
	struct locum_rules_head head;
	struct locum_rule rule[LOCUM_FEW];
	struct locum_tunnel tunnel[LOCUM_FEW_TUNNELS];
};

struct locum_rules_many {
	struct locum_rules_head head;
	struct locum_rule rule[LOCUM_MANY];
	struct locum_tunnel tunnel[LOCUM_MANY_TUNNELS];
};

enum locum_place { FLOW_RULES = 0, TO_VISITOR = 1, FROM_VISITOR = 2, EMISSION = 3, VISITED = 4 };

struct locum_filter_key {
	struct locum_address home_address;
	__u32 place;
	__u32 reserved;
};

struct locum_filter_few {
	struct locum_rules_head head;
	struct locum_rule rule[LOCUM_FEW];
};

struct locum_filter_many {
	struct locum_rules_head head;
	struct locum_rule rule[LOCUM_MANY];
};

/* identifier 0: packets that matched no rule, of flow rules and of filters. */
struct locum_rule_key {
	struct locum_address home_address;
	__u16 place;
	__u16 identifier;
	__u32 reserved;
};

/* A fragmented packet that goes through rules: its later fragments are matched with the ports of the first. */
struct locum_fragment_key {
	struct locum_address source;
	struct locum_address destination;
	__u32 identification; /* network order, IPv4's in the lower half */
	__u32 protocol;       /* of IPv4 (RFC 791 section 2.3); 0 for IPv6 */
};

struct locum_fragment {
	__u64 time; /* nanoseconds since boot */
	__u32 spi;
	__u16 source_port; /* host order, as everything here */
	__u16 destination_port;
	__u8 known; /* PORTS or SPI */
	__u8 protocol;
	__u8 reserved[6];
};

struct locum_counter {
	__u64 packets;
	__u64 bytes;
};

/* TO_END: to a home address, by a tunnel to that end point alone which the value has as its next hop (R17). */
enum locum_side { TO_HOME_ADDRESS = 0, FROM_HOME_ADDRESS = 1, TO_END = 2 };

struct locum_acceptance_key {
	struct locum_address outer_source;
	struct locum_address home_address;
	__u32 side;
	__u32 reserved;
};

/* ifindex 0: look the inner packet up again. next_hop all zero: the inner destination. HERE: that is this host itself.
 * ENDS: there is one TO_END of the same. source_port: of the UDP datagram that it must come in; 0: any tunnel. */
#define LOCUM_HERE 1
#define LOCUM_ENDS 2

struct locum_acceptance {
	struct locum_address next_hop;
	__u32 ifindex;
	__u16 flags;
	__be16 source_port;
};

/* ifindex 0: packets of this host. */
struct locum_outbound_key {
	struct locum_address home_address;
	__u32 ifindex;
	__u32 reserved;
};

enum locum_flow_verdict { FLOW_DELIVER = 0, FLOW_HOLD = 1, FLOW_SUSPEND = 2 };

struct locum_flow_key {
	struct locum_address local;
	struct locum_address peer;
	__u16 local_port;
	__u16 peer_port;
	__u8 protocol;
	__u8 reserved[3];
};

struct locum_flow {
	__u32 verdict;
	__u32 reserved;
};

/* Own addresses: end points of tunnels, and addresses of the attached interfaces (never tunnelled to). */
#define LOCUM_ENDPOINT 1
#define LOCUM_OWN 2

/* Flags of tables with entries: empty tables are not looked up. */
#define LOCUM_TRANSLATES 1
#define LOCUM_GROUPS 2
#define LOCUM_FILTERED(PLACE) (4 << (PLACE))

struct locum_settings {
	__u32 tap_ifindex;
	__u32 uses;
};

/* tunnel all zero: packets that are delivered here. `epoch` tells flows of an earlier translation of this key. */
struct locum_translation_key {
	struct locum_address home_address;
	struct locum_address tunnel;
};

struct locum_translation {
	struct locum_address interface_address;
	__u64 epoch;
};

struct locum_translation_count {
	struct locum_counter towards;
	struct locum_counter back;
};

/* A flow that was translated towards the stand-in; `seen` is when, last. */
struct locum_translated {
	struct locum_translation_key key;
	__u64 epoch;
	__u64 seen;
};

struct locum_translated_fragment {
	struct locum_address source;
	struct locum_address destination;
	__u32 identification;
	__u32 protocol;
};

struct locum_group_key {
	struct locum_address group;
	__u32 ifindex;
	__u32 reserved;
};

#define LOCUM_GROUP_LINKS 16

struct locum_group_link {
	__u32 ifindex;
	__u8 address[6];
	__u8 reserved[2];
};

struct locum_group {
	__u32 count;
	struct locum_group_link links[LOCUM_GROUP_LINKS];
};

/* A service of this host that may answer for guarded home addresses. */
struct locum_service_key {
	__u16 port;
	__u8 protocol;
	__u8 reserved;
};

/* A TCP port of a guarded home address whose new connections the daemon decides on. */
struct locum_watched_key {
	struct locum_address home_address;
	__u16 port;
	__u8 reserved[6];
};

/* A held or reported packet: this header, then the packet from its network header on. */
struct locum_held {
	struct locum_flow_key flow;
	__u64 time;
	__u32 length;
	__u32 gso_size;
	__u32 ifindex;
	__u32 reason;
};

enum locum_held_reason { HELD_BINDING = 0, HELD_FLOW = 1, HELD_REPORT = 2, HELD_OPENING = 3 };

/* The result for a packet, for the comparison with the model: skb->cb[0], and cb[1] has the drop reason. */
enum locum_outcome {
	PASSED = 0,
	DROPPED = 1,
	HELD = 2,
	DELIVERED = 3,
	ENCAPSULATED = 4,
	TOO_BIG = 5,
	LOCAL = 6, /* its tunnel ends here: passed to the stack of this host */
};

enum locum_reason {
	REASON_NONE = 0,
	UNREGISTERED_SOURCE = 1,
	MALFORMED_TUNNEL = 2,
	NO_SESSION = 3,
	PEER_UNREACHABLE = 4,
	BINDING_DROP = 5,
	SUSPENDED = 6,
	HOLD_OVERFLOW = 7,
	NO_ROUTE = 8,
	TOO_LARGE = 9,
	ENCAPSULATION_FAILED = 10,
	DECAPSULATION_FAILED = 11,
	CONGESTED = 12, /* outer CE on a packet that is not ECN capable (RFC 6040 section 4.2) */
	STRAY = 13,     /* reached the re-injection device and belongs to no tunnel */
	TUNNEL_FRAGMENT = 14, /* not a drop: passed to the stack for reassembly */
	TRANSLATION_CONFLICT = 15, /* another home address has this flow at the interface address */
	TRANSLATION_FAILED = 16,
	GROUP_NOT_FORWARDED = 17, /* to one of its links */
	RULE_DROPPED = 18,
	FILTERED_TO_VISITOR = 19,
	FILTERED_FROM_VISITOR = 20,
	FILTERED_EMISSION = 21,
	FRAGMENT_FOLLOWS = 22, /* not a drop: matched as its first fragment */
	FRAGMENT_UNKNOWN = 23, /* not a drop: matched without ports */
	UNCLAIMED = 24, /* its tunnel ends here, and the stack of this host would send it on */
	FROM_ACCESS_LINK = 25, /* a visitor sent it as if it were a home agent */
	REASON_COUNT, /* stays the last: the size of the map */
};

/* skb->mark: the upper half is the kind of the lower half. */
#define LOCUM_MARK_MASK 0xffff0000
#define LOCUM_MARK_OVERHEAD 0x10c00000 /* too big by this tunnel's overhead: routed by the table with the locked MTU */
#define LOCUM_MARK_RELEASED 0x10c10000 /* came from the hold queue: is not held again */
#define LOCUM_MARK_COPY 0x10c20000     /* copy for this tunnel of a simultaneous binding */
#define LOCUM_MARK_LOCAL 0x10c30000    /* its tunnel ended here: delivered (0), or for this host itself (1) */
#define LOCUM_MARK_ANSWER 0x10c40000   /* an answer for a suspended flow, by the daemon: leaves although it is suspended */
#define LOCUM_MARK_VOID 0x10c50000     /* of a suspended flow: ends at the re-injection device */

#endif

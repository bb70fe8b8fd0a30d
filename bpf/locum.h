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

enum locum_encapsulation { IPIP = 0, GRE = 1, UDP = 2, MINIMAL = 3 };

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

/* The last two are of filters: a page is asked for, and the packet goes on, or it does not. */
enum locum_rule_verdict {
	RULE_FORWARD = 0,
	RULE_DROP = 1,
	RULE_ALLOW = 2,
	RULE_PAGE = 3,
	RULE_ALLOW_PAGE = 4,
	RULE_DROP_PAGE = 5,
};


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

/* The first fragment of a packet: its later fragments go where it went. Each home address has places of its own, so that
 * packets of others take none of them: by the peer, and by the packet's number, which most senders count up. Each says
 * of which packet it is, for a place has the latest one; it has a seal over itself and this key, for it is written in place,
 * and an element may be used again while it is read. With the kernel's head and the key an element has 4096 bytes. */
#define LOCUM_FRAGMENT_PEERS 7
#define LOCUM_FRAGMENT_NUMBERS 9
#define LOCUM_FRAGMENT_PLACES (LOCUM_FRAGMENT_PEERS * LOCUM_FRAGMENT_NUMBERS)

struct locum_fragment_key {
	struct locum_address home_address;
	__u32 place;
	__u32 reserved;
};

struct locum_fragment {
	struct locum_address source;
	struct locum_address destination;
	__u64 time; /* nanoseconds since boot */
	__u32 identification; /* network order */
	__u32 spi;
	__u16 source_port; /* host order, as everything else here */
	__u16 destination_port;
	__u8 header;   /* protocol in the IPv4 header; 0 for IPv6 */
	__u8 protocol;
	__u8 known; /* PORTS or SPI */
	__u8 reserved;
	__u64 seal;
};

struct locum_fragments {
	struct locum_fragment place[LOCUM_FRAGMENT_PLACES];
};

struct locum_counter {
	__u64 packets;
	__u64 bytes;
};

/* The value of a key's element: see tables.h. The word is an identifier of a value, or the value itself; 0: nothing. */
struct locum_entry {
	__u64 word;
	struct locum_counter counter;
};

#define LOCUM_THERE (1ULL << 63) /* in a word that is the value itself and may be 0 */
#define LOCUM_LARGE (1ULL << 32) /* in a word with an identifier: of a value of the larger size */

/* A change of one entry by the program `locum_change`. Before it: the new word, and whether the counters begin at 0 again;
 * after it: the old word, and 0 or -errno. */
struct locum_change {
	__u8 key[40];
	__u64 word;
	__s64 result;
};

#define LOCUM_CHANGES 512

enum locum_changed {
	CHANGE_ENDPOINTS = 0,
	CHANGE_FLOWS = 1,
	CHANGE_RULE_COUNT = 2,
	CHANGE_BINDINGS = 3,
	CHANGE_VISITED = 4,
	CHANGE_BINDING_MORE = 5,
	CHANGE_ACCEPTANCES = 6,
	CHANGE_OUTBOUND = 7,
	CHANGE_RULES = 8,
	CHANGE_FILTERS = 9,
	CHANGE_GROUPS = 10,
	CHANGE_TRANSLATIONS = 11,
	CHANGE_ACCESS_LINKS = 12,
	CHANGE_SENDERS = 13,
};

/* TO_END: to a home address, by a tunnel to that end point alone which the value has as its next hop (R17). */
enum locum_side { TO_HOME_ADDRESS = 0, FROM_HOME_ADDRESS = 1, TO_END = 2 };

/* keyed: of GRE packets with this key, and no others (RFC 2890 section 2.1); 0: of packets without a key. */
struct locum_acceptance_key {
	struct locum_address outer_source;
	struct locum_address home_address;
	__u16 side;
	__u16 keyed;
	__u32 gre_key;
};

/* ifindex 0, or BY_ROUTE: look the inner packet up again. next_hop all zero: the inner destination. HERE: that is this host
 * itself. ENDS: there is one TO_END of the same. source_port: of the UDP datagram that it must come in; 0: any tunnel. */
#define LOCUM_HERE 1
#define LOCUM_ENDS 2
#define LOCUM_BY_ROUTE 4

struct locum_acceptance {
	struct locum_address next_hop;
	__u32 ifindex;
	__u16 flags;
	__be16 source_port;
};

/* An outer source that some acceptance names: how many fragments of its tunnel packets may go to the stack, and when that
 * was last counted. */
struct locum_source {
	__u64 time; /* nanoseconds since boot */
	__u64 fragments;
};

/* ifindex 0: packets of this host. */
struct locum_outbound_key {
	struct locum_address home_address;
	__u32 ifindex;
	__u32 reserved;
};

/* Flags of an access link: visitors are served there; their source addresses are checked; their hardware addresses too. */
#define LOCUM_SERVED 1
#define LOCUM_CHECKED 2
#define LOCUM_BY_HARDWARE 4

/* A network on an access link, whose hosts need no registration. The first 32 bits of the prefix are the link's index. */
struct locum_link_network {
	__u32 prefix_length;
	__u32 ifindex;
	struct locum_address address;
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

/* Own addresses: end points of tunnels, and addresses of the attached interfaces (never tunnelled to). */
#define LOCUM_ENDPOINT 1
#define LOCUM_OWN 2

/* Flags of tables with entries: empty tables are not looked up. */
#define LOCUM_TRANSLATES 1
#define LOCUM_GROUPS 2
#define LOCUM_SOURCES 0x20000 /* the sources of packets on an access link are checked */
#define LOCUM_FILTERED(PLACE) (4 << (PLACE))
/* Above them: the node's number in its namespace. */
#define LOCUM_NUMBER(USES) ((USES) >> 24)
#define LOCUM_NARROW 0x10000 /* paths to ends of tunnels that are narrower than their routes say */
#define LOCUM_PROBES 0x40000 /* the daemon probes paths to ends of tunnels that large packets go to */

struct locum_settings {
	__u32 tap_ifindex;
	__u32 uses;
};

/* Bits of this host's addresses, the bit of each chosen by its content: an address whose bit is 0 is none of them. */
struct locum_own_addresses {
	__u64 bits;
};

/* Device that renews the segmentation state of packets, and its link-layer address; 0: none. */
struct locum_renewal {
	__u32 ifindex;
	__u8 address[6];
	__u8 reserved[2];
};

/* The last 4 bytes of the link-local addresses there. */
#define LOCUM_RENEWAL_SOURCE 0x4c01
#define LOCUM_RENEWAL_SEGMENT 0x4c02

/* The MTU of the path to the end of a tunnel, for as long as it is believed. The seal is over key and value. */
struct locum_path {
	__u64 until; /* nanoseconds since boot (CLOCK_BOOTTIME) */
	__u32 mtu;
	__u32 seal;
};

/* MTUs of the routes that answer for packets which are too big, largest first; 0 where there are no more. The upper half
 * is the place of the table.
 */
#define LOCUM_INNER_MTUS 16

struct locum_inner_mtus {
	__u32 mtu[LOCUM_INNER_MTUS];
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

/* As a `struct locum_entry`, with one more counter. */
struct locum_translation_entry {
	__u64 word;
	struct locum_counter towards;
	struct locum_counter back;
};

/* A flow that was translated towards the stand-in; `seen` is when, last, and not under the seal. */
struct locum_translated {
	struct locum_translation_key key;
	__u64 epoch;
	__u64 seen;
	__u64 seal;
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

/* A guarded home address whose proxy logs headers of packets that nothing takes. Programs write all but `most`. */
struct locum_logged {
	__u64 second;   /* when it began, in nanoseconds since boot */
	__u64 left_out; /* packets beyond `most` and the room of the ring, so far */
	__u32 sent;     /* in this second */
	__u32 most;     /* in one second */
};
#define LOCUM_LOGGED_BYTES 128 /* of a packet, from its network header on */

/* A held or reported packet: this header, then the packet from its network header on. */
struct locum_held {
	struct locum_flow_key flow;
	__u64 time;
	__u32 length;
	__u32 gso_size;
	__u32 ifindex;
	__u16 reason;
	__u16 rule; /* HELD_PAGE and HELD_CLASSIFIED: the rule that takes the packet; else 0 */
};

/* HELD_PATH: no packet, but a tunnel: its ends are `flow`, the MTU of its path `gso_size`, its overhead `ifindex`.
 * HELD_PIECES: a tunnel packet that leaves in fragments of `gso_size` bytes.
 * HELD_HEADERS: the first bytes of a packet of `ifindex` bytes, before which `gso_size` were left out in all.
 * HELD_CLASSIFIED: the first bytes of a packet of `ifindex` bytes, after `gso_size` that the same rule took without a report.
 * HELD_LARGE: no packet, but the addresses of one that is large in its tunnel: its source is `local`, the other `peer`.
 */
enum locum_held_reason {
	HELD_BINDING = 0,
	HELD_FLOW = 1,
	HELD_REPORT = 2,
	HELD_OPENING = 3,
	HELD_PATH = 4,
	HELD_PIECES = 5,
	HELD_LARGE = 6,
	HELD_HEADERS = 7,
	HELD_PAGE = 8,
	HELD_CLASSIFIED = 9,
};

/* The result for a packet, for the comparison with the model: skb->cb[0], and cb[1] has the drop reason. */
enum locum_outcome {
	PASSED = 0,
	DROPPED = 1,
	HELD = 2,
	DELIVERED = 3,
	ENCAPSULATED = 4,
	TOO_BIG = 5,
	LOCAL = 6, /* its tunnel ends here: passed to the stack of this host */
	RENEWING = 7, /* comes again at this interface, with other segmentation state */
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
	FILTERED_TO_VISITOR = 19, /* this and the next two in the order of locum_place */
	FILTERED_FROM_VISITOR = 20,
	FILTERED_EMISSION = 21,
	FRAGMENT_FOLLOWS = 22, /* not a drop: goes where its first fragment went */
	FRAGMENT_UNKNOWN = 23, /* where it goes depends on ports, and its first fragment is not known */
	UNCLAIMED = 24, /* its tunnel ends here, and the stack of this host would send it on */
	FROM_ACCESS_LINK = 25, /* a visitor sent it as if it were a home agent */
	UNREAD_HEADERS = 26, /* there is a filter, and the packet's headers are cut or too many (RFC 7112) */
	LINK_BROADCAST = 27, /* a unicast packet of ours in a broadcast or multicast frame */
	LINK_SCOPE = 28, /* out of a tunnel, and belongs to one link */
	FRAGMENT_CONFLICT = 29, /* a second first fragment of a packet, with other ports */
	SPOOFED_SOURCE = 30, /* from an address that is not its sender's: this host's own, or on an access link (RFC 2827) */
	MAPPED_ADDRESS = 31, /* an IPv6 header with an IPv4-mapped address */
	ROUTING_HEADER = 32, /* of type 0 (RFC 5095), or there is a filter, which cannot judge the source route (RFC 7126) */
	TUNNEL_FRAGMENT_LIMIT = 33, /* more fragments of tunnel packets from one source than are put together */
	HOLD_SHARE = 34, /* held packets of this home address have their share of the room between kernel and daemon */
	TUNNEL_LOOP = 35, /* from an end of the tunnel (RFC 2003 section 3.2) */
	NESTING_LIMIT = 36, /* in too many tunnels already, or its encapsulation limit is 0 (RFC 2473 section 4.1.1) */
	BAD_CHECKSUM = 37, /* of an IPv4 header, or of a tunnel packet's UDP, GRE or minimal header */
	REASON_COUNT, /* stays the last: the size of the map */
};

/* skb->mark: the upper half is the kind of the lower half. */
#define LOCUM_MARK_MASK 0xffff0000
#define LOCUM_MARK_MTU 0x10c00000      /* too big for its tunnel: number of the node, and place of a table with locked MTU */
#define LOCUM_MARK_RELEASED 0x10c10000 /* came from the hold queue: is not held again */
#define LOCUM_MARK_COPY 0x10c20000     /* copy for this tunnel of a simultaneous binding */
#define LOCUM_MARK_LOCAL 0x10c30000    /* its tunnel ended here: delivered (0), or for this host itself (1) */
#define LOCUM_MARK_ANSWER 0x10c40000   /* an answer for a suspended flow, by the daemon: leaves although it is suspended */
#define LOCUM_MARK_VOID 0x10c50000     /* of a suspended flow: ends at the re-injection device */
#define LOCUM_MARK_SIGNALLING 0x10c60000 /* a message of this host's daemon to an agent: goes into no tunnel */
#define LOCUM_MARK_RENEWED 0x10c70000  /* comes again at its ingress, from the renewal of its segmentation state */
#define LOCUM_MARK_SENT 0x10c80000     /* our own tunnel packet, on its way out */
#define LOCUM_MARK_PROXY 0x10c90000    /* of sockets: they are this application proxy's (its number) */

#endif

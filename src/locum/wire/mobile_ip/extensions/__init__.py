"""Extensions of Mobile IP registration messages, found by type. One small file each; framing.py has the formats."""

from collections.abc import Callable, Iterable, Iterator

from locum.wire.cursor import Cursor
from locum.wire.errors import WireError
from locum.wire.mobile_ip.extensions.authentication import (
    GENERALIZED_AUTHENTICATION,
    MN_AAA,
    Authentication,
    AuthKind,
    GeneralizedAuthentication,
    decode_authentication,
    decode_generalized,
    lone_authentication,
)
from locum.wire.mobile_ip.extensions.challenge import (
    MIN_CHALLENGE,
    MOBILE_FA_CHALLENGE,
    Challenge,
    MobileFaChallenge,
    decode_mobile_fa_challenge,
)
from locum.wire.mobile_ip.extensions.delivery import (
    ENCAPSULATING_DELIVERY,
    EncapsulatingDelivery,
    decode_encapsulating_delivery,
)
from locum.wire.mobile_ip.extensions.dual_stack import (
    DUAL_STACK,
    LINK_LOCAL,
    Ipv6PrefixReply,
    Ipv6PrefixRequest,
    Ipv6TunnelingMode,
    PrefixCode,
    decode_dual_stack,
)
from locum.wire.mobile_ip.extensions.dynamic_home_agent import (
    DYNAMIC_HOME_AGENT,
    DynamicHomeAgent,
    HomeAgentUse,
    decode_dynamic_home_agent,
)
from locum.wire.mobile_ip.extensions.flow_binding import (
    MAX_BINDING,
    MAX_BINDINGS,
    MIN_BINDING,
    MULTIPATH,
    AccessTechnology,
    FlowAction,
    FlowBinding,
    Multipath,
    decode_flow_binding,
)
from locum.wire.mobile_ip.extensions.framing import (
    MAX_EXTENSIONS,
    MAX_MESSAGE,
    PADDING,
    Extension,
    Frame,
    Unknown,
    next_frame,
    unknown,
)
from locum.wire.mobile_ip.extensions.key_generation import (
    MN_FA_NONCE_REPLY,
    MN_FA_NONCE_REQUEST,
    MN_HA_NONCE_REPLY,
    MN_HA_NONCE_REQUEST,
    AgentNonceReply,
    HomeNonceReply,
    NonceRequest,
    decode_agent_nonce_reply,
    decode_home_nonce_reply,
    decode_nonce_request,
)
from locum.wire.mobile_ip.extensions.nai import (
    NAI,
    NAI_CARRYING,
    Nai,
    NaiCarrying,
    decode_nai,
    decode_nai_carrying,
)
from locum.wire.mobile_ip.extensions.organization import (
    VENDOR_CRITICAL,
    VENDOR_NORMAL,
    VendorCritical,
    VendorNormal,
    decode_vendor_critical,
    decode_vendor_normal,
)
from locum.wire.mobile_ip.extensions.padding import Padding, decode_padding
from locum.wire.mobile_ip.extensions.revocation_support import (
    REVOCATION_SUPPORT,
    RevocationSupport,
    decode_revocation_support,
)
from locum.wire.mobile_ip.extensions.udp_tunnel import (
    DEFAULT_KEEPALIVE,
    UDP_TUNNEL_REPLY,
    UDP_TUNNEL_REQUEST,
    InnerEncapsulation,
    UdpTunnelCode,
    UdpTunnelReply,
    UdpTunnelRequest,
    decode_udp_tunnel_reply,
    decode_udp_tunnel_request,
)

__all__ = [
    "DEFAULT_KEEPALIVE",
    "DUAL_STACK",
    "DYNAMIC_HOME_AGENT",
    "ENCAPSULATING_DELIVERY",
    "GENERALIZED_AUTHENTICATION",
    "LINK_LOCAL",
    "MAX_BINDING",
    "MAX_BINDINGS",
    "MAX_EXTENSIONS",
    "MAX_MESSAGE",
    "MIN_BINDING",
    "MIN_CHALLENGE",
    "MN_AAA",
    "MN_FA_NONCE_REPLY",
    "MN_FA_NONCE_REQUEST",
    "MN_HA_NONCE_REPLY",
    "MN_HA_NONCE_REQUEST",
    "MOBILE_FA_CHALLENGE",
    "MULTIPATH",
    "NAI",
    "NAI_CARRYING",
    "PADDING",
    "REVOCATION_SUPPORT",
    "UDP_TUNNEL_REPLY",
    "UDP_TUNNEL_REQUEST",
    "VENDOR_CRITICAL",
    "VENDOR_NORMAL",
    "AccessTechnology",
    "AgentNonceReply",
    "AuthKind",
    "Authentication",
    "Challenge",
    "DynamicHomeAgent",
    "EncapsulatingDelivery",
    "Extension",
    "FlowAction",
    "FlowBinding",
    "GeneralizedAuthentication",
    "HomeAgentUse",
    "HomeNonceReply",
    "InnerEncapsulation",
    "Ipv6PrefixReply",
    "Ipv6PrefixRequest",
    "Ipv6TunnelingMode",
    "MobileFaChallenge",
    "Multipath",
    "Nai",
    "NaiCarrying",
    "NonceRequest",
    "Padding",
    "PrefixCode",
    "RevocationSupport",
    "UdpTunnelCode",
    "UdpTunnelReply",
    "UdpTunnelRequest",
    "Unknown",
    "VendorCritical",
    "VendorNormal",
    "check_order",
    "decode_extensions",
    "decode_intact",
    "decode_padding",
    "encode_extensions",
]

_DECODERS: dict[int, Callable[[Frame], Extension]] = {
    PADDING: decode_padding,
    AuthKind.MN_HA: decode_authentication,
    AuthKind.MN_FA: decode_authentication,
    AuthKind.FA_HA: decode_authentication,
    GENERALIZED_AUTHENTICATION: decode_generalized,
    VENDOR_CRITICAL: decode_vendor_critical,
    MN_FA_NONCE_REQUEST: decode_nonce_request,
    MN_FA_NONCE_REPLY: decode_agent_nonce_reply,
    MN_HA_NONCE_REQUEST: decode_nonce_request,
    MN_HA_NONCE_REPLY: decode_home_nonce_reply,
    ENCAPSULATING_DELIVERY: decode_encapsulating_delivery,
    NAI: decode_nai,
    NAI_CARRYING: decode_nai_carrying,
    MOBILE_FA_CHALLENGE: decode_mobile_fa_challenge,
    VENDOR_NORMAL: decode_vendor_normal,
    DUAL_STACK: decode_dual_stack,
    MULTIPATH: decode_flow_binding,
    REVOCATION_SUPPORT: decode_revocation_support,
    DYNAMIC_HOME_AGENT: decode_dynamic_home_agent,
    UDP_TUNNEL_REQUEST: decode_udp_tunnel_request,
    UDP_TUNNEL_REPLY: decode_udp_tunnel_reply,
}


def decode_extensions(cursor: Cursor) -> tuple[Extension, ...]:
    """The extensions from the cursor to the end of a registration message, in order.

    Raises WireError for one that does not fit, an unknown one below 128 (`unknown-extension`, with its number), more than
    MAX_EXTENSIONS, or a forbidden order.
    """
    alone = lone_authentication(cursor)
    if alone is not None:
        return (alone,)
    found: list[Extension] = []
    for extension in _decoded(cursor):
        found.append(extension)
    check_order(found)
    return tuple(found)


def decode_intact(cursor: Cursor) -> tuple[Extension, ...]:
    """The extensions before the first that `decode_extensions` would refuse. Raises WireError for an unknown one below 128."""
    found: list[Extension] = []
    try:
        for extension in _in_order(_decoded(cursor)):
            found.append(extension)
    except WireError as error:
        if error.reason == "unknown-extension":  # section 1.8: nothing of the message counts
            raise
    return tuple(found)


def _decoded(cursor: Cursor) -> Iterator[Extension]:
    for _ in range(MAX_EXTENSIONS):
        if not cursor.remaining:
            return
        frame = next_frame(cursor)
        yield _DECODERS.get(frame.type, unknown)(frame)
    if cursor.remaining:
        raise WireError("extension", cursor.offset, "too-many-extensions")


def encode_extensions(extensions: Iterable[Extension]) -> bytes:
    """The extensions one after the other."""
    return b"".join(extension.encode() for extension in extensions)


def _rank(extension: Extension) -> int | None:
    """Place among the extensions whose order is fixed; None if there is no rule for this one."""
    if isinstance(
        extension, Authentication
    ):  # RFC 5944 sections 3.5.3, 3.5.4: after the mobile node's to its home agent
        return 0 if extension.kind is AuthKind.MN_HA else 2
    # RFC 7629 sections 4.1, 4.2: the mobile node says these to its home agent, under its authentication
    if isinstance(extension, Multipath | FlowBinding):
        return -1
    # RFC 3024 section 3.3, RFC 4721 section 3.1: between the two, as they are said to the foreign agent
    if isinstance(extension, EncapsulatingDelivery | MobileFaChallenge):
        return 1
    return None


def check_order(extensions: Iterable[Extension]) -> None:
    """Raises WireError unless the order is right (RFC 5944 section 3.6.1.3) and single extensions occur once.

    That is each kind of authentication, and the multipath extension (RFC 7629 section 4.1).
    """
    for _ in _in_order(extensions):
        pass


def _in_order(extensions: Iterable[Extension]) -> Iterator[Extension]:
    seen: set[AuthKind] = set()
    multipath = False
    highest = -1
    for extension in extensions:
        if isinstance(extension, Multipath):
            if multipath:
                raise WireError("extension", 0, "repeated-multipath")
            multipath = True
        if isinstance(extension, Authentication):
            if extension.kind in seen:
                raise WireError("extension", 0, "repeated-authentication")
            seen.add(extension.kind)
        rank = _rank(extension)
        if rank is not None:
            if rank < highest:
                raise WireError("extension", 0, "extension-order")
            highest = rank
        yield extension

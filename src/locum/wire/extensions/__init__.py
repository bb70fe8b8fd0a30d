"""Extensions of Mobile IP registration messages, found by type. One small file each; framing.py has the formats."""

from collections.abc import Callable, Iterable

from locum.wire.cursor import Cursor
from locum.wire.errors import WireError
from locum.wire.extensions.authentication import (
    GENERALIZED_AUTHENTICATION,
    MN_AAA,
    Authentication,
    AuthKind,
    GeneralizedAuthentication,
    decode_authentication,
    decode_generalized,
    lone_authentication,
)
from locum.wire.extensions.challenge import (
    MIN_CHALLENGE,
    MOBILE_FA_CHALLENGE,
    Challenge,
    MobileFaChallenge,
    decode_mobile_fa_challenge,
)
from locum.wire.extensions.delivery import (
    ENCAPSULATING_DELIVERY,
    EncapsulatingDelivery,
    decode_encapsulating_delivery,
)
from locum.wire.extensions.dual_stack import (
    DUAL_STACK,
    LINK_LOCAL,
    Ipv6PrefixReply,
    Ipv6PrefixRequest,
    Ipv6TunnelingMode,
    PrefixCode,
    decode_dual_stack,
)
from locum.wire.extensions.framing import (
    MAX_EXTENSIONS,
    MAX_MESSAGE,
    PADDING,
    Extension,
    Frame,
    Unknown,
    next_frame,
    unknown,
)
from locum.wire.extensions.nai import NAI, NAI_CARRYING, Nai, NaiCarrying, decode_nai, decode_nai_carrying
from locum.wire.extensions.organization import (
    VENDOR_CRITICAL,
    VENDOR_NORMAL,
    VendorCritical,
    VendorNormal,
    decode_vendor_critical,
    decode_vendor_normal,
)
from locum.wire.extensions.padding import Padding, decode_padding

__all__ = [
    "DUAL_STACK",
    "ENCAPSULATING_DELIVERY",
    "GENERALIZED_AUTHENTICATION",
    "LINK_LOCAL",
    "MAX_EXTENSIONS",
    "MAX_MESSAGE",
    "MIN_CHALLENGE",
    "MN_AAA",
    "MOBILE_FA_CHALLENGE",
    "NAI",
    "NAI_CARRYING",
    "PADDING",
    "VENDOR_CRITICAL",
    "VENDOR_NORMAL",
    "AuthKind",
    "Authentication",
    "Challenge",
    "EncapsulatingDelivery",
    "Extension",
    "GeneralizedAuthentication",
    "Ipv6PrefixReply",
    "Ipv6PrefixRequest",
    "Ipv6TunnelingMode",
    "MobileFaChallenge",
    "Nai",
    "NaiCarrying",
    "Padding",
    "PrefixCode",
    "Unknown",
    "VendorCritical",
    "VendorNormal",
    "check_order",
    "decode_extensions",
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
    ENCAPSULATING_DELIVERY: decode_encapsulating_delivery,
    NAI: decode_nai,
    NAI_CARRYING: decode_nai_carrying,
    MOBILE_FA_CHALLENGE: decode_mobile_fa_challenge,
    VENDOR_NORMAL: decode_vendor_normal,
    DUAL_STACK: decode_dual_stack,
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
    while cursor.remaining:
        if len(found) == MAX_EXTENSIONS:
            raise WireError("extension", cursor.offset, "too-many-extensions")
        frame = next_frame(cursor)
        found.append(_DECODERS.get(frame.type, unknown)(frame))
    check_order(found)
    return tuple(found)


def encode_extensions(extensions: Iterable[Extension]) -> bytes:
    """The extensions one after the other."""
    return b"".join(each.encode() for each in extensions)


def _rank(extension: Extension) -> int | None:
    """Place among the extensions whose order is laid down; None where there is no rule."""
    if isinstance(
        extension, Authentication
    ):  # RFC 5944 sections 3.5.3, 3.5.4: after the mobile node's to its home agent
        return 0 if extension.kind is AuthKind.MN_HA else 2
    # RFC 3024 section 3.3, RFC 4721 section 3.1: between the two, as they are said to the foreign agent
    if isinstance(extension, EncapsulatingDelivery | MobileFaChallenge):
        return 1
    return None


def check_order(extensions: Iterable[Extension]) -> None:
    """Raises WireError unless each kind of authentication appears at most once and in order (RFC 5944 section 3.6.1.3)."""
    seen: set[AuthKind] = set()
    highest = 0
    for each in extensions:
        if isinstance(each, Authentication):
            if each.kind in seen:
                raise WireError("extension", 0, "repeated-authentication")
            seen.add(each.kind)
        rank = _rank(each)
        if rank is not None:
            if rank < highest:
                raise WireError("extension", 0, "extension-order")
            highest = rank

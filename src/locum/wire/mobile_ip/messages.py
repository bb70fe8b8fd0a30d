"""Every message of UDP port 434 (RFC 5944, RFC 3543, RFC 3519), by its type byte."""

from collections.abc import Callable

from locum.wire.errors import WireError
from locum.wire.mobile_ip.registration import (
    REGISTRATION_REPLY,
    REGISTRATION_REQUEST,
    RegistrationReply,
    RegistrationRequest,
)
from locum.wire.mobile_ip.revocation import (
    REGISTRATION_REVOCATION,
    REVOCATION_ACKNOWLEDGMENT,
    RegistrationRevocation,
    RevocationAcknowledgment,
)
from locum.wire.mobile_ip.tunnel_data import TUNNEL_DATA, TunnelData

MobileIpMessage = (
    RegistrationRequest | RegistrationReply | RegistrationRevocation | RevocationAcknowledgment | TunnelData
)

_DECODERS: dict[int, Callable[[bytes], MobileIpMessage]] = {
    REGISTRATION_REQUEST: RegistrationRequest.decode,
    REGISTRATION_REPLY: RegistrationReply.decode,
    TUNNEL_DATA: TunnelData.decode,
    REGISTRATION_REVOCATION: RegistrationRevocation.decode,
    REVOCATION_ACKNOWLEDGMENT: RevocationAcknowledgment.decode,
}


def decode_mobile_ip(data: bytes) -> MobileIpMessage:
    """The message in a UDP payload; raises WireError."""
    if not data:
        raise WireError("type", 0, "truncated")
    decode = _DECODERS.get(data[0])
    if decode is None:
        raise WireError("type", 0, "unknown-message")
    return decode(data)

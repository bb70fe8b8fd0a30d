"""Request for a tunnel through a NAT, 144, and its answer, 44 (RFC 3519 section 3). Payload: tunnel_data."""

from dataclasses import dataclass
from enum import IntEnum

from locum.wire.errors import WireError
from locum.wire.mobile_ip.extensions.framing import Extension, Frame, Unknown, short, unknown

UDP_TUNNEL_REQUEST = 144
UDP_TUNNEL_REPLY = 44
DEFAULT_KEEPALIVE = 110  # seconds between keepalives where the home agent leaves it to the mobile node

_PLAIN = 0  # the only sub-type of both
_FORCE, _FOREIGN_AGENT = 0x80, 0x40
_FORCED = 0x8000


class InnerEncapsulation(IntEnum):
    """IP protocol number of the payload after the tunnel data header."""

    IP = 4
    GRE = 47
    MINIMAL = 55


class UdpTunnelCode(IntEnum):
    """Result of the request."""

    WILL_TUNNEL = 0
    DECLINED = 64


_ENCAPSULATIONS = {int(encapsulation): encapsulation for encapsulation in InnerEncapsulation}
_CODES = {int(code): code for code in UdpTunnelCode}


@dataclass(frozen=True, slots=True)
class UdpTunnelRequest(Extension):
    """The sender takes packets of its tunnel in UDP datagrams (section 3.1)."""

    encapsulation: InnerEncapsulation | int = InnerEncapsulation.IP
    force: bool = False  # F: also where no NAT is seen between it and the home agent
    foreign_agent_required: bool = False  # R: the foreign agent wants this registration to pass through it

    def encode(self) -> bytes:
        """The whole extension; reserved parts are zero."""
        flags = (_FORCE if self.force else 0) | (_FOREIGN_AGENT if self.foreign_agent_required else 0)
        return short(UDP_TUNNEL_REQUEST, _PLAIN, bytes((0, flags, self.encapsulation, 0, 0)))


@dataclass(frozen=True, slots=True)
class UdpTunnelReply(Extension):
    """The home agent's answer, in a reply that accepts the registration (section 3.2)."""

    code: UdpTunnelCode | int
    forced: bool = False  # F: the tunnel is there because it was forced
    keepalive: int = 0  # seconds, at most 65535; 0 leaves it to the mobile node

    @property
    def accepted(self) -> bool:
        """True if there is a tunnel; an unknown code is a refusal."""
        return self.code == UdpTunnelCode.WILL_TUNNEL

    @property
    def interval(self) -> int:
        """Seconds after which a keepalive is due, when nothing else was sent."""
        return self.keepalive or DEFAULT_KEEPALIVE

    def encode(self) -> bytes:
        """The whole extension; reserved parts are zero."""
        flags = _FORCED if self.forced else 0
        tail = flags.to_bytes(2, "big") + self.keepalive.to_bytes(2, "big")
        return short(UDP_TUNNEL_REPLY, _PLAIN, bytes((self.code,)) + tail)


def decode_udp_tunnel_request(frame: Frame) -> UdpTunnelRequest | Unknown:
    """Type 144; a sub-type that is not known is skipped like the type would be."""
    cursor = frame.cursor()
    if cursor.u8("udp-tunnel-request.sub-type") != _PLAIN:
        return unknown(frame)
    cursor.take(1, "reserved")
    flags, encapsulation = cursor.u8("udp-tunnel-request.flags"), cursor.u8("encapsulation")
    cursor.take(2, "reserved")
    cursor.done("udp-tunnel-request")
    encapsulation = _ENCAPSULATIONS.get(encapsulation, encapsulation)
    return UdpTunnelRequest(encapsulation, bool(flags & _FORCE), bool(flags & _FOREIGN_AGENT))


def decode_udp_tunnel_reply(frame: Frame) -> UdpTunnelReply:
    """Type 44; a sub-type that is not known condemns the message like the type would."""
    cursor = frame.cursor()
    if cursor.u8("udp-tunnel-reply.sub-type") != _PLAIN:
        raise WireError("extension", frame.start, "unknown-extension", number=frame.type)
    code = cursor.u8("udp-tunnel-reply.code")
    flags, keepalive = cursor.u16("udp-tunnel-reply.flags"), cursor.u16("keepalive-interval")
    cursor.done("udp-tunnel-reply")
    return UdpTunnelReply(_CODES.get(code, code), bool(flags & _FORCED), keepalive)

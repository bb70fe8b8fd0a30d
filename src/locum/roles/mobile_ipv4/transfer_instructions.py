"""A registration's instruction about its context (C4): its place, or its destination.

A stand-in need not know where the device is: the home agent does, and says so in its reply. It says so as well when the
device is not where the stand-in believes it to be.
"""

from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address

from locum.wire.errors import WireError
from locum.wire.mobile_ip.extensions import VendorNormal
from locum.wire.mobile_ip.registration import RegistrationReply, RegistrationRequest
from locum.wire.mobile_ip.vendor import MnpsRole, TransferContext, VendorValue, decode_vendor
from locum.wire.takes import Takes


@dataclass(frozen=True, slots=True)
class Instruction:
    """A registration's instruction about its context."""

    access_node: IPv4Address
    towards: bool
    stand_in: bool
    ruled: bool


def instruction(request: RegistrationRequest, reply: RegistrationReply | None = None) -> Instruction | None:
    """The instruction in a request that was accepted with `reply`, or has not been answered yet.

    Only extensions signed for the home agent count, and for a stand-in the home agent's own take precedence.
    """
    where: TransferContext | None = None
    role: MnpsRole | None = None
    for value in _values(request):
        match value:
            case TransferContext() as found:
                where = found
            case MnpsRole() as found_role:
                role = found_role
    if where is None:
        return None
    address = where.access_node
    if role is not None and reply is not None and not where.towards:
        address = device_at(reply) or address
    if not isinstance(address, IPv4Address) or address.is_unspecified:
        return None
    return Instruction(
        address, where.towards, role is not None, role is not None and role.takes is Takes.RULED
    )


def device_at(reply: RegistrationReply) -> IPv4Address | None:
    """The device's access node, as the home agent tells its stand-in; None: not given."""
    for value in _values(reply):
        if isinstance(value, TransferContext) and isinstance(value.access_node, IPv4Address):
            return value.access_node
    return None


def _values(message: RegistrationRequest | RegistrationReply) -> list[VendorValue]:
    """Our values under the mobile-home authentication; unreadable ones are ignored."""
    found: list[VendorValue] = []
    for extension in message.said_to_home:
        if isinstance(extension, VendorNormal):
            with suppress(WireError):
                value = decode_vendor(extension)
                if value is not None:
                    found.append(value)
    return found

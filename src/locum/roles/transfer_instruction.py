"""What a registration says about its context (C4): where it is, or where it is to go."""

from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address

from locum.wire.errors import WireError
from locum.wire.extensions import AuthKind, VendorNormal
from locum.wire.registration import RegistrationRequest
from locum.wire.vendor import MnpsRole, Takes, TransferContext, decode_vendor


@dataclass(frozen=True, slots=True)
class Instruction:
    """What a registration says about its context."""

    access_node: IPv4Address
    towards: bool
    stand_in: bool
    ruled: bool


def instruction(request: RegistrationRequest) -> Instruction | None:
    """The instruction in a request; only what its sender signed for the home agent counts."""
    where: TransferContext | None = None
    role: MnpsRole | None = None
    for each in request.protected(AuthKind.MN_HA):
        if not isinstance(each, VendorNormal):
            continue
        with suppress(WireError):
            match decode_vendor(each):
                case TransferContext() as found:
                    where = found
                case MnpsRole() as found_role:
                    role = found_role
    if where is None or not isinstance(where.access_node, IPv4Address):
        return None
    ruled = role is not None and role.takes is Takes.RULED
    return Instruction(where.access_node, where.towards, role is not None, ruled)

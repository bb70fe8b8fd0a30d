"""Locum's own values in a registration: default care-of address, stand-in, weight, without a standard.

They ride in normal vendor extensions (type 134, RFC 3115) under the enterprise number set aside for documentation
(RFC 5612), so that any other agent skips them.
"""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

from locum.wire.cursor import Cursor
from locum.wire.errors import WireError
from locum.wire.mobile_ip.extensions import VendorNormal
from locum.wire.takes import Takes

ENTERPRISE = 32473
_SHARE = 0x80  # of a flow rule's flags


class VendorType(IntEnum):
    """Vendor types under ENTERPRISE."""

    DEFAULT_COA = 1
    MNPS_ROLE = 2
    WEIGHT = 3
    TRANSFER_CONTEXT = 4
    FLOW_RULE = 5
    AGENT_KEY_REQUEST = 6
    AGENT_KEY = 7
    PAGE_CAUSE = 8  # in a call to a sleeping device: see page_call.py


class FlowOperation(IntEnum):
    """Operation on a flow rule."""

    ADD = 1  # it must not be there yet
    REPLACE = 2  # it must be there
    REMOVE = 3  # it must be there


@dataclass(frozen=True, slots=True)
class DefaultCareOfAddress:
    """Care-of address while the home address has no valid dynamic care-of address (R2, R3)."""

    address: IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class MnpsRole:
    """The sender is the stand-in of this home address (R4)."""

    interface_address: IPv4Address | IPv6Address  # the stand-in's own
    takes: Takes = Takes.ALL


@dataclass(frozen=True, slots=True)
class Weight:
    """The share of flows of this registration among equal candidates (R8); 1 by default."""

    weight: int  # 0 to 65535; 0 is refused by the home agent


@dataclass(frozen=True, slots=True)
class TransferContext:
    """The mobile node's context is to come from this access node, or with `towards` to go there (C4).

    A stand-in that does not know the access node says the unspecified address. The home agent answers a stand-in with
    the same extension when another access node serves the device than the one that was named.
    An extension that the home agent does not accept has no effect: the access node that relays acts on the accepted reply.
    """

    access_node: IPv4Address | IPv6Address
    towards: bool = False


@dataclass(frozen=True, slots=True)
class FlowRule:
    """Names a flow rule, as flow bindings of RFC 7629 have neither name nor priority (RFC 6089's FID and FID-PRI).

    ADD and REPLACE are about the flow-binding extension that follows next; REMOVE has none. A second copy
    directly after it names the same rule, with the selector of the other IP version.
    """

    operation: FlowOperation
    identifier: int  # 1 to 65535, unique for its home address
    priority: int = 0  # 0 to 65535, the lowest is tried first; of no meaning for REMOVE
    # True: flows are shared by weight among all bindings of the rule, not sent to the first (R8)
    share: bool = False


@dataclass(frozen=True, slots=True)
class AgentKeyRequest:
    """A foreign agent takes the key that the mobile node asks for (RFC 3957); `spi` is for messages to the agent."""

    spi: int


@dataclass(frozen=True, slots=True)
class AgentKey:
    """That key, encrypted under the association of the foreign agent and the home agent (RFC 5649).

    RFC 3957 leaves its way from the AAA server to the foreign agent to Diameter and RADIUS.
    """

    wrapped: bytes


VendorValue = (
    DefaultCareOfAddress | MnpsRole | Weight | TransferContext | FlowRule | AgentKeyRequest | AgentKey
)


def encode_vendor(value: VendorValue) -> VendorNormal:
    """The extension that carries the value."""
    match value:
        case DefaultCareOfAddress():
            return VendorNormal(ENTERPRISE, VendorType.DEFAULT_COA, value.address.packed)
        case MnpsRole():
            role = bytes((value.takes,)) + value.interface_address.packed
            return VendorNormal(ENTERPRISE, VendorType.MNPS_ROLE, role)
        case Weight():
            return VendorNormal(ENTERPRISE, VendorType.WEIGHT, value.weight.to_bytes(2, "big"))
        case TransferContext():
            where = value.access_node.packed + (b"\x01" if value.towards else b"")
            return VendorNormal(ENTERPRISE, VendorType.TRANSFER_CONTEXT, where)
        case FlowRule():
            numbers = value.identifier.to_bytes(2, "big") + value.priority.to_bytes(2, "big")
            data = bytes((value.operation,)) + numbers + bytes((_SHARE if value.share else 0,))
            return VendorNormal(ENTERPRISE, VendorType.FLOW_RULE, data)
        case AgentKeyRequest():
            return VendorNormal(ENTERPRISE, VendorType.AGENT_KEY_REQUEST, value.spi.to_bytes(4, "big"))
        case AgentKey():
            return VendorNormal(ENTERPRISE, VendorType.AGENT_KEY, value.wrapped)


def decode_vendor(extension: VendorNormal) -> VendorValue | None:
    """The value in the extension; None when it is another vendor's or of an unknown type. Raises WireError."""
    if extension.vendor != ENTERPRISE:
        return None
    match extension.vendor_type:
        case VendorType.DEFAULT_COA:
            return DefaultCareOfAddress(_address(extension.value, "default-coa"))
        case VendorType.MNPS_ROLE:
            return _mnps_role(Cursor(extension.value))
        case VendorType.WEIGHT:
            cursor = Cursor(extension.value)
            weight = Weight(cursor.u16("weight"))
            cursor.done("weight")
            return weight
        case VendorType.TRANSFER_CONTEXT:
            return _transfer_context(extension.value)
        case VendorType.FLOW_RULE:
            return _flow_rule(Cursor(extension.value))
        case VendorType.AGENT_KEY_REQUEST:
            cursor = Cursor(extension.value)
            asked = AgentKeyRequest(cursor.u32("agent-key-request"))
            cursor.done("agent-key-request")
            return asked
        case VendorType.AGENT_KEY:
            return AgentKey(extension.value)
    return None


def _address(value: bytes, field: str) -> IPv4Address | IPv6Address:
    if len(value) == 4:
        return IPv4Address(value)
    if len(value) == 16:
        return IPv6Address(value)
    raise WireError(field, 0, "not-an-address")


def _transfer_context(value: bytes) -> TransferContext:
    towards = len(value) in (5, 17)
    if towards and value[-1] != 1:
        raise WireError("transfer-context", len(value) - 1, "range")
    return TransferContext(_address(value[:-1] if towards else value, "transfer-context"), towards)


def _mnps_role(cursor: Cursor) -> MnpsRole:
    takes = cursor.u8("mnps-takes")
    if takes not in set(Takes):
        raise WireError("mnps-takes", 0, "range")
    return MnpsRole(_address(cursor.rest(), "mnps-role"), Takes(takes))


def _flow_rule(cursor: Cursor) -> FlowRule:
    operation = cursor.u8("flow-operation")
    if operation not in set(FlowOperation):
        raise WireError("flow-operation", 0, "range")
    identifier = cursor.u16("flow-identifier")
    if not identifier:
        raise WireError("flow-identifier", 1, "range")
    priority, flags = cursor.u16("flow-priority"), cursor.u8("flow-flags")
    if flags & ~_SHARE:
        raise WireError("flow-flags", cursor.offset - 1, "range")
    cursor.done("flow-rule")
    return FlowRule(FlowOperation(operation), identifier, priority, bool(flags))

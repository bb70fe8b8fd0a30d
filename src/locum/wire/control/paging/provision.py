"""Parts that a page brings for the access node and the device: profile or pointer (P8), allocation (P9).

As CBOR by paging.cddl. The contents of a profile's blocks are those of a context transfer (`context_blocks`).
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from locum.wire import cbor
from locum.wire.control.context import MAX_BLOCKS, MAX_VERSION, ContextBlock
from locum.wire.control.context_blocks import MAX_BLOCK
from locum.wire.errors import WireError

Address: TypeAlias = IPv4Address | IPv6Address

MAX_NODE_ID = 253
"""Characters of a network access identifier (RFC 7542 section 2.2: 253 octets), or of another identifier of a node."""
MAX_PROVISION = MAX_BLOCKS * (MAX_BLOCK + 16) + 2048  # bytes: blocks, pointer and allocation
_MAX_KIND = 255


@dataclass(frozen=True, slots=True)
class Pointer:
    """Place from which the access node fetches the profile: address of the policy server's agent, identifier of the device."""

    agent: Address
    device: str


@dataclass(frozen=True, slots=True)
class Allocation:
    """Address that was allocated for the device, and the mobility agent that serves it."""

    address: Address
    mobility_agent: Address


@dataclass(frozen=True, slots=True)
class Provision:
    """At most one of profile and pointer, and perhaps an allocation."""

    profile: tuple[ContextBlock, ...] = ()  # each with its data
    pointer: Pointer | None = None
    allocation: Allocation | None = None

    def to_map(self) -> dict[int, object]:
        """Keys 5 to 7 of a page."""
        body: dict[int, object] = {}
        if self.profile:
            body[5] = [[block.kind, block.version, block.data] for block in self.profile]
        if self.pointer is not None:
            body[6] = [self.pointer.agent.packed, self.pointer.device]
        if self.allocation is not None:
            body[7] = [self.allocation.address.packed, self.allocation.mobility_agent.packed]
        return body

    @classmethod
    def read(cls, reader: cbor.Reader) -> "Provision":
        """Take keys 5 to 7. Raises WireError."""
        field = reader.field
        profile = () if reader.absent(5) else _profile(reader.array(5, "profile", MAX_BLOCKS), field)
        pointer = allocation = None
        if not reader.absent(6):
            agent, device = cbor.pair(reader.value(6, "pointer"), f"{field}.pointer")
            pointer = Pointer(
                cbor.address(agent, f"{field}.pointer.agent"),
                cbor.text(device, f"{field}.pointer.device", MAX_NODE_ID),
            )
        if not reader.absent(7):
            address, agent = cbor.pair(reader.value(7, "allocation"), f"{field}.allocation")
            allocation = Allocation(
                cbor.address(address, f"{field}.allocation.address"),
                cbor.address(agent, f"{field}.allocation.mobility-agent"),
            )
        if profile and pointer is not None:
            raise WireError(f"{field}.pointer", 0, "profile-and-pointer")
        return cls(profile, pointer, allocation)


NO_PROVISION = Provision()


def _profile(items: list[object], field: str) -> tuple[ContextBlock, ...]:
    blocks = tuple(_block(item, f"{field}.profile") for item in items)
    if not blocks:
        raise WireError(f"{field}.profile", 0, "range")
    if len({block.kind for block in blocks}) != len(blocks):
        raise WireError(f"{field}.profile", 0, "repeated")
    return blocks


def _block(value: object, field: str) -> ContextBlock:
    parts = cbor.array(value, field, 3)
    if len(parts) != 3:
        raise WireError(field, 0, "not-a-block")
    data = parts[2]
    if not isinstance(data, bytes) or len(data) > MAX_BLOCK:
        raise WireError(field, 0, "not-octets")
    return ContextBlock(
        cbor.integer(parts[0], f"{field}.kind", 1, _MAX_KIND),
        cbor.integer(parts[1], f"{field}.version", 0, MAX_VERSION),
        data,
    )

"""The kernel side of emission filters (R20): `bpf/emission.bpf.c` at the egress of this process's control group.

A policy is a number with rules; a socket is owned by one. A socket that a listener accepts is owned by the listener's.
"""

import struct
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from locum.dataplane.emitting.control_group import ControlGroup
from locum.dataplane.kernel.libbpf import DataPlaneError
from locum.dataplane.kernel.loading import Object
from locum.dataplane.layout.maps import address
from locum.roles.action_values.emission import MAX_RULES, Permit

OBJECT = Path(__file__).parents[1] / "objects" / "emission.bpf.o"
POLICIES = 1024
"""Policies at a time; EMISSION_POLICIES."""
RULE = struct.Struct("=16s16sHHBB2x")
HEAD = struct.Struct("=IIII")
COUNT = struct.Struct("=QQ")
_TABLES = ("emission_owner", "emission_policies", "emission_counts")


class EmissionFilter:
    """All policies of one daemon. Raises DataPlaneError where the kernel or the control group forbids it."""

    def __init__(self, path: Path = OBJECT) -> None:
        self._object = Object(path, {}, None, needed=_TABLES)
        try:
            self._group = ControlGroup(self._object.program_handle("emission"))
        except DataPlaneError:
            self._object.close()
            raise
        self._next = 0
        self._used: set[int] = set()

    def add(self, rules: Sequence[Permit] | None, also: int | None = None, *, local: bool = False) -> int:
        """The number of a new policy; None lets everything out. `also` is a policy that has to permit the same packets.

        Unless `local`, nothing goes to addresses of this host.

        Raises DataPlaneError if there are POLICIES already.
        """
        if len(self._used) >= POLICIES:
            raise DataPlaneError(f"there are {POLICIES} emission filters already")
        number = self._next
        while number in self._used:
            number = (number + 1) % POLICIES
        # Sockets of a policy that was removed may still send their last packets: its number comes last again.
        self._next = (number + 1) % POLICIES
        key = struct.pack("=I", number)
        counts = self._object.maps["emission_counts"]
        self._object.maps["emission_policies"].put(key, packed(rules, also, local=local))
        counts.put(key, b"\0" * len(counts.get_per_cpu(key)))
        self._used.add(number)
        return number

    def remove(self, number: int) -> None:
        """Nothing that is owned by this policy may leave any more."""
        if number in self._used:
            self._used.discard(number)
            self._object.maps["emission_policies"].put(struct.pack("=I", number), packed(()))

    def own(self, descriptor: int, number: int) -> None:
        """Give the socket to a policy, before it sends anything. Raises DataPlaneError.

        The control group is that of this process when the socket was made: a process that was moved attaches again first.
        """
        self._group.follow()
        self._object.maps["emission_owner"].put(struct.pack("=i", descriptor), struct.pack("=I", number))

    def disown(self, descriptor: int) -> None:
        """Let the socket send everything: it is no proxy's any more."""
        self._object.maps["emission_owner"].delete(struct.pack("=i", descriptor))

    def counts(self, number: int) -> tuple[int, int]:
        """Packets that have left, and packets that were refused."""
        data = self._object.maps["emission_counts"].get_per_cpu(struct.pack("=I", number))
        pairs = list(COUNT.iter_unpack(data))
        return sum(sent for sent, _ in pairs), sum(refused for _, refused in pairs)

    def close(self) -> None:
        """Detach; sockets that are still open may send everything."""
        self._group.close()
        self._object.close()


def packed(rules: Sequence[Permit] | None, also: int | None = None, *, local: bool = False) -> bytes:
    """`struct emission_policy`."""
    other = 0 if also is None else also + 1
    if rules is None:
        return HEAD.pack(MAX_RULES + 1, other, local, 0) + b"\0" * (RULE.size * MAX_RULES)
    body = b"".join(_rule(rule) for rule in rules)
    return HEAD.pack(len(rules), other, local, 0) + body.ljust(RULE.size * MAX_RULES, b"\0")


def _rule(rule: Permit) -> bytes:
    version = 0 if rule.network is None else rule.network.version
    return RULE.pack(*_words(rule.network), rule.first_port, rule.last_port, rule.protocol, version)


def _words(network: IPv4Network | IPv6Network | None) -> tuple[bytes, bytes]:
    """Address and mask, as the wire has them."""
    if network is None:
        return b"\0" * 16, b"\0" * 16
    mask = network.netmask.packed
    if isinstance(network, IPv4Network):
        mask = b"\xff" * 12 + mask
    return address(network.network_address), mask

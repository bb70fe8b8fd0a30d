"""Policy rules and routes for programs that use the home address: every program ("all"), or some (`locum run`).

Records for `HostNetwork`, as values. This module must not know when they are made.

The rules follow each other, for each IP version:

    fwmark AROUND           to the end: packets of WireGuard, and programs that go around the home address
    from a home address     to the way home: sessions that have the address keep it, also where a visited network has the
                            prefix of their peer. With a foreign agent, which the device reaches on its link: after the next
    main, specific routes   local networks stay reachable
    fwmark HOME             to the way home: programs of `locum run`
    "all": multicast        to the end
           no source yet    to the way home
           not from here    to the way home: containers and other guests of this host
    end

The way home is a default route in the node's own table. While the device is registered nowhere it leads to the re-injection
device, which drops the packets: nothing leaves by another way, and no socket gets an error.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from locum.node.config.settings import Address
from locum.node.config.uses.traffic import Traffic, UsesSettings

AROUND = 0x4C57
"""Mark of packets that stay outside of the tunnel: WireGuard's own, and those of `locum run --around`."""
HOME = 0x4C48
"""Mark of packets of programs that `locum run` lets use the home address."""

FIRST = 470  # preference of the first rule of a namespace's first node
_EACH = 16  # preferences of one node
_AROUND, _SESSIONS, _SPECIFIC, _SESSIONS_BEHIND, _MARKED, _GROUPS, _BOUND, _UNBOUND, _GUESTS, _END = range(10)
_MAIN = 254
_UNREACHABLE = 7  # RTN_UNREACHABLE
_LAST_RESORT = 4096  # metric behind that of a way
_TUNNEL = 32  # bytes: IP in UDP over IPv4, RFC 3519
_HEADERS = {4: 40, 6: 60}  # bytes of IP and TCP


@dataclass(frozen=True, slots=True)
class Uses:
    """Wishes of a device, and its kind of registration."""

    settings: UsesSettings
    colocated: bool


Record = tuple[str, dict[str, Any]]


def rules(uses: Uses, home_addresses: Iterable[Address], table: int, number: int) -> list[Record]:
    """The rules of both IP versions, in the order in which they are made: those that lead home last."""
    homes = tuple(home_addresses)
    return [record for version in (4, 6) for record in _rules(uses, version, homes, table, number)]


def _rules(uses: Uses, version: int, homes: tuple[Address, ...], table: int, number: int) -> Iterator[Record]:
    first = FIRST + _EACH * number
    own = [home for home in homes if home.version == version]

    def rule(place: int, **fields: Any) -> Record:
        return (
            f"rule/{version}/uses/{place}",
            {"do": "rule", "priority": first + place, "version": version, **fields},
        )

    yield rule(_END)
    yield rule(_AROUND, mark=AROUND, goto=first + _END)
    if not own and (version == 4 or uses.settings.ipv6_around):
        return
    yield rule(_SPECIFIC, table=_MAIN, suppress=0)
    for home in own:
        yield rule(_SESSIONS if uses.colocated else _SESSIONS_BEHIND, table=table, src=str(home))
    unbound = {"src": "0.0.0.0"} if version == 4 else {}  # those that bind an address go by its network
    yield rule(_MARKED, table=table, mark=HOME, **unbound)
    if uses.settings.traffic is not Traffic.ALL:
        return
    if version == 4:
        yield rule(_GROUPS, dst="224.0.0.0/3", goto=first + _END)
        yield rule(_UNBOUND, table=table, src="0.0.0.0")
    else:
        # IPv6 has no rule for packets without a source, but an inverted one matches where there is no source to compare
        yield rule(_BOUND, src="8000::/1", goto=first + _END)
        yield rule(_UNBOUND, table=table, src="::/1", invert=True)
    yield rule(_GUESTS, table=table, iifname="lo", invert=True)


def nowhere(
    uses: Uses, home_addresses: Iterable[Address], device: str, table: int, *, link_mtu: int = 1500
) -> list[Record]:
    """The ways while no agent is in use; by co-located care-of address these are the ways in any case."""
    homes = tuple(home_addresses)
    found = []
    for home in homes:
        way = {
            "do": "route", "dst": "default", "link": device, "prefsrc": str(home), "table": table,
            "version": home.version, "advmss": link_mtu - _TUNNEL - _HEADERS[home.version],
        }  # fmt: skip
        found.append((f"way/{home.version}", way))
    if not uses.settings.ipv6_around and all(home.version == 4 for home in homes):
        # An error at once: programs then use IPv4
        found.append(
            (
                "way/6",
                {
                    "do": "route",
                    "dst": "default",
                    "type": _UNREACHABLE,
                    "priority": _LAST_RESORT,
                    "table": table,
                    "version": 6,
                },
            )
        )
    return found

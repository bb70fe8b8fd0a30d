"""Bindings and tunnel permissions of a home agent's many devices in little memory: maps like those of `ForwardingState`.

Most devices have one tunnel, and the permission for reverse tunnels from its far end. Both maps are views of one dictionary,
which has nothing but that tunnel for them; many devices share it. Entries are made anew for each reader.
"""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar, cast, overload

from locum.dataplane.state import AcceptanceKey, Compared, ForwardingState, acceptance_key
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Tunnel
from locum.roles.action_values.forwarding import BindingEntry, Side, TunnelAcceptance, Verdict
from locum.roles.actions import Action

_FROM, _ENCAPSULATE = Side.FROM_HOME_ADDRESS, Verdict.ENCAPSULATE
_PLAIN = (_FROM, False, None)  # the rest of the key of a plain permission
# The only tunnel of a plain binding, and the outer source of a plain permission. A tunnel alone: its far end is the source.
_Plain = Tunnel | tuple[Tunnel | None, Addr | None]
_Place = tuple[int, int, bool, bool, int | None]
_MISSING = object()
K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")


class Devices:
    """Plain bindings and permissions by home address.

    The keys are numbers, for Python code hashes an address: an IPv4 address is its own number, which it has in memory
    anyway, an IPv6 address a negative one.
    """

    __slots__ = ("held", "permissions", "tunnels")

    def __init__(self) -> None:
        self.held: dict[int, _Plain] = {}
        self.tunnels = self.permissions = 0  # how many there are

    def tunnel(self, home_address: Addr) -> Tunnel | None:
        """The tunnel of a plain binding."""
        found = self.held.get(number_of(home_address))
        return found[0] if type(found) is tuple else found  # type: ignore[return-value]

    def put_tunnel(self, home_address: Addr, tunnel: Tunnel | None) -> None:
        """This device has a plain binding with that tunnel, or none."""
        number = number_of(home_address)
        held = self.held.get(number)
        if held is None:
            if tunnel is not None:
                self.tunnels += 1
                self.held[number] = tunnel, None
            return
        before, source = held if isinstance(held, tuple) else (held, held.destination)
        self.tunnels += (tunnel is not None) - (before is not None)
        self._put(number, tunnel, source)

    def put_source(self, number: int, source: Addr | None) -> None:
        """The device with this number has a plain permission with that outer source, or none."""
        held = self.held.get(number)
        if held is None:
            if source is not None:
                self.permissions += 1
                self.held[number] = None, source
            return
        tunnel, before = held if isinstance(held, tuple) else (held, held.destination)
        self.permissions += (source is not None) - (before is not None)
        self._put(number, tunnel, source)

    def _put(self, number: int, tunnel: Tunnel | None, source: Addr | None) -> None:
        if tunnel is not None and (source is tunnel.destination or source == tunnel.destination):
            self.held[number] = tunnel
        elif tunnel is not None or source is not None:
            self.held[number] = tunnel, source
        else:
            del self.held[number]

    def share(self, wanted: "Devices") -> None:
        """Keep the keys and values of `wanted` for those that are equal."""
        if self.held == wanted.held:
            self.held = wanted.held
        else:
            _share(self.held, wanted.held)


def number_of(address: Addr) -> int:
    """A number for the address, which no other has; quicker to hash."""
    return int(address) if isinstance(address, IPv4Address) else ~int(address)


def _place(key: AcceptanceKey, home_address: int) -> _Place:
    """The same key of numbers, which are quicker to hash than addresses."""
    outer, _, side, ends, gre_key = key
    return number_of(outer), home_address, side is _FROM, ends, gre_key


def _address(number: int) -> Addr:
    return IPv4Address(number) if number >= 0 else IPv6Address(~number)


def _share(kept: dict[K, V], same: Mapping[K, V]) -> None:
    for key, value in same.items():
        if (held := kept.get(key)) is not None and held == value:
            del kept[key]
            kept[key] = value


class CompactBindings(Compared[Addr, BindingEntry]):
    """Bindings of Stage.HOME by home address."""

    __slots__ = ("_devices", "_others")

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self._others: dict[Addr, BindingEntry] = {}

    def __getitem__(self, home_address: Addr) -> BindingEntry:
        tunnel = self._devices.tunnel(home_address)
        if tunnel is None:
            return self._others[home_address]
        return BindingEntry(home_address, _ENCAPSULATE, (tunnel,))

    @overload
    def get(self, home_address: Addr, /) -> BindingEntry | None: ...
    @overload
    def get(self, home_address: Addr, /, default: BindingEntry | D) -> BindingEntry | D: ...
    def get(self, home_address: Addr, /, default: object = None) -> object:
        """Quick where all bindings are plain."""
        tunnel = self._devices.tunnel(home_address)
        if tunnel is not None:
            return BindingEntry(home_address, _ENCAPSULATE, (tunnel,))
        return self._others.get(home_address, default) if self._others else default

    def __setitem__(self, home_address: Addr, entry: BindingEntry) -> None:
        if _is_plain(entry):
            if self._others:
                self._others.pop(home_address, None)
            self._devices.put_tunnel(home_address, entry.tunnels[0])
        else:
            self._devices.put_tunnel(home_address, None)
            self._others[home_address] = entry

    def __delitem__(self, home_address: Addr) -> None:
        if self._devices.tunnel(home_address) is None:
            del self._others[home_address]
        else:
            self._devices.put_tunnel(home_address, None)

    def __contains__(self, home_address: object) -> bool:
        return self._devices.tunnel(cast(Addr, home_address)) is not None or home_address in self._others

    def __iter__(self) -> Iterator[Addr]:
        for number, held in self._devices.held.items():
            if not isinstance(held, tuple) or held[0] is not None:
                yield _address(number)
        yield from self._others

    def __len__(self) -> int:
        return self._devices.tunnels + len(self._others)

    def unlike(self, others: Mapping[Addr, BindingEntry]) -> Iterator[BindingEntry]:
        """Entries of devices that are the same in both are not made."""
        there = others._devices.held if isinstance(others, CompactBindings) else {}
        for number, held in self._devices.held.items():
            if (same := there.get(number)) is not None and (held is same or held == same):
                continue
            tunnel = held[0] if isinstance(held, tuple) else held
            if tunnel is not None:
                entry = BindingEntry(_address(number), _ENCAPSULATE, (tunnel,))
                if others.get(entry.home_address) != entry:
                    yield entry
        for home_address, entry in self._others.items():
            if others.get(home_address) != entry:
                yield entry

    def share(self, wanted: "CompactBindings") -> None:
        """Keep the keys and values of `wanted` for those that are equal."""
        self._devices.share(wanted._devices)
        _share(self._others, wanted._others)


def _is_plain(entry: BindingEntry) -> bool:
    """True if it is BindingEntry(home_address, ENCAPSULATE, (tunnel,))."""
    return (
        entry.verdict is _ENCAPSULATE
        and len(entry.tunnels) == 1
        and entry.peer is None
        and entry.peer_tunnel is None
        and not entry.rules
        and not entry.weights
    )


class CompactAcceptances(Compared[AcceptanceKey, TunnelAcceptance]):
    """Permissions by their keys; of each home address the first plain one for a reverse tunnel takes little memory."""

    __slots__ = ("_devices", "_others")

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self._others: dict[_Place, TunnelAcceptance] = {}

    def _plain(self, number: int, key: AcceptanceKey) -> bool:
        """True if the key is that of the plain permission of the device with this number."""
        outer, _, side, ends, gre_key = key
        held = self._devices.held.get(number)
        if held is None or side is not _FROM or ends or gre_key is not None:
            return False
        source = held[1] if isinstance(held, tuple) else held.destination
        return source is outer or source == outer

    def __getitem__(self, key: AcceptanceKey) -> TunnelAcceptance:
        number = number_of(key[1])
        if self._plain(number, key):
            return TunnelAcceptance(key[0], key[1], _FROM)
        return self._others[_place(key, number)]

    @overload
    def get(self, key: AcceptanceKey, /) -> TunnelAcceptance | None: ...
    @overload
    def get(self, key: AcceptanceKey, /, default: TunnelAcceptance | D) -> TunnelAcceptance | D: ...
    def get(self, key: AcceptanceKey, /, default: object = None) -> object:
        """Quick where all permissions are plain."""
        number = number_of(key[1])
        if self._plain(number, key):
            return TunnelAcceptance(key[0], key[1], _FROM)
        return self._others.get(_place(key, number), default) if self._others else default

    def __contains__(self, key: object) -> bool:
        wanted = cast(AcceptanceKey, key)
        number = number_of(wanted[1])
        return self._plain(number, wanted) or (bool(self._others) and _place(wanted, number) in self._others)

    def __setitem__(self, key: AcceptanceKey, acceptance: TunnelAcceptance) -> None:
        outer, number = key[0], number_of(key[1])
        held = self._devices.held.get(number)
        source = None if held is None else held[1] if isinstance(held, tuple) else held.destination
        if _is_plain_permission(acceptance) and (source is None or source is outer or source == outer):
            if self._others:
                self._others.pop(_place(key, number), None)
            if source is None:
                self._devices.put_source(number, outer)
        else:
            if self._plain(number, key):
                self._devices.put_source(number, None)
            self._others[_place(key, number)] = acceptance

    def __delitem__(self, key: AcceptanceKey) -> None:
        number = number_of(key[1])
        if self._plain(number, key):
            self._remove_plain(number, key[1])
        else:
            del self._others[_place(key, number)]

    @overload
    def pop(self, key: AcceptanceKey, /) -> TunnelAcceptance: ...
    @overload
    def pop(self, key: AcceptanceKey, /, default: TunnelAcceptance | D) -> TunnelAcceptance | D: ...
    def pop(self, key: AcceptanceKey, /, default: object = _MISSING) -> object:
        """Quick where all permissions are plain."""
        number = number_of(key[1])
        if self._plain(number, key):
            self._remove_plain(number, key[1])
            return TunnelAcceptance(key[0], key[1], _FROM)
        place = _place(key, number)
        return self._others.pop(place) if default is _MISSING else self._others.pop(place, default)

    def _remove_plain(self, number: int, home_address: Addr) -> None:
        held = self._devices.held[number]
        tunnel = held[0] if isinstance(held, tuple) else held
        source = None
        if tunnel is not None and self._others:
            # It has moved, and the permission of its new place was not the first.
            another = _place((tunnel.destination, home_address, *_PLAIN), number)
            if (found := self._others.get(another)) is not None and _is_plain_permission(found):
                del self._others[another]
                source = tunnel.destination
        self._devices.put_source(number, source)

    def __iter__(self) -> Iterator[AcceptanceKey]:
        for number, held in self._devices.held.items():
            source = held[1] if isinstance(held, tuple) else held.destination
            if source is not None:
                yield source, _address(number), *_PLAIN
        yield from map(acceptance_key, self._others.values())

    def __len__(self) -> int:
        return self._devices.permissions + len(self._others)

    def unlike(self, others: Mapping[AcceptanceKey, TunnelAcceptance]) -> Iterator[TunnelAcceptance]:
        """Permissions of devices that are the same in both are not made."""
        there = others._devices.held if isinstance(others, CompactAcceptances) else {}
        for number, held in self._devices.held.items():
            if (same := there.get(number)) is not None and (held is same or held == same):
                continue
            source = held[1] if isinstance(held, tuple) else held.destination
            if source is not None:
                acceptance = TunnelAcceptance(source, _address(number), _FROM)
                if others.get((source, acceptance.home_address, *_PLAIN)) != acceptance:
                    yield acceptance
        for acceptance in self._others.values():
            if others.get(acceptance_key(acceptance)) != acceptance:
                yield acceptance

    def share(self, wanted: "CompactAcceptances") -> None:
        """Keep the keys and values of `wanted` for those that are equal, beside those of the bindings."""
        _share(self._others, wanted._others)


def _is_plain_permission(value: TunnelAcceptance) -> bool:
    """True if it is TunnelAcceptance(outer_source, home_address, FROM_HOME_ADDRESS)."""
    return (
        value.side is _FROM
        and value.link is None
        and value.next_hop is None
        and not value.source_port
        and value.end is None
        and value.hardware is None
        and value.gre_key is None
        and not value.by_route
    )


def share(kept: ForwardingState, wanted: ForwardingState) -> None:
    """Keep the keys and values of `wanted` for those that are equal. Both states are compact."""
    if isinstance(kept.bindings, CompactBindings) and isinstance(wanted.bindings, CompactBindings):
        kept.bindings.share(wanted.bindings)
    if isinstance(kept.acceptances, CompactAcceptances) and isinstance(
        wanted.acceptances, CompactAcceptances
    ):
        kept.acceptances.share(wanted.acceptances)


def compact_state(actions: Iterable[Action] = ()) -> ForwardingState:
    """The state that these actions build; it takes little memory for the devices of a home agent."""
    devices = Devices()
    state = ForwardingState(bindings=CompactBindings(devices), acceptances=CompactAcceptances(devices))
    for action in actions:
        state.perform(action)
    return state

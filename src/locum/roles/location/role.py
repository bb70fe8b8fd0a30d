"""The location server (P6; source text 1132, 1134): updates 1212 and queries 1135 in, answers out.

A device speaks for its own home addresses; listed access nodes speak for any device that is at themselves; registrations
at a home agent of this host speak for its devices. The newest update counts. It must not know CoAP, the store nor pages.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from locum.roles.action_values.addresses import JSON, Addr, Source
from locum.roles.action_values.locations import LocationTold
from locum.roles.actions import Action, Answer, Asked, Count, Emit, Event, Forget, Persist, WallClockStepped
from locum.roles.location.configuration import LocationConfiguration
from locum.roles.location.directory import Directory
from locum.roles.location.entry import TABLE, LocationEntry, Origin
from locum.roles.parts import readable, unreadable
from locum.roles.timers import Deadlines
from locum.wire.control.paging.location import (
    MAX_FOUND,
    PATH,
    Location1212,
    LocationAnswer,
    LocationQuery,
    decode_1212,
    decode_query,
    encode_query_answer,
)
from locum.wire.control.paging.rules import MAX_HOMES
from locum.wire.control.paging.status import PagingStatus, StatusAnswer, encode_status_answer
from locum.wire.errors import WireError

AHEAD = 60.0
"""Seconds that the clock of a sender may be ahead: a later update would otherwise keep true ones out."""


class Refused(Exception):
    """A refused update: its answer, and the reason that is counted."""

    def __init__(self, status: PagingStatus, counter: str, text: str) -> None:
        super().__init__(text)
        self.status, self.counter, self.text = status, counter, text


class LocationServer:
    """One location server and all its entries."""

    def __init__(self, configuration: LocationConfiguration) -> None:
        self.configuration = configuration
        self._directory = Directory()
        self._expiries: Deadlines[str] = Deadlines()
        self._stored: dict[str, float] = {}  # expiry in the row of an entry, which may be behind the entry's
        self._ahead = 0.0
        self._devices = {device.home_address: device for device in configuration.devices}
        self._reserved: dict[str, set[Addr]] = {}
        for device in configuration.devices:
            for name in (device.node_id, *device.uris):
                self._reserved.setdefault(name, set()).add(device.home_address)

    # The role's shape --------------------------------------------------------------------------------------------

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start with the entries of an earlier run; those that have expired meanwhile end."""
        found, actions = readable(rows, TABLE, lambda row: LocationEntry.from_row(row.value))
        for row, entry in found:
            if entry.expires_at <= now:
                actions += [Forget(TABLE, row.key), _ended(entry, "expired")]
            elif entry.key != row.key or self._directory.of(entry.location.home_addresses):
                actions += unreadable(row)
            else:
                self._put(entry)
                self._stored[entry.key] = entry.expires_at
        return actions

    def receive(self, message: bytes, source: Source, *, now: float) -> list[Action]:
        """Nothing: no registration message is for a location server."""
        return [Count("registration-not-served")]

    def happened(self, event: Event, *, now: float) -> list[Action]:
        """Updates, queries, registrations of this host, and steps of the wall clock."""
        match event:
            case Asked(path="1212"):
                return self._asked(event, now)
            case Asked(path="1135"):
                return self._queried(event, now)
            case LocationTold(location):
                try:
                    return self._told(location, now)
                except Refused as refused:
                    return [Count(refused.counter)]
            case WallClockStepped(ahead):
                self._ahead = ahead
        return []

    def timeout(self, *, now: float) -> list[Action]:
        """End the entries that have expired."""
        actions: list[Action] = []
        for key in self._expiries.due(now):
            entry = self._directory.get(key)
            if entry is not None:
                actions += [*self._remove(entry), _ended(entry, "expired")]
        return actions

    def deadline(self) -> float | None:
        """Steady seconds of the first expiry."""
        return self._expiries.next()

    # For users ---------------------------------------------------------------------------------------------------

    def entries(self) -> Collection[LocationEntry]:
        """Every entry."""
        return self._directory.all()

    def find(self, name: Addr | str) -> list[LocationEntry]:
        """The entries of a home address, a node identifier or a SIP URI."""
        return self._directory.named(name) if isinstance(name, str) else self._directory.of((name,))

    # 1212 --------------------------------------------------------------------------------------------------------

    def _asked(self, asked: Asked, now: float) -> list[Action]:
        try:
            location = decode_1212(asked.body)
            actions = self._update(location, *self._authorised(asked, location), now)
        except WireError as error:
            status = StatusAnswer(PagingStatus.MALFORMED, str(error))
            return [Count(f"location-{error.reason}"), Answer(asked.exchange, encode_status_answer(status))]
        except Refused as refused:
            status = StatusAnswer(refused.status, refused.text)
            return [Count(refused.counter), Answer(asked.exchange, encode_status_answer(status))]
        granted = min(location.lifetime, self.configuration.max_lifetime)
        status = StatusAnswer(PagingStatus.OK, lifetime=granted)
        return [*actions, Answer(asked.exchange, encode_status_answer(status))]

    def _authorised(self, asked: Asked, location: Location1212) -> tuple[Origin, Addr]:
        """The origin of an update, and its sender. Raises Refused for one about another's device."""
        configuration = self.configuration
        if asked.peer in configuration.access_nodes or asked.peer == configuration.own:
            return Origin.ACCESS_NODE, asked.peer
        if set(location.home_addresses) <= set(asked.authorised):
            return Origin.DEVICE, asked.peer
        raise Refused(
            PagingStatus.NOT_AUTHORISED,
            "location-not-authorised",
            f"{asked.peer} does not speak for these home addresses here",
        )

    def _told(self, location: Location1212, now: float) -> list[Action]:
        """A message at the home agent of this host. Raises Refused, and then nothing has changed."""
        if not location.sent:
            stamped = replace(location, sent=round((now + self._ahead) * 1000))
            return self._update(stamped, Origin.REGISTRATION, None, now)
        for entry in self._directory.of(location.home_addresses):
            known = entry.location
            if known.sent >= location.sent and entry.asleep and known.care_of == location.care_of:
                return self._keep(entry, location.lifetime, now)
        return self._update(location, Origin.REGISTRATION, None, now)

    def _keep(self, entry: LocationEntry, lifetime: int, now: float) -> list[Action]:
        """The device goes on sleeping there: the entry lasts longer, and nothing else of it changes."""
        lifetime = min(lifetime, self.configuration.max_lifetime)
        if now + lifetime <= entry.expires_at:
            return []
        location = replace(entry.location, lifetime=lifetime)
        return self._moved(location, entry.origin, entry.reporter, [entry], now)

    def _update(
        self, location: Location1212, origin: Origin, reporter: Addr | None, now: float
    ) -> list[Action]:
        """Raises Refused, and then nothing has changed."""
        elsewhere = origin is Origin.ACCESS_NODE and location.access_node != reporter
        if elsewhere and reporter != self.configuration.own:
            raise Refused(
                PagingStatus.NOT_AUTHORISED,
                "location-not-authorised",
                f"{reporter} reports a device that is not at itself",
            )
        if location.sent > (now + self._ahead + AHEAD) * 1000:
            raise Refused(PagingStatus.REFUSED, "location-future", "the sender's clock is ahead")
        before = self._directory.of(location.home_addresses)
        for entry in before:
            if entry.location.sent > location.sent or (
                entry.location.sent == location.sent and not _repeated(entry, location)
            ):
                raise Refused(PagingStatus.STALE, "location-stale", "a later location is known")
        if location.lifetime == 0:
            return self._left(location, origin, before)
        return self._moved(self._merged(location, origin, before), origin, reporter, before, now)

    def _left(self, location: Location1212, origin: Origin, before: Sequence[LocationEntry]) -> list[Action]:
        """The device is no longer there. Where it has gone, or that it sleeps, only the device itself may say otherwise."""
        actions: list[Action] = []
        for entry in before:
            if origin is not Origin.DEVICE:
                known = entry.location
                elsewhere = known.care_of != location.care_of
                other = origin is Origin.ACCESS_NODE and known.access_node != location.access_node
                if entry.asleep or elsewhere or other:
                    continue
            actions += [*self._remove(entry), _ended(entry, "left")]
        return actions

    def _merged(
        self, location: Location1212, origin: Origin, before: Sequence[LocationEntry]
    ) -> Location1212:
        """The update with the names of the entries that it replaces, and with those of the configuration.

        Access nodes know their own address better than a device or a registration, which only has the care-of address.
        """
        homes = dict.fromkeys(
            (*(home for entry in before for home in entry.location.home_addresses), *location.home_addresses)
        )
        if len(homes) > MAX_HOMES:
            raise Refused(
                PagingStatus.LIMIT,
                "location-too-many-addresses",
                f"a device has at most {MAX_HOMES} addresses",
            )
        node_id, uris, way = location.node_id, location.uris, location.way
        access_node = location.access_node
        for entry in before:
            known = entry.location
            if (
                origin is not Origin.ACCESS_NODE
                and access_node is not None
                and known.care_of == location.care_of
            ):
                access_node = known.access_node or access_node
            node_id, uris, way = (
                node_id or entry.location.node_id,
                uris or entry.location.uris,
                way or entry.location.way,
            )
        for home in homes:
            if (device := self._devices.get(home)) is not None:
                node_id, uris = device.node_id or node_id, device.uris or uris
        merged = replace(
            location,
            home_addresses=tuple(homes),
            node_id=node_id,
            uris=uris,
            access_node=access_node,
            way=way,
            lifetime=min(location.lifetime, self.configuration.max_lifetime),
        )
        self._check_names(merged, before)
        return merged

    def _check_names(self, location: Location1212, before: Sequence[LocationEntry]) -> None:
        """Raises Refused for a name that is another device's."""
        own = {entry.key for entry in before}
        for name in {*location.uris, *((location.node_id,) if location.node_id else ())}:
            reserved = self._reserved.get(name)
            taken = (
                any(entry.key not in own for entry in self._directory.named(name))
                if reserved is None
                else not reserved.intersection(location.home_addresses)
            )
            if taken:
                raise Refused(
                    PagingStatus.REFUSED, "location-name-taken", f"{name} is the name of another device"
                )

    def _moved(
        self,
        location: Location1212,
        origin: Origin,
        reporter: Addr | None,
        before: Sequence[LocationEntry],
        now: float,
    ) -> list[Action]:
        entry = LocationEntry(location, origin, reporter, now + location.lifetime)
        if not before and len(self._directory) >= self.configuration.max_entries:
            raise Refused(PagingStatus.LIMIT, "location-full", "no room for one more device")
        actions: list[Action] = []
        same = len(before) == 1 and _place(before[0].location) == _place(location)
        stored = self._stored.get(entry.key, 0.0) if same and before[0].key == entry.key else 0.0
        for old in before:
            self._take_out(old)
            if old.key != entry.key:
                actions.append(Forget(TABLE, old.key))
        self._put(entry)
        # The row of a location that is only confirmed is written when half of its lifetime has gone.
        if stored < now + location.lifetime / 2:
            actions.append(entry.persist())
            stored = entry.expires_at
        self._stored[entry.key] = stored
        return [*actions, _taken(entry, "location-confirmed" if same else "location-changed")]

    # 1135 --------------------------------------------------------------------------------------------------------

    def _queried(self, asked: Asked, now: float) -> list[Action]:
        try:
            query = decode_query(asked.body)
        except WireError as error:
            answer = LocationAnswer(PagingStatus.MALFORMED)
            return [
                Count(f"location-query-{error.reason}"),
                Answer(asked.exchange, encode_query_answer(answer)),
            ]
        answer, counted = self._found(query, asked, now)
        return [*counted, Answer(asked.exchange, encode_query_answer(answer))]

    def _found(self, query: LocationQuery, asked: Asked, now: float) -> tuple[LocationAnswer, list[Action]]:
        """Listed nodes learn of every device, a device of itself alone."""
        configuration = self.configuration
        entries = self._directory.find(query)
        if asked.peer not in configuration.clients and asked.peer != configuration.own:
            own = set(asked.authorised)
            entries = [entry for entry in entries if own.intersection(entry.location.home_addresses)]
            if not own or (query.home_address is not None and query.home_address not in own):
                return LocationAnswer(PagingStatus.NOT_AUTHORISED), [Count("location-query-not-authorised")]
        found = tuple(entry.left(now) for entry in entries[:MAX_FOUND] if entry.expires_at > now)
        return LocationAnswer(PagingStatus.OK if found else PagingStatus.UNKNOWN, found), []

    # Entries -----------------------------------------------------------------------------------------------------

    def _put(self, entry: LocationEntry) -> None:
        self._directory.put(entry)
        self._expiries.set(entry.key, entry.expires_at)

    def _take_out(self, entry: LocationEntry) -> None:
        self._directory.remove(entry)
        self._expiries.cancel(entry.key)
        self._stored.pop(entry.key, None)

    def _remove(self, entry: LocationEntry) -> list[Action]:
        self._take_out(entry)
        return [Forget(TABLE, entry.key)]


def _place(location: Location1212) -> Location1212:
    """Everything but the times."""
    return replace(location, lifetime=0, sent=0)


def _repeated(entry: LocationEntry, location: Location1212) -> bool:
    """True if the update is the one that the entry comes from, once more."""
    known = entry.location
    said = (location.access_node, location.care_of, location.state)
    return said == (known.access_node, known.care_of, known.state)


def _taken(entry: LocationEntry, kind: str) -> Emit:
    location = entry.location
    detail: dict[str, JSON] = {
        "access_node": None if location.access_node is None else str(location.access_node),
        "care_of": None if location.care_of is None else str(location.care_of),
        "state": location.state.name.lower(),
        "lifetime": location.lifetime,
        "by": entry.origin.value,
    }
    return Emit(kind, PATH, location.home_addresses[0], None, detail)


def _ended(entry: LocationEntry, reason: str) -> Emit:
    return Emit("location-ended", PATH, entry.location.home_addresses[0], None, {"reason": reason})

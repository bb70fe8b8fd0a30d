"""The tables that a node stores, and the two stores that they belong to.

`HostStore` has what is of use on this host alone: its kernel, links, sockets and identifiers. `SharedStore` has what a
cluster of home agents, access nodes or stand-ins would share, so that another of them can go on with it. Both are one
file today (`locum.node.store`); readers and writers of a table see one of the two interfaces. Every table has its
place here and nowhere else, with the reason; the writers of its rows know their meaning.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Any, Protocol, TypeVar, overload

from locum.roles import actions as do

Row = Mapping[str, Any]


class HostTable(StrEnum):
    """Tables of this host. Another host could do nothing with them, or harm."""

    # Steady seconds count from the boot of this machine.
    CLOCK = "clock"
    # Changes to this kernel's addresses, routes, rules and neighbours, and how each is undone.
    NETWORK = "host"
    # Sender sequence numbers and replay windows of OSCORE: two hosts that count in one row use a nonce twice.
    CONTROL_NUMBERS = "oscore"
    # The interface of WireGuard that this host made, and where its peers were last heard.
    WIREGUARD = "wireguard"
    # Open invitations of a server, with their secrets: used at this host's port.
    INVITATION = "invitation"
    # That a suspend of this host put its device to sleep.
    SUSPEND = "suspend"
    # Settings that network cards had before they were armed for Wake-on-LAN.
    WAKE_CARD = "wake-card"
    # Secrets and identifiers under which those numbers are counted.
    LEARNT_ASSOCIATION = "learnt-association"
    # Sockets of this device's programs that are captured in this kernel.
    PARKED = "parked"
    # Sockets of this kernel and spools on this disk that a stand-in holds.
    SESSION = "session"
    # States of proxies that attend those sessions.
    APP = "app"
    # Visitors on this host's links, by link-layer address.
    VISITOR = "foreign_agent.visitor"
    # Visitors that do not answer there any more.
    LOST = "foreign_agent.lost"
    # Keys with mobile nodes that this access node alone was sent.
    VISITOR_KEY = "foreign_agent.key"
    # This device's registration, with its last identification.
    DEVICE_REGISTRATION = "mobile_node.registration"
    # Which of this device's sessions are elsewhere, since which boot.
    DEVICE_HANDOVER = "mobile_node.handover"
    # Rules that this device asked for; the home agent has its own row of each.
    DEVICE_RULE = "mobile_node.rule"
    # Jobs that this device has ordered, and states of its proxies between two sleeps.
    DEVICE_ORDER = "mobile_node.order"
    # Events that stand-ins have stored for this device.
    DEVICE_EVENT = "mobile_node.event"
    # Wishes of this device to be woken, and the nodes that it has told something of them.
    DEVICE_WISH = "mobile_node.wish"
    # Calls that this device has answered: another host would answer them once more.
    DIRECT_CALL = "mobile_node.direct_call"
    # This stand-in's own registration: its care-of address and its last identification.
    STAND_IN_REGISTRATION = "mnps.registration"
    # Handovers whose sockets this kernel has.
    STAND_IN_HANDOVER = "mnps.handover"


class SharedTable(StrEnum):
    """Tables that another node of the same role could go on with."""

    # Any home agent of a home network may answer a registrant's next request, and tunnel to its care-of addresses.
    BINDING = "home_agent.binding"
    STAND_IN = "home_agent.stand_in"
    RULE = "home_agent.rule"
    # Rules that devices and their agents left there until they end.
    LEFT = "home_agent.left"
    # Keys that follow from AAA associations: any home agent may answer the next request.
    KEY = "home_agent.key"
    # A policy server's data about registrants.
    PROFILE = "home_agent.profile"
    # An address given to one registrant must be given to no other by any agent of the network.
    POOL = "home_agent.pool"
    # Contexts follow a visitor to other access nodes already, by messages.
    CONTEXT = "foreign_agent.context"
    # Locations of devices, each with its own lifetime.
    LOCATION = "location.entry"
    # Taken over without any session: nothing of it is in a kernel.
    TRIGGERED = "mnps.triggered"
    # Event tables of devices, their pages that wait, and events stored for them.
    EVENT = "mnps.event"
    # Events for which a device is to be paged directly.
    DIRECT_PAGE = "mnps.direct_page"


class StoreError(Exception):
    """The store cannot be opened, read or written; names the file and a remedy."""


_Table = TypeVar("_Table", contravariant=True)
_Name = TypeVar("_Name", HostTable, SharedTable)


class _Commits(Protocol):
    """Reports the commit of queued writes."""

    def committed(self) -> "asyncio.Future[None] | None":
        """The future of the commit that covers everything queued so far, shared by all (never cancel it); None: done.

        Its result is None or a StoreError.
        """

    async def durable(self) -> None:
        """Wait until everything queued so far is committed. Raises StoreError."""


class StoredRow(do.Persist):
    """A committed row whose value is taken out of its text each time that it is read: a start has very many of them."""

    __slots__ = ("_text",)
    _text: str

    def __init__(self, table: do.Table, key: str, text: str) -> None:
        for name, found in (("table", table), ("key", key), ("_text", text)):
            object.__setattr__(self, name, found)

    @property
    def value(self) -> Row:
        """The row's columns."""
        found: Row = json.loads(self._text)
        return found

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, do.Persist):
            return NotImplemented
        return (self.table, self.key, self.value) == (other.table, other.key, other.value)

    __hash__ = do.Persist.__hash__


class StoredRows(Sequence[do.Persist]):
    """Committed rows that are read each time: all at once would take more memory than what is made of them.

    Reading raises StoreError.
    """

    def __init__(self, texts: Mapping[do.Table, Callable[[], Iterator[tuple[str, str]]]]) -> None:
        self._texts = texts

    def __iter__(self) -> Iterator[do.Persist]:
        for name, read in self._texts.items():
            for key, text in read():
                yield StoredRow(name, key, text)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @overload
    def __getitem__(self, place: int) -> do.Persist: ...
    @overload
    def __getitem__(self, place: slice) -> list[do.Persist]: ...
    def __getitem__(self, place: int | slice) -> do.Persist | list[do.Persist]:
        return [*self][place]


class _Store(_Commits, Protocol[_Table]):
    """Tables of rows by key. Writes are queued and never wait."""

    def rows(self, table: _Table, /) -> dict[str, dict[str, Any]]:
        """The committed rows by key, for the start of a node: this waits for the disk. Raises StoreError."""

    def texts(self, table: _Table, /) -> Iterator[tuple[str, str]]:
        """The same, one after the other, as keys and texts of JSON."""

    def put(self, table: _Table, key: str, value: Row, /) -> None:
        """Queue a write. `value` must not be changed afterwards."""

    def forget(self, table: _Table, key: str, /) -> None:
        """Queue a deletion; a missing key is no error."""


class HostStore(_Store[HostTable], Protocol):
    """Tables that belong to this host."""


class SharedStore(_Store[SharedTable], Protocol):
    """Tables that a cluster would share."""


class RoleTables:
    """The tables of one role, each in its store. A host may play two roles that have a table of one name."""

    def __init__(self, role: str, host: HostStore, shared: SharedStore) -> None:
        self._put: dict[str, Callable[[str, Row], None]] = {}
        self._forget: dict[str, Callable[[str], None]] = {}
        self._rows: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {}
        self._stores: list[_Commits] = []
        self._add(role, HostTable, host)
        self._add(role, SharedTable, shared)

    def _add(self, role: str, kind: "type[_Name]", store: "_Store[_Name]") -> None:
        own = {name: table for table in kind if (name := own_name(role, table)) is not None}
        for name, table in own.items():
            self._put[name] = partial(store.put, table)
            self._forget[name] = partial(store.forget, table)
            self._rows[name] = partial(store.texts, table)
        if own and store not in self._stores:  # both may be one
            self._stores.append(store)

    @property
    def names(self) -> frozenset[str]:
        """Names of the tables in the role."""
        return frozenset(self._rows)

    def rows(self) -> "StoredRows":
        """Every committed row, as `restore` of the role takes it."""
        return StoredRows({name: self._rows[name] for name in do.TABLES if name in self._rows})

    def put(self, name: do.Table, key: str, value: Row) -> None:
        """Queue a write. Raises KeyError when the role has no such table."""
        self._put[name](key, value)

    def forget(self, name: do.Table, key: str) -> None:
        """Queue a deletion. Raises KeyError when the role has no such table."""
        self._forget[name](key)

    def committed(self) -> "asyncio.Future[None] | None":
        """The future of the commit that covers everything queued so far, in every store of the role; None: done."""
        if len(self._stores) == 1:  # as a home agent has it, for every answer
            return self._stores[0].committed()
        commits = [commit for store in self._stores if (commit := store.committed()) is not None]
        if len(commits) < 2:
            return commits[0] if commits else None
        return asyncio.ensure_future(_all(commits))

    async def durable(self) -> None:
        """Wait until everything queued so far is committed. Raises StoreError."""
        for store in self._stores:
            await store.durable()


async def _all(commits: list["asyncio.Future[None]"]) -> None:
    for commit in commits:
        await asyncio.shield(commit)


def own_name(role: str, table: str) -> str | None:
    """The name by which a role calls a table; None when it is not the role's."""
    owner, dot, name = table.partition(".")
    return name if dot and owner == role else None

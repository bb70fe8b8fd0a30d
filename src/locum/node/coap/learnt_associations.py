"""Associations for 634 and 632 whose keys a policy server has (feature C9): learnt by a stand-in when they are needed.

A stand-in may know of a home address only through 634 (C10). One that comes from a home address under an identifier
unknown here makes us ask the policy server for the association; it is checked under that, or refused.
A learnt association is in the store, is fetched again when its lifetime ends, goes on without a server, and ends
when the policy server says so. Strangers can make us ask: few at a time, and not about one address all the time.

It must not know how a policy server is asked, nor the meaning of messages.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from typing import Any

from locum.node.config.settings import Address, ControlAssociation
from locum.node.events import EventStream
from locum.node.tables import HostStore, HostTable

log = logging.getLogger("locum.associations")
MAX_ASKED = 32  # home addresses that are asked about at once
MAX_LEARNT = 4096
ASKED_AGAIN = 5.0  # seconds without another query about the same home address
MAX_REMEMBERED = 1024  # of those
FETCH_AGAIN = 30.0  # seconds until what could not be fetched again is tried once more
SHORTEST_LIFETIME = 5.0  # seconds


class AssociationUnavailable(Exception):
    """No policy server answered, or the answer makes no sense."""


class AssociationRefused(Exception):
    """The policy server does not know the home address, or has no association of it with this stand-in."""


class _Unusable(Exception):
    """The policy server's answer cannot be used here."""


@dataclass(frozen=True, slots=True)
class Grant:
    """An association of a policy server, and its lifetime in seconds (None: until a command)."""

    association: ControlAssociation
    lifetime: int | None


@dataclass(frozen=True, slots=True)
class Learnt:
    """One association that was learnt. Times are steady seconds."""

    association: ControlAssociation
    fetched_at: float
    fetch_at: float | None

    def to_row(self) -> dict[str, Any]:
        """The row; the store is readable by its owner alone."""
        own = self.association
        return {
            "sender_id": own.sender_id.hex(),
            "recipient_id": own.recipient_id.hex(),
            "secret": own.secret.hex(),
            "salt": own.salt.hex(),
            "home_addresses": [str(home_address) for home_address in own.home_addresses],
            "fetched_at": self.fetched_at,
            "fetch_at": self.fetch_at,
        }

    @classmethod
    def from_row(cls, key: str, row: Mapping[str, Any]) -> "Learnt":
        """From a row of our own; raises ValueError, KeyError or TypeError for anything else."""
        association = ControlAssociation(
            peer=IPv4Address(key),
            sender_id=bytes.fromhex(row["sender_id"]),
            recipient_id=bytes.fromhex(row["recipient_id"]),
            secret=bytes.fromhex(row["secret"]),
            salt=bytes.fromhex(row["salt"]),
            home_addresses=tuple(ip_address(home_address) for home_address in row["home_addresses"]),
        )
        fetch_at = row["fetch_at"]
        return cls(association, float(row["fetched_at"]), None if fetch_at is None else float(fetch_at))


class LearntAssociations:
    """Those of one stand-in. `ask` is how a policy server is asked about a home address of `home_prefixes`.

    Associations that are `configured` are never asked for, and no other association has their identifiers.
    """

    def __init__(
        self,
        ask: Callable[[IPv4Address], Awaitable[Grant]],
        configured: Collection[ControlAssociation],
        home_prefixes: Collection[IPv4Network | IPv6Network],
        store: HostStore,
        events: EventStream,
        now: Callable[[], float],
    ) -> None:
        """`now` gives steady seconds."""
        self._ask, self._store, self._events, self._now = ask, store, events, now
        self._peers = frozenset(association.peer for association in configured)
        self._identifiers = frozenset(association.recipient_id for association in configured)
        self._prefixes = tuple(home_prefixes)
        self._known: dict[IPv4Address, Learnt] = {}
        self._asking: dict[IPv4Address, asyncio.Task[None]] = {}
        self._asked_at: dict[IPv4Address, float] = {}  # steady seconds
        self._timers: dict[IPv4Address, asyncio.TimerHandle] = {}

    def restore(self) -> None:
        """Start with associations learnt in an earlier run, unless the configuration contradicts them."""
        for key, row in self._store.rows(HostTable.LEARNT_ASSOCIATION).items():
            try:
                found = Learnt.from_row(key, row)
            except (ValueError, KeyError, TypeError):
                self._events.count("unreadable-row")
                self._store.forget(HostTable.LEARNT_ASSOCIATION, key)
                continue
            home_address = IPv4Address(key)
            if self._allowed(home_address) and not self._taken(home_address, found.association):
                self._known[home_address] = found
                self._set_timer(home_address, found.fetch_at)
            else:
                self._store.forget(HostTable.LEARNT_ASSOCIATION, key)

    async def close(self) -> None:
        """End all queries."""
        for timer in self._timers.values():
            timer.cancel()
        tasks = tuple(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Reading -----------------------------------------------------------------------------------------------------

    def all(self) -> Collection[Learnt]:
        """All known associations."""
        return self._known.values()

    def of(self, peer: Address) -> ControlAssociation | None:
        """The association with that home address."""
        found = self._known.get(peer) if isinstance(peer, IPv4Address) else None
        return None if found is None else found.association

    # Learning ----------------------------------------------------------------------------------------------------

    async def learn(self, peer: Address | None, recipient_id: bytes) -> ControlAssociation | None:
        """The association of a sender with an unknown identifier; None for a stranger."""
        if not isinstance(peer, IPv4Address) or not self._allowed(peer):
            return None
        task = self._asking.get(peer)
        if task is None:
            if self._now() - self._asked_at.get(peer, float("-inf")) < ASKED_AGAIN:
                return None
            if len(self._asking) >= MAX_ASKED:
                self._events.count("association-too-many-asked")
                return None
            task = self._begin(peer, recipient_id)
        await asyncio.wait([task])
        found = self.of(peer)
        return found if found is not None and found.recipient_id == recipient_id else None

    def refresh(self, home_address: IPv4Address) -> None:
        """Ask again now. Raises KeyError for a home address of which nothing was learnt."""
        known = self._known[home_address]
        if home_address not in self._asking:
            self._begin(home_address, known.association.recipient_id)

    def _begin(self, home_address: IPv4Address, recipient_id: bytes) -> "asyncio.Task[None]":
        self._cancel_timer(home_address)
        task = asyncio.get_running_loop().create_task(self._fetch(home_address, recipient_id))
        self._asking[home_address] = task
        task.add_done_callback(lambda done: self._ended(home_address, done))
        return task

    def _ended(self, home_address: IPv4Address, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._events.count("internal-error")
            log.error("an association could not be learnt", exc_info=problem)
        del self._asking[home_address]
        self._asked_at.pop(home_address, None)
        self._asked_at[home_address] = self._now()
        if len(self._asked_at) > MAX_REMEMBERED:
            del self._asked_at[next(iter(self._asked_at))]

    async def _fetch(self, home_address: IPv4Address, recipient_id: bytes) -> None:
        try:
            grant = await self._ask(home_address)
            self._check(home_address, grant.association)
        except AssociationRefused as problem:
            self._events.count("association-refused")
            self._withdraw(home_address, str(problem))
        except AssociationUnavailable as problem:
            self._events.count("association-unavailable")
            self._go_on(home_address, str(problem))
        except _Unusable as problem:
            self._tell("association-unusable", home_address, str(problem))
            self._go_on(home_address, str(problem))
        else:
            if home_address in self._known or grant.association.recipient_id == recipient_id:
                self._keep(home_address, grant)

    def _check(self, home_address: IPv4Address, found: ControlAssociation) -> None:
        """Check that it can be used beside the others. Raises _Unusable."""
        if self._taken(home_address, found):
            raise _Unusable(f"the identifier {found.recipient_id.hex()} belongs to another association here")
        if home_address not in self._known and len(self._known) >= MAX_LEARNT:
            raise _Unusable(f"{MAX_LEARNT} associations were learnt, which is the most")

    def _go_on(self, home_address: IPv4Address, reason: str) -> None:
        """Continue with the known association, if there is one."""
        if home_address in self._known:
            self._tell("association-stale", home_address, reason)
            self._set_timer(home_address, self._now() + FETCH_AGAIN)

    def _keep(self, home_address: IPv4Address, grant: Grant) -> None:
        now, before = self._now(), self._known.get(home_address)
        lifetime = grant.lifetime
        fetch_at = None if lifetime is None else now + max(lifetime, SHORTEST_LIFETIME)
        learnt = self._known[home_address] = Learnt(grant.association, now, fetch_at)
        self._set_timer(home_address, fetch_at)
        self._store.put(HostTable.LEARNT_ASSOCIATION, str(home_address), learnt.to_row())
        if before is None or before.association != learnt.association:
            kind = "association-learnt" if before is None else "association-changed"
            self._events.emit(kind, home_address=home_address, detail={"lifetime": lifetime})

    def _withdraw(self, home_address: IPv4Address, reason: str) -> None:
        """Withdraw an association; its used numbers stay in the store: a later one must not repeat them."""
        if self._known.pop(home_address, None) is not None:
            self._store.forget(HostTable.LEARNT_ASSOCIATION, str(home_address))
            self._tell("association-withdrawn", home_address, reason)

    def _tell(self, kind: str, home_address: IPv4Address, reason: str) -> None:
        self._events.emit(kind, home_address=home_address, detail={"reason": reason})

    def _allowed(self, home_address: IPv4Address) -> bool:
        """True if a policy server may be asked about the sender."""
        return home_address not in self._peers and any(
            home_address in prefix for prefix in self._prefixes if isinstance(prefix, IPv4Network)
        )

    def _taken(self, home_address: IPv4Address, found: ControlAssociation) -> bool:
        others = (address.association for home, address in self._known.items() if home != home_address)
        return found.recipient_id in self._identifiers or any(
            found.recipient_id == other.recipient_id for other in others
        )

    # Time --------------------------------------------------------------------------------------------------------

    def _set_timer(self, home_address: IPv4Address, at: float | None) -> None:
        self._cancel_timer(home_address)
        if at is not None:
            delay = max(0.0, at - self._now())
            self._timers[home_address] = asyncio.get_running_loop().call_later(delay, self._due, home_address)

    def _cancel_timer(self, home_address: IPv4Address) -> None:
        timer = self._timers.pop(home_address, None)
        if timer is not None:
            timer.cancel()

    def _due(self, home_address: IPv4Address) -> None:
        if home_address in self._known:
            self.refresh(home_address)

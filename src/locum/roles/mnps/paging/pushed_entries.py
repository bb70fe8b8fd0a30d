"""Entries of event tables that a policy server has pushed, or that came with a fetched profile (P7).

It must not know the other entries of a device, nor what an entry does.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Final, Protocol

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.actions import Action, Count, Emit
from locum.roles.mnps.paging.agent_rules import NO_HOME_AGENT
from locum.roles.mnps.paging.device_table import DeviceTable
from locum.roles.paging.events import PAGING
from locum.roles.profile import ProfileChange
from locum.roles.profile_requests import (
    AnswerPush,
    DisconnectAsked,
    EntriesFetched,
    ProfilePushed,
    PushEvent,
    PushOutcome,
    Session,
)

NO_ROOM: Final = "the stand-in has no room for these entries"
Refusal = tuple[PushOutcome, str]
Prefixes = Sequence[IPv4Network | IPv6Network]


class Tables(Protocol):
    """The tables of all devices, as far as pushed entries change them."""

    def of(self, home_addresses: Sequence[Addr]) -> DeviceTable | None:
        """The table of the device that has one of these home addresses."""

    def home_agent(self, home_addresses: Sequence[Addr]) -> Addr | None:
        """The home agent of a device; None: it is not known here."""

    def has_room(self, device: DeviceTable) -> bool:
        """True if the device has a table, or may have one."""

    def changed(self, device: DeviceTable) -> list[Action]:
        """The effects of other entries in a table."""


class PushedEntries:
    """Changes by the policy server, for devices whose home addresses are in `prefixes`."""

    def __init__(self, tables: Tables, prefixes: Prefixes) -> None:
        self._tables, self._prefixes = tables, prefixes

    def happened(self, event: PushEvent) -> list[Action]:
        """A request of the policy server; the answer stands last. Nobody waits for one to fetched entries."""
        match event:
            case ProfilePushed():
                return self._pushed(event)
            case DisconnectAsked():
                return [self._not_removable(event)]
            case EntriesFetched(home_address, change):
                *effects, answer = self._pushed(ProfilePushed(0, Session(None, home_address), change))
                known = isinstance(answer, AnswerPush) and answer.outcome is PushOutcome.STALE
                return [] if known else effects

    def _pushed(self, event: ProfilePushed) -> list[Action]:
        home = self._served(event.session)
        device = None if home is None else self._tables.of((home,)) or DeviceTable((home,))
        refusal = self._refusal(device, event.change)
        if refusal is not None or device is None:
            outcome, text = refusal or (PushOutcome.UNKNOWN, "")
            return [Count(f"push-{outcome.value}"), AnswerPush(event.push, outcome, text)]
        device.version = event.change.version
        effects = self._tables.changed(device)
        detail: dict[str, JSON] = {"entries": len(device.table.pushed), "version": device.version}
        return [
            *effects,
            device.persist(device.table.answer),
            device.persist_pushed(),
            Emit("entries-pushed", None, device.key, None, detail),
            AnswerPush(event.push, PushOutcome.DONE),
        ]

    def _refusal(self, device: DeviceTable | None, change: ProfileChange) -> Refusal | None:
        """The reason why the change is not taken; without one the table has the entries."""
        if device is None:
            return PushOutcome.UNKNOWN, "it is not served here"
        if change.entries is None:
            return PushOutcome.UNKNOWN, "nothing in it is for a stand-in"
        if device.version is not None and change.version <= device.version:
            return PushOutcome.STALE, f"version {device.version} is in force"
        pages = any(action.kind in PAGING for entry in change.entries for action in entry.actions)
        if pages and self._tables.home_agent(device.home_addresses) is None:
            return PushOutcome.INVALID, NO_HOME_AGENT
        if not self._tables.has_room(device) or not device.table.push(change.entries):
            return PushOutcome.NO_ROOM, NO_ROOM
        return None

    def _served(self, session: Session) -> IPv4Address | None:
        """The home address that is meant, if it is served. A stand-in knows no NAI; an address may stand in its place."""
        home = session.home_address
        if home is None and session.nai is not None:
            try:
                home = IPv4Address(session.nai)
            except ValueError:
                return None
        served = home is not None and any(home in prefix for prefix in self._prefixes)
        return home if served else None

    def _not_removable(self, event: DisconnectAsked) -> AnswerPush:
        """A stand-in has no registration of a device that could be ended."""
        if self._served(event.session) is None:
            return AnswerPush(event.push, PushOutcome.UNKNOWN, "it is not served here")
        return AnswerPush(event.push, PushOutcome.NOT_REMOVABLE, "its registrations are at the home agent")

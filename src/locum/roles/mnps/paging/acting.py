"""Effects of the entries of event tables that have matched: pages, stored events, texts for correspondents (P3).

It must not know the patterns of an entry, nor the course of a page.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.action_values.event_tables import CorrespondentTold, TellCorrespondent
from locum.roles.actions import Action, Count, Emit
from locum.roles.mnps.paging.device_table import DeviceTable
from locum.roles.mnps.paging.page_requests import PageRequests
from locum.roles.paging.events import Firing
from locum.wire.control import Flow
from locum.wire.control.paging.cause import ApplicationEvent
from locum.wire.control.paging.entry import ActionKind, EntryAction


@dataclass(frozen=True, slots=True)
class Happened:
    """An event, and the session that it is about."""

    event: ApplicationEvent
    handover: bytes = b""
    flow: Flow | None = None


LATE: Final = Happened(ApplicationEvent("", ""))
"""In the place of the event when a limit has ended: only pages are late."""


class Acting:
    """The effects at one stand-in."""

    def __init__(self, pages: PageRequests) -> None:
        self._pages = pages
        self.ahead = 0.0  # seconds that the wall clock is ahead
        self.direct: Callable[[Addr, Firing, float], list[Action]]
        """Pages by the access node (1172A)."""

    def fired(
        self, device: DeviceTable, firings: Sequence[Firing], happened: Happened, now: float
    ) -> list[Action]:
        """Rows before effects: what has fired is known after a restart."""
        actions = device.persist_progress()
        for firing in firings:
            detail: dict[str, JSON] = {
                "entry": firing.entry.identifier,
                "name": firing.entry.name,
                "app": firing.events[-1].app,
                "event": firing.events[-1].kind,
                "actions": [action.kind.name.lower().replace("_", "-") for action in firing.actions],
                "events": firing.count,
                "late": firing.late,
            }
            actions.append(Emit("event-fired", None, device.key, happened.flow, detail))
            for action in firing.actions:
                actions += self._act(device, firing, action, happened, now)
        return actions

    def _act(
        self, device: DeviceTable, firing: Firing, action: EntryAction, happened: Happened, now: float
    ) -> list[Action]:
        number, event = firing.entry.identifier, firing.events[-1]
        match action.kind:
            case ActionKind.STORE:
                return device.store(number, event, round((now + self.ahead) * 1000))
            case ActionKind.TELL:
                return self._tell(action.text, happened)
        if action.kind is ActionKind.PAGE_DIRECT:
            return self.direct(device.key, firing, now)
        if any(other.kind is ActionKind.PAGE_DIRECT for other in firing.actions):
            return []  # the direct page falls back to this one
        return self.by_home_agent(device, firing, now)

    def by_home_agent(self, device: DeviceTable, firing: Firing, now: float) -> list[Action]:
        """Page by the home agent (1172)."""
        order = next((action.order for action in firing.actions if action.kind is ActionKind.PAGE), None)
        number, event = firing.entry.identifier, firing.events[-1]
        return self._pages.page(
            device.home_addresses, number, event, now=now, order=order, events=firing.count
        )

    def _tell(self, text: str, happened: Happened) -> list[Action]:
        if happened.flow is None:
            return [Count("tell-no-session")]
        return [TellCorrespondent(happened.handover, happened.event.app, happened.flow, text)]

    def told(self, event: CorrespondentTold) -> list[Action]:
        """A proxy has the text, or cannot send it."""
        detail: dict[str, JSON] = {"app": event.app, "reason": event.reason}
        told = Emit("correspondent-told", None, event.flow.local, event.flow, detail)
        return [told, *([Count("tell-failed")] if event.reason else [])]

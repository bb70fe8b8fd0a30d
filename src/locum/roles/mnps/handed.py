"""Connections that proxies hand over to their sleeping device, at its stand-in: they become sessions of the handover (A11).

The packets of such a connection are held while its socket changes from the proxy's to one that is held like all others. This
module must not know how that is done.
"""

from dataclasses import replace

from locum.roles.action_values.forwarding import ClearFlow, FlowVerdict, ReleaseHeld
from locum.roles.action_values.handed import (
    ConnectionHanded,
    ConnectionOffered,
    OfferEnded,
    RefuseOffered,
    TakeOffered,
)
from locum.roles.action_values.sessions import DropSessions, NotPerformed
from locum.roles.actions import Action, Count, Emit, Event
from locum.roles.flow_rows import set_flows
from locum.roles.mnps.handover import HeldFlow, Holding, TakenOver
from locum.roles.mnps.handovers import Holdings
from locum.roles.mnps.parts import WaitingPart
from locum.wire.control import MAX_HANDED, Flow

TOO_LATE = "the device is on its way back"
TOO_MANY = "the stand-in holds no more for this device"
TAKEN = "a session of these addresses and ports is here"


class HandedConnections(WaitingPart):
    """Of the handovers of `holdings`. None of them evicts a session of the device."""

    def __init__(self, holdings: Holdings, most: int, most_of_device: int) -> None:
        """Limits of sessions in all, and of one device."""
        self._holdings, self._most, self._most_of_device = holdings, most, most_of_device
        self._coming: dict[tuple[bytes, int], ConnectionOffered] = {}

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """A proxy hands one over, or the node has made a session of it."""
        match event:
            case ConnectionOffered():
                return self._offered(event)
            case ConnectionHanded():
                return self._handed(event)
            case OfferEnded(handover, flow, label, reason):
                return self._ended(handover, flow, label, reason)
            case NotPerformed(action=TakeOffered(handover, number), reason=reason):
                offer = self._coming.get((handover, number))
                refuse = RefuseOffered(handover, number)
                if offer is None:
                    return [refuse]
                return [refuse, *self._ended(handover, offer.flow, offer.label, reason)]
        return None

    def _offered(self, event: ConnectionOffered) -> list[Action]:
        taken = self._holdings.get(event.handover)
        reason = self._refusal(taken, event.flow)
        if reason:
            lost = _lost(event.flow, event.label, reason)
            return [Count("handed-refused"), RefuseOffered(event.handover, event.number), lost]
        self._coming[event.handover, event.number] = event
        return [
            *set_flows((event.flow,), FlowVerdict.HOLD),
            TakeOffered(event.handover, event.number),
        ]

    def _refusal(self, taken: TakenOver | None, flow: Flow) -> str:
        if taken is None or not isinstance(taken.state, Holding) or flow.local not in taken.home_addresses:
            return TOO_LATE
        if self._holdings.is_wanted(flow) or any(flow == offer.flow for offer in self._coming.values()):
            return TAKEN
        coming = sum(handover == taken.identifier for handover, _ in self._coming)
        of_device = self._holdings.of(taken.home_addresses)
        handed = sum(session.label is not None for session in taken.held) + coming
        full = (
            handed >= MAX_HANDED
            or sum(len(handover.held) for handover in self._holdings.all()) + coming >= self._most
            or sum(len(handover.held) for handover in of_device) + coming >= self._most_of_device
        )
        return TOO_MANY if full else ""

    def _handed(self, event: ConnectionHanded) -> list[Action]:
        """Add a session to the handover; after a restart the node reports each again."""
        self._forget(event.handover, event.flow)
        taken = self._holdings.get(event.handover)
        one = HeldFlow(event.session, event.flow, label=event.label)
        if taken is not None and any(replace(session, announced=False) == one for session in taken.sessions):
            return []
        numbers = set() if taken is None else {session.session for session in taken.held}
        if taken is None or not isinstance(taken.state, Holding) or event.session in numbers:
            drop = DropSessions(event.handover, (event.session,), reset=True)
            return [*set_flows((event.flow,), FlowVerdict.DELIVER), drop, *self._ended_of(event, TOO_LATE)]
        taken = replace(
            taken,
            sessions=(*(session for session in taken.sessions if session.session != one.session), one),
            flows=(*taken.flows, event.flow),
        )
        self._holdings.keep(taken)
        return [
            taken.persist(),
            *set_flows((event.flow,), FlowVerdict.DELIVER),
            ReleaseHeld(event.flow.local),
            Emit("session-handed", None, event.flow.local, event.flow, {"label": event.label}),
        ]

    def _ended_of(self, event: ConnectionHanded, reason: str) -> list[Action]:
        return self._ended(event.handover, event.flow, event.label, reason)

    def _ended(self, handover: bytes, flow: Flow, label: str, reason: str) -> list[Action]:
        self._forget(handover, flow)
        clear: list[Action] = [] if self._holdings.is_wanted(flow) else [ClearFlow(flow)]
        return [*clear, ReleaseHeld(flow.local), _lost(flow, label, reason)]

    def _forget(self, handover: bytes, flow: Flow) -> None:
        for key, offer in list(self._coming.items()):
            if key[0] == handover and offer.flow == flow:
                del self._coming[key]


def _lost(flow: Flow, label: str, reason: str) -> Emit:
    return Emit("session-lost", None, flow.local, flow, {"reason": reason, "label": label})

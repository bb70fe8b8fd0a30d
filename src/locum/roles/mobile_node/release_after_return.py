"""Requests of a returned device to its stand-ins to release triggered takeovers (C11).

It was out of reach when it has lost its way to the home agent, and perhaps before its first registration of a run: it
cannot know of triggers meanwhile. A stand-in without a takeover ignores the request. Handovers are not touched by it.
"""

from collections.abc import Iterable

from locum.roles.action_values.addresses import Addr
from locum.roles.actions import Action, Answered, Event, NoAnswer
from locum.roles.parts import Part
from locum.roles.registrant.attachment import (
    AttachmentLost,
    Outcome,
    RegistrationAccepted,
    RegistrationTarget,
)
from locum.roles.trigger_requests import TriggerRequests
from locum.wire.control.trigger import Operation, Reason, Trigger


class Returning(Part):
    """Of one device with these stand-ins."""

    def __init__(self, stand_ins: Iterable[Addr]) -> None:
        self._stand_ins = tuple(stand_ins)
        self._away = True
        self._trigger_requests = TriggerRequests()

    def outcome(self, outcome: Outcome, home_addresses: tuple[Addr, ...]) -> list[Action]:
        """Handle the registration outcome of these home addresses, the IPv4 one first."""
        match outcome:
            case AttachmentLost():
                self._away = True
            case RegistrationAccepted(RegistrationTarget.ORDINARY, lifetime) if lifetime and self._away:
                self._away = False
                return self._release(home_addresses)
        return []

    def asked_by(self, node: Addr, home_addresses: tuple[Addr, ...]) -> list[Action]:
        """Handle a notice of a stand-in: it has asked whether the device is lost.

        The answer may have come too late, after a message of an old link that had to be repeated first (RFC 7252 section
        4.7). The stand-in has taken over then, and has to release again.
        """
        return [] if self._away or node not in self._stand_ins else self._release(home_addresses)

    def _release(self, home_addresses: tuple[Addr, ...]) -> list[Action]:
        release = Trigger(Operation.RELEASE, home_addresses, reason=Reason.BACK)
        return self._trigger_requests.ask_all(release, self._stand_ins)

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """An answer; None: not to one of ours."""
        if not isinstance(event, Answered | NoAnswer):
            return None
        return self._trigger_requests.happened(event, now=now)

    def timeout(self, *, now: float) -> list[Action]:
        """Ask again."""
        return self._trigger_requests.timeout(now=now)

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._trigger_requests.deadline()

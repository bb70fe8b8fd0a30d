"""A home agent that asks stand-ins to take over when a device's registration has run out, and to release when it is back (C8).

A device that registered for a very short time only is on its way to sleep: that runs out by design, without a trigger.
"""

from collections.abc import Sequence
from dataclasses import replace

from locum.roles.action_values.addresses import Addr
from locum.roles.actions import Action, Answered, Event, NoAnswer
from locum.roles.home_agent.binding import CareOf, Mobile
from locum.roles.parts import Part
from locum.roles.trigger_requests import TriggerRequests
from locum.wire.control.trigger import Operation, Reason, Trigger


class ExpiryTriggers(Part):
    """Of one home agent; not `enabled` it does nothing."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._taken: set[Addr] = set()
        self._trigger_requests = TriggerRequests()

    def expired(self, mobile: Mobile, lost: Sequence[CareOf]) -> list[Action]:
        """The device has no care-of address any more; `lost` were its last."""
        if not self._enabled or all(care_of.brief for care_of in lost):
            return []
        self._taken.add(mobile.home_address)
        take = _trigger(Operation.TAKE, mobile, Reason.EXPIRED)
        for care_of in lost:
            if not care_of.co_located:
                take = replace(take, access_node=care_of.address)
        return self._trigger_requests.ask_one(take, _stand_ins(mobile))

    def registered(self, mobile: Mobile) -> list[Action]:
        """The device has registered."""
        if not self._taken or mobile.home_address not in self._taken:
            return []
        self._taken.discard(mobile.home_address)
        return self._trigger_requests.ask_all(
            _trigger(Operation.RELEASE, mobile, Reason.BACK), _stand_ins(mobile)
        )

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Answers to triggers; None for anything else."""
        if not isinstance(event, Answered | NoAnswer):
            return None
        return self._trigger_requests.happened(event, now=now)

    def timeout(self, *, now: float) -> list[Action]:
        """Ask again."""
        return self._trigger_requests.timeout(now=now)

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._trigger_requests.deadline()


def _trigger(operation: Operation, mobile: Mobile, reason: Reason) -> Trigger:
    homes: tuple[Addr, ...] = (mobile.home_address,)
    if mobile.home_address_v6 is not None:
        homes = (*homes, mobile.home_address_v6)
    return Trigger(operation, homes, reason=reason)


def _stand_ins(mobile: Mobile) -> tuple[Addr, ...]:
    """Those that may register, and the one that need not."""
    known: tuple[Addr, ...] = tuple(stand_in.address for stand_in in mobile.stand_ins)
    return known if known or mobile.stand_in is None else (mobile.stand_in,)

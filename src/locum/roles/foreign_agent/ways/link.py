"""The way `link`: the signed call on the access link, at once and again, or in the slots in which the device listens (P13)."""

from locum.roles.actions import Action, Count, Event, SendRegistration
from locum.roles.foreign_agent.ways.reach import REPEAT_MAX, Attempt, Reach, Resolved
from locum.roles.foreign_agent.ways.settings import WaySettings
from locum.roles.foreign_agent.ways.slots import ROUNDING, Slots


class LinkWay:
    """Calls by messages on access links."""

    def __init__(self, _settings: WaySettings, guard: float) -> None:
        self._guard = guard

    def refusal(self, reach: Reach) -> str | None:
        """The reason why this device cannot be reached in this way."""
        return None if reach.call else "the page has no signed call"

    def attempt(self, reach: Reach, *, now: float, ahead: float) -> Attempt:
        """Call now and say when to call again, or wait for the device's next slot."""
        slots = Slots.of(reach.way, self._guard)
        if slots is None:
            return self._call_at_once(reach, now)
        return self._call_in_slot(reach, slots, now, ahead)

    def _call_at_once(self, reach: Reach, now: float) -> Attempt:
        at, reach.wait = now + reach.wait, min(2 * reach.wait, REPEAT_MAX)
        return Attempt(calls(reach), at)

    def _call_in_slot(self, reach: Reach, slots: Slots, now: float, ahead: float) -> Attempt:
        wall = 1000 * (now + ahead)
        if reach.planned is None:
            reach.planned = slots.next(wall)
        if wall < reach.planned - ROUNDING:
            return Attempt([], reach.planned / 1000 - ahead)
        if not slots.in_time(wall):
            reach.planned = slots.first(wall)
            return Attempt([Count("page-slot-missed")], reach.planned / 1000 - ahead)
        actions = calls(reach)
        reach.planned = slots.after(wall)
        if reach.planned is None:  # the slot is over: the next ones that come after the pause
            reach.planned = slots.first(max(slots.begin(wall) + slots.cycle / 2, wall + 1000 * reach.wait))
            reach.wait = min(2 * reach.wait, REPEAT_MAX)
        return Attempt(actions, reach.planned / 1000 - ahead)

    def happened(self, event: Event, *, now: float) -> Resolved | None:
        """Events are about other things."""
        return None

    def ended(self, reach: Reach) -> list[Action]:
        """Nothing is left to end."""
        return []


def calls(reach: Reach) -> list[Action]:
    """The call on each of the device's places."""
    reach.sent += 1
    return [
        SendRegistration(reach.call, reach.home_address, link=link, link_layer=link_layer)
        for link, link_layer in reach.places
    ]

"""The way `wake-on-lan`: magic packets to the device's card, and the signed call for when the device runs again.

A card that waits for its magic packet does so all the time: slots mean nothing to it.
"""

from typing import Final

from locum.roles.action_values.paging import SendMagicPacket
from locum.roles.actions import Action, Event
from locum.roles.foreign_agent.ways.link import calls
from locum.roles.foreign_agent.ways.reach import CARD_BYTES, EVERYBODY, REPEAT_MAX, Attempt, Reach, Resolved
from locum.roles.foreign_agent.ways.settings import WaySettings

WAKE_FIRST: Final = 1.0  # seconds between two magic packets; doubled each time
WAKE_MAX: Final = 8.0


class WakeOnLan:
    """Magic packets on access links, by broadcast."""

    def __init__(self, settings: WaySettings, _guard: float) -> None:
        self._password = settings.password

    def refusal(self, reach: Reach) -> str | None:
        """The reason why this device cannot be reached in this way."""
        if not reach.call:
            return "the page has no signed call"
        return None if self._cards(reach) else "the link-layer address of the device's card is not known"

    def attempt(self, reach: Reach, *, now: float, ahead: float) -> Attempt:
        """Wake the card if that is due, and call: a device that runs hears the call."""
        actions: list[Action] = []
        if now >= reach.wake_at:
            actions += [SendMagicPacket(link, card, self._password) for link, card in self._cards(reach)]
            reach.wake_at = now + min(WAKE_FIRST * 2**reach.woken, WAKE_MAX)
            reach.woken += 1
        actions += calls(reach)
        at, reach.wait = now + reach.wait, min(2 * reach.wait, REPEAT_MAX)
        return Attempt(actions, at)

    def happened(self, event: Event, *, now: float) -> Resolved | None:
        """Events are about other things."""
        return None

    def ended(self, reach: Reach) -> list[Action]:
        """Nothing is left to end."""
        return []

    @staticmethod
    def _cards(reach: Reach) -> list[tuple[str, bytes]]:
        """Links, and the card's address: the way's own comes first."""
        own = reach.way.link_address
        cards = [(link, own if len(own) == CARD_BYTES else card) for link, card in reach.places]
        return [(link, card) for link, card in cards if len(card) == CARD_BYTES and card != EVERYBODY]

"""Parts of a stand-in: parts of a role that may also wait for each other, for the home agent above all."""

from typing import Protocol

from locum.roles.actions import Action
from locum.roles.parts import Part, Parts


class WaitingPart(Part, Protocol):
    """A part that is called once more after each step of the stand-in."""

    def follow(self, *, now: float) -> list[Action]:
        """Continue with anything that has waited for another part."""
        return []


class WaitingParts(Parts):
    """Parts in the order in which they are restored and called."""

    def __init__(self, *parts: WaitingPart) -> None:
        super().__init__(*parts)
        self._following = parts

    def follow(self, *, now: float) -> list[Action]:
        """Call all parts in order."""
        return [action for part in self._following for action in part.follow(now=now)]

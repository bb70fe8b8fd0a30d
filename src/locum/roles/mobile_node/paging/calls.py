"""Calls that a device hears on its access link: those of its home agent (1170), and those of its stand-ins (1172A)."""

from collections.abc import Callable, Sequence

from locum.roles.action_values.addresses import Randomness, Source
from locum.roles.actions import Action, Event, Persist
from locum.roles.mobile_node.page_calls import PageCalls
from locum.roles.mobile_node.paging.direct_calls import DirectCalls
from locum.roles.parts import Part, Parts
from locum.roles.registrant.registrant import RegistrationClient
from locum.wire.control.paging.direct_message import is_direct


class Calls(Part):
    """Of one device. `asleep` tells whether it sleeps or is about to; `wake` wakes it."""

    def __init__(
        self,
        mobile: RegistrationClient,
        asleep: Callable[[], bool],
        wake: Callable[[float], list[Action]],
        randomness: Randomness,
    ) -> None:
        self._network = PageCalls(mobile)
        self.woken_by: str | None = None
        """The page that has ended the last sleep, in words; None: a command, a time, or no sleep has."""
        self._asleep, self._wake = asleep, wake
        configuration = mobile.configuration
        self._direct = DirectCalls(
            configuration.directed,
            lambda: mobile.configuration.home_address,
            asleep,
            self._wake_directly,
            randomness,
        )
        self._parts = Parts(self._direct)

    def receive(self, message: bytes, source: Source, *, now: float) -> list[Action]:
        """An experimental message (RFC 4064) on the access link."""
        if is_direct(message):
            return self._direct.called(message, source, now=now)
        actions, wakes = self._network.called(message, source, asleep=self._asleep())
        if not wakes:
            return actions
        call = self._network.woken
        self.woken_by = None if call is None else f"{call.reason.value}: {call.detail}".removesuffix(": ")
        return [*actions, *self._wake(now)]

    def _wake_directly(self, now: float) -> list[Action]:
        self.woken_by = "event, by its stand-in"
        return self._wake(now)

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Continue with the calls that were answered in an earlier run."""
        return [*self._network.restore(rows), *self._parts.restore(rows, now=now)]

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """The decision of a program about a call."""
        return self._parts.happened(event, now=now)

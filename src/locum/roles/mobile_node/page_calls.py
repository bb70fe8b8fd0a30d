"""Calls that a device hears on its access link while it sleeps: which of them are believed (P1, P11).

A call is signed by the home agent. It counts if its time is after the device's last registration and after the last call
that counted, also in an earlier run: what was recorded before the sleep, or during an earlier one, wakes nobody. This module must not know how a device
wakes.
"""

from collections.abc import Sequence
from typing import Final

from locum.roles.action_values.addresses import Addr, Source
from locum.roles.action_values.page_calls import CallDecision, PageCall, PageCallAnswer
from locum.roles.actions import Action, Count, Emit, Forget, Persist, SendRegistration, Table
from locum.roles.mobile_ipv4.page_calls import read_call, write_call_answer
from locum.roles.registrant.registrant import RegistrationClient
from locum.security.replay import difference
from locum.wire.errors import WireError

TABLE: Final[Table] = "direct_call"
KEY: Final = "home agent"
"""Of its row, beside those of stand-ins."""


class PageCalls:
    """The calls for one device."""

    def __init__(self, mobile: RegistrationClient) -> None:
        self._mobile = mobile
        self._last: PageCall | None = None
        self._before: int | None = None  # identification of the last call that counted in an earlier run
        self.woken: PageCall | None = None
        """The call that has woken the device, until its next sleep."""
        self._answered = CallDecision.AWAKE

    def restore(self, rows: Sequence[Persist]) -> list[Action]:
        """Take no call again that counted in an earlier run."""
        for row in rows:
            if (row.table, row.key) == (TABLE, KEY):
                before = row.value.get("identification")
                if not isinstance(before, str) or not before.isdecimal():
                    return [Count("unreadable-row"), Forget(row.table, row.key)]
                self._before = int(before)
        return []

    def called(self, message: bytes, source: Source, *, asleep: bool) -> tuple[list[Action], bool]:
        """The actions that follow from a message, and whether the device wakes: it does when it sleeps, or is about to."""
        call = self.heard(message)
        if isinstance(call, str):
            return [Count(call)], False
        again = self.repeats(call)
        decision = CallDecision.WAKING if asleep else CallDecision.AWAKE
        # Packets follow the answer: theirs find a way back before the registration is complete.
        ahead: list[Action] = []
        if call.forwarded and asleep and not again:
            ahead = self._mobile.in_use.go_ahead(source, self._mobile.configuration)
        if call.allocation is not None and asleep and not again:
            self._mobile.home_agent.allocate(*call.allocation)
        return [*ahead, *self.answer(call, source, decision)], asleep and not again

    def heard(self, message: bytes) -> PageCall | str:
        """The call, if it is believed; otherwise the reason under which it is counted."""
        try:
            call = read_call(message)
        except WireError as error:
            return f"call-{error.reason}"
        dialogue = self._mobile.dialogue
        if call.home_address != self._mobile.configuration.home_address:
            return "call-for-another"
        if call.proof is None or not call.proof.holds(dialogue.association):
            return "call-not-authentic"
        if self.repeats(call):
            return call
        floors = (
            dialogue.last_timestamp,
            self._before if self._last is None else self._last.identification,
        )
        if any(floor is not None and difference(call.identification, floor) <= 0 for floor in floors):
            return "call-replayed"
        return call

    def repeats(self, call: PageCall) -> bool:
        """True if it is the last one once more: its answer was lost."""
        last = self._last
        return last is not None and (call.page, call.identification) == (last.page, last.identification)

    def answer(self, call: PageCall, source: Source, decision: CallDecision) -> list[Action]:
        """The answer to where the call came from; a repetition has the same."""
        actions: list[Action] = []
        if self.repeats(call):
            actions.append(Count("call-repeated"))
        else:
            self._last, self._answered = call, decision
            # As text: a number in JSON is not this long everywhere.
            actions.append(Persist(TABLE, KEY, {"identification": str(call.identification)}))
            if decision is CallDecision.WAKING:
                self.woken = call
            detail = {"by": str(source.address), "cause": call.reason.value, "decision": decision.value}
            if call.detail:
                detail["detail"] = call.detail
            actions.append(Emit("paged", "1170", call.home_address, None, detail))
        said = PageCallAnswer(call.page, call.home_address, call.identification, self._answered)
        to: Addr = source.address
        message = write_call_answer(said, self._mobile.dialogue.association)
        send = SendRegistration(
            message, to, link=source.link, source=call.home_address, link_layer=source.link_layer
        )
        return [*actions, send]

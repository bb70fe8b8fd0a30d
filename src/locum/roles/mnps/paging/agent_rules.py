"""Rules of devices' event tables in the second paging information of their home agents (1208, P2).

Rules come with a 1206, whose answer waits for that of the home agent (Fig. 12). They are refreshed within their lifetime and
removed with the table. It must not know tables.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.actions import Action, Answered, Ask, Count, Emit, Event, Forget, NoAnswer, Persist, Table
from locum.roles.paging.sent import latest
from locum.roles.timers import Deadlines
from locum.wire.control.paging.agent_rules import PATH, AgentRules1208, encode_1208
from locum.wire.control.paging.rules import AgentRule
from locum.wire.control.paging.status import (
    ItemStatus,
    PagingStatus,
    StatusAnswer,
    decode_status_answer,
)
from locum.wire.errors import WireError

TABLE: Final[Table] = "event"
FIRST_REQUEST: Final = 1 << 58
LAST_REQUEST: Final = (1 << 58) + (1 << 56) - 1
LIFETIME: Final = 3600
"""Seconds that the home agent is asked for; it may grant less."""
ANSWER_TIMEOUT: Final = 5.0
PATIENCE: Final = 6.0
"""Seconds after which the device is answered without the home agent; the rules follow."""
RETRY_FIRST, RETRY_MAX = 1.0, 60.0
STEP: Final = 10_000
"""Milliseconds that the next message is later than one that was stale."""
SPREAD: Final = 0.02
"""Seconds between the refreshes of two devices after a restart."""
NO_HOME_AGENT: Final = "the stand-in does not know the device's home agent; set home_agent in [mnps]"
SILENT: Final = "the home agent has not answered; it is asked again"
_AGAIN = (PagingStatus.BUSY, PagingStatus.STALE)


@dataclass(slots=True)
class _Rules:
    """Rules of one device, and what of them the home agent knows."""

    home_addresses: tuple[Addr, ...]
    rules: tuple[AgentRule, ...]
    sent: int = 0  # of the last 1208
    request: int | None = None
    attempts: int = 0  # without an answer
    answer: StatusAnswer | None = None  # to the present rules

    @property
    def key(self) -> Addr:
        """The device."""
        return self.home_addresses[0]

    def persist(self) -> Persist:
        """The row; the rules themselves are in that of the table."""
        row: dict[str, JSON] = {
            "home_addresses": [str(home) for home in self.home_addresses],
            "sent": self.sent,
        }
        return Persist(TABLE, rules_key(self.key), row)


def rules_key(device: Addr) -> str:
    """Key of the row about a device's rules."""
    return f"{device} rules"


@dataclass(slots=True)
class AgentRules:
    """Rules of all devices. `home_agent` gives that of a device; `answered(device, rules' answer)` is called with each answer."""

    home_agent: Callable[[Sequence[Addr]], Addr | None]
    answered: Callable[[Addr, StatusAnswer], list[Action]]
    ahead: float = 0.0  # seconds that the wall clock is ahead
    _rules: dict[Addr, _Rules] = field(default_factory=dict)
    _by_request: dict[int, Addr] = field(default_factory=dict)
    _due: Deadlines[Addr] = field(default_factory=Deadlines)
    _numbers: "count[int]" = field(default_factory=lambda: count(FIRST_REQUEST))

    def status(self, device: Addr) -> StatusAnswer | None:
        """The home agent's answer to the present rules; None: there is none yet."""
        known = self._rules.get(device)
        return StatusAnswer(PagingStatus.OK) if known is None else known.answer

    def want(
        self, home_addresses: tuple[Addr, ...], rules: tuple[AgentRule, ...], *, now: float
    ) -> list[Action]:
        """Let the home agent have exactly these rules. Without an action it has them already, or cannot."""
        known = self._rules.get(home_addresses[0])
        if known is None:
            if not rules:
                return []
            known = self._rules[home_addresses[0]] = _Rules(home_addresses, rules)
        elif (known.rules, known.home_addresses) == (rules, home_addresses):
            return []
        known.rules, known.home_addresses, known.answer, known.attempts = rules, home_addresses, None, 0
        return self._ask(known, now)

    def restore(
        self, row: Persist, home_addresses: tuple[Addr, ...], rules: tuple[AgentRule, ...], *, now: float
    ) -> None:
        """Go on where an earlier run was: the home agent may have other rules, so it is told all. Raises ValueError or KeyError."""
        sent = row.value["sent"]
        if not isinstance(sent, int):
            raise ValueError("sent is a number")
        known = self._rules[home_addresses[0]] = _Rules(home_addresses, rules, sent)
        self._due.set(known.key, now + SPREAD * len(self._rules))

    # Course ------------------------------------------------------------------------------------------------------

    def _ask(self, known: _Rules, now: float) -> list[Action]:
        home_agent = self.home_agent(known.home_addresses)
        if known.request is not None:
            self._by_request.pop(known.request, None)
            known.request = None
        if home_agent is None:
            refused = tuple(ItemStatus(rule.identifier, PagingStatus.UNKNOWN) for rule in known.rules)
            known.answer = StatusAnswer(PagingStatus.UNKNOWN, NO_HOME_AGENT, refused)
            self._due.cancel(known.key)
            gone = [] if known.rules else self._forget(known)
            return [Count("1208-no-home-agent"), *gone]
        known.sent = max(known.sent + 1, round((now + self.ahead) * 1000))
        known.request = next(self._numbers)
        self._by_request[known.request] = known.key
        self._due.cancel(known.key)
        lifetime = LIFETIME if known.rules else 0
        body = encode_1208(AgentRules1208(known.home_addresses, known.rules, lifetime, known.sent))
        detail: dict[str, JSON] = {"to": str(home_agent), "rules": len(known.rules), "lifetime": lifetime}
        return [
            known.persist(),
            Ask(known.request, home_agent, PATH, body, ANSWER_TIMEOUT),
            Emit("sent", PATH, known.key, None, detail),
        ]

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """The answer to a 1208, or that there is none; None for anything else."""
        if not isinstance(event, Answered | NoAnswer) or not FIRST_REQUEST <= event.request <= LAST_REQUEST:
            return None
        device = self._by_request.pop(event.request, None)
        known = None if device is None else self._rules.get(device)
        if known is None:
            return []  # later rules have taken their place
        known.request = None
        if isinstance(event, NoAnswer):
            return [Count("1208-unanswered"), *self._again(known, now)]
        try:
            answer = decode_status_answer(event.body)
        except WireError as error:
            return [Count(f"1208-{error.reason}"), *self._again(known, now)]
        word = answer.status.name.lower().replace("_", "-")
        if answer.status in _AGAIN:
            # The home agent knows a message that this clock has not reached: the next ones go towards it in small steps, as it
            # takes none that is far ahead of its own clock.
            known.sent += STEP if answer.status is PagingStatus.STALE else 0
            return [Count(f"1208-{word}"), *self._again(known, now)]
        if answer.status is PagingStatus.REFUSED and known.sent > latest(now + self.ahead):
            known.sent = 0  # the clock was set back, and the home agent's agrees
            return [Count(f"1208-{word}"), *self._again(known, now)]
        known.answer, known.attempts = answer, 0
        if not known.rules:
            return [*self._forget(known), *self.answered(known.key, answer)]
        granted = LIFETIME if answer.lifetime is None else max(answer.lifetime, 2)
        self._due.set(known.key, now + granted / 2)
        told: list[Action] = []
        if answer.status is not PagingStatus.OK:
            told = [
                Count(f"1208-{word}"),
                Emit("rules-refused", PATH, known.key, None, {"reason": word, "text": answer.text}),
            ]
        return [*told, *self.answered(known.key, answer)]

    def _again(self, known: _Rules, now: float) -> list[Action]:
        wait = min(RETRY_FIRST * 2 ** min(known.attempts, 10), RETRY_MAX)
        known.attempts += 1
        if not known.rules and known.attempts * RETRY_MAX > LIFETIME:
            return self._forget(known)  # they have ended by themselves
        self._due.set(known.key, now + wait)
        return []

    def _forget(self, known: _Rules) -> list[Action]:
        del self._rules[known.key]
        self._due.cancel(known.key)
        return [Forget(TABLE, rules_key(known.key))]

    def timeout(self, *, now: float) -> list[Action]:
        """Refreshes and repetitions that are due."""
        actions: list[Action] = []
        for device in self._due.due(now):
            known = self._rules.get(device)
            if known is not None:
                actions += self._ask(known, now)
        return actions

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._due.next()


def about_rules(answer: StatusAnswer | None, rules: Sequence[AgentRule]) -> tuple[ItemStatus, ...]:
    """Statuses of the rules of a 1206 in its answer; those that are ok are left out."""
    if answer is None:
        return tuple(ItemStatus(rule.identifier, PagingStatus.BUSY, f"rule: {SILENT}") for rule in rules)
    numbers: Mapping[int, ItemStatus] = {item.item: item for item in answer.items}
    found = []
    for rule in rules:
        item = numbers.get(rule.identifier)
        if item is None and answer.status is not PagingStatus.OK:
            item = ItemStatus(rule.identifier, answer.status, answer.text)
        if item is not None and item.status is not PagingStatus.OK:
            text = item.text or answer.text or item.status.name.lower().replace("_", " ")
            found.append(ItemStatus(rule.identifier, item.status, f"rule: {text}"))
    return tuple(found)

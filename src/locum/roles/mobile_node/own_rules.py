"""Flow rules that a mobile node registers for itself (RFC 7629; R5 to R8): pending and confirmed.

One change rides in a request until the home agent has answered it. It must not know when a request is sent.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import RuleVerdict
from locum.roles.action_values.registration import (
    Options,
    ReceivedAnswer,
    RefusalReason,
    RuleChange,
    RuleOperation,
)
from locum.roles.actions import Action, Emit, Forget, Persist
from locum.roles.flow_selectors import PRIORITY, flow_selector
from locum.roles.parts import Part, readable
from locum.roles.registrant.attachment import Attachment
from locum.roles.rules import (
    MN,
    UNNAMED,
    WHILE_ASLEEP,
    KeptRule,
    RuleRefused,
    Target,
    added,
    free_identifier,
    one_reading,
    overlap,
    spoken,
    without,
)
from locum.wire.control import Flow

TABLE: Final = "rule"
# The first that is given to a rule without one: clear of those of stand-ins, and of low ones in configurations
FIRST_IDENTIFIER = UNNAMED.stop


@dataclass(frozen=True, slots=True)
class Change:
    """A rule to add or, without one, the removal of the rule with that identifier."""

    identifier: int
    rule: KeptRule | None


class OwnRules(Part):
    """Rules in matching order, and the pending change."""

    def __init__(self) -> None:
        self._rules: tuple[KeptRule, ...] = ()
        self._change: Change | None = None
        self.refused: int | None = None  # code of the last change's refusal

    def all(self) -> Collection[KeptRule]:
        """Those that the home agent has confirmed."""
        return self._rules

    @property
    def settled(self) -> bool:
        """True if no change is pending."""
        return self._change is None

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """The rules of an earlier run: the home agent still has them."""
        return readable(rows, TABLE, self._restore, RuleRefused)[1]

    def _restore(self, row: Persist) -> None:
        self._rules = added(self._rules, KeptRule.from_row(int(row.key), row.value))

    def add(
        self, rule: KeptRule, home_addresses: Iterable[Addr], own: int | None, given: Iterable[Flow] = ()
    ) -> KeptRule:
        """Ask for it with the next request, under a free identifier if it has 0. Raises RuleRefused.

        `own` is the binding identifier of this device, which MN stands for; `given` are flows that stand-ins have.
        """
        self._idle()
        if rule.verdict in WHILE_ASLEEP:
            raise RuleRefused(
                RefusalReason.MALFORMED,
                f"no registration says a rule with the action {rule.verdict.value}; add it at the home agent",
            )
        identifier = rule.identifier or free_identifier(self._rules, FIRST_IDENTIFIER)
        if identifier in UNNAMED:
            raise RuleRefused(
                RefusalReason.MALFORMED,
                f"the identifiers {UNNAMED.start} to {UNNAMED.stop - 1} are the home agent's to give",
            )
        made = replace(
            rule,
            identifier=identifier,
            owner=MN,
            selectors=one_reading(rule.selectors, home_addresses),
            to=tuple(_identified(target, own) for target in rule.to),
        )
        added(self._rules, made)
        for flow in given:
            if _precedes(made, flow) and _stays_with(made, own):
                raise RuleRefused(
                    RefusalReason.PROHIBITED,
                    f"{flow} is with a stand-in, and would not be reached there; take it back first, or give the rule a "
                    f"priority above {PRIORITY}",
                )
        self._change, self.refused = Change(identifier, made), None
        return made

    def remove(self, identifier: int) -> KeptRule:
        """Ask for its removal with the next request. Raises RuleRefused."""
        self._idle()
        _, gone = without(self._rules, identifier, MN)
        self._change, self.refused = Change(identifier, None), None
        return gone

    def _idle(self) -> None:
        if self._change is not None:
            raise RuleRefused(RefusalReason.NO_RESOURCES, "another change is under way; try again")

    def give_up(self) -> None:
        """The change does not ride any more; whether the home agent has made it is not known."""
        self._change = None

    def keeps(self, flow: Flow, own: int | None) -> KeptRule | None:
        """The rule that keeps packets of the flow from a stand-in that registers for it: they come here, or are dropped."""
        first = next((rule for rule in self._rules if _precedes(rule, flow)), None)
        return first if first is not None and _stays_with(first, own) else None

    # As a part of the registration -----------------------------------------------------------------------------------

    def fill(self, options: Options, attachment: Attachment, lifetime: int) -> Options:
        """The change, if there is one."""
        change = self._change
        if change is None or not lifetime:
            return options
        rule = change.rule
        if rule is None:
            asked = RuleChange(change.identifier, RuleOperation.REMOVE)
        else:
            asked = RuleChange(
                rule.identifier,
                RuleOperation.ADD,
                rule.priority,
                rule.share,
                rule.verdict,
                spoken(rule.selectors),
                tuple(target for target in rule.to if isinstance(target, int)),
            )
        return replace(options, rules=(*options.rules, asked))

    def replied(self, reply: ReceivedAnswer, attachment: Attachment) -> Sequence[Action]:
        """The home agent makes the change, or refuses it and with it the request, which is sent again without it."""
        if reply.accepted and not reply.lifetime:
            gone, self._rules, self._change = self._rules, (), None
            return [Forget(TABLE, str(rule.identifier)) for rule in gone]
        if reply.answer.refused is RefusalReason.NOT_FRESH:
            return ()  # the request is sent again at once
        change, self._change = self._change, None
        if change is None:
            return ()
        # The removal was made before, and its answer was lost
        missing = change.rule is None and reply.answer.refused is RefusalReason.UNKNOWN_IDENTIFIER
        if not reply.accepted and not missing:
            self.refused = reply.code
            detail = {"rule": change.identifier, "code": reply.code}
            return [Emit("rule-refused", "604", reply.home_address, None, detail)]
        if change.rule is None:
            self._rules, _ = without(self._rules, change.identifier, MN)
            return [Forget(TABLE, str(change.identifier))]
        self._rules = added(self._rules, change.rule)
        return [Persist(TABLE, str(change.identifier), change.rule.to_row())]


def _precedes(rule: KeptRule, flow: Flow) -> bool:
    """True if it matches packets of the flow, and precedes a stand-in's own rule for that."""
    packets = flow_selector(flow)
    return rule.priority <= PRIORITY and any(overlap(packets, selector) for selector in rule.selectors)


def _stays_with(rule: KeptRule, own: int | None) -> bool:
    """True if the rule's packets go, or may go, to the device itself, or are dropped."""
    return rule.verdict is RuleVerdict.DROP or own in (rule.to if rule.share else rule.to[:1])


def _identified(target: Target, own: int | None) -> int:
    """The binding identifier; raises RuleRefused without one."""
    if isinstance(target, int):
        return target
    if target == MN and own is not None:
        return own
    raise RuleRefused(
        RefusalReason.MALFORMED,
        "this device has no binding identifier; set bid in [mobile_node]"
        if target == MN
        else f"{target}: a device's rules lead to binding identifiers that are registered (--to NUMBER), to itself "
        "(--to mn), or drop; other targets are for the home agent's",
    )

"""Emits the last counter of a flow rule that was removed from the kernel. Decides nothing."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from locum.node.config.rule_text import selector_fields
from locum.roles.rules import LAST_RULE

if TYPE_CHECKING:
    from locum.dataplane.kernel.rule_tables import EndedRule
    from locum.node.events import EventStream


def teller(events: "EventStream") -> "Callable[[EndedRule], None]":
    """Report of ended rules, without the home agent's own rules for stand-ins, which no list shows."""

    def tell(ended: "EndedRule") -> None:
        rule = ended.rule
        if rule.identifier > LAST_RULE:
            return
        events.emit(
            "rule-ended",
            home_address=ended.home_address,
            detail={
                "id": rule.identifier,
                "action": rule.verdict.value,
                "selector": selector_fields((rule.selector,)),
                "tunnels": [str(candidate.tunnel.destination) for candidate in rule.candidates],
                "packets": ended.counter.packets,
                "bytes": ended.counter.bytes,
            },
        )

    return tell

"""Message 1208: a stand-in's rules in the second paging information (P2), as CBOR by paging.cddl. `status` has its answer."""

from dataclasses import dataclass

from locum.wire import cbor
from locum.wire.control.paging.rules import (
    MAX_RULES_BODY,
    MAX_TIME,
    Address,
    AgentRule,
    home_addresses,
    numbered,
)
from locum.wire.control.paging.status import MAX_ITEMS, MAX_LIFETIME

PATH = "1208"  # of the CoAP resource
MAX_AGENT_RULES = MAX_RULES_BODY


@dataclass(frozen=True, slots=True)
class AgentRules1208:
    """All rules that the sender has for a device; they replace its earlier ones. `sent` orders them; lifetime 0 removes them."""

    home_addresses: tuple[Address, ...]
    rules: tuple[AgentRule, ...]
    lifetime: int  # seconds
    sent: int  # milliseconds since 1970


def encode_1208(value: AgentRules1208) -> bytes:
    """The CBOR body of a 1208."""
    return cbor.encode(
        {
            0: [home.packed for home in value.home_addresses],
            1: [rule.to_map() for rule in value.rules],
            2: value.lifetime,
            3: value.sent,
        }
    )


def decode_1208(data: bytes) -> AgentRules1208:
    """The rules in a 1208's body; raises WireError."""
    reader = cbor.Reader(cbor.decode(data, limit=MAX_AGENT_RULES, field="1208"), "1208")
    value = AgentRules1208(
        home_addresses(reader, 0),
        numbered(reader.array(1, "rules", MAX_ITEMS), "1208.rule", AgentRule.from_cbor),
        reader.integer(2, "lifetime", 0, MAX_LIFETIME),
        reader.integer(3, "sent", 0, MAX_TIME),
    )
    reader.done()
    return value

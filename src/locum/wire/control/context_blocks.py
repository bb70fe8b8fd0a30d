"""The blocks of a context (RFC 4067 section 2.5.1: data blocks with types; features C4, C7), as CBOR by control.cddl.

Each block is a byte string of its own inside its message, so that one that is malformed does not take the others with
it. Whether a block is taken over is not known here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from locum.wire import cbor
from locum.wire.cursor import Cursor
from locum.wire.errors import WireError
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector, decode_selector, selector_format

Address: TypeAlias = IPv4Address | IPv6Address

MAX_RULES = 128  # of one list: 64 of each family
MAX_GROUPS = 64
MAX_KEY = 128  # bytes
MAX_BLOCK = 16 * 1024  # bytes; 128 rules with every part of an IPv6 selector stay below
MAX_LIFETIME = 0xFFFF  # seconds
_NAME = 32  # characters


class BlockKind(IntEnum):
    """Types of blocks; a type that is not here is refused by itself."""

    POLICY = 1  # filters in both directions
    PAGING = 2  # classifier at the stand-in's access node
    MULTICAST = 3  # groups that the visitor is a member of
    SECURITY = 4  # MN-FA association
    VISITOR = 5  # fields of a registration


@dataclass(frozen=True, slots=True)
class RuleEntry:
    """One rule of a filter; `allow` or drop."""

    identifier: int  # 1 to 65535
    selector: Ipv4Selector | Ipv6Selector
    allow: bool


@dataclass(frozen=True, slots=True)
class RuleList:
    """Rules in their order, and the verdict for packets that match none."""

    rules: tuple[RuleEntry, ...] = ()
    otherwise: bool = True  # allow


@dataclass(frozen=True, slots=True)
class PolicyBlock:
    """The policing of the access node (R20)."""

    to_visitor: RuleList = RuleList()
    from_visitor: RuleList = RuleList()


@dataclass(frozen=True, slots=True)
class PagingBlock:
    """The paging classifier (P16), and the identifiers of its rules that ask for a page."""

    classifier: RuleList = RuleList()
    asking: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class MulticastBlock:
    """Groups of either family."""

    groups: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class SecurityBlock:
    """An association (RFC 5944 section 1.6); names as in the configuration. The message that carries it is encrypted."""

    spi: int
    key: bytes = field(repr=False)
    algorithm: str
    replay: str
    sent_spi: int | None = None  # of messages to the mobile node; None: `spi` as well
    short_key: bool = False  # fewer than 16 bytes are taken: its operator insists


@dataclass(frozen=True, slots=True)
class VisitorBlock:
    """The visitor's registration."""

    home_agent: IPv4Address
    flags: int
    lifetime: int  # seconds that are left
    home_address_v6: IPv6Address | None = None


BlockContent: TypeAlias = PolicyBlock | PagingBlock | MulticastBlock | SecurityBlock | VisitorBlock

_KINDS: Mapping[type, BlockKind] = {
    PolicyBlock: BlockKind.POLICY,
    PagingBlock: BlockKind.PAGING,
    MulticastBlock: BlockKind.MULTICAST,
    SecurityBlock: BlockKind.SECURITY,
    VisitorBlock: BlockKind.VISITOR,
}


def kind_of(content: BlockContent) -> BlockKind:
    """The type of a block with this content."""
    return _KINDS[type(content)]


def encode_block(content: BlockContent) -> bytes:
    """The CBOR of a block's content."""
    match content:
        case PolicyBlock():
            return cbor.encode({0: _rules(content.to_visitor), 1: _rules(content.from_visitor)})
        case PagingBlock():
            body: dict[int, object] = {0: _rules(content.classifier)}
            if content.asking:
                body[1] = list(content.asking)
            return cbor.encode(body)
        case MulticastBlock():
            return cbor.encode({0: [group.packed for group in content.groups]})
        case SecurityBlock():
            association: dict[int, object] = {
                0: content.spi,
                1: content.key,
                2: content.algorithm,
                3: content.replay,
            }
            if content.sent_spi is not None:
                association[4] = content.sent_spi
            if content.short_key:
                association[5] = True
            return cbor.encode(association)
        case VisitorBlock():
            fields: dict[int, object] = {
                0: content.home_agent.packed,
                1: content.flags,
                2: content.lifetime,
            }
            if content.home_address_v6 is not None:
                fields[3] = content.home_address_v6.packed
            return cbor.encode(fields)


def decode_block(kind: BlockKind, data: bytes) -> BlockContent:
    """The content of a block of that type. Raises WireError."""
    field = f"block-{kind.name.lower()}"
    reader = cbor.Reader(cbor.decode(data, limit=MAX_BLOCK, field=field), field)
    content = _DECODERS[kind](reader)
    reader.done()
    return content


def _rules(rules: RuleList) -> dict[int, object]:
    listed = [
        [rule.identifier, selector_format(rule.selector), rule.selector.encode(), rule.allow]
        for rule in rules.rules
    ]
    return {0: listed, 1: rules.otherwise}


def _rule_list(value: object, field: str) -> RuleList:
    reader = cbor.Reader(value, field)
    rules = tuple(_rule(rule, field) for rule in reader.array(0, "rules", MAX_RULES))
    found = RuleList(rules, reader.boolean(1, "otherwise"))
    reader.done()
    return found


def _rule(value: object, field: str) -> RuleEntry:
    parts = cbor.array(value, f"{field}.rule", 4)
    if len(parts) != 4 or not isinstance(parts[2], bytes) or not isinstance(parts[3], bool):
        raise WireError(f"{field}.rule", 0, "not-a-rule")
    identifier = cbor.integer(parts[0], f"{field}.identifier", 1, 0xFFFF)
    number = cbor.integer(parts[1], f"{field}.format", 1, 0xFF)
    selector = decode_selector(number, Cursor(parts[2]))
    if not isinstance(selector, Ipv4Selector | Ipv6Selector):
        raise WireError(f"{field}.format", 0, "range")
    return RuleEntry(identifier, selector, parts[3])


def _policy(reader: cbor.Reader) -> PolicyBlock:
    return PolicyBlock(
        _rule_list(reader.value(0, "to-visitor"), f"{reader.field}.to-visitor"),
        _rule_list(reader.value(1, "from-visitor"), f"{reader.field}.from-visitor"),
    )


def _paging(reader: cbor.Reader) -> PagingBlock:
    classifier = _rule_list(reader.value(0, "classifier"), f"{reader.field}.classifier")
    field = f"{reader.field}.asking"
    listed = reader.optional_array(1, "asking", MAX_RULES)
    asking = tuple(cbor.integer(number, field, 1, 0xFFFF) for number in listed)
    known = {rule.identifier for rule in classifier.rules}
    if len(set(asking)) != len(asking) or not known.issuperset(asking):
        raise WireError(field, 0, "range")
    return PagingBlock(classifier, asking)


def _multicast(reader: cbor.Reader) -> MulticastBlock:
    field = f"{reader.field}.group"
    groups = tuple(cbor.address(group, field) for group in reader.array(0, "groups", MAX_GROUPS))
    if not all(group.is_multicast for group in groups):
        raise WireError(field, 0, "not-a-group")
    return MulticastBlock(groups)


def _security(reader: cbor.Reader) -> SecurityBlock:
    short = False if reader.absent(5) else reader.boolean(5, "short-key")
    return SecurityBlock(
        reader.integer(0, "spi", 256, 0xFFFFFFFF),
        reader.octets(1, "key", 1 if short else 16, MAX_KEY),
        _text(reader.value(2, "algorithm"), f"{reader.field}.algorithm"),
        _text(reader.value(3, "replay"), f"{reader.field}.replay"),
        None if reader.absent(4) else reader.integer(4, "sent-spi", 256, 0xFFFFFFFF),
        short,
    )


def _visitor(reader: cbor.Reader) -> VisitorBlock:
    home_agent = reader.address(0, "home-agent")
    v6 = None if reader.absent(3) else reader.address(3, "home-address-v6")
    if not isinstance(home_agent, IPv4Address) or isinstance(v6, IPv4Address):
        raise WireError(f"{reader.field}.address", 0, "family")
    return VisitorBlock(
        home_agent, reader.integer(1, "flags", 0, 0xFF), reader.integer(2, "lifetime", 0, MAX_LIFETIME), v6
    )


def _text(value: object, field: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _NAME:
        raise WireError(field, 0, "not-a-name")
    return value


_DECODERS: Mapping[BlockKind, Callable[[cbor.Reader], BlockContent]] = {
    BlockKind.POLICY: _policy,
    BlockKind.PAGING: _paging,
    BlockKind.MULTICAST: _multicast,
    BlockKind.SECURITY: _security,
    BlockKind.VISITOR: _visitor,
}

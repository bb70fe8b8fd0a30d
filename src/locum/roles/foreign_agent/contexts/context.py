"""Data of an access node about a mobile node beside its registration: blocks with versions (C4).

Values only: the `ContextBook` keeps them. It must not know messages, peers or tunnels.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.action_values.flows import MAX_RULES, FilterPlace, FilterRule, FilterVerdict
from locum.roles.profile import Policies, Policing, policy_blocks
from locum.security.association import Algorithm, Association, Replay
from locum.wire.control.context import BlockStatus, ContextBlock
from locum.wire.control.context_blocks import (
    BlockContent,
    BlockKind,
    PagingBlock,
    PolicyBlock,
    RuleList,
    SecurityBlock,
    decode_block,
    encode_block,
)
from locum.wire.errors import WireError
from locum.wire.traffic_selector import Ipv4Selector

TABLE: Final = "context"
_VERDICTS: Final = {
    (True, False): FilterVerdict.ALLOW,
    (False, False): FilterVerdict.DROP,
    (True, True): FilterVerdict.PAGE,
    (False, True): FilterVerdict.PAGE_AND_DROP,
}


@dataclass(frozen=True, slots=True)
class Block:
    """A block and the version of its content."""

    version: int
    content: BlockContent


@dataclass(frozen=True, slots=True)
class Context:
    """All that is kept of one mobile node, and when its registration was accepted (milliseconds since 1970)."""

    home_address: IPv4Address
    registered: int = 0
    blocks: Mapping[BlockKind, Block] = field(default_factory=dict)

    def to_row(self) -> dict[str, JSON]:
        """The part of a row; the store is readable by its owner alone."""
        blocks: dict[str, JSON] = {
            kind.name.lower(): [block.version, encode_block(block.content).hex()]
            for kind, block in self.blocks.items()
        }
        return {"registered": self.registered, "blocks": blocks}

    @classmethod
    def from_row(cls, key: str, row: Mapping[str, JSON]) -> "Context":
        """The context in a row of our own; raises ValueError, KeyError or TypeError for anything else."""
        registered, listed = row["registered"], row["blocks"]
        if not isinstance(registered, int) or not isinstance(listed, Mapping):
            raise ValueError("a context has a time and blocks")
        blocks: dict[BlockKind, Block] = {}
        for name, parts in listed.items():
            if not isinstance(parts, Sequence) or isinstance(parts, str) or not isinstance(parts[0], int):
                raise ValueError("a block has a version and a content")
            kind = BlockKind[name.upper()]
            blocks[kind] = Block(parts[0], decode_block(kind, bytes.fromhex(str(parts[1]))))
        return cls(IPv4Address(key), registered, blocks)


def preconfigured(profile: Policies) -> tuple[BlockContent, ...]:
    """The blocks that say so."""
    return policy_blocks(profile)


def known_in_advance(
    contexts: Mapping[IPv4Address, Sequence[BlockContent]], mobiles: Mapping[Addr, Association]
) -> dict[IPv4Address, Sequence[BlockContent]]:
    """Blocks that are configured, MN-FA associations among them."""
    found = dict(contexts)
    for home_address, association in mobiles.items():
        if isinstance(home_address, IPv4Address):
            found[home_address] = (*found.get(home_address, ()), security_block(association))
    return found


def take_block(block: ContextBlock, taken: dict[BlockKind, Block]) -> BlockStatus:
    """Put a block from another access node among those that are `taken`, unless it is malformed."""
    if block.kind not in set(BlockKind):
        return BlockStatus.UNSUPPORTED
    kind = BlockKind(block.kind)
    if block.data is None:
        held = taken.get(kind)
        return (
            BlockStatus.UNCHANGED
            if held is not None and held.version == block.version
            else BlockStatus.ABSENT
        )
    try:
        content = decode_block(kind, block.data)
    except WireError:
        return BlockStatus.MALFORMED
    if not _fits(content, taken):
        return BlockStatus.MALFORMED
    taken[kind] = Block(block.version, content)
    return BlockStatus.TAKEN


def _fits(content: BlockContent, beside: Mapping[BlockKind, Block]) -> bool:
    """Checks beyond a block's description: rules are bounded for each family, algorithms are known."""
    match content:
        case PolicyBlock():
            paging = beside.get(BlockKind.PAGING)
            rest = (
                paging.content.classifier
                if paging and isinstance(paging.content, PagingBlock)
                else RuleList()
            )
            return _few(content.to_visitor, rest) and _few(content.from_visitor)
        case PagingBlock():
            policy = beside.get(BlockKind.POLICY)
            rest = (
                policy.content.to_visitor
                if policy and isinstance(policy.content, PolicyBlock)
                else RuleList()
            )
            return _few(content.classifier, rest)
        case SecurityBlock():
            try:
                association_of(content)
            except ValueError:
                return False
    return True


def _few(*lists: RuleList) -> bool:
    """True if all of them together fit one filter: at a stand-in the classifier precedes the policing."""
    rules = [rule for rules in lists for rule in rules.rules]
    v4 = sum(isinstance(rule.selector, Ipv4Selector) for rule in rules)
    return max(v4, len(rules) - v4) <= MAX_RULES


def policings(context: Context, *, stand_in: bool) -> Iterator[tuple[FilterPlace, Policing]]:
    """The rules at each place; at a stand-in the paging classifier stands before the policing (P16)."""
    policy, paging = context.blocks.get(BlockKind.POLICY), context.blocks.get(BlockKind.PAGING)
    to_visitor = from_visitor = Policing()
    if policy is not None and isinstance(policy.content, PolicyBlock):
        to_visitor = policing_of(policy.content.to_visitor)
        from_visitor = policing_of(policy.content.from_visitor)
    if stand_in and paging is not None and isinstance(paging.content, PagingBlock):
        to_visitor = _classified(policing_of(paging.content.classifier, paging.content.asking), to_visitor)
    yield FilterPlace.TO_VISITOR, to_visitor
    yield FilterPlace.FROM_VISITOR, from_visitor


def _classified(classifier: Policing, policing: Policing) -> Policing:
    """One filter out of two: unmatched packets are policed, unless the classifier drops by default.

    Rules are numbered anew, the classifier's first, as both may use one number; the forms of one rule keep one number.
    """
    if classifier.idle:
        return policing
    last = classifier if classifier.otherwise.drops else policing
    listed = [(False, rule) for rule in classifier.rules]
    listed += [(True, rule) for rule in policing.rules if last is policing]
    numbers: dict[tuple[bool, int], int] = {}
    for policed, rule in listed:
        numbers.setdefault((policed, rule.identifier), len(numbers) + 1)
    rules = (replace(rule, identifier=numbers[policed, rule.identifier]) for policed, rule in listed)
    return Policing(tuple(rules), last.otherwise)


def classifier_rule(context: Context, number: int) -> int | None:
    """The rule of the paging classifier that has this number in the filter of a stand-in; None: none has."""
    paging = context.blocks.get(BlockKind.PAGING)
    if paging is None or not isinstance(paging.content, PagingBlock):
        return None
    rules = dict.fromkeys(rule.identifier for rule in paging.content.classifier.rules)
    return next((rule for at, rule in enumerate(rules, start=1) if at == number), None)


def policing_of(rules: RuleList, asking: Collection[int] = ()) -> Policing:
    """Rules that have travelled; those in `asking` ask for a page."""
    found = (
        FilterRule(rule.identifier, rule.selector, _VERDICTS[rule.allow, rule.identifier in asking])
        for rule in rules.rules
    )
    return Policing(tuple(found), _VERDICTS[rules.otherwise, False])


def security_block(association: Association) -> SecurityBlock:
    """An association as it travels, encrypted like all of the message."""
    return SecurityBlock(
        association.spi,
        association.key,
        association.algorithm.value,
        association.replay.value,
        association.sent_spi,
        association.short_key,
    )


def association_of(block: SecurityBlock) -> Association:
    """An association that has travelled; raises ValueError for names that are not known."""
    return Association(
        block.spi,
        block.key,
        Algorithm(block.algorithm),
        Replay(block.replay),
        block.sent_spi,
        block.short_key,
    )

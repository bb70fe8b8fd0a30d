"""The contexts that an access node keeps of mobile nodes: blocks with versions (C4, C7), and what follows from them.

A block that is changed here gets the next version; one that came from another access node keeps the version it had
there, so that two nodes which have exchanged a context need to send each other what has changed. It must not know
messages, peers or tunnels.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from locum.roles.actions import (
    JSON,
    MAX_RULES,
    Action,
    Addr,
    Count,
    Filter,
    FilterPlace,
    FilterRule,
    FilterVerdict,
    Forget,
    Persist,
)
from locum.roles.forwarding import Forwarding, forwarding
from locum.roles.profile import Policing, Profile
from locum.roles.visitor_list import Wanted
from locum.security.association import Algorithm, Association, Replay
from locum.wire.context import MAX_VERSION, BlockStatus, ContextBlock
from locum.wire.context_blocks import (
    BlockContent,
    BlockKind,
    MulticastBlock,
    PagingBlock,
    PolicyBlock,
    RuleEntry,
    RuleList,
    SecurityBlock,
    VisitorBlock,
    decode_block,
    encode_block,
    kind_of,
)
from locum.wire.errors import WireError
from locum.wire.traffic_selector import Ipv4Selector

TABLE = "context"


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
        """As part of a row; the store is readable by its owner alone."""
        blocks: dict[str, JSON] = {
            kind.name.lower(): [each.version, encode_block(each.content).hex()]
            for kind, each in self.blocks.items()
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


class ContextBook:
    """The contexts of one access node. `preconfigured` are blocks that it has without being told (version 1)."""

    def __init__(self, preconfigured: Mapping[IPv4Address, Sequence[BlockContent]] | None = None) -> None:
        self._preconfigured = dict(preconfigured or {})
        self._contexts: dict[IPv4Address, Context] = {
            home_address: Context(
                home_address,
                blocks={kind_of(each): Block(1, each) for each in self._preconfigured[home_address]},
            )
            for home_address in self._preconfigured
        }
        self._as_configured = {key: context.to_row()["blocks"] for key, context in self._contexts.items()}

    def restore(self, rows: Iterable[Persist]) -> list[Action]:
        """Start with the contexts of an earlier run; what has been configured otherwise since then is as configured."""
        actions: list[Action] = []
        for row in rows:
            if row.table != TABLE:
                continue
            try:
                context = Context.from_row(row.key, row.value)
            except (ValueError, KeyError, TypeError, IndexError):
                actions += [Count("unreadable-row"), Forget(row.table, row.key)]
                continue
            home_address = context.home_address
            configured = self._as_configured.get(home_address)
            if configured is not None and row.value.get("configured") != configured:
                actions.append(Forget(row.table, row.key))
                continue
            self._contexts[home_address] = context
        return actions

    # Reading -----------------------------------------------------------------------------------------------------

    def get(self, home_address: Addr) -> Context | None:
        """The context of this mobile node."""
        return self._contexts.get(home_address) if isinstance(home_address, IPv4Address) else None

    def content(self, home_address: Addr, kind: BlockKind) -> BlockContent | None:
        """One block of it."""
        context = self.get(home_address)
        block = None if context is None else context.blocks.get(kind)
        return None if block is None else block.content

    def all(self) -> Collection[Context]:
        """Every context."""
        return self._contexts.values()

    def groups(self, home_address: IPv4Address) -> tuple[Addr, ...]:
        """The multicast groups of this mobile node."""
        found = self.content(home_address, BlockKind.MULTICAST)
        return found.groups if isinstance(found, MulticastBlock) else ()

    def visit(self, home_address: IPv4Address) -> VisitorBlock | None:
        """What its registration says, as another access node told."""
        found = self.content(home_address, BlockKind.VISITOR)
        return found if isinstance(found, VisitorBlock) else None

    def association(self, home_address: Addr) -> Association | None:
        """Its MN-FA association."""
        found = self.content(home_address, BlockKind.SECURITY)
        return association_of(found) if isinstance(found, SecurityBlock) else None

    # Changing here -------------------------------------------------------------------------------------------------

    def note(self, home_address: IPv4Address, *contents: BlockContent) -> list[Action]:
        """These blocks are so from now on; those that were so already keep their version."""
        context = self._contexts.get(home_address, Context(home_address))
        blocks = dict(context.blocks)
        for each in contents:
            before = blocks.get(kind_of(each))
            if before is None or before.content != each:
                version = 1 if before is None else (before.version + 1) & MAX_VERSION
                blocks[kind_of(each)] = Block(version, each)
        return self._keep(replace(context, blocks=blocks))

    def learn(self, home_address: IPv4Address, profile: Profile) -> list[Action]:
        """What a policy server says about this mobile node."""
        policy = PolicyBlock(rule_list(profile.to_visitor), rule_list(profile.from_visitor))
        return self.note(home_address, policy, PagingBlock(rule_list(profile.paging)))

    def registered(self, home_address: IPv4Address, at: int) -> list[Action]:
        """The home agent has accepted a registration at that time (milliseconds)."""
        return self._keep(replace(self._contexts.get(home_address, Context(home_address)), registered=at))

    def drop(self, home_address: IPv4Address) -> list[Action]:
        """Forget what is not preconfigured."""
        if self._contexts.pop(home_address, None) is None:
            return []
        configured = self._preconfigured.get(home_address)
        if configured is not None:
            blocks = {kind_of(each): Block(1, each) for each in configured}
            self._contexts[home_address] = Context(home_address, blocks=blocks)
        return [Forget(TABLE, str(home_address))]

    def _keep(self, context: Context) -> list[Action]:
        if self._contexts.get(context.home_address) == context:
            return []
        self._contexts[context.home_address] = context
        row = context.to_row()
        configured = self._as_configured.get(context.home_address)
        if configured is not None:
            row["configured"] = configured
        return [Persist(TABLE, str(context.home_address), row)]

    # Exchanging ----------------------------------------------------------------------------------------------------

    def versions(self, home_address: IPv4Address) -> dict[int, int]:
        """Versions by type that are here."""
        context = self._contexts.get(home_address)
        return {} if context is None else {int(kind): each.version for kind, each in context.blocks.items()}

    def give(
        self, context: Context, wants: Iterable[int], known: Mapping[int, int]
    ) -> tuple[tuple[ContextBlock, ...], dict[int, BlockStatus]]:
        """The blocks that are wanted, without the content of those that the other one has; and what is not to be had."""
        blocks: list[ContextBlock] = []
        statuses: dict[int, BlockStatus] = {}
        for number in wants:
            block = context.blocks.get(BlockKind(number)) if number in set(BlockKind) else None
            if block is None:
                statuses[number] = BlockStatus.ABSENT
            elif known.get(number) == block.version:
                statuses[number] = BlockStatus.UNCHANGED
                blocks.append(ContextBlock(number, block.version, None))
            else:
                statuses[number] = BlockStatus.TAKEN
                blocks.append(ContextBlock(number, block.version, encode_block(block.content)))
        return tuple(blocks), statuses

    def take(
        self, home_address: IPv4Address, registered: int, blocks: Iterable[ContextBlock]
    ) -> tuple[dict[int, BlockStatus], list[Action]]:
        """Blocks from another access node: each is taken or not by itself. What becomes of them, and the actions."""
        context = self._contexts.get(home_address, Context(home_address))
        taken = dict(context.blocks)
        statuses = {each.kind: _take(each, taken) for each in blocks}
        if BlockStatus.TAKEN not in statuses.values():
            return statuses, []
        later = max(registered, context.registered)
        return statuses, self._keep(replace(context, registered=later, blocks=taken))

    # What follows --------------------------------------------------------------------------------------------------

    def police(self, wanted: Wanted) -> Forwarding:
        """The filters of whoever is served: policing (R20), and at a stand-in the paging classifier before it (P16)."""
        context = self._contexts.get(wanted.home_address)
        served = wanted.visitor or wanted.static
        if context is None or served is None or not wanted.forwarding.acceptances:
            return wanted.forwarding
        stand_in = wanted.visitor is None or wanted.visitor.next_hop is not None
        placed = _policings(context, stand_in=stand_in)
        homes = [each for each in (served.home_address, served.home_address_v6) if each is not None]
        filters: list[Filter] = []
        for place, policing in placed:
            if not policing.idle:
                filters += [policing.filter(home, place) for home in homes]
        return replace(
            wanted.forwarding, filters={**wanted.forwarding.filters, **forwarding(*filters).filters}
        )


class KnownMobiles(Mapping[Addr, Association]):
    """MN-FA associations: those that are configured, then those of contexts."""

    def __init__(self, configured: Mapping[Addr, Association], book: ContextBook) -> None:
        self._configured, self._book = configured, book

    def __getitem__(self, home_address: Addr) -> Association:
        found = self._configured.get(home_address) or self._book.association(home_address)
        if found is None:
            raise KeyError(home_address)
        return found

    def __iter__(self) -> Iterator[Addr]:
        learnt = [each.home_address for each in self._book.all() if BlockKind.SECURITY in each.blocks]
        return iter(dict.fromkeys((*self._configured, *learnt)))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _take(block: ContextBlock, taken: dict[BlockKind, Block]) -> BlockStatus:
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
    """What no description of a block can say: rules are bounded for each family, names of algorithms are known."""
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
    """Whether all of them together fit one filter: at a stand-in the classifier stands before the policing."""
    rules = [each for rules in lists for each in rules.rules]
    v4 = sum(isinstance(each.selector, Ipv4Selector) for each in rules)
    return max(v4, len(rules) - v4) <= MAX_RULES


def _policings(context: Context, *, stand_in: bool) -> Iterator[tuple[FilterPlace, Policing]]:
    policy, paging = context.blocks.get(BlockKind.POLICY), context.blocks.get(BlockKind.PAGING)
    to_visitor = from_visitor = Policing()
    if policy is not None and isinstance(policy.content, PolicyBlock):
        to_visitor = policing_of(policy.content.to_visitor)
        from_visitor = policing_of(policy.content.from_visitor)
    if stand_in and paging is not None and isinstance(paging.content, PagingBlock):
        classifier = policing_of(paging.content.classifier)
        dropping = FilterVerdict.DROP in (classifier.otherwise, to_visitor.otherwise)
        otherwise = FilterVerdict.DROP if dropping else FilterVerdict.ALLOW
        rules = (*classifier.rules, *to_visitor.rules)
        numbered = (replace(each, identifier=number) for number, each in enumerate(rules, 1))
        to_visitor = Policing(tuple(numbered), otherwise)
    yield FilterPlace.TO_VISITOR, to_visitor
    yield FilterPlace.FROM_VISITOR, from_visitor


def rule_list(policing: Policing) -> RuleList:
    """Rules as they travel."""
    allow = FilterVerdict.ALLOW
    entries = (RuleEntry(each.identifier, each.selector, each.verdict is allow) for each in policing.rules)
    return RuleList(tuple(entries), policing.otherwise is allow)


def policing_of(rules: RuleList) -> Policing:
    """Rules that have travelled."""
    verdict = {True: FilterVerdict.ALLOW, False: FilterVerdict.DROP}
    found = (FilterRule(each.identifier, each.selector, verdict[each.allow]) for each in rules.rules)
    return Policing(tuple(found), verdict[rules.otherwise])


def security_block(association: Association) -> SecurityBlock:
    """An association as it travels, encrypted like all of the message."""
    return SecurityBlock(
        association.spi, association.key, association.algorithm.value, association.replay.value
    )


def association_of(block: SecurityBlock) -> Association:
    """An association that has travelled; raises ValueError for names that are not known."""
    return Association(block.spi, block.key, Algorithm(block.algorithm), Replay(block.replay))

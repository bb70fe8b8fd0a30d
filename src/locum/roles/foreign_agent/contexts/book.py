"""The contexts that an access node keeps (C4, C7), and their effects on its visitors.

A block that is changed here gets the next version; one that came from another access node keeps the version it had
there, so that two nodes which have exchanged a context need to send each other only changed blocks. It must not know
messages, peers or tunnels.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Filter
from locum.roles.actions import Action, Forget, Persist
from locum.roles.foreign_agent.contexts.context import (
    TABLE,
    Block,
    Context,
    association_of,
    policings,
    preconfigured,
    take_block,
)
from locum.roles.foreign_agent.visitor_list import Wanted
from locum.roles.forwarding import Forwarding, forwarding
from locum.roles.parts import Part, readable
from locum.roles.profile import Policies
from locum.security.association import Association
from locum.wire.control.context import MAX_VERSION, BlockStatus, ContextBlock
from locum.wire.control.context_blocks import (
    BlockContent,
    BlockKind,
    MulticastBlock,
    SecurityBlock,
    VisitorBlock,
    encode_block,
    kind_of,
)


class ContextBook(Part):
    """The contexts of one access node. `preconfigured` are blocks of its configuration (version 1)."""

    def __init__(self, preconfigured: Mapping[IPv4Address, Sequence[BlockContent]] | None = None) -> None:
        self._preconfigured = dict(preconfigured or {})
        self._contexts: dict[IPv4Address, Context] = {
            home_address: Context(
                home_address,
                blocks={kind_of(content): Block(1, content) for content in self._preconfigured[home_address]},
            )
            for home_address in self._preconfigured
        }
        self._as_configured = {key: context.to_row()["blocks"] for key, context in self._contexts.items()}

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start with the contexts of an earlier run; changed configuration takes precedence."""
        found, actions = readable(rows, TABLE, lambda row: Context.from_row(row.key, row.value))
        for row, context in found:
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
        """Note a visitor's registration, as another access node reported it."""
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
        for content in contents:
            before = blocks.get(kind_of(content))
            if before is None or before.content != content:
                version = 1 if before is None else (before.version + 1) & MAX_VERSION
                blocks[kind_of(content)] = Block(version, content)
        return self._keep(replace(context, blocks=blocks))

    def learn(self, home_address: IPv4Address, profile: Policies) -> list[Action]:
        """Note a policy server's profile of this mobile node."""
        return self.note(home_address, *preconfigured(profile))

    def registered(self, home_address: IPv4Address, at: int) -> list[Action]:
        """The home agent has accepted a registration at that time (milliseconds)."""
        return self._keep(replace(self._contexts.get(home_address, Context(home_address)), registered=at))

    def drop(self, home_address: IPv4Address) -> list[Action]:
        """Drop blocks that are not preconfigured."""
        if self._contexts.pop(home_address, None) is None:
            return []
        configured = self._preconfigured.get(home_address)
        if configured is not None:
            blocks = {kind_of(content): Block(1, content) for content in configured}
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
        return {} if context is None else {int(kind): block.version for kind, block in context.blocks.items()}

    def give(
        self, context: Context, wants: Iterable[int], known: Mapping[int, int]
    ) -> tuple[tuple[ContextBlock, ...], dict[int, BlockStatus]]:
        """The requested blocks, without content that the other one already has; and the missing kinds."""
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
        """Take blocks from another access node, each by itself. Returns their results, and the actions."""
        context = self._contexts.get(home_address, Context(home_address))
        taken = dict(context.blocks)
        statuses = {block.kind: take_block(block, taken) for block in blocks}
        if BlockStatus.TAKEN not in statuses.values():
            return statuses, []
        later = max(registered, context.registered)
        return statuses, self._keep(replace(context, registered=later, blocks=taken))

    # What follows --------------------------------------------------------------------------------------------------

    def police(self, wanted: Wanted) -> Forwarding:
        """Filters of a visitor: policing (R20), and at a stand-in the paging classifier before it (P16)."""
        context = self._contexts.get(wanted.home_address)
        served = wanted.visitor or wanted.static
        if context is None or served is None or not wanted.forwarding.acceptances:
            return wanted.forwarding
        visitor = wanted.visitor
        stand_in = visitor is None or visitor.next_hop is not None or wanted.stood_in_for
        placed = policings(context, stand_in=stand_in)
        homes = [
            home_address
            for home_address in (served.home_address, served.home_address_v6)
            if home_address is not None
        ]
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
        learnt = [
            context.home_address for context in self._book.all() if BlockKind.SECURITY in context.blocks
        ]
        return iter(dict.fromkeys((*self._configured, *learnt)))

    def __len__(self) -> int:
        return sum(1 for _ in self)

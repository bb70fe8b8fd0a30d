"""The profile of a device that comes with its page, or by the pointer in it (P8): policed from the page on.

A profile that is in the page is in force before the device is called. One that is fetched is in force, or has been refused, before
the first packet of the device that waits here is delivered. Without a visit it is forgotten. It must not know how a device is called.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import count
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.actions import Action, Answer, Asked, Count, Emit, Event
from locum.roles.foreign_agent.contexts.book import ContextBook
from locum.roles.foreign_agent.contexts.context import Block, take_block
from locum.roles.foreign_agent.visitor_list import VisitorList
from locum.roles.parts import Part
from locum.roles.profile_requests import FetchProfile, ProfileFetched, ProfileRefused, ProfileUnavailable
from locum.roles.timers import Deadlines
from locum.wire.control.context import BlockStatus, ContextBlock
from locum.wire.control.context_blocks import BlockKind
from locum.wire.control.paging.outcome import Outcome, PageAnswer, encode_page_answer
from locum.wire.control.paging.page import PATH, Page1170, decode_1170
from locum.wire.control.paging.provision import Pointer
from locum.wire.errors import WireError

FIRST_REQUEST: Final = 1 << 62
KEPT: Final = 90.0  # seconds after the time of a page for which its profile waits for a visit
MOST_KEPT: Final = 4096  # devices without a visit; beyond, pages bring no profile

_BROUGHT = (BlockKind.POLICY, BlockKind.PAGING)

Deliver = Callable[[Event, float], list[Action] | None]


@dataclass(frozen=True, slots=True)
class _Refused(Exception):
    """A profile that is not taken; nothing has changed."""

    text: str


class PageProfiles(Part):
    """Profiles of pages. `deliver` gets each page that is taken; `fetched` is called when a fetch has ended."""

    def __init__(
        self,
        contexts: ContextBook,
        visitors: VisitorList,
        deliver: Deliver,
        fetched: Callable[[IPv4Address], list[Action]],
        servers: Collection[Addr] | None,
    ) -> None:
        """`servers`: the policy servers of this node; None: it has none."""
        self._contexts, self._visitors = contexts, visitors
        self._deliver, self._fetched, self._servers = deliver, fetched, servers
        self._asked: dict[int, IPv4Address] = {}
        self._pending: dict[IPv4Address, int] = {}
        self._numbers = count(FIRST_REQUEST)
        self._due: Deadlines[IPv4Address] = Deadlines()
        self._kept: set[IPv4Address] = set()  # contexts that a page has begun, before a visit

    def pending(self, home_address: IPv4Address) -> bool:
        """True while the profile of the device is being fetched."""
        return home_address in self._pending

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """A page that brings a profile or a pointer, and the answers of the policy server; None for others."""
        if isinstance(event, ProfileFetched | ProfileRefused | ProfileUnavailable):
            return self._answered(event) if event.request >= FIRST_REQUEST else None
        if not isinstance(event, Asked) or event.path != PATH:
            return None
        try:
            page = decode_1170(event.body)
        except WireError:
            return None  # the page is refused by those who deliver it
        home_address, provision = page.home_address, page.provision
        if home_address not in event.authorised or not isinstance(home_address, IPv4Address):
            return None
        try:
            if provision.profile:
                actions = self._take(home_address, provision.profile)
            elif provision.pointer is not None:
                actions = self._ask(home_address, provision.pointer)
            else:
                return None
        except _Refused as refused:
            answer = PageAnswer(page.page, Outcome.MALFORMED, None, refused.text)
            return [Count("page-profile-malformed"), Answer(event.exchange, encode_page_answer(answer))]
        self._keep(page, home_address, now)
        return [*actions, *(self._deliver(event, now) or [])]

    def timeout(self, *, now: float) -> list[Action]:
        """Forget profiles whose devices have not come."""
        actions: list[Action] = []
        for home_address in self._due.due(now):
            self._kept.discard(home_address)
            if home_address not in self._visitors and self._visitors.static(home_address) is None:
                actions += [*self._contexts.drop(home_address), *self._visitors.refresh(home_address)]
        return actions

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._due.next()

    def _keep(self, page: Page1170, home_address: IPv4Address, now: float) -> None:
        if home_address in self._kept:
            self._due.set(home_address, now + page.seconds + KEPT)

    def _begin(self, home_address: IPv4Address) -> bool:
        """True if the device may have a profile here."""
        if self._contexts.get(home_address) is None and home_address not in self._visitors:
            if len(self._kept) >= MOST_KEPT and home_address not in self._kept:
                return False
            self._kept.add(home_address)
        return True

    def _take(self, home_address: IPv4Address, blocks: Collection[ContextBlock]) -> list[Action]:
        """The blocks of a page, all or none. Raises _Refused."""
        context = self._contexts.get(home_address)
        taken: dict[BlockKind, Block] = {} if context is None else dict(context.blocks)
        for block in blocks:
            if block.kind not in _BROUGHT:
                raise _Refused(f"a page brings no block of type {block.kind}")
            if take_block(block, taken) is not BlockStatus.TAKEN:
                raise _Refused(f"the block of type {block.kind} cannot be taken")
        if not self._begin(home_address):
            return [Count("page-profile-no-room")]
        contents = [taken[BlockKind(block.kind)].content for block in blocks]
        detail: dict[str, JSON] = {"blocks": [BlockKind(block.kind).name.lower() for block in blocks]}
        return [
            *self._contexts.note(home_address, *contents),
            *self._visitors.refresh(home_address),
            Emit("page-profile", PATH, home_address, None, detail),
        ]

    # By a pointer --------------------------------------------------------------------------------------------------

    def _ask(self, home_address: IPv4Address, pointer: Pointer) -> list[Action]:
        if self._servers is None or pointer.agent not in self._servers:
            return [Count("page-pointer-unknown")]
        if home_address in self._pending:
            return []
        if not self._begin(home_address):
            return [Count("page-profile-no-room")]
        number = next(self._numbers)
        self._asked[number] = home_address
        self._pending[home_address] = number
        nai = None if pointer.device == str(home_address) else pointer.device
        return [FetchProfile(number, nai, home_address)]

    def _answered(self, event: ProfileFetched | ProfileRefused | ProfileUnavailable) -> list[Action]:
        home_address = self._asked.pop(event.request, None)
        if home_address is None:
            return []
        del self._pending[home_address]
        actions: list[Action] = []
        if isinstance(event, ProfileFetched):
            actions += self._contexts.learn(home_address, event.profile)
            actions += self._visitors.refresh(home_address)
            actions.append(Emit("page-profile", PATH, home_address, None, {"blocks": ["policy", "paging"]}))
        else:
            refused = isinstance(event, ProfileRefused)
            actions.append(Count("profile-refused" if refused else "profile-unavailable"))
        return [*actions, *self._fetched(home_address)]

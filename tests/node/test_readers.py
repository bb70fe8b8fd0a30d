"""Turns for held packets in the event loop, on a data plane that only says what there is to do."""

import asyncio
import os
from collections.abc import Callable
from ipaddress import ip_address
from itertools import pairwise
from time import monotonic_ns
from typing import Any

from locum.node.plane.readers import PlaneReaders
from locum.roles.action_values.paging import PageAsked, PageTriggered
from locum.wire.control import Flow

MILLISECOND = 1_000_000
HOME, PEER = ip_address("10.1.0.9"), ip_address("203.0.113.7")
PAGE = PageTriggered(HOME, 7, Flow(6, HOME, 22, PEER, 4000), b"\x45", 60)
ASKED = PageAsked(PAGE.home_address, 2, PAGE.flow, 60)


class Held:
    """Work for so many turns, and packets that are too old at times that the test sets."""

    def __init__(self) -> None:
        self.due = 0
        self.serves = 0
        self.expiries: list[int] = []
        self.pages: list[PageTriggered] = [PAGE]
        self.tell_pending: Callable[[], None] = lambda: None

    @property
    def is_due(self) -> bool:
        return self.due > 0

    @property
    def expires(self) -> int | None:
        return self.expiries[0] if self.expiries else None

    def serve(self) -> None:
        self.serves += 1
        self.due = max(self.due - 1, 0)
        self.expiries = [time for time in self.expiries if time > monotonic_ns()]

    def read_openings(self) -> list[bytes]:
        return [b"opening"] if self.serves == 1 else []

    def read_pages(self) -> list[PageTriggered]:
        pages, self.pages = self.pages, []
        return pages

    def read_asked(self) -> list[PageAsked]:
        return [ASKED] if self.serves == 1 else []


class Plane:
    """`fileno` is readable when the test says so."""

    def __init__(self) -> None:
        self.held = Held()
        self.reading, self.writing = os.pipe()
        self.portions = 0
        self.tidied = 0

    def tidy(self) -> float | None:
        self.tidied += 1
        self.portions = max(self.portions - 1, 0)
        return 0.0 if self.portions else None

    def tell_path_mtus(self, tell: Any) -> None: ...

    def fileno(self) -> int:
        return self.reading


async def opened() -> tuple[Plane, PlaneReaders, list[bytes]]:
    plane, openings = Plane(), list[bytes]()
    made: Any = plane
    readers = PlaneReaders(made, made, openings.append)
    readers.open()
    return plane, readers, openings


async def rounds(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_released_packets_go_out_in_later_turns() -> None:
    """One turn in each round of the event loop, until nothing is due; other work of the loop runs in between."""
    plane, readers, openings = await opened()
    pages: list[PageTriggered] = []
    asked: list[PageAsked] = []

    def page(role: str, event: PageTriggered | PageAsked) -> None:
        assert (role == "home_agent") is isinstance(event, PageTriggered)
        if isinstance(event, PageTriggered):
            pages.append(event)
        else:
            asked.append(event)

    readers.tell_pages(page)
    plane.held.due = 5
    plane.held.tell_pending()
    plane.held.tell_pending()  # told twice, done once
    seen = []
    for _ in range(12):
        await rounds(1)
        seen.append(plane.held.serves)
    assert seen[-1] == 5 and all(b - a <= 1 for a, b in pairwise(seen))
    assert openings == [b"opening"] and (pages, asked) == ([PAGE], [ASKED])
    readers.close()
    plane.held.tell_pending()
    await rounds(3)
    assert plane.held.serves == 5


async def test_packets_that_page_wait_for_the_role() -> None:
    """Those of an earlier daemon are read before the roles are restored."""
    plane, readers, _ = await opened()
    plane.held.tell_pending()
    await rounds(3)
    assert plane.held.serves == 1 and plane.held.pages == [PAGE]
    pages: list[object] = []
    readers.tell_pages(lambda _role, event: pages.append(event))
    await rounds(3)
    assert pages == [PAGE]
    readers.close()


async def test_each_round_of_the_event_loop_has_one_turn() -> None:
    """Packets that come in while released ones go out do not make it two."""
    plane, readers, _ = await opened()
    os.write(plane.writing, b"packets")  # stays readable, as a ring that is filled all the time
    plane.held.due = 1000
    plane.held.tell_pending()
    for _ in range(20):
        before = plane.held.serves
        await rounds(1)
        assert plane.held.serves - before <= 1
    assert plane.held.serves >= 15
    plane.held.due = 0
    await rounds(3)
    before = plane.held.serves
    await rounds(5)
    assert plane.held.serves > before  # it goes on by what comes in
    readers.close()


async def test_old_packets_are_dropped_without_a_new_one() -> None:
    plane, readers, _ = await opened()
    plane.held.expiries = [monotonic_ns() + 20 * MILLISECOND, monotonic_ns() + 40 * MILLISECOND]
    plane.held.tell_pending()
    async with asyncio.timeout(20):
        while plane.held.expiries:
            await asyncio.sleep(0.005)
    served = plane.held.serves
    assert 1 <= served <= 6  # once for both on a machine that stands still meanwhile
    await asyncio.sleep(0.05)
    assert plane.held.serves == served  # nothing waits: no timer runs
    readers.close()


async def test_removed_entries_are_tidied_away_in_portions() -> None:
    """Without any change, in turns of the event loop; a turn that fails is not the last."""
    plane, readers, _ = await opened()
    plane.portions = 5
    async with asyncio.timeout(60):
        while plane.portions:
            await asyncio.sleep(0.01)
    assert plane.tidied == 6  # one of them found nothing, before the portions came
    readers.close()
    await asyncio.sleep(1.1)
    assert plane.tidied == 6

"""The sockets that a device has captured, their holders, and the running ones among these: shared by the taking of sockets
out of programs (`device.py`) and their return (`bringing_back.py`).

A captured socket is *tight* (in repair mode, its programs stand still) or *loose* (out of it, its programs run and its
flow is suspended). Called from the thread of session actions alone, once the node runs.
"""

import os
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from locum.sessions.either import AnyLive
from locum.sessions.programs.exclusions import NOTHING_EXCLUDED, Exclusions
from locum.sessions.programs.freezer import Freezer
from locum.sessions.programs.process import Process, holds
from locum.sessions.search.find import Candidate, LeftAlone, find
from locum.wire.control import Flow

_GENERATIONS = 32  # looks for programs that were started while others were being frozen


class Captured:
    """Of one mobile node, whose programs `freezer` freezes."""

    def __init__(self, freezer: Freezer) -> None:
        self.freezer = freezer
        self.candidates: dict[Flow, Candidate] = {}
        self.live: dict[Flow, AnyLive] = {}
        self.loose: set[Flow] = set()

    def look(
        self, home_addresses: Iterable[Any], exclusions: Exclusions = NOTHING_EXCLUDED
    ) -> list[LeftAlone]:
        """Find the connections of these addresses, and those left alone; data of captured ones is kept."""
        candidates, left = find(home_addresses, (os.getpid(),), exclusions)
        captured = {flow: candidate for flow, candidate in self.candidates.items() if flow in self.live}
        self.candidates = captured | {candidate.flow: candidate for candidate in candidates}
        return left

    def holders(self, flow: Flow) -> tuple[Process, ...]:
        """Processes that hold the socket, as far as known."""
        candidate = self.candidates.get(flow)
        return candidate.processes if candidate else ()

    def bound(self) -> frozenset[Process]:
        """Processes that may not run, since they hold a socket in repair mode."""
        return frozenset(
            process for flow in self.live if flow not in self.loose for process in self.holders(flow)
        )

    def let_run(self, processes: Collection[Process]) -> None:
        """Thaw these, and all that were frozen for sockets that are no longer tight."""
        self.freezer.thaw(processes)
        self.freezer.thaw(self.freezer.frozen - self.bound())

    def freeze_holders(self, flows: Collection[Flow]) -> dict[Process, str]:
        """Freeze all holders of these sockets, including new ones; return the failures, with reasons."""
        failures: dict[Process, str] = {}
        wanted = set(flows)
        for _ in range(_GENERATIONS):
            self._see_holders(wanted)
            holders = {process for flow in wanted for process in self.holders(flow)}
            new = holders - self.freezer.frozen - failures.keys()
            if not new:
                break
            failures |= self.freezer.freeze(new)
        return failures

    def _see_holders(self, flows: Collection[Flow]) -> None:
        found, _ = find({flow.local for flow in flows})
        seen = {candidate.flow: candidate for candidate in found}
        for flow in flows:
            if (candidate := seen.get(flow)) is not None:
                self.candidates[flow] = _of_others(candidate)

    def has_program(self, flow: Flow) -> bool:
        """True if another process still has the socket: else its data would never be read."""
        candidate = self.candidates.get(flow)
        if candidate is None:
            return False
        return any(holds(pid, descriptor, candidate.inode) for pid, descriptor in candidate.holders)

    def drop(self, flows: Iterable[Flow]) -> None:
        """These sockets are no concern of ours any more."""
        for flow in flows:
            self.live.pop(flow, None)
            self.loose.discard(flow)


def _of_others(candidate: Candidate) -> Candidate:
    """Without our own descriptors of its socket."""
    own = os.getpid()
    return replace(
        candidate,
        holders=tuple(holder for holder in candidate.holders if holder[0] != own),
        processes=tuple(process for process in candidate.processes if process.pid != own),
    )

"""Selection of open sessions, from the command line, as a value. It must not know handovers."""

from collections.abc import Iterable
from dataclasses import dataclass

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.sessions import FoundSession
from locum.wire.control import Flow


@dataclass(frozen=True, slots=True)
class Selection:
    """All given parts have to match; without any, every session is selected."""

    port: int | None = None  # of either end
    peer: Addr | None = None
    pid: int | None = None
    flow: Flow | None = None

    def takes(self, flow: Flow, pids: Iterable[int]) -> bool:
        """True if a session of these processes is selected."""
        return (
            (self.port is None or self.port in (flow.local_port, flow.peer_port))
            and (self.peer is None or self.peer == flow.peer)
            and (self.pid is None or self.pid in pids)
            and (self.flow is None or self.flow == flow)
        )


EVERYTHING = Selection()
NOTHING = Selection(port=0)


def with_companions(selection: Selection, found: Iterable[FoundSession]) -> list[FoundSession]:
    """The selected ones, and all others of the same programs: a frozen program stops all its sessions."""
    listed = list(found)
    if selection == EVERYTHING:
        return listed
    of_program: dict[int, list[int]] = {}  # places by process
    for place, session in enumerate(listed):
        for pid in session.pids:
            of_program.setdefault(pid, []).append(place)
    chosen = {place for place, session in enumerate(listed) if selection.takes(session.flow, session.pids)}
    reached: set[int] = set()
    ahead = list(chosen)
    while ahead:
        for pid in listed[ahead.pop()].pids:
            if pid not in reached:
                reached.add(pid)
                ahead += [place for place in of_program[pid] if place not in chosen]
                chosen.update(of_program[pid])
    return [session for place, session in enumerate(listed) if place in chosen]

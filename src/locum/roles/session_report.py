"""Results of each session in one sleep or one wake, for users: values and a list. It decides nothing."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from locum.roles.action_values.sessions import Process
from locum.wire.control import Flow


class Fate(Enum):
    """Result of a session. A sleep has WENT, STAYED and LOST, a wake all but WENT."""

    WENT = "went"  # the stand-in has it
    STAYED = "stayed"  # it is still its program's, and was not captured
    LOST = "lost"  # its program gets an error
    RETURNED = "returned"  # it is its program's again
    ARRIVED = "arrived"  # its peer opened it while the device slept, and it is its program's
    CLOSED = "closed"  # its program closed it
    COMING = "coming"  # the stand-in has it still, and the device goes on to fetch it


@dataclass(frozen=True, slots=True)
class SessionFate:
    """One session. `reason` is a sentence or a part of one; `programs` are names, such as "ssh", for `pids`."""

    flow: Flow
    fate: Fate
    reason: str | None = None
    pids: tuple[int, ...] = ()
    programs: tuple[str, ...] = ()


def counted(number: int) -> str:
    """Number of sessions, in words for users."""
    return "no sessions" if not number else "1 session" if number == 1 else f"{number} sessions"


class Report:
    """The fates of one sleep or wake, one for each flow: a later one replaces an earlier one."""

    def __init__(self, fates: Iterable[SessionFate] = ()) -> None:
        self._fates = {fate.flow: fate for fate in fates}

    @property
    def fates(self) -> tuple[SessionFate, ...]:
        """Results in the order of the sessions' first reports."""
        return tuple(self._fates.values())

    def tell(
        self,
        flow: Flow,
        fate: Fate,
        reason: str | None = None,
        processes: Iterable[Process] = (),
        programs: tuple[str, ...] = (),
    ) -> None:
        """Note the result of this session; omitted processes and programs stay as reported before."""
        self.note(SessionFate(flow, fate, reason, tuple(process.pid for process in processes), programs))

    def note(self, fate: SessionFate) -> None:
        """The same as a value."""
        known = self._fates.get(fate.flow)
        if known is not None:
            fate = replace(fate, pids=fate.pids or known.pids, programs=fate.programs or known.programs)
        self._fates[fate.flow] = fate

    def counts(self) -> Counter[Fate]:
        """Number of sessions by result."""
        return Counter(session.fate for session in self._fates.values())

    def all(self, fate: Fate) -> tuple[SessionFate, ...]:
        """Sessions with this result."""
        return tuple(session for session in self._fates.values() if session.fate is fate)

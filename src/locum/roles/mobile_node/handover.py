"""One handover as the mobile node knows it: its sessions, how far each has come back, and its row in the store.

Values only; handing_over.py and wake/taking_back.py move them along.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import ip_address

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.action_values.forwarding import FlowVerdict
from locum.roles.action_values.sessions import Freeze, Process
from locum.roles.actions import Action, Ask, Emit, Forget, Persist
from locum.roles.flow_rows import TABLE, flow_from_row, flow_to_row, set_flows
from locum.wire.control import Flow, Request634, encode_634
from locum.wire.takes import Takes

# Seconds for a small 634; CoAP retransmits meanwhile (RFC 7252 section 4.2: 2, 4, ... s)
CONTROL_TIMEOUT = 8.0
BULK_TIMEOUT = 60.0  # seconds for a 634 or 632 with session data


class Stage(Enum):
    """Progress of a handover when its row was written."""

    PREPARING = "preparing"  # the stand-in may hold packets; nothing here has changed
    LEAVING = "leaving"  # sessions may be captured and may have been transferred
    ASLEEP = "asleep"
    WAKING = "waking"
    COMING = "coming"  # some are back; the programs of the rest run, and have to read before more fits
    RETURNED = "returned"  # everything is back; only the stand-in must be told
    ABANDONED = "abandoned"  # given up; the stand-in must be told, and resets its sessions


@dataclass(frozen=True, slots=True)
class AwaySession:
    """A session that is, or may be, at the stand-in. How much of it is in its socket again, the kernel knows."""

    session: int
    flow: Flow
    processes: tuple[Process, ...]
    programs: tuple[str, ...] = ()

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the processes that hold it."""
        return tuple(process.pid for process in self.processes)


@dataclass(frozen=True, slots=True)
class OwnStandIn:
    """A stand-in of this device. `registers`: it registers itself when it takes over (R4)."""

    name: str
    address: Addr
    registers: bool = False


@dataclass(frozen=True, slots=True)
class Handover:
    """`processes` are all that are frozen for it.

    `stand_in` is where it went, None: to the first of the device's. With `switch` the stand-in registers for as much
    (R4); `given`: the device stays awake. `boot` names the boot of this host in which the processes were frozen, None:
    an earlier version wrote the row. `loose`: the programs run, with their flows suspended. `returned` are the stand-in's
    numbers of sessions that are back already; `accepted` are flows that it has accepted and that are still to come.
    `disowned` are numbers of sessions that ended here: the stand-in resets them before it may forget the handover.
    `coming`: the rest of a wake that has ended, which comes back by itself. `attended`: proxies at the stand-in may speak.
    `order`: it has no sessions, and is the place of this order while the device is awake.
    """

    identifier: bytes
    stage: Stage
    sessions: tuple[AwaySession, ...] = ()
    processes: tuple[Process, ...] = ()
    wake_at: float | None = None  # steady seconds
    stand_in: Addr | None = None
    switch: Takes | None = None
    given: bool = False
    boot: str | None = None
    loose: bool = False
    returned: tuple[int, ...] = ()
    accepted: tuple[Flow, ...] = ()
    coming: bool = False
    disowned: tuple[int, ...] = ()
    attended: bool = False
    order: str = ""

    def at(self, stage: Stage) -> "Handover":
        """A copy at another stage."""
        return replace(self, stage=stage)

    def without(self, flows: Iterable[Flow]) -> "Handover":
        """Sessions of these flows are no part of it any more."""
        gone = set(flows)
        return replace(self, sessions=tuple(session for session in self.sessions if session.flow not in gone))

    def disown(self, numbers: Iterable[int]) -> "Handover":
        """Sessions with these numbers have ended here."""
        return replace(self, disowned=(*self.disowned, *numbers))

    def disowned_told(self) -> "Handover":
        """The stand-in has answered that it has reset them."""
        return replace(self, disowned=())

    @property
    def flows(self) -> tuple[Flow, ...]:
        """Of the sessions."""
        return tuple(session.flow for session in self.sessions)

    def still(self) -> list[Action]:
        """The programs stay as they are: their sockets are in repair mode."""
        frozen = self.processes and not self.loose
        freeze: list[Action] = [Freeze(self.processes)] if frozen else []
        return [*freeze, *set_flows(self.flows, FlowVerdict.SUSPEND)]

    def persist(self) -> Persist:
        """The row."""
        value: dict[str, JSON] = {
            "stage": self.stage.value,
            "wake_at": self.wake_at,
            "stand_in": None if self.stand_in is None else str(self.stand_in),
            "switch": None if self.switch is None else int(self.switch),
            "given": self.given,
            "boot": self.boot,
            "loose": self.loose,
            "returned": list(self.returned),
            "disowned": list(self.disowned),
            "accepted": [flow_to_row(flow) for flow in self.accepted],
            "coming": self.coming,
            "attended": self.attended,
            "order": self.order,
            "processes": [list(process) for process in self.processes],
            "sessions": [
                {
                    "session": session.session,
                    "flow": flow_to_row(session.flow),
                    "processes": [list(every) for every in session.processes],
                    "programs": list(session.programs),
                }
                for session in self.sessions
            ],
        }
        return Persist(TABLE, self.identifier.hex(), value)

    def forget(self) -> Forget:
        """Its removal."""
        return Forget(TABLE, self.identifier.hex())

    @classmethod
    def from_row(cls, key: str, row: Mapping[str, JSON]) -> "Handover":
        """The handover in a row of our own; raises ValueError, KeyError or TypeError for anything else."""
        wake_at, sessions = row["wake_at"], row["sessions"]
        if not isinstance(wake_at, int | float | None) or not isinstance(sessions, list | tuple):
            raise ValueError("a handover needs wake_at and sessions")
        return cls(
            identifier=bytes.fromhex(key),
            stage=Stage(row["stage"]),
            sessions=tuple(_session(session) for session in sessions),
            processes=_processes(row.get("processes", ())),
            wake_at=None if wake_at is None else float(wake_at),
            stand_in=None if row["stand_in"] is None else ip_address(str(row["stand_in"])),
            switch=None if row["switch"] is None else Takes(int(str(row["switch"]))),
            given=bool(row["given"]),
            boot=None if row.get("boot") is None else str(row["boot"]),
            loose=bool(row.get("loose")),
            returned=_numbers(row.get("returned", ())),
            accepted=_flows(row.get("accepted", ())),
            coming=bool(row.get("coming")),
            attended=bool(row.get("attended")),
            order=str(row.get("order", "")),
            disowned=_numbers(row.get("disowned", ())),
        )


def _session(row: Mapping[str, JSON]) -> AwaySession:
    session, programs = row["session"], row.get("programs", ())
    if not isinstance(session, int):
        raise ValueError("session is a whole number")
    if not isinstance(programs, list | tuple):
        raise ValueError("programs are a list of names")
    names = tuple(str(program) for program in programs)
    return AwaySession(session, flow_from_row(row["flow"]), _processes(row.get("processes", ())), names)


def _numbers(value: JSON) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, int) for item in value):
        raise ValueError(f"{value!r} is not a list of whole numbers")
    return tuple(item for item in value if isinstance(item, int))


def _processes(value: JSON) -> tuple[Process, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{value!r} is not a list of processes")
    return tuple(_process(item) for item in value)


def _process(value: JSON) -> Process:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"{value!r} is not a process number and a start time")
    pid, started = value
    if not isinstance(pid, int) or not isinstance(started, int):
        raise ValueError(f"{value!r} is not a process number and a start time")
    return Process(pid, started)


def _flows(value: JSON) -> tuple[Flow, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{value!r} is not a list of flows")
    return tuple(flow_from_row(item) for item in value)


class StandInDialogue:
    """Numbers the 634 requests of this node to one of its stand-ins; no two of a node have one number."""

    def __init__(self, stand_in: Addr, home_address: Addr, numbers: Iterator[int]) -> None:
        self._stand_in = stand_in
        self._home_address = home_address
        self._numbers = numbers
        self.last = 0

    def ask(self, request: Request634, *, bulk: bool = False) -> list[Ask | Emit]:
        """The request, numbered; `last` is its number."""
        self.last = next(self._numbers)
        timeout = BULK_TIMEOUT if bulk else CONTROL_TIMEOUT
        kind = type(request).__name__.removeprefix("Takeover").lower()
        detail: dict[str, JSON] = {"to": str(self._stand_in), "request": kind}
        return [
            Ask(self.last, self._stand_in, "634", encode_634(request), timeout, bulk),
            Emit("sent", "634", self._home_address, None, detail),
        ]

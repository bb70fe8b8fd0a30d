"""Data that the device keeps of a captured socket while its stand-in carries the connection on.

Values and their JSON for the node's store. It must not know sockets.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from ipaddress import ip_address

from locum.wire.control import Flow


@dataclass(frozen=True, slots=True)
class ProgramOptions:
    """Options of the program's socket that change while it is captured."""

    keepalive: int
    user_timeout: int  # milliseconds, 0 for the kernel's default
    reuse_address: int


@dataclass(frozen=True, slots=True)
class Intent:
    """A socket that is about to be captured: stored before anything of it changes, so that a killed daemon can undo it."""

    flow: Flow
    options: ProgramOptions

    def to_json(self) -> dict[str, object]:
        """Only JSON types; `from_json` takes it back."""
        return {"flow": _ends(self.flow), "options": asdict(self.options)}

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> "Intent":
        """The inverse of `to_json`, also of the row of a parked socket; raises KeyError, TypeError or ValueError."""
        return cls(_flow(value["flow"]), _options(value["options"]))


@dataclass(frozen=True, slots=True)
class Parked:
    """Data by which the original socket comes back: stored by the device's node (JSON) until it is done."""

    flow: Flow
    snd_seq: int  # the record's
    snd_una: int  # first unacknowledged sequence number at the capture, behind a FIN that is acknowledged
    snd_end: int  # behind all that the record has to send, its FIN included
    rcv_seq: int  # the record's
    received: int  # the kernel's count of received bytes at the capture
    peer_closed: bool
    window: int  # receive window that was last offered before the capture, bytes
    microseconds: bool  # its timestamp clock counts them when it is not parked
    options: ProgramOptions
    renumbered: int = 0  # bytes that the program gets more than the peer sends; `rcv_seq` fits them
    spoken: int = 0  # bytes of a proxy that were appended to the send queue since; `snd_end` is behind them

    def to_json(self) -> dict[str, object]:
        """Only JSON types; `from_json` takes it back."""
        return asdict(self) | {"flow": _ends(self.flow)}

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> "Parked":
        """The inverse of `to_json`; raises KeyError, TypeError or ValueError for anything else."""
        parts = {"flow": _flow(value["flow"]), "options": _options(value["options"])}
        return cls(**(dict(value) | parts))  # type: ignore[arg-type]


def _ends(flow: Flow) -> list[object]:
    return [flow.protocol, str(flow.local), flow.local_port, str(flow.peer), flow.peer_port]


def _flow(ends: object) -> Flow:
    if not isinstance(ends, (list, tuple)) or len(ends) != 5:
        raise ValueError("the flow of a parked session is not five items")
    protocol, local, local_port, peer, peer_port = ends
    return Flow(int(protocol), ip_address(local), int(local_port), ip_address(peer), int(peer_port))


def _options(value: object) -> ProgramOptions:
    if not isinstance(value, Mapping):
        raise ValueError("the options of a parked session are not a map")
    return ProgramOptions(**{str(name): int(number) for name, number in value.items()})

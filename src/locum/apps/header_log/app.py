"""The `log` proxy: headers into files that rotate, counts by port, and a few events (A2)."""

import errno
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from locum.apps.header_log import pcapng
from locum.apps.header_log.headers import MOST, Headers, headers_of
from locum.apps.values import whole
from locum.roles.action_values.addresses import JSON, Randomness
from locum.roles.app_contract import AppSession, Effect, Note, SettingError, Tell
from locum.roles.app_network import (
    MAX_CAPTURED,
    Append,
    Capture,
    Failed,
    Files,
    Happening,
    Packets,
    Remove,
)
from locum.roles.app_results import FILES, RESULT
from locum.wire.control import Flow

MAX_KINDS = 1000
"""Pairs of protocol and port that are counted one by one; packets of others are counted together."""
SHOWN = 50
"""Those of them in a result: the ones with most packets."""
MAX_KNOWN = 4096
"""Peers and ports that had their event; with more of them all are forgotten."""
_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 58: "icmpv6", 132: "sctp"}
_LEAST_FILE, _MOST_FILE, _MOST_FILES = 4 << 10, 64 << 20, 100


@dataclass(frozen=True, slots=True)
class Settings:
    """`per_second` packets; bytes of a file; how many files; events a minute."""

    per_second: int
    file_bytes: int
    files: int
    events: int


class HeaderLog:
    """A file is begun with the first packet; when it is full the next one is, and the oldest one goes."""

    def __init__(self, settings: object, randomness: Randomness) -> None:
        assert isinstance(settings, Settings)
        self._settings = settings
        self._files: dict[str, int] = {}  # the oldest first, and their bytes
        self._number = 0
        self._current = ""  # the file that this process writes
        self._packets = self._left_out = self._unstored = self._untold = 0
        self._reported = 0  # packets left out that the files know of
        self._kinds: Counter[str] = Counter()
        self._known: set[tuple[object, ...]] = set()
        self._credit, self._credit_at = float(settings.events), 0.0
        self._full = False  # no room: nothing is written until there may be some

    @classmethod
    def settings(cls, table: Mapping[str, JSON]) -> Settings:
        """Raises SettingError."""
        keys = {
            "per_second": (100, 1, MAX_CAPTURED),
            "file_bytes": (1 << 20, _LEAST_FILE, _MOST_FILE),
            "files": (4, 1, _MOST_FILES),
            "events": (10, 0, 60),
        }
        if unknown := sorted(set(table) - set(keys)):
            raise SettingError(unknown[0], f"is not known; there are {', '.join(keys)}")
        return Settings(
            **{
                key: whole(table.get(key, otherwise), key, least, most)
                for key, (otherwise, least, most) in keys.items()
            }
        )

    @staticmethod
    def wants(settings: object, flow: Flow) -> bool:
        """No session: their packets are taken."""
        return False

    @staticmethod
    def only_asleep(settings: object) -> bool:
        """True: no packets come to the stand-in while the device is awake."""
        return True

    def begin(
        self, sessions: Sequence[AppSession], state: Mapping[str, object], *, now: float
    ) -> list[Effect]:
        self._credit_at = now
        return [Capture(self._settings.per_second), Note("packets are logged from now on")]

    def received(self, session: int, data: bytes, *, now: float) -> list[Effect]:
        return []

    def closed(self, session: int, error: int, *, now: float) -> list[Effect]:
        return []

    def happened(self, event: Happening, *, now: float) -> list[Effect]:
        match event:
            case Files(files):
                return self._found(files)
            case Packets():
                return self._log(event, now)
            case Failed():
                return self._failed(event)
        return []

    def timeout(self, *, now: float) -> list[Effect]:
        return []

    def deadline(self) -> float | None:
        return None

    def end(self, *, now: float) -> Mapping[str, object]:
        top = dict(sorted(self._kinds.items(), key=lambda item: -item[1])[:SHOWN])
        result: dict[str, object] = {
            "packets": self._packets,
            "left_out": self._left_out,
            "unstored": self._unstored,
            "ports": top,
            "others": self._packets - sum(top.values()),
            "progress": self._packets + self._left_out,
            FILES: [[name, size, ""] for name, size in self._files.items()],
        }
        return {RESULT: result}

    # files

    def _found(self, files: Sequence[tuple[str, int]]) -> list[Effect]:
        """Files of an earlier process stay as they are; a new one is begun."""
        self._files = {name: size for name, size in sorted(files) if _number_of(name)}
        self._number = max((_number_of(name) for name in self._files), default=0)
        return self._rotate(self._settings.files)

    def _rotate(self, most: int) -> list[Effect]:
        """Keep the newest files, so many of them."""
        effects: list[Effect] = []
        while len(self._files) > most:
            oldest = next(iter(self._files))
            del self._files[oldest]
            effects.append(Remove(oldest))
        return effects

    def _write(self, block: bytes, time: int) -> list[Effect]:
        """Behind the last block, or at the beginning of a new file."""
        effects: list[Effect] = []
        if not self._current or self._files[self._current] + len(block) > self._settings.file_bytes:
            effects += self._next_file(time)
            block = pcapng.start("home address", MOST) + block
        self._files[self._current] += len(block)
        return [*effects, Append(self._current, block)]

    def _next_file(self, time: int) -> list[Effect]:
        effects: list[Effect] = []
        if self._current:
            missed = self._left_out + self._unstored
            last = pcapng.statistics(time, self._packets + self._left_out, missed)
            self._files[self._current] += len(last)
            effects.append(Append(self._current, last))
        self._number += 1
        self._current = _name(self._number)
        self._files[self._current] = 0
        return effects + self._rotate(self._settings.files)

    def _failed(self, event: Failed) -> list[Effect]:
        """No room: give up the oldest file; without one, log no more to files."""
        if _number_of(event.file) == 0:
            return []
        self._unstored += 1
        if self._full or event.file not in self._files:  # given up with its first block that failed
            return []
        reason = os.strerror(event.error)
        self._current = ""
        self._files.pop(event.file, None)
        effects: list[Effect] = [Remove(event.file), Note(f"{event.file}: {reason}")]
        if event.error in (errno.ENOSPC, errno.EDQUOT) and self._files:
            return effects + self._rotate(len(self._files) - 1)
        self._full = True
        return [*effects, Tell("not_stored", None, {"reason": reason})]

    # packets

    def _log(self, event: Packets, now: float) -> list[Effect]:
        self._left_out += event.left_out
        effects: list[Effect] = []
        blocks: list[bytes] = []
        for packet in event.packets:
            found = headers_of(packet.data)
            self._packets += 1
            self._count(found)
            effects += self._event(found, packet.length, now)
            if self._full:
                self._unstored += 1
                continue
            missed, self._reported = self._left_out - self._reported, self._left_out
            blocks.append(pcapng.packet(packet.time, packet.data[: found.length], packet.length, missed))
        time = event.packets[-1].time if event.packets else 0
        return [*effects, *(effect for block in blocks for effect in self._write(block, time))]

    def _count(self, found: Headers) -> None:
        kind = _NAMES.get(found.protocol, str(found.protocol))
        if found.port is not None:
            kind = f"{kind} {found.port}"
        if kind in self._kinds or len(self._kinds) < MAX_KINDS:
            self._kinds[kind] += 1

    def _event(self, found: Headers, length: int, now: float) -> list[Effect]:
        """The first packet of each peer to a port has an event, if there is room for one now."""
        key = (found.source, found.protocol, found.port)
        if key in self._known:
            return []
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        most = float(self._settings.events)
        self._credit = min(self._credit + (now - self._credit_at) * most / 60, most)
        self._credit_at = now
        if self._credit < 1.0:
            self._untold += 1
            return []
        self._credit -= 1.0
        self._known.add(key)
        detail: dict[str, JSON] = {
            "from": None if found.source is None else str(found.source),
            "protocol": _NAMES.get(found.protocol, str(found.protocol)),
            "bytes": length,
        }
        if found.port is not None:
            detail |= {"from_port": found.source_port, "port": found.port}
        if self._untold:
            detail["untold"] = self._untold
        self._untold = 0
        return [Tell("packet", None, detail)]


def _name(number: int) -> str:
    return f"headers-{number:06d}.pcapng"


def _number_of(name: str) -> int:
    """0 for other files."""
    digits = name.removeprefix("headers-").removesuffix(".pcapng")
    return int(digits) if digits.isdecimal() and _name(int(digits)) == name else 0

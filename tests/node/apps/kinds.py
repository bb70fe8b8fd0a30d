"""Proxies that fail in every way, for `test_process.py`: the setting `way` names it."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import cast

from locum.apps.shell.confinement import FIRST_USER
from locum.roles.action_values.addresses import JSON, Randomness
from locum.roles.app_contract import AppSession, Effect, Keep, Leave, Note, Replace, SettingError, Speak, Tell
from locum.wire.control import Flow

UNREADABLE: Mapping[str, Mapping[str, object]] = {
    "date": {"result": datetime(2026, 1, 1, tzinfo=UTC)},
    "long_number": {"result": 1 << 64},
    "deep": {"result": json.loads("[" * 10 + "]" * 10)},
    "keys": cast(Mapping[str, object], {1: 2}),
    "many": {"result": [0] * 60_000},
    "huge": {"result": bytes(65_536)},
}
"""States that a device could not read."""

MUCH = 500_000
"""Bytes that the way `says_much` says."""


class Wayward:
    """Does what its setting says as soon as it begins, and reports what came of it as its state."""

    def __init__(self, settings: object, randomness: Randomness) -> None:
        self._way = str(settings)
        self._outcome = "nothing"
        self._shown: dict[int, int] = {}

    @classmethod
    def settings(cls, table: Mapping[str, JSON]) -> object:
        if "way" not in table:
            raise SettingError("way", "is missing")
        return table["way"]

    @staticmethod
    def wants(settings: object, flow: Flow) -> bool:
        return flow.peer_port == 7

    def begin(
        self, sessions: Sequence[AppSession], state: Mapping[str, object], *, now: float
    ) -> list[Effect]:
        self._shown = {session.number: session.shown for session in sessions}
        try:
            getattr(self, self._way)()
        except (OSError, MemoryError) as problem:
            self._outcome = type(problem).__name__
        if self._way == "counts":
            self._outcome = f"{len(sessions)} sessions"
        if self._way == "chatters":
            return [Note("")] * 20_000
        if self._way == "keeps":
            states = [Keep({"times": number, "more": "x" * 20_000}) for number in range(100)]
            return [*[Note("x" * 1_000)] * 3_000, *states]
        return [Note(f"began with {dict(state)}"), Keep({"times": int(str(state.get("times", 0))) + 1})]

    def well(self) -> None:
        self._outcome = f"{os.getuid() == FIRST_USER + os.getpid()} {os.getgid()}"

    def keeps(self) -> None:
        pass

    def raises(self) -> None:
        raise ValueError("on purpose")

    def hangs(self) -> None:
        time.sleep(60)

    def leaks(self) -> None:
        held = [bytes(16 << 20) for _ in range(100)]
        self._outcome = str(len(held))

    def forks(self) -> None:
        subprocess.run(["true"])
        self._outcome = "forked"

    def writes(self) -> None:
        with open("/tmp/locum-wayward", "w") as file:
            file.write("x")
        self._outcome = "written"

    def makes(self) -> None:
        os.mkdir("/tmp/locum-wayward")
        self._outcome = "made"

    def reads(self) -> None:
        with open("/etc/passwd") as file:
            self._outcome = file.read()

    def reaches(self) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect("/tmp/locum-wayward")
        self._outcome = "reached"

    def connects(self) -> None:
        socket.socket().connect(("127.0.0.1", 9))
        self._outcome = "connected"

    def exits(self) -> None:
        os._exit(3)

    def received(self, session: int, data: bytes, *, now: float) -> list[Effect]:
        if self._way == "says_much":
            return [Speak(session, b"w" * MUCH), Leave(session, "all is said")]
        said: list[Effect] = [Speak(session, data.upper())] if self._way == "well" else []
        if self._way.startswith("replaces"):
            start = self._shown.get(session, 0)
            self._shown[session] = start + len(data)
            beyond = len(data) if self._way == "replaces_beyond" else 0
            said = [Replace(session, start + beyond, len(data), b"<" + data.upper() + b">")]
        return [Tell("heard", session, {"bytes": len(data)}), *said]

    def closed(self, session: int, error: int, *, now: float) -> list[Effect]:
        return [Tell("ended", None, {"session": session, "error": error})]

    def timeout(self, *, now: float) -> list[Effect]:
        return []

    def deadline(self) -> float | None:
        return 0.0 if self._way == "floods" else None

    def __getattr__(self, name: str) -> object:
        if name in UNREADABLE:
            return self.ends_badly
        if name.startswith("kills_"):
            return lambda: os.kill(int(name.removeprefix("kills_")), signal.SIGKILL)
        raise AttributeError(name)

    def counts(self) -> None:
        """Its sessions."""

    def chatters(self) -> None:
        """In `begin`."""

    def floods(self) -> None:
        """By its deadline, which has always come."""

    def says_much(self) -> None:
        """In `received`, and leaves."""

    def replaces(self) -> None:
        """In `received`."""

    def replaces_beyond(self) -> None:
        """In `received`, bytes that it has not seen."""

    def ends_badly(self) -> None:
        """In `end`."""

    def end(self, *, now: float) -> Mapping[str, object]:
        if self._way == "ends_badly":
            raise ValueError("on purpose")
        return UNREADABLE.get(self._way, {"result": self._outcome})

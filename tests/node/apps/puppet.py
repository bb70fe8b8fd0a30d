"""A proxy with a network and files that does what its test says: effects come as JSON in place of a correspondent's bytes.

It reports every happening as an event. Some things it does by itself, as its settings say: `echo` sends back what comes in a
connection, `save` appends it to the file "saved", `serve` sends the file of that name in every accepted connection, `begin`
is a list of effects, `opened` those for an open connection, `later` those of its first deadline, and `ending` its last ones.
"""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from locum.apps.shell.channel import Channel
from locum.roles import app_network as net
from locum.roles.action_values.addresses import JSON, Randomness
from locum.roles.app_contract import AppSession, Effect, Keep, Note, Tell
from locum.wire.control import Flow

KNOWN = {
    name: getattr(net, name)
    for name in [
        "Connect",
        "StartTls",
        "Listen",
        "Send",
        "SendFile",
        "SendTo",
        "Finish",
        "Abort",
        "Pause",
        "Resume",
        "HandOver",
        "Append",
        "Truncate",
        "Rename",
        "Remove",
        "Load",
        "Sync",
        "Decode",
    ]
} | {"Keep": Keep, "Note": Note}
LONG = 200  # bytes; longer ones are reported by their digest


def effects(script: Sequence[Sequence[Any]]) -> list[Effect]:
    """Each is a name and arguments; texts stand for bytes where bytes are expected."""
    return [_effect(*item) for item in script]


def _effect(name: str, *arguments: Any) -> Effect:
    known = KNOWN[name]
    if name in ("Send", "SendTo", "Append", "HandOver"):
        *rest, last = arguments
        arguments = (*rest, last.encode("latin-1") * (1 if name != "Send" or len(rest) == 1 else rest.pop()))
    made: Effect = known(*arguments)
    return made


def report(event: net.Happening) -> Tell:
    """A happening as an event: its kind is the name of its class."""
    detail: dict[str, JSON] = {}
    for key, value in asdict(event).items():
        if isinstance(value, bytes):
            detail["length"] = len(value)
            value = value.decode("latin-1") if len(value) <= LONG else sha256(value).hexdigest()
        detail[key] = [list(item) for item in value] if isinstance(value, tuple) else value
    return Tell(type(event).__name__, None, detail)


class Puppet:
    """See above."""

    def __init__(self, settings: object, randomness: Randomness) -> None:
        assert isinstance(settings, dict)
        self._settings: dict[str, Any] = settings
        self._heard = 0
        self._digest = sha256()

    @classmethod
    def settings(cls, table: Mapping[str, JSON]) -> object:
        return dict(table)

    @staticmethod
    def wants(settings: object, flow: Flow) -> bool:
        return flow.peer_port == 7

    def begin(
        self, sessions: Sequence[AppSession], state: Mapping[str, object], *, now: float
    ) -> list[Effect]:
        said: list[Effect] = []
        if (way := self._settings.get("wayward")) is not None:
            said.append(Note(str(getattr(self, f"_{way}")())))
        return [*said, *effects(self._settings.get("begin", []))]

    # A process that goes round its files.

    def _hoards(self) -> None:
        for number in range(4):
            with open(f"hoard{number}", "wb") as file:
                file.write(bytes(1 << 20))

    def _hides(self) -> None:
        self._hidden = [os.open(f"hidden{number}", os.O_WRONLY | os.O_CREAT) for number in range(4)]
        for number, descriptor in enumerate(self._hidden):
            os.write(descriptor, bytes(1 << 20))
            os.unlink(f"hidden{number}")

    def _digs(self) -> None:
        os.mkdir("cellar")
        with open("cellar/deep", "w") as file:
            file.write("x")

    def _scatters(self) -> None:
        for number in range(600):
            with open(f"crumb{number}", "w"):
                pass

    def _asks(self) -> None:
        channel = Channel(socket.socket(fileno=3))
        for number in range(10_000):
            channel.send("ask", number, "connect", f"host{number}.invalid", 80, 0)

    def _asks_oddly(self) -> None:
        Channel(socket.socket(fileno=3)).send("ask", 1, "become", "root")

    def _parts_oddly(self) -> None:
        Channel(socket.socket(fileno=3)).send("part", [], 1)

    def _hands_a_file(self) -> None:
        Channel(socket.socket(fileno=3)).send("hand", "x", b"", descriptors=[os.open("/", os.O_RDONLY)])

    def _hands_a_stranger(self) -> None:
        one, _ = socket.socketpair()
        Channel(socket.socket(fileno=3)).send("hand", "x", b"", descriptors=[one.fileno()])

    def _grows(self) -> str:
        try:
            with open("large", "wb", buffering=0) as file:
                while file.write(bytes(1 << 18)):
                    pass
        except OSError as problem:
            return f"errno {problem.errno}"
        return "grown"

    def received(self, session: int, data: bytes, *, now: float) -> list[Effect]:
        return effects(json.loads(data))

    def closed(self, session: int, error: int, *, now: float) -> list[Effect]:
        return []

    def timeout(self, *, now: float) -> list[Effect]:
        return effects(self._settings.pop("later"))

    def deadline(self) -> float | None:
        return 0.0 if "later" in self._settings else None

    def happened(self, event: net.Happening, *, now: float) -> list[Effect]:
        match event:
            case net.Opened() if self._settings.get("opened"):
                return effects(self._settings["opened"])
            case net.Data(number, data) if data and self._settings.get("echo"):
                return [net.Send(number, data)]
            case net.Data(number, data) if data and self._settings.get("save"):
                self._heard += len(data)
                self._digest.update(data)
                return [net.Append("saved", data)]
            case net.Data(number, data) if data and self._settings.get("forget"):
                self._heard += len(data)
                self._digest.update(data)
                return []
            case net.Drained() if self._settings.get("quiet"):
                return []
            case net.Accepted(_, number) if (file := self._settings.get("serve")) is not None:
                return [
                    net.Send(number, b"head"),
                    net.SendFile(number, file, 0, int(self._settings["length"])),
                    net.Finish(number),
                ]
        return [report(event)]

    def ending(self, *, now: float) -> list[Effect]:
        return effects(self._settings.get("ending", []))

    def end(self, *, now: float) -> Mapping[str, object]:
        return {"result": {"heard": self._heard, "digest": self._digest.hexdigest()}}

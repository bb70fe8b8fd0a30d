"""A computation on a virtual clock, and what came of it."""

import json
from collections.abc import Mapping
from ipaddress import ip_address
from random import Random
from typing import Any, TypeAlias

from locum.apps.computing.compute import Compute
from locum.apps.computing.spreadsheet import Spreadsheet
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import AppSession, Effect, Keep, Note, Speak, Tell, checked_state
from locum.roles.app_network import Datagram, Happening, SendTo
from locum.roles.app_results import RESULT
from locum.wire import cbor
from locum.wire.flow import Flow

HOME, PEER = ip_address("10.9.0.5"), ip_address("192.0.2.1")
LISTENER = 1
Kind: TypeAlias = type[Compute] | type[Spreadsheet]


def flow(port: int = 7000, protocol: int = 6) -> Flow:
    return Flow(protocol, HOME, 40000, PEER, port)


class Timeline:
    """One proxy at a time, its kept state, and its effects in their order."""

    def __init__(self, kind: Kind = Compute, sessions: int = 1, /, **table: JSON) -> None:
        self._kind, self._table, self._count = kind, table, sessions
        self.now = 1000.0
        self.state: Mapping[str, object] = {}
        self.effects: list[Effect] = []
        self._shown: dict[int, int] = {}
        self.begin()

    def begin(self) -> list[Effect]:
        """Another process, with the state that the last one has kept."""
        settings = self._kind.settings(json.loads(json.dumps(self._table)))
        self.app = self._kind(settings, Random(1))
        sessions = [
            AppSession(number, flow(7000 + number), shown=self._shown.get(number, 0))
            for number in range(self._count)
        ]
        return self.did(self.app.begin(sessions, self.state, now=self.now))

    def did(self, effects: list[Effect]) -> list[Effect]:
        """Carry effects out."""
        for effect in effects:
            if isinstance(effect, Keep):
                self.state = self._carried(effect.state)
        self.effects += effects
        if (at := self.app.deadline()) is not None and at <= self.now:
            self.did(self.app.timeout(now=self.now))
        return effects

    @staticmethod
    def _carried(state: Mapping[str, object]) -> Mapping[str, object]:
        """As another process gets it."""
        read = cbor.decode(cbor.encode(checked_state(dict(state))), limit=1 << 20, field="state")
        assert isinstance(read, dict)
        return read

    def says(self, data: bytes, session: int = 0) -> list[Effect]:
        """The correspondent of a session sends."""
        self._shown[session] = self._shown.get(session, 0) + len(data)
        return self.did(self.app.received(session, data, now=self.now))

    def datagram(self, data: bytes, port: int = 9999) -> list[Effect]:
        return self.happens(Datagram(LISTENER, str(PEER), port, data))

    def happens(self, event: Happening) -> list[Effect]:
        return self.did(self.app.happened(event, now=self.now))

    def passes(self, seconds: float) -> None:
        """Time passes, and each deadline comes."""
        until = self.now + seconds
        while (at := self.app.deadline()) is not None and at <= until:
            self.now = max(at, self.now)
            self.did(self.app.timeout(now=self.now))
        self.now = until

    def wakes(self) -> dict[str, Any]:
        """The device takes over: the result that it gets. The next sleep begins with the rest."""
        self.state = self._carried(self.app.end(now=self.now))
        result = self.state[RESULT]
        assert isinstance(result, dict)
        self._shown.clear()
        self.state = {key: value for key, value in self.state.items() if key != RESULT}
        return result

    def told(self, kind: str = "computed") -> list[Mapping[str, Any]]:
        """Details of the events so far."""
        return [effect.detail for effect in self.effects if isinstance(effect, Tell) and effect.kind == kind]

    def sent(self) -> list[bytes]:
        """Messages to correspondents so far."""
        return [effect.data for effect in self.effects if isinstance(effect, Speak | SendTo)]

    def notes(self) -> str:
        return "\n".join(effect.text for effect in self.effects if isinstance(effect, Note))

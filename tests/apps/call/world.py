"""A call proxy on a virtual clock, and the messages of registrars and callers (A7)."""

from collections.abc import Mapping
from random import Random

from sipmessage import Message, Request, Response

from locum.apps.call.proxy import Call
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import Effect, Keep, Note, Tell
from locum.roles.app_network import Datagram, Listen, Opened, SendTo

REGISTRAR = "192.0.2.10"
SETTINGS: Mapping[str, JSON] = {
    "contact": "sip:ann@10.9.0.5",
    "callers": ["bob@example.org"],
    "others": "busy",
}
ACCOUNT: Mapping[str, JSON] = {
    **SETTINGS,
    "registrar": "sip.example.org",
    "domain": "example.org",
    "password": "s3cret",
}


def invite(
    caller: str = "bob@example.org",
    *,
    call: str = "c1",
    branch: str = "z9hG4bKa",
    method: str = "INVITE",
    sequence: str = "1 INVITE",
    rport: str = ";rport",
    to: str = "<sip:ann@example.org>",
    fields: str = "",
) -> bytes:
    return (
        f"{method} sip:ann@10.9.0.5 SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP proxy.example.org:5070;branch={branch}{rport}, SIP/2.0/UDP 198.51.100.7;branch=z9hG4bKz\r\n"
        f'From: "Bob" <sip:{caller}>;tag=f1\r\nTo: {to}\r\nCall-ID: {call}\r\nCSeq: {sequence}\r\n'
        f"Record-Route: <sip:proxy.example.org;lr>\r\nContact: <sip:{caller}>\r\nMax-Forwards: 69\r\n"
        f"{fields}Content-Length: 0\r\n\r\n"
    ).encode()


class World:
    """One proxy; `sent` has the datagrams of the last step, `kept` what outlives a process."""

    def __init__(self, **table: JSON) -> None:
        self.table = {**SETTINGS, **table}
        self.now = 100.0
        self.kept: Mapping[str, object] = {}
        self.effects: list[Effect] = []
        self.sent: list[SendTo] = []
        self.start()

    def start(self) -> None:
        """Begin, as a new process does."""
        self.call = Call(Call.settings(self.table), Random(1))
        began = self.call.begin([], self.kept, now=self.now)
        assert isinstance(began[0], Listen)
        self.take(self.call.happened(Opened(1), now=self.now))
        self.advance(0.0, fresh=False)

    def take(self, effects: list[Effect]) -> None:
        self.effects += effects
        self.sent += [effect for effect in effects if isinstance(effect, SendTo)]
        for effect in effects:
            if isinstance(effect, Keep):
                self.kept = effect.state

    def hear(self, data: bytes, peer: str = REGISTRAR, port: int = 5062) -> list[Response]:
        """A datagram comes; returns the responses to it."""
        self.sent = []
        self.take(self.call.happened(Datagram(1, peer, port, data), now=self.now))
        return [message for message in map(self.parsed, self.sent) if isinstance(message, Response)]

    def advance(self, seconds: float, *, fresh: bool = True) -> None:
        """Let time pass, with every deadline in it."""
        if fresh:
            self.sent = []
        end = self.now + seconds
        while (at := self.call.deadline()) is not None and at <= end:
            self.now = max(at, self.now)
            self.take(self.call.timeout(now=self.now))
        self.now = end

    @staticmethod
    def parsed(sent: SendTo) -> Request | Response:
        return Message.parse(sent.data)

    @property
    def registers(self) -> list[Request]:
        """REGISTER requests of the last step."""
        return [message for message in map(self.parsed, self.sent) if isinstance(message, Request)]

    def answer(self, request: Request, code: int, fields: str = "", peer: str = REGISTRAR) -> None:
        """The registrar answers."""
        copied = "".join(
            f"{name}: {request.headers[name]}\r\n" for name in ("Via", "From", "To", "Call-ID", "CSeq")
        )
        self.hear(f"SIP/2.0 {code} Word\r\n{copied}{fields}Content-Length: 0\r\n\r\n".encode(), peer)

    @property
    def told(self) -> list[tuple[str, Mapping[str, JSON]]]:
        return [(effect.kind, effect.detail) for effect in self.effects if isinstance(effect, Tell)]

    @property
    def notes(self) -> str:
        return "\n".join(effect.text for effect in self.effects if isinstance(effect, Note))

    @property
    def result(self) -> Mapping[str, object]:
        result = self.call.end(now=self.now)["result"]
        assert isinstance(result, dict)
        return result

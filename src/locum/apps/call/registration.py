"""A SIP registration that is kept alive (RFC 3261 section 10), over UDP, without input and output."""

import re
from dataclasses import dataclass
from typing import TypeAlias

from sipmessage import Response

from locum.apps.call.messages import branch, challenge, credentials
from locum.apps.call.settings import Settings
from locum.roles.action_values.addresses import Randomness

T1, T2, TIMEOUT = 0.5, 4.0, 32.0
"""Seconds: first wait for an answer, longest one, all of them (RFC 3261 section 17.1.2.2)."""
FIRST_AGAIN, LONGEST_AGAIN = 5.0, 300.0
"""Seconds until another try after a failure, each after twice the time of the one before."""
SHORTEST = 60
"""Seconds of a registration: what is granted may be less than what was asked for."""
_EXPIRES = re.compile(r";\s*expires\s*=\s*(\d{1,9})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Registered:
    """The registrar knows the contact for so many seconds."""

    seconds: int


@dataclass(frozen=True, slots=True)
class Unregistered:
    """A try has failed. `final`: another one would be in vain."""

    reason: str
    final: bool = False


Outcome: TypeAlias = bytes | Registered | Unregistered
"""A datagram for the registrar, or how the registration stands."""


class Registration:
    """`due` is when `timeout` is to be called, in steady seconds; None: never again."""

    def __init__(self, settings: Settings, randomness: Randomness, *, now: float) -> None:
        self._settings, self._random = settings, randomness
        self._call = f"{self._token()}@{settings.contact.host}"
        self._tag = self._token()
        self._sequence = 0
        self._expires = settings.expires
        self._branch = ""
        self._message: bytes | None = None  # on its way
        self._wait = self._give_up = 0.0
        self._challenged = 0
        self._failures = 0
        self.due: float | None = now

    def _token(self) -> str:
        return f"{self._random.getrandbits(64):016x}"

    def timeout(self, *, now: float) -> list[Outcome]:
        """Register, register again, or repeat what was not answered."""
        if self._message is None:
            self._challenged = 0
            return self._send("", now)
        if now >= self._give_up:
            return self._failed("the registrar does not answer", now)
        self._wait = min(2 * self._wait, T2)
        self.due = min(now + self._wait, self._give_up)
        return [self._message]

    def received(self, response: Response, *, now: float) -> list[Outcome]:
        """An answer to REGISTER; an old one is passed over."""
        if self._message is None or branch(response) != self._branch:
            return []
        if response.code < 200:
            self.due = min(now + T2, self._give_up)
            return []
        self._message = None
        match response.code:
            case code if code < 300:
                return self._accepted(response, now)
            case 401 | 407:
                return self._answer(response, now)
            case 423 if response.min_expires and self._expires < response.min_expires <= 86400:
                self._expires = response.min_expires
                return self._send("", now)
            case 403 | 404 | 405 | 501:
                return self._failed(
                    f"the registrar refuses: {response.code} {response.phrase[:100]}", now, final=True
                )
        return self._failed(f"the registrar answers {response.code} {response.phrase[:100]}", now)

    def _accepted(self, response: Response, now: float) -> list[Outcome]:
        seconds = max(min(self._granted(response), self._expires), SHORTEST)
        self._failures = self._challenged = 0
        self.due = now + seconds * (0.5 + 0.2 * self._random.random())
        return [Registered(seconds)]

    def _granted(self, response: Response) -> int:
        """Of this contact among all of the user's (section 10.3), or of all."""
        uri = str(self._settings.contact).lower()
        for contact in response.headers.getlist("Contact"):
            for one in contact.split(","):
                if uri in one.lower() and (found := _EXPIRES.search(one)):
                    return int(found[1])
        expires = response.headers.get("Expires") or ""
        return int(expires) if expires.isdigit() and len(expires) < 10 else self._expires

    def _answer(self, response: Response, now: float) -> list[Outcome]:
        code = response.code
        given = challenge(
            response.headers.get("WWW-Authenticate" if code == 401 else "Proxy-Authenticate") or ""
        )
        stale = given is not None and given.get("stale", "").lower() == "true"
        self._challenged += 1
        if self._challenged > 1 and (not stale or self._challenged > 3):
            return self._failed("the registrar refuses user and password", now, final=True)
        uri, settings = f"sip:{self._settings.domain}", self._settings
        found = given and credentials(given, settings.user, settings.password, "REGISTER", uri, self._token())
        if not found:
            return self._failed("the registrar asks for credentials of an unknown kind", now, final=True)
        return self._send(f"{'' if code == 401 else 'Proxy-'}Authorization: {found}\r\n", now)

    def _send(self, fields: str, now: float) -> list[Outcome]:
        self._sequence += 1
        self._branch = f"z9hG4bK{self._token()}"
        contact, user = self._settings.contact, f"sip:{self._settings.contact.user}@{self._settings.domain}"
        self._message = (
            f"REGISTER sip:{self._settings.domain} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {contact.host}:{self._settings.port};branch={self._branch};rport\r\n"
            f"Max-Forwards: 70\r\nFrom: <{user}>;tag={self._tag}\r\nTo: <{user}>\r\n"
            f"Call-ID: {self._call}\r\nCSeq: {self._sequence} REGISTER\r\nContact: <{contact}>\r\n"
            f"Expires: {self._expires}\r\n{fields}Content-Length: 0\r\n\r\n"
        ).encode()
        self._wait, self._give_up = T1, now + TIMEOUT
        self.due = now + T1
        return [self._message]

    def _failed(self, reason: str, now: float, *, final: bool = False) -> list[Outcome]:
        self._message = None
        wait = min(FIRST_AGAIN * 2.0 ** min(self._failures, 20), LONGEST_AGAIN)
        self._failures += 1
        self.due = None if final else now + wait * (1 - self._random.random() / 4)
        return [Unregistered(reason, final)]

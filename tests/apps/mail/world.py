"""A mail proxy on a virtual clock, and an IMAP server of a few lines that a test scripts (A6)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from locum.apps.mail.proxy import Mail
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import Effect, Keep, Note, Tell
from locum.roles.app_network import Abort, Connect, Data, Ended, Opened, Send, StartTls

ACCOUNT: Mapping[str, JSON] = {"host": "mail.example", "user": "ann", "password": "s3cret word"}
CAPABLE = "IMAP4rev1 IDLE AUTH=PLAIN"


@dataclass
class Server:
    """Answers commands; `mails` has UID and header fields. It closes on demand, and counts logins."""

    mails: dict[int, bytes] = field(default_factory=dict)
    next_uid: int = 1
    validity: int = 9
    capable: str = CAPABLE
    greeting: str = "OK ready"
    refuses: Mapping[str, str] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    idling: str = ""

    def arrive(self, sender: str = "bob@example.org", subject: str = "hi", padding: int = 0) -> bytes:
        """Another message; returns the bytes for a client that idles."""
        self.mails[self.next_uid] = f"From: {sender}\r\nSubject: {subject}\r\n\r\n".encode() + b"x" * padding
        self.next_uid += 1
        return b"* %d EXISTS\r\n" % len(self.mails)

    def answer(self, line: str) -> bytes:
        """To one line of the client."""
        if line == "DONE":
            tag, self.idling = self.idling, ""
            return f"{tag} OK done\r\n".encode()
        tag, _, command = line.partition(" ")
        self.commands.append(command)
        for part, refusal in self.refuses.items():
            if command.startswith(part):
                return f"{tag} {refusal}\r\n".encode()
        said = self._said(tag, command)
        return (
            said
            if command == "IDLE" or command.startswith("AUTHENTICATE")
            else said + f"{tag} OK done\r\n".encode()
        )

    def _said(self, tag: str, command: str) -> bytes:
        if command == "CAPABILITY":
            return f"* CAPABILITY {self.capable}\r\n".encode()
        if command.startswith("EXAMINE"):
            codes = f"* OK [UIDVALIDITY {self.validity}] .\r\n* OK [UIDNEXT {self.next_uid}] .\r\n"
            return f"* {len(self.mails)} EXISTS\r\n{codes}".encode()
        if command == "IDLE":
            self.idling = tag
            return b"+ idling\r\n"
        if command.startswith("AUTHENTICATE"):
            self.idling = tag
            return b"+ \r\n"
        if found := re.match(r"UID FETCH (\d+):\* ", command):
            chosen = [uid for uid in self.mails if uid >= int(found[1])] or list(self.mails)[-1:]
            return b"".join(
                b"* %d FETCH (UID %d RFC822.SIZE %d)\r\n" % (place, uid, len(self.mails[uid]))
                for place, uid in enumerate(self.mails, 1)
                if uid in chosen
            )
        if found := re.match(r"UID FETCH ([\d,]+) ", command):
            return b"".join(self._headers(int(uid)) for uid in found[1].split(",") if int(uid) in self.mails)
        return b""

    def _headers(self, uid: int) -> bytes:
        text = self.mails[uid].partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        name = b"BODY[HEADER.FIELDS (FROM SUBJECT)]<0>"
        return b"* 1 FETCH (UID %d %s {%d}\r\n%s)\r\n" % (uid, name, len(text), text)


class World:
    """One proxy, and the server that it meets; `kept` outlives a process."""

    def __init__(self, server: Server, **table: JSON) -> None:
        self.server, self.table = server, {**ACCOUNT, **table}
        self.now = 100.0
        self.kept: Mapping[str, object] = {}
        self.effects: list[Effect] = []
        self.reachable = True
        self.connections: list[Connect] = []
        self.connection: int | None = None
        self.encrypted = False
        self._lines = ""
        self.start()

    def start(self) -> None:
        """Begin, as a new process does."""
        self.connection = None
        self.mail = Mail(Mail.settings(self.table), Random(1))
        self.perform(self.mail.begin([], self.kept, now=self.now))

    def perform(self, effects: list[Effect]) -> None:
        """Carry effects out, and everything that follows at once."""
        self.effects += effects
        for effect in effects:
            match effect:
                case Connect(number, tls=tls):
                    self.connections.append(effect)
                    if not self.reachable:
                        self.happen(Ended(number, "connection refused"))
                        continue
                    self.connection, self.encrypted, self._lines = number, tls, ""
                    self.happen(Opened(number, "192.0.2.1"))
                    self.says(f"* {self.server.greeting}\r\n".encode())
                case StartTls(number):
                    self.encrypted = True
                    self.happen(Opened(number, "192.0.2.1"))
                case Send(number, data) if number == self.connection:
                    self._heard(data)
                case Abort(number) if number == self.connection:
                    self.connection = None
                case Keep(state):
                    self.kept = state

    def _heard(self, data: bytes) -> None:
        *lines, self._lines = (self._lines + data.decode()).split("\r\n")
        for line in lines:
            if self.server.idling and line != "DONE":  # the answer to AUTHENTICATE
                self.server.commands.append(f"SECRET {line}")
                tag, self.server.idling = self.server.idling, ""
                refusal = self.server.refuses.get("SECRET", "OK welcome")
                self.says(f"{tag} {refusal}\r\n".encode())
            else:
                said = self.server.answer(line)
                if said:
                    self.says(said)

    def says(self, data: bytes) -> None:
        """The server sends these bytes."""
        if self.connection is not None:
            self.happen(Data(self.connection, data))

    def happen(self, event: Opened | Data | Ended) -> None:
        self.perform(self.mail.happened(event, now=self.now))

    def breaks(self) -> None:
        """The connection breaks, and the server forgets it."""
        assert self.connection is not None
        number, self.connection, self.server.idling = self.connection, None, ""
        self.happen(Ended(number, "reset"))

    def arrive(self, sender: str = "bob@example.org", subject: str = "hi") -> None:
        """A message comes, and the server says so if it is asked to."""
        said = self.server.arrive(sender, subject)
        if self.server.idling:
            self.says(said)

    def advance(self, seconds: float) -> None:
        """Let time pass, with every deadline in it."""
        end = self.now + seconds
        while (at := self.mail.deadline()) is not None and at <= end:
            self.now = max(at, self.now)
            self.perform(self.mail.timeout(now=self.now))
        self.now = end

    @property
    def told(self) -> list[Tell]:
        return [effect for effect in self.effects if isinstance(effect, Tell)]

    @property
    def subjects(self) -> list[JSON]:
        """Of the messages that were told one by one."""
        return [tell.detail["subject"] for tell in self.told if "subject" in tell.detail]

    @property
    def notes(self) -> str:
        return "\n".join(effect.text for effect in self.effects if isinstance(effect, Note))

"""One connection to an IMAP server that watches one mailbox, read only, without input and output (RFC 9051, RFC 2177).

Greeting, STARTTLS, user and password, EXAMINE, messages since the last known one, IDLE; and again from there whenever the server says that
messages have come. Messages are known by UIDVALIDITY and the next UID: none is found twice, and none is missed.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeAlias

from locum.apps.mail.messages import MAX_HEADERS, Message
from locum.apps.mail.responses import (
    LARGEST_SIZE,
    Capability,
    Continue,
    Count,
    Fetch,
    ImapError,
    Reader,
    Response,
    Status,
    Value,
    capabilities,
    number,
)
from locum.apps.mail.settings import Account

PATIENCE = 60.0
"""Seconds in which the server answers a command."""
BATCH = 50
"""Messages whose headers are asked for at once."""
MAX_LOOKED = 500
"""Messages whose headers are read in one look; the others are counted. A mail flood is not worth more of the server's time."""
_PASSING = ("UNAVAILABLE", "INUSE", "LIMIT", "SERVERBUG")  # RFC 5530: it may be otherwise later


@dataclass(frozen=True, slots=True)
class Known:
    """The place in the mailbox up to which everything has been found (RFC 9051 section 2.3.1.1)."""

    validity: int
    next_uid: int


@dataclass(frozen=True, slots=True)
class Write:
    """Send these bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Encrypt:
    """Go on with TLS; then call `encrypted`."""


@dataclass(frozen=True, slots=True)
class Found:
    """New messages. `surplus` counts those whose headers were not read; `known` is the place behind all of them."""

    messages: tuple[Message, ...]
    known: Known
    surplus: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """The server tells of new messages from now on (IDLE)."""


@dataclass(frozen=True, slots=True)
class Renumbered:
    """The server has given the messages other UIDs: those that came meanwhile are not found."""

    known: Known


@dataclass(frozen=True, slots=True)
class Failed:
    """The connection is of no more use. `final`: neither is another one."""

    reason: str
    final: bool = False


Wish: TypeAlias = Write | Encrypt | Found | Waiting | Renumbered | Failed


class Step(Enum):
    """The command that the server has still to answer."""

    GREETING = auto()
    CAPABILITY = auto()
    STARTTLS = auto()
    HANDSHAKE = auto()
    LOGIN = auto()
    EXAMINE = auto()
    LIST = auto()
    HEADERS = auto()
    IDLE = auto()
    IDLING = auto()
    DONE = auto()
    OVER = auto()


@dataclass(slots=True)
class _Look:
    """A look for new messages: sizes by UID, those whose headers are still to be read, and those that will not be."""

    sizes: dict[int, int] = field(default_factory=dict)
    pending: list[int] = field(default_factory=list)
    batch: list[int] = field(default_factory=list)
    messages: dict[int, Message] = field(default_factory=dict)
    surplus: int = 0
    last: int = 0


class ImapSession:
    """`due` is when `timeout` is to be called, in steady seconds."""

    def __init__(self, account: Account, known: Known | None, *, now: float) -> None:
        self._account, self._known = account, known
        self._reader = Reader()
        self._step = Step.GREETING
        self._capabilities: frozenset[str] | None = None
        self._encrypted = account.tls == "tls"
        self._authenticated = self._plain = False
        self._tags = 0
        self._validity = self._next_uid = self._exists = 0
        self._more = False  # messages may have come since the last look
        self._look = _Look()
        self.due = now + PATIENCE

    def encrypted(self, *, now: float) -> list[Wish]:
        """TLS is there. What the server said before it does not count (RFC 9051 section 6.2.1)."""
        self._encrypted, self._capabilities = True, None
        return self._command(Step.CAPABILITY, "CAPABILITY", now)

    def received(self, data: bytes, *, now: float) -> list[Wish]:
        """Bytes of the server, in order."""
        wishes: list[Wish] = []
        try:
            for response in self._reader.feed(data):
                if self._step is Step.OVER:
                    break
                wishes += self._take(response, now)
                if Encrypt() in wishes and self._reader.behind:
                    return [*wishes[:-1], self._fail("bytes came in clear behind STARTTLS", final=True)]
        except ImapError as problem:
            wishes.append(self._fail(f"not IMAP: {problem}"))
        return wishes

    def timeout(self, *, now: float) -> list[Wish]:
        """`due` has come: the server is silent, or IDLE is to be renewed."""
        if self._step is Step.IDLING:
            return self._done(now)
        return [self._fail(f"the server did not answer for {PATIENCE:g} seconds ({self._step.name})")]

    # responses

    def _take(self, response: Response, now: float) -> list[Wish]:
        match response:
            case Capability(names):
                self._capabilities = names
            case Count(count, word):
                return self._counted(count, word, now)
            case Fetch(_, attributes):
                self._fetched(attributes)
            case Continue():
                return self._continued(now)
            case Status(word="BYE", text=text):
                return [self._fail(f"the server says goodbye: {text}")]
            case Status(tag="", word="OK" | "PREAUTH" as word) if self._step is Step.GREETING:
                return self._greeted(response, word, now)
            case Status(tag=""):
                self._untagged(response)
            case Status(tag=tag) if tag == self._tag:
                self._capabilities = capabilities(response) or self._capabilities
                return self._answered(response, now)
            case Status():
                raise ImapError(f"an answer to a command that was not given: {response.tag}")
        return []

    def _greeted(self, greeting: Status, word: str, now: float) -> list[Wish]:
        self._capabilities = capabilities(greeting)
        if word == "PREAUTH":
            if not self._encrypted and self._account.tls != "none":
                return [self._fail("the server has no STARTTLS: it greets with PREAUTH", final=True)]
            self._authenticated = True
        return self._command(Step.CAPABILITY, "CAPABILITY", now)

    def _untagged(self, status: Status) -> None:
        digits = status.arguments
        value = number(digits.encode()) if digits else None
        if status.code == "UIDVALIDITY" and value:
            self._validity = value
        elif status.code == "UIDNEXT" and value:
            self._next_uid = value

    def _counted(self, count: int, word: str, now: float) -> list[Wish]:
        if word == "EXPUNGE":
            self._exists -= 1
        if word != "EXISTS":
            return []
        more, self._exists = count > self._exists, count
        self._more = self._more or more
        return self._done(now) if more and self._step is Step.IDLING else []

    def _fetched(self, attributes: "Mapping[str, Value]") -> None:
        uid = number(attributes.get("UID"))
        if not uid:
            return  # flags of a message have changed
        if self._step is Step.LIST:
            size = number(attributes.get("RFC822.SIZE"), LARGEST_SIZE)
            if size is not None and self._known is not None and uid >= self._known.next_uid:
                self._listed(uid, size)
        elif self._step is Step.HEADERS and uid in self._look.batch:
            texts = (value for name, value in attributes.items() if name.startswith("BODY["))
            headers = next((text for text in texts if isinstance(text, bytes)), b"")
            self._look.messages[uid] = Message.read(uid, self._look.sizes.get(uid, 0), headers)

    def _listed(self, uid: int, size: int) -> None:
        self._look.last = max(self._look.last, uid)
        if len(self._look.sizes) < MAX_LOOKED:
            self._look.sizes[uid] = size
        elif uid not in self._look.sizes:
            self._look.surplus += 1

    def _continued(self, now: float) -> list[Wish]:
        if self._step is Step.LOGIN and self._plain:
            secret = f"\0{self._account.user}\0{self._account.password}".encode()
            return [Write(b64encode(secret) + b"\r\n")]
        if self._step is not Step.IDLE:
            raise ImapError("the server waits for more where there is no more")
        self._step, self.due = Step.IDLING, now + self._account.renew
        return [Waiting(), *(self._done(now) if self._more else [])]

    # answers to commands, by step

    def _answered(self, status: Status, now: float) -> list[Wish]:
        steps: dict[Step, Callable[[float], list[Wish]]] = {
            Step.CAPABILITY: self._capable,
            Step.STARTTLS: self._may_encrypt,
            Step.LOGIN: self._logged_in,
            Step.EXAMINE: self._examined,
            Step.LIST: self._found,
            Step.HEADERS: self._read,
            Step.DONE: self._go_on,
        }
        go_on = steps.get(self._step)
        if status.word == "OK" and go_on is not None:
            return go_on(now)
        if status.word == "OK":
            return [self._fail("the server has ended IDLE")]
        return [self._refused(status)]

    def _refused(self, status: Status) -> Failed:
        said = f" ({status.code}: {status.text})" if status.code else f" ({status.text})"
        final = status.code not in _PASSING
        match self._step:
            case Step.LOGIN:
                return self._fail("the server refuses user and password" + said, final=final)
            case Step.EXAMINE:
                return self._fail(f"the mailbox {self._account.mailbox} cannot be opened" + said, final=final)
            case Step.STARTTLS:
                return self._fail("the server refuses STARTTLS" + said, final=final)
        return self._fail(f"the server refuses a command ({self._step.name})" + said)

    def _capable(self, now: float) -> list[Wish]:
        names = self._capabilities or frozenset()
        if self._account.tls == "starttls" and not self._encrypted:
            if "STARTTLS" not in names:
                return [self._fail("the server has no STARTTLS", final=True)]
            return self._command(Step.STARTTLS, "STARTTLS", now)
        if not self._authenticated:
            return self._login(names, now)
        if "IDLE" not in names:
            return [self._fail("the server has no IDLE (RFC 2177)", final=True)]
        return self._command(Step.EXAMINE, f"EXAMINE {quoted(self._account.mailbox)}", now)

    def _may_encrypt(self, now: float) -> list[Wish]:
        self._step, self.due = Step.HANDSHAKE, now + PATIENCE
        return [Encrypt()]

    def _login(self, names: frozenset[str], now: float) -> list[Wish]:
        user, password = self._account.user, self._account.password
        self._plain = "AUTH=PLAIN" in names
        if self._plain:
            return self._command(Step.LOGIN, "AUTHENTICATE PLAIN", now)
        if "LOGINDISABLED" in names:
            return [self._fail("the server takes no password without TLS", final=True)]
        if not (user + password).isascii():
            return [self._fail("the server takes user and password in ASCII only", final=True)]
        return self._command(Step.LOGIN, f"LOGIN {quoted(user)} {quoted(password)}", now)

    def _logged_in(self, now: float) -> list[Wish]:
        self._authenticated = True
        return self._command(Step.CAPABILITY, "CAPABILITY", now)

    def _examined(self, now: float) -> list[Wish]:
        if not self._validity or not self._next_uid:
            return [self._fail("the server does not number its messages (UIDVALIDITY, UIDNEXT)", final=True)]
        here = Known(self._validity, self._next_uid)
        wishes: list[Wish] = []
        if self._known is None:
            wishes.append(Found((), here))
            self._known = here
        elif self._known.validity != here.validity:
            wishes.append(Renumbered(here))
            self._known = here
        self._more = here.next_uid > self._known.next_uid
        return wishes + self._go_on(now)

    def _go_on(self, now: float) -> list[Wish]:
        """Look for messages, if some may have come; else wait for them."""
        if not self._more:
            return self._command(Step.IDLE, "IDLE", now)
        self._more, self._look = False, _Look()
        assert self._known is not None
        return self._command(Step.LIST, f"UID FETCH {self._known.next_uid}:* (UID RFC822.SIZE)", now)

    def _found(self, now: float) -> list[Wish]:
        self._look.pending = sorted(self._look.sizes)
        return self._next_batch(now)

    def _next_batch(self, now: float) -> list[Wish]:
        look = self._look
        if not look.pending:
            return self._go_on(now)
        look.batch, look.pending = look.pending[:BATCH], look.pending[BATCH:]
        look.messages = {}
        uids = ",".join(map(str, look.batch))
        wanted = f"BODY.PEEK[HEADER.FIELDS (FROM SUBJECT)]<0.{MAX_HEADERS}>"
        return self._command(Step.HEADERS, f"UID FETCH {uids} (UID {wanted})", now)

    def _read(self, now: float) -> list[Wish]:
        """One that was deleted meanwhile is not among them."""
        look = self._look
        assert self._known is not None
        last = look.pending[0] - 1 if look.pending else max(look.last, look.batch[-1])
        self._known = Known(self._known.validity, last + 1)
        messages = tuple(look.messages[uid] for uid in sorted(look.messages))
        return [Found(messages, self._known, 0 if look.pending else look.surplus), *self._next_batch(now)]

    # commands

    def _command(self, step: Step, text: str, now: float) -> list[Wish]:
        self._tags += 1
        self._step, self.due = step, now + PATIENCE
        return [Write(f"{self._tag} {text}\r\n".encode())]

    @property
    def _tag(self) -> str:
        return f"L{self._tags}"

    def _done(self, now: float) -> list[Wish]:
        self._step, self.due = Step.DONE, now + PATIENCE
        return [Write(b"DONE\r\n")]

    def _fail(self, reason: str, *, final: bool = False) -> Failed:
        self._step = Step.OVER
        return Failed(reason, final)


def quoted(text: str) -> str:
    """A quoted string (RFC 9051 section 4.3) of a text without line ends."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

"""Sender, subject and size of a message, and the filter for them (RFC 5322, RFC 2047)."""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message as Fields  # loaded now, which the parser would do later
from email.parser import BytesHeaderParser
from email.utils import parseaddr

from locum.roles.action_values.addresses import JSON

MAX_SHOWN = 200
"""Characters of a sender or a subject; the rest is cut off."""
MAX_HEADERS = 4096
"""Bytes of sender and subject that are asked for."""
CHARSETS = (
    *(
        "raw-unicode-escape",
        "utf-8",
        "us-ascii",
        "latin-1",
        "utf-7",
        "utf-16",
        "koi8-r",
        "koi8-u",
        "gb2312",
        "gbk",
        "gb18030",
        "big5",
    ),
    *("euc-jp", "iso-2022-jp", "shift_jis", "euc-kr", "iso-2022-kr", "tis-620", "macroman"),
    *(f"iso-8859-{number}" for number in (*range(1, 12), *range(13, 17))),
    *(f"windows-{number}" for number in range(1250, 1259)),
)
"""Encodings of encoded words (RFC 2047). They are loaded here: a proxy's process has no files later."""
for _name in CHARSETS:
    codecs.lookup(_name)


@dataclass(frozen=True, slots=True)
class Message:
    """A message in the mailbox. `size` in bytes."""

    uid: int
    size: int
    sender: str
    name: str
    subject: str

    @classmethod
    def read(cls, uid: int, size: int, headers: bytes) -> "Message":
        """The message of these header fields; text that cannot be decoded is shown as it is."""
        fields: Fields = BytesHeaderParser().parsebytes(headers[:MAX_HEADERS])
        name, address = _sender(_text(fields.get("From", "")))
        return cls(uid, size, _shown(address), _shown(name), _shown(_text(fields.get("Subject", ""))))

    def detail(self) -> Mapping[str, JSON]:
        """For an event, and for a result."""
        return {
            "sender": self.sender,
            "name": self.name,
            "subject": self.subject,
            "size": self.size,
            "uid": self.uid,
        }


@dataclass(frozen=True, slots=True)
class Filter:
    """Texts are parts of an address or name, and of a subject, in small letters; empty: any. Sizes in bytes."""

    senders: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    least_size: int = 0
    most_size: int | None = None

    def takes(self, message: Message) -> bool:
        """True if the message passes every part of the filter."""
        if message.size < self.least_size or (self.most_size is not None and message.size > self.most_size):
            return False
        sender = f"{message.name} <{message.sender}>".casefold()
        subject = message.subject.casefold()
        return (not self.senders or any(part in sender for part in self.senders)) and (
            not self.subjects or any(part in subject for part in self.subjects)
        )


def _sender(text: str) -> tuple[str, str]:
    """Name and address; the text as a name if its comments are nested too deep to be read."""
    try:
        return parseaddr(text)
    except RecursionError:
        return text, ""


def _text(value: object) -> str:
    """A header field, decoded. The parser gives `Header` for one with bytes that are not ASCII."""
    raw = str(value)
    try:
        return str(make_header(decode_header(raw)))
    except (MessageError, LookupError, ValueError):
        return raw


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line
    )[:MAX_SHOWN]

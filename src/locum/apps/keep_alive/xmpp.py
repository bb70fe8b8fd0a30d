"""XMPP without TLS from a client's side: white space between stanzas, and answers to pings (RFC 6120 section 4.6.1, XEP-0199).

Port 5222 does not tell whether a stream has gone over to TLS (STARTTLS), where a space would end it. Nothing is said before a whole
stanza of the server was readable.
"""

from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from locum.apps.keep_alive.conversation import Heard, is_tls
from locum.roles.action_values.addresses import Randomness

MAX_STANZA = 256 << 10
"""Bytes; a longer one ends the reading."""
STANZAS = ("iq", "message", "presence")
_CLIENT, _PING = "jabber:client", "urn:xmpp:ping"
_STREAM = f"<s xmlns='{_CLIENT}' xmlns:stream='http://etherx.jabber.org/streams'>".encode()


class Xmpp:
    """Silent until `sure`."""

    def __init__(self) -> None:
        self.lost = False
        self.sure = False
        self._first = True
        self._depth = 0
        self._pending = 0  # bytes since the end of the last stanza
        self._attributes: dict[str, str] | None = None  # of an <iq type='get'> that is open
        self._pinged = False
        self._answers: list[bytes] = []
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.Parse(_STREAM, False)

    def ping(self, random: Randomness) -> bytes:
        return b" " if self.sure else b""

    def received(self, data: bytes) -> Heard:
        if self._first and is_tls(data):
            return Heard(leave="it is encrypted (TLS): a keep-alive would need the connection's keys")
        self._first = False
        self._answers = []
        if not self.lost:
            self._parse(data)
        news = 0 if self._answers and not self._pending else len(data.strip())
        return Heard(tuple(self._answers), news)

    def _parse(self, data: bytes) -> None:
        self._pending += len(data)
        try:
            self._parser.Parse(data, False)
        except expat.ExpatError:
            self.lost = True
        if self._pending > MAX_STANZA:
            self.lost = True
        if self.lost:
            self.sure, self._answers = False, []

    def _text(self, text: str) -> None:
        if self._depth == 1 and text.strip():  # only white space is between stanzas
            self.lost = True

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        space, _, local = name.rpartition(" ")
        if self._depth == 2:
            asks = space == _CLIENT and local == "iq" and attributes.get("type") == "get"
            self._attributes, self._pinged = (attributes if asks else None), False
        elif self._depth == 3 and self._attributes is not None and (space, local) == (_PING, "ping"):
            self._pinged = True

    def _end(self, name: str) -> None:
        self._depth -= 1
        if self._depth != 1:
            return
        self._pending = 0
        space, _, local = name.rpartition(" ")
        if space == _CLIENT and local in STANZAS:
            self.sure = True
        if self._pinged and self._attributes is not None and (identifier := self._attributes.get("id")):
            to = self._attributes.get("from")
            receiver = "" if to is None else f" to={quoteattr(to)}"
            self._answers.append(f"<iq type='result' id={quoteattr(identifier)}{receiver}/>".encode())
        self._attributes = None

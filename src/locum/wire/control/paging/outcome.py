"""Outcome of a page (P11), as CBOR by paging.cddl: the answer to 1170 and to 1172."""

from dataclasses import dataclass
from enum import IntEnum

from locum.wire import cbor
from locum.wire.control.answer import shortened

PAGE_BYTES = 8
"""Bytes of a page's identifier, unique for the node that sends the page."""
NO_PAGE = bytes(PAGE_BYTES)
"""Identifier in the answer to a message whose own one could not be read."""
MAX_TEXT = 200
"""Characters."""
MAX_PROOF = 512
"""Bytes of the device's signed answer."""
MAX_PAGE_ANSWER = 1024 + MAX_PROOF


class Outcome(IntEnum):
    """End of a page."""

    REACHED = 0
    NO_ANSWER = 1
    REFUSED = 2  # by the device, or by its access node for it
    UNKNOWN = 3  # no such device here
    BUSY = 4  # another page of the device is in progress, or too many are
    MALFORMED = 5
    NOT_AUTHORISED = 6


class AnsweredBy(IntEnum):
    """Node that answered the page."""

    MOBILE_NODE = 1
    ACCESS_NODE = 2  # on the device's behalf


@dataclass(frozen=True, slots=True)
class PageAnswer:
    """The answer to a page, or to the request for one."""

    page: bytes
    outcome: Outcome
    answered_by: AnsweredBy | None = None
    text: str = ""  # for users, at most MAX_TEXT characters
    proof: bytes = b""  # the device's own answer to the call, for its home agent or its stand-in

    def to_map(self) -> dict[int, object]:
        """Keys 0 to 3 and 8 of an answer."""
        body: dict[int, object] = {0: self.page, 1: int(self.outcome)}
        if self.answered_by is not None:
            body[2] = int(self.answered_by)
        if self.text:
            body[3] = shortened(self.text, MAX_TEXT)
        if self.proof:
            body[8] = self.proof
        return body

    @classmethod
    def read(cls, reader: cbor.Reader, most: int = MAX_PROOF) -> "PageAnswer":
        """Take keys 0 to 3 and 8, which has at most so many bytes. Raises WireError."""
        return cls(
            reader.octets(0, "page", PAGE_BYTES, PAGE_BYTES),
            Outcome(reader.integer(1, "outcome", 0, max(Outcome))),
            None
            if reader.absent(2)
            else AnsweredBy(reader.integer(2, "answered-by", min(AnsweredBy), max(AnsweredBy))),
            "" if reader.absent(3) else reader.text(3, "text", MAX_TEXT),
            b"" if reader.absent(8) else reader.octets(8, "proof", 1, most),
        )


def encode_page_answer(value: PageAnswer) -> bytes:
    """The CBOR body of the answer to a 1170 or a 1172."""
    return cbor.encode(value.to_map())


def decode_page_answer(data: bytes) -> PageAnswer:
    """The answer in a body; raises WireError."""
    reader = cbor.Reader(cbor.decode(data, limit=MAX_PAGE_ANSWER, field="page-answer"), "page-answer")
    value = PageAnswer.read(reader)
    reader.done()
    return value

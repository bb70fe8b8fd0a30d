"""Responses of IMAP servers: values, pieces of any length, and bytes that are no IMAP (A6)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.apps.mail.responses import (
    MAX_DEPTH,
    MAX_RESPONSE,
    Capability,
    Continue,
    Count,
    Fetch,
    ImapError,
    Other,
    Reader,
    Response,
    Status,
    capabilities,
)

HEADERS = b"From: a@example.org\r\nSubject: (x) {3}\r\n\r\n"
NAME = "BODY[HEADER.FIELDS (FROM SUBJECT)]<0>"
VECTORS: list[tuple[bytes, Response]] = [
    (b"+ idling\r\n", Continue(b"idling")),
    (b"+ \r\n", Continue(b"")),
    (b"* 23 EXISTS\r\n", Count(23, "EXISTS")),
    (b"* 4 Expunge\r\n", Count(4, "EXPUNGE")),
    (b"* OK [UIDNEXT 4392] Predicted\r\n", Status("", "OK", "UIDNEXT", "4392", "Predicted")),
    (b"L1 NO [AUTHENTICATIONFAILED] no\r\n", Status("L1", "NO", "AUTHENTICATIONFAILED", "", "no")),
    (b"L2 ok done\r\n", Status("L2", "OK", "", "", "done")),
    (b"* BYE\r\n", Status("", "BYE", "", "", "")),
    (b"* CAPABILITY IMAP4rev1 idle\r\n", Capability(frozenset({"IMAP4REV1", "IDLE"}))),
    (b"* SEARCH 2 84\r\n", Other()),
    (b"* 2 OTHER (x\r\n", Other()),
    (b"* FLAGS (\\Seen)\r\n", Other()),
    (
        b"* 3 FETCH (UID 7 FLAGS (\\Seen $x) RFC822.SIZE 12)\r\n",
        Fetch(3, {"UID": b"7", "FLAGS": [b"\\Seen", b"$x"], "RFC822.SIZE": b"12"}),
    ),
    (
        b'* 3 FETCH (UID 7 %s {%d}\r\n%s X "a\\"\\\\b")\r\n' % (NAME.encode(), len(HEADERS), HEADERS),
        Fetch(3, {"UID": b"7", NAME: HEADERS, "X": b'a"\\b'}),
    ),
    (b"* 3 FETCH (X {0}\r\n Y NIL)\r\n", Fetch(3, {"X": b"", "Y": b"NIL"})),
]


@pytest.mark.parametrize("data, wanted", VECTORS)
def test_responses_have_their_values(data: bytes, wanted: Response) -> None:
    assert list(Reader().feed(data)) == [wanted]


def test_pieces_of_a_stream_do_not_matter() -> None:
    stream = b"".join(data for data, _ in VECTORS)
    reader = Reader()
    found = [response for byte in stream for response in reader.feed(bytes((byte,)))]
    assert found == [wanted for _, wanted in VECTORS] == list(Reader().feed(stream)) and not reader.behind
    list(reader.feed(b"* OK"))
    assert reader.behind


def test_capabilities_of_a_code_are_read() -> None:
    (status,) = Reader().feed(b"* OK [CAPABILITY IMAP4rev1 Idle] ready\r\n")
    assert isinstance(status, Status) and capabilities(status) == frozenset({"IMAP4REV1", "IDLE"})
    assert capabilities(Status("", "OK", "UIDNEXT", "3", "")) is None


@pytest.mark.parametrize(
    "data, said",
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "another end"),
        (b"\r\n", "no response"),
        (b"\xff\xfe 1\r\n", "no response"),
        (b"L1 FETCH\r\n", "another end"),
        (b"* OK [UIDNEXT 3\r\n", "no end"),
        (b"* 3 FETCH (UID 7\r\n", "no end"),
        (b"* 3 FETCH UID 7\r\n", "pairs"),
        (b"* 3 FETCH (UID)\r\n", "pairs"),
        (b"* 3 FETCH ((UID) 7)\r\n", "no name"),
        (b"* 3 FETCH (UID 7))\r\n", "not begun"),
        (b'* 3 FETCH (UID "7)\r\n', "neither"),
        (b"* 3 FETCH (X {5} y)\r\n", "neither"),
        (b"* 4294967296 EXISTS\r\n", "too large"),
        (b"* " + b"9" * 5000 + b" EXISTS\r\n", "too large"),
        (b"* 3 FETCH " + b"(" * (MAX_DEPTH + 1), ""),
        (b"* 3 FETCH " + b"(" * (MAX_DEPTH + 1) + b"\r\n", "nested"),
        (b"* 3 FETCH (X {9999999999}\r\n", "not asked for"),
        (b"* 3 FETCH (X {%d}\r\n" % MAX_RESPONSE, "not asked for"),
        (b"* OK " + b"x" * MAX_RESPONSE, "more than"),
    ],
)
def test_other_bytes_are_refused(data: bytes, said: str) -> None:
    reader = Reader()
    if not said:
        assert list(reader.feed(data)) == []
        return
    with pytest.raises(ImapError, match=said):
        list(reader.feed(data))


@given(st.lists(st.binary(max_size=80) | st.sampled_from([data for data, _ in VECTORS]), max_size=10))
def test_any_bytes_give_responses_or_an_error(pieces: list[bytes]) -> None:
    reader = Reader()
    try:
        for piece in pieces:
            for response in reader.feed(piece):
                assert response is not None
    except ImapError as problem:
        assert str(problem).isprintable()

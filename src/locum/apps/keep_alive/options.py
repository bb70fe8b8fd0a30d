"""SIP over UDP: OPTIONS in both directions (RFC 3261 section 11), each message in a datagram.

Only the fields that a response repeats are read (section 8.2.6.2). This module does without a library for SIP: a process of this
kind is small, and there may be thousands.
"""

import re
from collections.abc import Mapping

from locum.apps.keep_alive.conversation import Heard
from locum.roles.action_values.addresses import Randomness
from locum.wire.control import Flow

MAX_DATAGRAM = 8 << 10
"""Bytes; over UDP most messages have less than 1,300 (section 18.1.1)."""
MAX_FIELDS = 100
"""Header fields; a message with more is left to the program."""
_COMPACT = {"v": "via", "f": "from", "t": "to", "i": "call-id"}  # section 7.3.3
_REPEATED = {"via": "Via", "from": "From", "to": "To", "call-id": "Call-ID", "cseq": "CSeq"}
_RESPONSE = re.compile(r"SIP/2\.0 [1-6]\d\d ")
_TAG = re.compile(r";\s*tag\s*=", re.IGNORECASE)


class SipOptions:
    """Asks each time; a question of the correspondent is answered by 200, and an answer to this one's question is no news."""

    lost = False

    def __init__(self, flow: Flow, random: Randomness) -> None:
        self._here, self._peer = (
            _place(str(flow.local), flow.local_port),
            _place(str(flow.peer), flow.peer_port),
        )
        self._call, self._tag = _token(random), _token(random)
        self._number = 0

    def ping(self, random: Randomness) -> bytes:
        self._number += 1
        lines = (
            f"OPTIONS sip:{self._peer} SIP/2.0",
            f"Via: SIP/2.0/UDP {self._here};rport;branch=z9hG4bK{_token(random)}",
            "Max-Forwards: 70",
            f"From: <sip:{self._here}>;tag={self._tag}",
            f"To: <sip:{self._peer}>",
            f"Call-ID: {self._call}",
            f"CSeq: {self._number} OPTIONS",
            "Accept: application/sdp",
            "Content-Length: 0",
        )
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def received(self, data: bytes) -> Heard:
        first, fields = _read(data)
        if first.startswith("OPTIONS ") and first.endswith(" SIP/2.0") and len(fields) == len(_REPEATED):
            return Heard((self._answer(fields),))
        mine = fields.get("call-id") == [self._call]
        return Heard() if mine and _RESPONSE.match(first) else Heard(news=len(data))

    def _answer(self, fields: Mapping[str, list[str]]) -> bytes:
        lines = ["SIP/2.0 200 OK"]
        for name, shown in _REPEATED.items():
            for value in fields[name]:
                tagged = name != "to" or _TAG.search(value) is not None
                lines.append(f"{shown}: {value}" if tagged else f"{shown}: {value};tag={self._tag}")
        lines += ["Allow: INVITE, ACK, CANCEL, OPTIONS, BYE", "Content-Length: 0"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _place(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _token(random: Randomness) -> str:
    return f"{random.getrandbits(64):016x}"


def _read(data: bytes) -> tuple[str, Mapping[str, list[str]]]:
    """The first line, and the values of the fields that are repeated; empty for bytes that are not SIP, or too much of it."""
    head, end, _ = data.partition(b"\r\n\r\n")
    if not end or len(data) > MAX_DATAGRAM or head.count(b"\n") > MAX_FIELDS:
        return "", {}
    try:
        text = head.decode()
    except UnicodeDecodeError:
        return "", {}
    first, *lines = re.sub(r"\r\n[ \t]+", " ", text).split("\r\n")
    if any(not character.isprintable() and character not in "\t" for character in "".join(lines)):
        return "", {}
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name = name.strip().lower()
        name = _COMPACT.get(name, name)
        if name in _REPEATED:
            fields.setdefault(name, []).append(value.strip())
    return first, fields


class Stun:
    """Binding indications, which keep a NAT's mapping and are not answered (RFC 8489 section 6.3.2, RFC 8445 section 11)."""

    lost = False

    def ping(self, random: Randomness) -> bytes:
        return b"\x00\x11\x00\x00\x21\x12\xa4\x42" + random.getrandbits(96).to_bytes(12, "big")

    def received(self, data: bytes) -> Heard:
        return Heard(news=len(data))

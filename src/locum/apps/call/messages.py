"""SIP messages of a user agent (RFC 3261): bounded reading, responses to requests, and digest credentials (RFC 7616, RFC 8760).

`sipmessage` reads header fields. A response repeats those of its request as they are (section 8.2.6.2).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from sipmessage import Message, Request, Response

MAX_DATAGRAM = 8 << 10
"""Bytes of a message: over UDP most have less than 1,300 (RFC 3261 section 18.1.1)."""
MAX_FIELDS = 100
"""Header fields: a call through many proxies has thirty or forty."""
MAX_LINE = 2048
"""Bytes of a line."""
PORT = 5060
_PARAMETER = re.compile(r'(?P<name>[\w-]+)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<token>[^\s,"]+))')
_UNKNOWN_RPORT = re.compile(r";\s*rport(?=\s*(;|$))", re.IGNORECASE)

PHRASES = {
    180: "Ringing",
    200: "OK",
    420: "Bad Extension",
    405: "Method Not Allowed",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    486: "Busy Here",
    487: "Request Terminated",
    603: "Decline",
}
METHODS = "INVITE, ACK, CANCEL, OPTIONS, BYE"


class SipError(ValueError):
    """Bytes that are no SIP message, or are more of one than is read."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The identity in a From field: `user@host` in small letters, without port; and the name that it shows."""

    address: str
    name: str


def read(data: bytes) -> Request | Response:
    """The message. Raises SipError."""
    if len(data) > MAX_DATAGRAM:
        raise SipError(f"a message has more than {MAX_DATAGRAM} bytes")
    head, end, _ = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    if not end or len(lines) > MAX_FIELDS + 1 or max(map(len, lines)) > MAX_LINE:
        raise SipError(
            f"a message has at most {MAX_FIELDS} header fields of {MAX_LINE} bytes, and an empty line"
        )
    try:
        message = Message.parse(data)
        for field in ("Via", "From", "To", "Call-ID", "CSeq"):
            if message.headers.get(field) is None:
                raise SipError(f"{field} is missing")
        method = message.cseq.method
        if isinstance(message, Request) and message.method not in (method, "ACK"):
            raise SipError("CSeq names another method")
        branch(message)
        if (message.via[0].port or PORT) > 65535:
            raise SipError("Via has no port")
        # What is looked at later can be read.
        message.from_address, message.to_address, message.require, message.min_expires  # noqa: B018
    except SipError:
        raise
    except (ValueError, LookupError, TypeError, AssertionError, AttributeError) as problem:
        raise SipError(f"not SIP: {str(problem)[:100]}") from None
    return message


def branch(message: Request | Response) -> str:
    """The transaction's identifier, in the topmost Via. Raises ValueError."""
    found = message.via[0].parameters.get("branch")
    if not found:
        raise SipError("Via has no branch (RFC 2543 is not spoken)")
    return found


def caller(request: Request) -> Caller:
    """The identity in the From field of a request."""
    address = request.from_address
    host = address.uri.host.lower()
    user = (address.uri.user or "").lower()
    return Caller(f"{user}@{host}" if user else host, _shown(address.name))


def response(request: Request, code: int, source: tuple[str, int], tag: str = "", fields: str = "") -> bytes:
    """A response without a body; `tag` is put into To, `fields` are further lines."""
    vias = request.headers.getlist("Via")
    top, *others = [part.strip() for via in vias for part in via.split(",")]
    to = request.headers["To"]
    lines = [
        f"SIP/2.0 {code} {PHRASES[code]}",
        f"Via: {_with_source(top, source)}",
        *(f"Via: {via}" for via in others),
        *(f"Record-Route: {route}" for route in request.headers.getlist("Record-Route")),
        f"From: {request.headers['From']}",
        f"To: {to};tag={tag}" if tag and request.to_address.parameters.get("tag") is None else f"To: {to}",
        f"Call-ID: {request.call_id}",
        f"CSeq: {request.headers['CSeq']}",
    ]
    return ("\r\n".join(lines) + f"\r\n{fields}Content-Length: 0\r\n\r\n").encode()


def _with_source(via: str, source: tuple[str, int]) -> str:
    """The Via with the address that the request came from (section 18.2.1, RFC 3581 section 4)."""
    known = _UNKNOWN_RPORT.sub(f";rport={source[1]}", via)
    return f"{known};received={source[0]}"


def destination(request: Request, source: tuple[str, int]) -> tuple[str, int]:
    """Address and port of responses (section 18.2.2, RFC 3581 section 4)."""
    top = request.via[0]
    return source if "rport" in top.parameters else (source[0], top.port or PORT)


def _shown(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:200])


def _digest(algorithm: str) -> "Callable[[str], str] | None":
    name = algorithm.upper().removesuffix("-SESS")
    kind = {"MD5": hashes.MD5, "SHA-256": hashes.SHA256}.get(name)
    if kind is None or name != algorithm.upper():
        return None

    def hashed(text: str) -> str:
        state = hashes.Hash(kind())
        state.update(text.encode())
        return state.finalize().hex()

    return hashed


def challenge(text: str) -> Mapping[str, str] | None:
    """The parameters of a digest challenge, with names in small letters; None: it is another kind of challenge."""
    scheme, _, rest = text.strip().partition(" ")
    if scheme.lower() != "digest":
        return None
    return {
        found["name"].lower(): re.sub(r"\\(.)", r"\1", found["quoted"])
        if found["token"] is None
        else found["token"]
        for found in _PARAMETER.finditer(rest)
    }


def credentials(
    given: Mapping[str, str], user: str, password: str, method: str, uri: str, nonce: str
) -> str | None:
    """The answer to a challenge, with `nonce` as the client's; None: it asks for something unknown (RFC 7616 section 3.4)."""
    algorithm = given.get("algorithm", "MD5")
    hashed = _digest(algorithm)
    qualities = [quality.strip() for quality in given.get("qop", "").split(",") if quality.strip()]
    if hashed is None or not {"nonce", "realm"} <= given.keys() or (qualities and "auth" not in qualities):
        return None
    first = hashed(f"{user}:{given['realm']}:{password}")
    second = hashed(f"{method}:{uri}")
    middle = f"00000001:{nonce}:auth:" if qualities else ""
    answer = {
        "username": user,
        "realm": given["realm"],
        "nonce": given["nonce"],
        "uri": uri,
        "response": hashed(f"{first}:{given['nonce']}:{middle}{second}"),
    }
    if qualities:
        answer["cnonce"] = nonce
    if "opaque" in given:
        answer["opaque"] = given["opaque"]
    texts = [f'{name}="{_escaped(value)}"' for name, value in answer.items()]
    tokens = ["qop=auth", "nc=00000001"] if qualities else []
    return "Digest " + ", ".join([*texts, f"algorithm={algorithm}", *tokens])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')

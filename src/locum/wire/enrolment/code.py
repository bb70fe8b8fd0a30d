"""The code of an invitation: where the server is, the number of the invitation, its secret, and check characters.

Text in Crockford's base 32, in groups of four: `3G00-24R4-...`. A server without an IPv4 address, or at another port,
stands before the code and a slash: `server.example/...`, `[2001:db8::1]:51821/...`. The check covers that text too.
"""

from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv6Address

PORT = 51820  # TCP for the enrolment, UDP for WireGuard
SECRET_BYTES = 5  # a guess needs an exchange with the server, and an invitation ends after five wrong ones
MOST_NUMBER = (1 << 15) - 1
MOST_CHARACTERS = 300  # a host name of 253, its port, and the code with its hyphens

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_READ_AS = str.maketrans({"I": "1", "L": "1", "O": "0"})
_WITH_ADDRESS, _WITHOUT_ADDRESS = 0, 1
_LENGTHS = {20: _WITH_ADDRESS, 14: _WITHOUT_ADDRESS}
_CHECK = 2  # characters
_CHECK_PRIME = 1021  # below 32 * 32; a prime finds each single wrong character and each exchanged pair
_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.")


class CodeError(ValueError):
    """A text that is no code: the message says what is wrong with it, and what to do."""


@dataclass(frozen=True, slots=True)
class Code:
    """An invitation. `host` is an address or a name in lower case, IPv6 without brackets."""

    host: str
    number: int  # which invitation of this server; no secret
    secret: bytes = field(repr=False)
    port: int = PORT

    def __post_init__(self) -> None:
        if (
            len(self.secret) != SECRET_BYTES
            or not 0 <= self.number <= MOST_NUMBER
            or not 1 <= self.port <= 0xFFFF
        ):
            raise ValueError(
                f"number {self.number}, port {self.port} or a secret of {len(self.secret)} bytes"
            )
        if not _is_host(self.host):
            raise ValueError(f"{self.host!r} is no address and no host name in lower case")

    def __str__(self) -> str:
        address = _ipv4(self.host) if self.port == PORT else None
        bits = (self.number << 40) | int.from_bytes(self.secret, "big")
        if address is not None:
            before, length = "", 18
            bits |= (_WITH_ADDRESS << 87) | (int(address) << 55)
        else:
            before, length = self._place() + "/", 12
            bits = (bits | (_WITHOUT_ADDRESS << 55)) << 2
        text = "".join(_DIGITS[(bits >> (5 * place)) & 31] for place in reversed(range(length)))
        text += _check(before, text)
        return before + "-".join(text[start : start + 4] for start in range(0, len(text), 4))

    def _place(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORT else f"{host}:{self.port}"


def parse(text: str) -> Code:
    """The code that a person typed, in any case, with or without hyphens and spaces. Raises CodeError."""
    if len(text) > MOST_CHARACTERS:
        raise CodeError(
            f"the code has {len(text)} characters, more than {MOST_CHARACTERS}: copy the code alone"
        )
    place, slash, rest = "".join(text.split()).lower().rpartition("/")
    characters = rest.upper().replace("-", "").translate(_READ_AS)
    for character in characters:
        if character not in _DIGITS:
            raise CodeError(f"{character!r} is in no code: compare the code with what the server shows")
    wanted = 14 if slash else 20
    if len(characters) != wanted:
        raise CodeError(
            f"the code has {len(characters)} letters and digits, not {wanted}: compare it with what the server shows"
        )
    if _check(place + slash, characters[:-_CHECK]) != characters[-_CHECK:]:
        raise CodeError(
            "the code is mistyped: its check characters differ. Compare it with what the server shows"
        )
    return _read(place, characters)


def _read(place: str, characters: str) -> Code:
    bits = 0
    for character in characters[:-_CHECK]:
        bits = bits << 5 | _DIGITS.index(character)
    with_address = _LENGTHS[len(characters)] == _WITH_ADDRESS
    spare = 0
    if not with_address:
        bits, spare = bits >> 2, bits & 3
    kind = bits >> (87 if with_address else 55)
    if kind != _LENGTHS[len(characters)] or spare:
        raise CodeError("the code is of a newer version of Locum: install that version on this device")
    host, port = (str(IPv4Address(bits >> 55 & 0xFFFFFFFF)), PORT) if with_address else _host_and_port(place)
    secret = (bits & ((1 << 40) - 1)).to_bytes(SECRET_BYTES, "big")
    return Code(host, bits >> 40 & MOST_NUMBER, secret, port)


def _host_and_port(place: str) -> tuple[str, int]:
    host, colon, digits = place, "", ""
    if place.startswith("["):
        host, bracket, after = place[1:].partition("]")
        colon, digits = after[:1], after[1:]
        if not bracket or ":" not in host or colon not in ("", ":"):
            raise CodeError(f"{place!r} before the code is no server: an IPv6 address stands between [ and ]")
    elif ":" in place:
        host, colon, digits = place.partition(":")
    if not _is_host(host):
        raise CodeError(f"{host!r} before the code is no server: it takes an address or a host name")
    if not colon:
        return host, PORT
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and 1 <= int(digits) <= 0xFFFF):
        raise CodeError(f"{digits!r} before the code is no port: it takes 1 to 65535")
    return host, int(digits)


def _is_host(host: str) -> bool:
    if ":" in host:
        try:
            IPv6Address(host)
        except AddressValueError:
            return False
        return "%" not in host
    labels = host.split(".")
    if labels[-1].isdigit():
        return _ipv4(host) is not None
    return (
        1 <= len(host) <= 253
        and set(host) <= _HOST_CHARACTERS
        and all(1 <= len(label) <= 63 and label[0] != "-" and label[-1] != "-" for label in labels)
    )


def _ipv4(host: str) -> IPv4Address | None:
    try:
        return IPv4Address(host)
    except AddressValueError:
        return None


def _check(before: str, characters: str) -> str:
    values = [_DIGITS.index(character) for character in characters] + list(before.encode())
    total = sum(value * weight for weight, value in enumerate(values, 1)) % _CHECK_PRIME
    return _DIGITS[total >> 5] + _DIGITS[total & 31]

"""HTTP addresses of downloads: which ones are taken, and where a redirect leads (RFC 9110 sections 4.2 and 10.2.2)."""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urljoin, urlsplit

MAX_URL = 2048
"""Characters; section 4.1 of RFC 9110 asks for at least 8000, but the addresses of an order travel in one 634."""
MAX_NAME = 60
"""Characters of a file's name that is made of an address."""
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}")
_KEPT = "/?:@!$&'()*+,;=-._~%"


@dataclass(frozen=True, slots=True)
class Address:
    """`target` is the path with its query, as a request has it; `host` has no brackets."""

    secure: bool
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The Host field."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.authority}{self.target}"

    def to(self, location: str) -> "Address":
        """The address of a Location field of this one's response. Raises ValueError."""
        return address(urljoin(str(self), location))

    @property
    def name(self) -> str:
        """A file's name after the last part of the path."""
        last = unquote(urlsplit(self.target).path.rpartition("/")[2])
        return plain_name(last) or "download"


def address(text: str) -> Address:
    """Read an address; a fragment is left out. Raises ValueError, whose message is for users."""
    if len(text) > MAX_URL:
        raise ValueError(f"an address has at most {MAX_URL} characters")
    if not text.isprintable() or " " in text:
        raise ValueError("an address has no spaces and no control characters")
    parts = urlsplit(text)
    if parts.scheme not in _PORTS:
        raise ValueError("an http or https address is expected")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address has no user name here")
    host = parts.hostname or ""
    if not _HOST.fullmatch(host):
        raise ValueError(
            "the address has no host, or one with other characters than letters, digits, . and -"
        )
    port = parts.port or _PORTS[parts.scheme]
    target = quote(parts.path or "/", safe=_KEPT)
    if parts.query:
        target += "?" + quote(parts.query, safe=_KEPT)
    return Address(parts.scheme == "https", host, port, target)


def plain_name(text: str) -> str:
    """The text as a file's name: other characters than letters, digits, `.`, `-` and `_` become `_`; no dot at its start."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip(".")[-MAX_NAME:].lstrip(".")

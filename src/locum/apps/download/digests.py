"""Digests of downloads: what a server tells of one (RFC 9530; RFC 3230 where it is older), and the digest as bytes arrive."""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import TypeAlias

Digests: TypeAlias = Mapping[str, bytes]
"""By the name of the algorithm: `sha-256`, `sha-512`."""
ALGORITHMS = {"sha-256": "sha256", "sha-512": "sha512"}
WANTED = "sha-256=10, sha-512=5"
"""Value of Want-Repr-Digest (RFC 9530 section 4)."""
_ITEM = re.compile(r"\s*([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/=]*):\s*")
_OLD_ITEM = re.compile(r"\s*([A-Za-z0-9_-]+)=([A-Za-z0-9+/=]*)\s*")


def digests(fields: Mapping[str, str], name: str) -> Digests:
    """Digests of the field `repr-digest` or `content-digest`, or of `digest`; one that cannot be read counts as absent."""
    value = fields.get(name)
    form = _OLD_ITEM if name == "digest" else _ITEM
    found: dict[str, bytes] = {}
    for item in (value or "").split(","):
        match = form.fullmatch(item)
        if match is None or (algorithm := match[1].lower()) not in ALGORITHMS:
            continue
        try:
            content = base64.b64decode(match[2], validate=True)
        except binascii.Error:
            continue
        if len(content) == hashlib.new(ALGORITHMS[algorithm]).digest_size:
            found[algorithm] = content
    return found


def of_representation(fields: Mapping[str, str]) -> Digests:
    """Digests of the whole file."""
    return digests(fields, "repr-digest") or digests(fields, "digest")


class Running:
    """Digests of what has been fed."""

    def __init__(self, *algorithms: str) -> None:
        self._each = {name: hashlib.new(ALGORITHMS[name]) for name in algorithms}

    def update(self, data: bytes) -> None:
        """The next bytes."""
        for running in self._each.values():
            running.update(data)

    def hexadecimal(self, name: str) -> str:
        """Of all bytes so far."""
        return self._each[name].hexdigest()

    def against(self, expected: Digests) -> str:
        """Empty, or a sentence about the first digest that differs. Algorithms that do not run are passed over."""
        for name, wanted in expected.items():
            if name in self._each and self._each[name].digest() != wanted:
                return f"its {name} is {self._each[name].hexdigest()}, and should be {wanted.hex()}"
        return ""

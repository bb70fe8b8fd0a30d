"""Servers for `world.World`: one as it should be, which may fail in the middle."""

import re
from collections.abc import Iterator, Mapping

from tests.apps.download.world import FIN, Reply

TAG = '"v1"'


def request(data: bytes) -> tuple[str, Mapping[str, str]]:
    """Target and fields of a request, names in lower case."""
    first, *lines = data.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines if line)
    return first.split(" ")[1], {name.lower(): value for name, value in fields.items()}


def head(status: str, *fields: str) -> bytes:
    """A head."""
    return "\r\n".join((f"HTTP/1.1 {status}", *fields, "", "")).encode()


class Http:
    """Serves one content with ranges (RFC 9110 section 14); the first answers end after so many bytes of the body."""

    def __init__(
        self, content: bytes, *fields: str, drops: tuple[int, ...] = (), tag: str = TAG, step: int = 1000
    ) -> None:
        self.content, self.fields, self.tag, self.step = content, fields, tag, step
        self.drops = list(drops)
        self.heads: list[str] = []

    def __call__(self, data: bytes) -> Iterator[Reply]:
        _, fields = request(data)
        found = re.fullmatch(r"bytes=(\d+)-", fields.get("range", ""))
        start = int(found[1]) if found else 0
        if start and fields.get("if-range", self.tag) != self.tag:
            start = 0
        told = [f"ETag: {self.tag}"] if self.tag else []
        size = len(self.content)
        if found and start >= size:
            yield self._head(
                "416 Range Not Satisfiable", f"Content-Range: bytes */{size}", "Content-Length: 0"
            )
            yield FIN
            return
        body = self.content[start:]
        if start:
            told.append(f"Content-Range: bytes {start}-{size - 1}/{size}")
        status = "206 Partial Content" if start else "200 OK"
        yield self._head(status, *told, *self.fields, f"Content-Length: {len(body)}")
        body = body[: self.drops.pop(0)] if self.drops else body
        for at in range(0, len(body), self.step):
            yield body[at : at + self.step]
        yield FIN

    def _head(self, status: str, *fields: str) -> bytes:
        self.heads.append(status[:3])
        return head(status, *fields)

"""One version of the published content, and the file of each request target."""

import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from urllib.parse import quote, unquote_to_bytes, urlsplit

from locum.apps.publish.archive import Entry
from locum.apps.publish.settings import Settings

_COMPRESSED = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
}
# The table of Python alone: files of the host would make answers depend on the stand-in.
_GUESS = mimetypes.MimeTypes(filenames=())


@dataclass(frozen=True, slots=True)
class Resource:
    """A file with its header fields. `etag` is strong: the digest of the content."""

    path: str
    entry: Entry
    etag: str
    content_type: str
    cache_control: str


@dataclass(frozen=True, slots=True)
class Moved:
    """The target names a folder without its slash."""

    location: str


class BadTarget(ValueError):
    """A request target that is no path."""


class Site:
    """The files of one version. `modified` is the time of its publication in seconds since 1970.

    All files have that time as Last-Modified. The times in an archive say nothing: tools that build the same files again give
    a changed one the old time, and a client that asks by time would keep the old content.
    """

    def __init__(self, file: str, entries: Mapping[str, Entry], modified: int, settings: Settings) -> None:
        self.file, self.modified = file, modified
        self.last_modified = formatdate(modified, usegmt=True)
        self.length = sum(entry.size for entry in entries.values())
        self.resources = {path: _resource(entry, settings) for path, entry in entries.items()}
        self._index = settings.index
        self.not_found = self.resources.get(settings.not_found)

    def find(self, target: str) -> Resource | Moved | None:
        """The file that answers this target (RFC 9112 section 3.2). Raises BadTarget."""
        path, query = _path(target)
        if (found := self.resources.get(path)) is not None:
            return found
        folder = path if path.endswith("/") or not path else f"{path}/"
        for name in self._index:
            if (found := self.resources.get(folder + name)) is not None:
                if folder == path:
                    return found
                return Moved(f"/{quote(folder)}{query}")
        return None


def _path(target: str) -> tuple[str, str]:
    """The path without its first slash, decoded, and the query with its question mark."""
    if not target.startswith("/"):
        try:
            parts = urlsplit(target)
        except ValueError:
            raise BadTarget(target) from None
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise BadTarget(target)
        target = target[target.index("://") + 3 :]
        target = target[len(parts.netloc) :] or "/"
        if target.startswith("?"):
            target = f"/{target}"
    raw, mark, query = target.partition("?")
    try:
        decoded = unquote_to_bytes(raw[1:]).decode()
    except UnicodeDecodeError:
        raise BadTarget(target) from None
    if "\0" in decoded or "#" in target:
        raise BadTarget(target)
    return decoded, mark + query


def _resource(entry: Entry, settings: Settings) -> Resource:
    return Resource(
        entry.path,
        entry,
        f'"{entry.digest.hex()}"',
        _type(entry.path, settings),
        settings.cache_of(entry.path),
    )


def _type(path: str, settings: Settings) -> str:
    name = path.rpartition("/")[2].lower()
    for start in range(name.find("."), len(name)):
        if start >= 0 and name[start] == "." and name[start:] in settings.types:
            return settings.types[name[start:]]
    kind, encoding = _GUESS.guess_type(f"/{name}", strict=True)
    if encoding is not None:
        return _COMPRESSED.get(encoding, "application/octet-stream")
    if kind is None:
        return "application/octet-stream"
    if settings.charset and (kind.startswith("text/") or kind == "application/javascript"):
        return f"{kind}; charset={settings.charset}"
    return kind

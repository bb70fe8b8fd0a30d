"""Files that come out of an unpacking, within its limits: effects for each, and the list of contents."""

import json
import re
from collections.abc import Mapping

from locum.apps.decode.limits import FREE, Limits
from locum.apps.decode.streams import UnpackError
from locum.roles.app_contract import Effect
from locum.roles.app_network import Append, Decode, Remove, Rename, Sync, Truncate

MAX_PATH = 255
"""Characters of a member's path."""
_TAIL = 30  # characters of it in the name of its file


def safe_path(text: str) -> str:
    """The path of a member, relative and below the place where it is unpacked. Raises UnpackError."""
    path = text.removeprefix("./")
    parts = path.split("/")
    if (
        not path
        or len(path) > MAX_PATH
        or not path.isprintable()
        or "\\" in path
        or path.startswith("/")
        or ".." in parts
        or re.match(r"[A-Za-z]:", path)
    ):
        raise UnpackError(f"a member has the path {text[:80]!a}, which is not safe")
    return path


class Members:
    """`source` is the name of the packed file, `packed` its bytes."""

    def __init__(self, source: str, packed: int, limits: Limits) -> None:
        self._source, self._limits = source, limits
        self._most = min(max(FREE, limits.max_ratio * packed), limits.max_size)
        self.contents: list[dict[str, str | int]] = []
        self.passed_over = 0
        self.total = 0
        self.listed = 0  # bytes of the list of contents
        self._seen = 0
        self._open = ""
        self.unsynced: set[str] = set()

    @property
    def listing(self) -> str:
        """Name of the file with the list of contents: one JSON object a line, `path`, `file` and `size`."""
        return f"{self._source}.contents"

    def found(self, sizes: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
        """Names and bytes of the members that an earlier process has unpacked, in their order."""
        form = re.compile(re.escape(self._source) + r"\.(\d+)\.[A-Za-z0-9._-]*(?<!\.part)")
        rows = [(int(match[1]), name) for name in sizes if (match := form.fullmatch(name))]
        return tuple((name, sizes[name]) for _, name in sorted(rows))

    def begin(self, path: str) -> list[Effect]:
        """A member. Raises UnpackError."""
        if len(self.contents) >= self._limits.max_members:
            raise UnpackError(f"it has more than {self._limits.max_members} members")
        path = safe_path(path)
        tail = re.sub(r"[^A-Za-z0-9._-]", "_", path)[-_TAIL:]
        name = f"{self._source}.{len(self.contents) + 1}.{tail}"
        self.contents.append({"path": path, "file": name, "size": 0})
        self._open = f"{name}.part"
        return [Truncate(self._open, 0)]

    def saw(self, count: int) -> None:
        """So many unpacked bytes, whatever they are: headers, and what follows the end of an archive. Raises UnpackError."""
        self._seen += count
        if self._seen > self._most + FREE:
            raise self._too_much()

    def _too_much(self) -> UnpackError:
        return UnpackError(f"it unpacks to more than {self._most} bytes (max_size, max_ratio)")

    def write(self, data: bytes) -> list[Effect]:
        """Bytes of the member. Raises UnpackError beyond a limit."""
        self.total += len(data)
        if self.total > self._most:
            raise self._too_much()
        row = self.contents[-1]
        row["size"] = int(row["size"]) + len(data)
        return [Append(self._open, data)]

    def decode(self, form: str) -> list[Effect]:
        """Have the whole packed file decoded into the member; `decoded` follows."""
        return [Decode(self._source, self._open, form, self._most)]

    def decoded(self, size: int) -> list[Effect]:
        """The member has so many bytes."""
        self.total += size
        self.contents[-1]["size"] = size
        return self.close()

    def close(self) -> list[Effect]:
        """The member is complete."""
        self.unsynced.add(self._open)
        return [Sync(self._open)]

    def finish(self) -> list[Effect]:
        """All members are durable: write the list of contents."""
        lines = "".join(json.dumps(row) + "\n" for row in self.contents)
        self.listed = len(lines)
        part = f"{self.listing}.part"
        self.unsynced = {part}
        return [Truncate(part, 0), *([Append(part, lines.encode())] if lines else []), Sync(part)]

    def name(self) -> list[Effect]:
        """Everything gets its name; the list comes last."""
        self.unsynced = {self.listing}
        files = [str(row["file"]) for row in self.contents]
        return [*(Rename(f"{name}.part", name) for name in (*files, self.listing)), Sync(self.listing)]

    def remove(self) -> list[Effect]:
        """Nothing of it stays."""
        files = [str(row["file"]) for row in self.contents] + [self.listing]
        return [*(Remove(f"{name}.part") for name in files), *(Remove(name) for name in files)]

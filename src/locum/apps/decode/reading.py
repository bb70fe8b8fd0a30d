"""The course of an unpacking, as a generator: it yields effects whose last one is a `Load`, and gets the bytes of it.

A step reads or writes at most `STEP` bytes and some, so that the process answers everything else between two of them.
"""

import codecs
import io
import struct
import zipfile
import zlib
from collections.abc import Generator
from typing import TypeAlias

from locum.apps.decode.audio import form_of
from locum.apps.decode.members import Members
from locum.apps.decode.streams import Stream, UnpackError, compression
from locum.apps.decode.tar import BLOCK, Member, MemberEnd, PassedOver, Tar, is_tar
from locum.roles.app_contract import Effect
from locum.roles.app_network import Load

CHUNK = 64 << 10
"""Bytes of the packed file in one step."""
STEP = 1 << 20
"""Unpacked bytes of one step."""
DIRECTORY = 256 << 10
"""Bytes at the end of a zip archive that hold its whole directory: some hundred times more than 200 members need."""
PIECE = 256 << 10
_LOCAL = struct.Struct("<4s22sHH")
_METHODS = {zipfile.ZIP_DEFLATED: "deflate", zipfile.ZIP_BZIP2: "bzip2", 93: "zstd"}
_ENCRYPTED = 0x1
codecs.lookup("cp437")  # zipfile decodes names with it; a confined process can load nothing later

Course: TypeAlias = Generator[list[Effect], bytes, None]


class Reader:
    """Reads the packed file, and collects effects between two reads."""

    def __init__(self, source: str, size: int, members: Members) -> None:
        self._source, self.size, self.members = source, size, members
        self._effects: list[Effect] = []
        self._written = 0

    def add(self, effects: list[Effect]) -> None:
        """Carry these out before the next read."""
        self._effects += effects

    def load(self, offset: int, length: int) -> Generator[list[Effect], bytes, bytes]:
        """Bytes of the packed file."""
        effects, self._effects, self._written = self._effects, [], 0
        return (yield [*effects, Load(self._source, offset, length)])

    def write(self, data: bytes) -> Course:
        """Bytes of the present member; a step ends if it has written enough."""
        self.add(self.members.write(data))
        self._written += len(data)
        yield from self.rest()

    def rest(self, count: int = 0) -> Course:
        """End the step if it was long: one byte is read, for the way through the event loop."""
        self._written += count
        if self._written >= STEP:
            yield from self.load(0, 1)

    def last(self) -> list[Effect]:
        """Effects behind the last read."""
        effects, self._effects = self._effects, []
        return effects


class AudioFound(Exception):
    """The file is audio of this form, which no course reads."""

    def __init__(self, form: str) -> None:
        super().__init__(form)
        self.form = form


def course(reader: Reader, stem: str, *, audio: bool = False) -> Course:
    """Unpack the file, by its first bytes; `stem` is the path of a single member. Raises UnpackError, and with `audio` AudioFound."""
    beginning = yield from reader.load(0, CHUNK)
    if audio and (form := form_of(beginning)) is not None:
        raise AudioFound(form)
    if (name := compression(beginning)) is not None:
        yield from _compressed(reader, name, beginning, stem)
    elif beginning.startswith((b"PK\3\4", b"PK\5\6")):
        yield from _zip(reader)
    elif is_tar(beginning):
        yield from _plain_tar(reader, beginning)
    else:
        raise UnpackError("its format is none of gzip, xz, zstd, bzip2, zip and tar")


def _compressed(reader: Reader, name: str, beginning: bytes, stem: str) -> Course:
    stream, offset, first = Stream(name), len(beginning), b""
    stream.feed(beginning)
    sink: Tar | None = None
    decided = False
    while True:
        data = stream.read(PIECE)
        if data and not decided:
            first += data
            if len(first) < BLOCK:
                continue
            data, decided = first, True
            sink = Tar() if is_tar(first) else None
            if sink is None:
                reader.add(reader.members.begin(stem))
        if data:
            yield from _deliver(reader, sink, data)
            continue
        more = yield from reader.load(offset, CHUNK)
        if not more:
            break
        offset += len(more)
        stream.feed(more)
    if not stream.complete:
        raise UnpackError("it ends in the middle")
    if not decided:
        reader.add(reader.members.begin(stem))
        yield from reader.write(first)
    _ended(reader, sink)


def _plain_tar(reader: Reader, data: bytes) -> Course:
    tar, offset = Tar(), 0
    while data:
        offset += len(data)
        yield from _deliver(reader, tar, data)
        data = yield from reader.load(offset, CHUNK)
    _ended(reader, tar)


def _deliver(reader: Reader, sink: Tar | None, data: bytes) -> Course:
    if sink is None:
        yield from reader.write(data)
        return
    reader.members.saw(len(data))
    for item in sink.read(data):
        match item:
            case Member(path=path):
                reader.add(reader.members.begin(path))
            case bytes():
                yield from reader.write(item)
            case MemberEnd():
                reader.add(reader.members.close())
            case PassedOver():
                reader.members.passed_over += 1
    yield from reader.rest(len(data))


def _ended(reader: Reader, sink: Tar | None) -> None:
    if sink is None:
        reader.add(reader.members.close())
    elif not sink.complete:
        raise UnpackError("its tar archive ends in the middle")


# zip (APPNOTE.TXT of PKWARE) ----------------------------------------------------------------------------------------


def _zip(reader: Reader) -> Course:
    length = min(reader.size, DIRECTORY)
    tail = yield from reader.load(reader.size - length, length)
    before = reader.size - len(tail)
    try:
        archive = zipfile.ZipFile(io.BytesIO(tail))
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError) as problem:
        raise UnpackError(f"its directory cannot be read: {problem}") from problem
    for entry in archive.infolist():
        if entry.filename.endswith("/"):
            continue
        if entry.flag_bits & _ENCRYPTED:
            raise UnpackError(f"{entry.filename[:80]!a} is encrypted")
        if entry.external_attr >> 28 not in (0, 8):  # the type of a Unix file: none told, or a regular one
            reader.members.passed_over += 1
            continue
        if entry.compress_type != zipfile.ZIP_STORED and entry.compress_type not in _METHODS:
            raise UnpackError(f"{entry.filename[:80]!a} is packed by method {entry.compress_type}")
        # zipfile takes what precedes the directory in `tail` for the whole archive, and moves the offsets.
        yield from _zip_member(reader, entry, entry.header_offset + before)


def _zip_member(reader: Reader, entry: zipfile.ZipInfo, at: int) -> Course:
    damaged = UnpackError(f"{entry.filename[:80]!a} in it is damaged")
    if not 0 <= at < reader.size:
        raise damaged
    header = yield from reader.load(at, _LOCAL.size)
    if len(header) < _LOCAL.size:
        raise damaged
    magic, _, name, extra = _LOCAL.unpack(header)
    if magic != b"PK\3\4":
        raise damaged
    reader.add(reader.members.begin(entry.filename))
    offset, left = at + _LOCAL.size + name + extra, entry.compress_size
    method = _METHODS.get(entry.compress_type)
    stream = None if method is None else Stream(method)
    checksum = size = 0
    while left:
        data = yield from reader.load(offset, min(left, CHUNK))
        if not data:
            raise damaged
        offset, left = offset + len(data), left - len(data)
        if stream is not None:
            stream.feed(data)
        while piece := (data if stream is None else stream.read(PIECE)):
            checksum, size = zlib.crc32(piece, checksum), size + len(piece)
            yield from reader.write(piece)
            if stream is None:
                break
    if checksum != entry.CRC or size != entry.file_size:
        raise damaged
    reader.add(reader.members.close())

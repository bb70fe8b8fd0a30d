"""Unpacking of downloads: formats, bounds and damaged files (A9), in the download proxy on a virtual clock."""

import bz2
import contextlib
import gzip
import io
import json
import lzma
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.apps.decode.limits import FREE
from locum.apps.decode.reading import STEP
from locum.apps.decode.streams import Stream, UnpackError
from locum.apps.decode.tar import Tar
from locum.roles.action_values.addresses import JSON
from locum.roles.app_results import outcome
from tests.apps.download.servers import Http
from tests.apps.download.world import World

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = b"".join(b"line %d\n" % number for number in range(120_000))
NOISE = Random(3).randbytes(300_000)
PACKERS: Mapping[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lambda content: lzma.compress(content, preset=0),
    "bz2": bz2.compress,
    "zst": zstd.compress,
}


def unpacked(packed: bytes, name: str = "x", decode: JSON = True, room: int = 1 << 40) -> World:
    """The world after it has downloaded and unpacked this."""
    world = World(
        {"url": f"http://files.example/{name}", "decode": decode}, Http(packed, step=1 << 18), room=room
    )
    world.run()
    return world


def contents(world: World, name: str = "x") -> Mapping[str, bytes]:
    """Members by their paths."""
    rows = [json.loads(line) for line in world.content(f"{name}.contents").splitlines()]
    assert all(row["size"] == len(world.files[row["file"]]) for row in rows)
    return {row["path"]: world.content(row["file"]) for row in rows}


def reason(world: World) -> str:
    (event,) = world.told("decode_failed")
    assert set(world.files) == {"x"}, "nothing but the packed file stays"
    found = outcome(world.app.end(now=world.now))
    assert found.done and found.problem == f"x is not decoded: {event['reason']}"
    return str(event["reason"])


def tar(*members: tuple[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for path, content in members:
            information = tarfile.TarInfo(path)
            information.size = len(content)
            archive.addfile(information, io.BytesIO(content))
    return file.getvalue()


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for path, content in members:
            archive.writestr(path, content)
    return file.getvalue()


@pytest.mark.parametrize("ending", PACKERS)
@pytest.mark.parametrize("content", [b"", b"a", TEXT, NOISE], ids=["empty", "one", "text", "noise"])
def test_one_compressed_file(ending: str, content: bytes) -> None:
    world = unpacked(PACKERS[ending](content), f"log.{ending}")
    assert contents(world, f"log.{ending}") == {"log": content}
    (event,) = world.told("decoded")
    assert event["members"] == 1 and event["size"] == len(content)
    assert world.largest <= 2 * STEP, "a step is bounded"
    files = {name for name in world.files if not name.endswith(".part")}
    assert files == set(world.files) and all(world.durable[name] == len(world.files[name]) for name in files)


@pytest.mark.parametrize("ending", PACKERS)
def test_several_frames_in_a_row(ending: str) -> None:
    world = unpacked(PACKERS[ending](TEXT) + PACKERS[ending](NOISE))
    assert contents(world) == {"x": TEXT + NOISE}


@pytest.mark.parametrize("ending", ["", *PACKERS])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_tar(ending: str, form: int) -> None:
    long = "d/" * 40 + "name" if form == tarfile.USTAR_FORMAT else "d/" * 80 + "näme"
    members = (("./a", b""), ("b/c.txt", TEXT), (long, NOISE), ("b/d", b"x" * 512))
    packed = tar(*members, form=form)
    world = unpacked(PACKERS[ending](packed) if ending else packed)
    assert contents(world) == {path.removeprefix("./"): content for path, content in members}


def test_links_and_devices_are_passed_over() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            information = tarfile.TarInfo("x" + kind.decode())
            information.type, information.linkname = kind, "/etc/passwd"
            archive.addfile(information)
        archive.addfile(tarfile.TarInfo("file"))
    world = unpacked(file.getvalue())
    assert contents(world) == {"file": b""} and world.told("decoded")[0]["passed_over"] == 4


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_archives_of_zip(method: int) -> None:
    members = (("a", b""), ("b/c.txt", TEXT), ("näme", NOISE))
    packed = zipped(("d/", b""), *members, method=method)
    assert contents(unpacked(packed)) == dict(members)
    assert contents(unpacked(zipped())) == {}


def test_zip_longer_than_its_directory_is_read_in_place() -> None:
    noise = Random(4).randbytes(3 << 20)
    members = (("one", noise), ("two", noise[::-1]))
    assert contents(unpacked(zipped(*members))) == dict(members)


def bomb(ending: str) -> bytes:
    content = bytes(FREE + (32 << 20))
    return zipped(("zeros", content)) if ending == "zip" else PACKERS[ending](content)


@pytest.mark.parametrize("ending", ["zip", "gz", "xz", "zst", "bz2"])
def test_bomb_ends_with_a_reason(ending: str) -> None:
    world = unpacked(bomb(ending), decode={"max_ratio": 10})
    assert f"more than {FREE} bytes" in reason(world)
    assert world.largest <= 2 * STEP


@pytest.mark.parametrize("place", ["inside", "behind"])
def test_bomb_of_a_tar_ends_with_a_reason(place: str) -> None:
    zeros = bytes(3 * FREE)
    packed = gzip.compress(tar(("zeros", zeros)) if place == "inside" else tar(("a", b"")) + zeros)
    assert f"more than {FREE} bytes" in reason(unpacked(packed, decode={"max_ratio": 1}))


def test_total_size_and_members_are_bounded() -> None:
    packed = tar(*((f"f{number}", b"x") for number in range(5)))
    assert "more than 4 members" in reason(unpacked(packed, decode={"max_members": 4}))
    assert len(contents(unpacked(packed, decode={"max_members": 5}))) == 5
    assert "more than 4 bytes" in reason(unpacked(packed, decode={"max_size": 4}))
    many = zipped(*((f"f{number}", b"x") for number in range(5)))
    assert "more than 4 members" in reason(unpacked(many, decode={"max_members": 4}))


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x", "a\\b", "C:x", "a\nb", "a" * 256, "./"])
@pytest.mark.parametrize("pack", [tar, zipped])
def test_unsafe_paths_are_refused(path: str, pack: object) -> None:
    if pack is zipped and path == "./":
        return  # a directory
    packed = tar((path, b"x")) if pack is tar else zipped((path, b"x"))
    assert "is not safe" in reason(unpacked(packed))


@pytest.mark.parametrize(
    "packed, why",
    [
        (b"plain text", "its format is none of"),
        (b"", "its format is none of"),
        (bytes(1024), "its format is none of"),
        (gzip.compress(TEXT)[:-9], "ends in the middle"),
        (zstd.compress(TEXT)[:-9], "ends in the middle"),
        (gzip.compress(TEXT)[:50] + bytes(50), "damaged"),
        (lzma.compress(TEXT)[:100] + bytes(300), "damaged"),
        (gzip.compress(TEXT) + b"garbage", "damaged"),
        (tar(("a", TEXT))[:2000], "its tar archive ends in the middle"),
        (gzip.compress(tar(("a", TEXT))[:2000]), "its tar archive ends in the middle"),
        (zipped(("a", TEXT))[:-30], "its directory cannot be read"),
        (zipped(("a", b"abc")).replace(b"PK\1\2", b"PK\1\3"), "its directory cannot be read"),
        (zipped(("a", b"abc"), method=zipfile.ZIP_STORED).replace(b"abc", b"abd"), "damaged"),
        (zipped(("a", b"abc"), method=zipfile.ZIP_LZMA), "packed by method 14"),
    ],
)
def test_damaged_files_end_with_a_reason(packed: bytes, why: str) -> None:
    assert why in reason(unpacked(packed))


def test_encrypted_zip_is_refused() -> None:
    packed = bytearray(zipped(("a", b"abc"), method=zipfile.ZIP_STORED))
    packed[packed.index(b"PK\1\2") + 8] |= 1
    assert "'a' is encrypted" in reason(unpacked(bytes(packed)))


def test_window_larger_than_the_memory_is_refused() -> None:
    options: Mapping[int, int] = {
        zstd.CompressionParameter.window_log: 27,
        zstd.CompressionParameter.content_size_flag: 0,
    }
    compressor = zstd.ZstdCompressor(options=options)
    packed = compressor.compress(TEXT) + compressor.flush()
    assert "no zstd, or a damaged one" in reason(unpacked(packed))


def test_full_disk_leaves_the_packed_file() -> None:
    packed = gzip.compress(TEXT)
    assert "No space left" in reason(unpacked(packed, room=len(packed) + 1000))


def test_new_process_unpacks_again_and_reports_once() -> None:
    packed = gzip.compress(tar(("a", TEXT), ("b", NOISE)))
    world = World({"url": "http://files.example/x", "decode": True}, Http(packed, step=1 << 18))
    world.run(until=lambda: "x.1.a.part" in world.files)
    world.lose_power()
    world.run()
    assert contents(world) == {"a": TEXT, "b": NOISE}
    world.begin()
    world.run()
    assert len(world.told("decoded")) == len(world.told("delivered")) == 1
    result = world.app.end(now=world.now)["result"]
    assert isinstance(result, dict) and result["done"] is True
    assert [row[0] for row in result["files"]] == ["x", "x.1.a", "x.2.b", "x.contents"]


DAMAGED = {
    "zip": zipped(("a", b"abc"), ("b", b"x" * 2000)),
    "tar": tar(("a" * 120, b"abc"), ("b", b"x" * 2000)),
    **{ending: pack(tar(("a", b"abc"))) for ending, pack in PACKERS.items()},
}


@given(st.binary(max_size=1500))
def test_any_bytes_are_a_tar_or_an_error(data: bytes) -> None:
    archive = Tar()
    with contextlib.suppress(UnpackError):
        archive.read(tar(("a", b"b"))[:512] + data)


@given(
    st.sampled_from(["gzip", "xz", "zstd", "bzip2", "deflate"]), st.binary(max_size=200), st.integers(0, 30)
)
def test_any_bytes_are_a_stream_or_an_error(name: str, data: bytes, kept: int) -> None:
    good = {"deflate": zlib.compress(b"abc")[2:-4]} | {
        kind: PACKERS[ending](b"abc")
        for kind, ending in (("gzip", "gz"), ("xz", "xz"), ("zstd", "zst"), ("bzip2", "bz2"))
    }
    stream = Stream(name)
    stream.feed(good[name][:kept] + data)
    with contextlib.suppress(UnpackError):
        while len(stream.read(100)) == 100:
            pass


def test_zip_member_without_a_name_is_refused() -> None:
    packed = zipped(("a", b"abc"), method=zipfile.ZIP_STORED)
    nameless = packed.replace(b"\x01\0\0\0a", b"\0\0\0\0", 1)
    at = nameless.index(b"PK\1\2") + 28  # the length of the name in the directory, and the name itself
    nameless = nameless[:at] + b"\0\0" + nameless[at + 2 : at + 18] + nameless[at + 19 :]
    size = nameless.index(b"PK\5\6") + 12
    directory = nameless.index(b"PK\1\2")
    numbers = (size - 12 - directory).to_bytes(4, "little") + directory.to_bytes(4, "little")
    assert "is not safe" in reason(unpacked(nameless[:size] + numbers + nameless[size + 8 :]))


@given(st.sampled_from(["zip", "tar", "gz", "zst", "xz", "bz2"]), st.data())
def test_any_damage_ends_with_contents_or_a_reason(ending: str, data: st.DataObject) -> None:
    packed = bytearray(DAMAGED[ending])
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    world = unpacked(bytes(packed))
    assert len(world.told("decoded")) + len(world.told("decode_failed")) == 1

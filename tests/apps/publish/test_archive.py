"""Tar archives of every kind that stock programs make, and broken ones."""

import io
import os
import subprocess
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.apps.publish import archive
from locum.apps.publish.archive import ArchiveError, Entry, TarReader
from tests.apps.publish.world import archive as packed

LONG = "a/" * 80 + "name" * 10


def read(data: bytes, step: int = 1 << 20) -> dict[str, Entry]:
    reader = TarReader()
    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])
    return dict(reader.close())


@pytest.mark.parametrize("form", ["ustar", "gnu", "pax", "v7"])
@pytest.mark.parametrize("step", [1, 511, 512, 100_000])
def test_archive_of_gnu_tar(form: str, step: int, tmp_path: Path) -> None:
    names = ["index.html", "css/ü.css" if form != "v7" else "css/u.css", "empty"]
    names += [LONG] if form in ("gnu", "pax") else []
    contents = {name: os.urandom(700) if name != "empty" else b"" for name in names}
    for name, content in contents.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_bytes(content)
    command = ["tar", "-c", f"--format={form}", "-C", str(tmp_path / "root"), "."]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    entries = read(data, step)
    assert set(entries) == set(contents)
    for name, content in contents.items():
        entry = entries[name]
        assert data[entry.offset : entry.offset + entry.size] == content == entry.content
        assert entry.digest == sha256(content).digest()


@pytest.mark.parametrize("form", ["ustar", "gnu", "pax"])
def test_hard_link_is_the_file_by_another_path(form: str, tmp_path: Path) -> None:
    first = "a/" * 60 + "first" if form != "ustar" else "first"
    (tmp_path / first).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / first).write_bytes(b"content")
    (tmp_path / "second").hardlink_to(tmp_path / first)
    command = ["tar", "-c", f"--format={form}", "-C", str(tmp_path), first, "second"]
    entries = read(subprocess.run(command, check=True, capture_output=True).stdout)
    assert entries["second"].content == entries[first].content == b"content"
    assert entries["second"].path == "second"


def test_last_of_two_files_of_one_name_counts() -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for content in (b"old", b"newer"):
            header = tarfile.TarInfo("page")
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    assert read(sink.getvalue())["page"].content == b"newer"


@pytest.mark.parametrize("name", ["/etc/passwd", "../out", "a/../b", "a//b", "a/./b", "bell\a", "x" * 1100])
def test_unsafe_path_refuses_the_archive(name: str) -> None:
    with pytest.raises(ArchiveError):
        read(packed({"good": b"1", name: b"2"}))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE])
def test_other_kinds_of_entries_refuse_the_archive(kind: bytes) -> None:
    header = tarfile.TarInfo("thing")
    header.type, header.linkname = kind, "/etc/passwd"
    with pytest.raises(ArchiveError, match="thing"):
        read(header.tobuf() + bytes(1024))


@pytest.mark.parametrize("target", ["/etc/passwd", "../x", "missing"])
def test_link_to_a_file_elsewhere_refuses_the_archive(target: str) -> None:
    header = tarfile.TarInfo("thing")
    header.type, header.linkname = tarfile.LNKTYPE, target
    with pytest.raises(ArchiveError):
        read(header.tobuf() + bytes(1024))


def test_archive_that_ends_early_is_refused() -> None:
    whole = packed({"page": b"x" * 2000})
    for length in (0, 100, 512, 600, 2512):
        with pytest.raises(ArchiveError, match="ends in the middle"):
            read(whole[:length])


def test_foreign_bytes_are_refused() -> None:
    with pytest.raises(ArchiveError, match="no tar archive"):
        read(b"<!doctype html>" * 100)


def test_number_of_files_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_ENTRIES", 3)
    assert len(read(packed({str(n): b"" for n in range(3)}))) == 3
    with pytest.raises(ArchiveError, match="more than 3 files"):
        read(packed({str(n): b"" for n in range(4)}))


def test_memory_of_contents_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "KEPT", 50_000)
    entries = read(packed({"a": b"1" * 30_000, "b": b"2" * 30_000, "c": b"3" * 20_000, "big": b"4" * 40_000}))
    assert [name for name, entry in entries.items() if entry.content is not None] == ["a", "c"]


@pytest.mark.parametrize("size", ["-5", "x", "9" * 30])
def test_size_that_lies_is_refused(size: str) -> None:
    header = tarfile.TarInfo("page")
    header.size = 3
    data = header.create_pax_header(
        {**header.get_info(), "size": 3}, "utf-8"
    )  # a plain header; the record in front says something else
    record = f" size={size}\n"
    length = len(record) + 2
    extension = tarfile.TarInfo("PaxHeaders/page")
    extension.type, extension.size = tarfile.XHDTYPE, length
    front = extension.tobuf() + f"{length}{record}".encode().ljust(512, b"\0")
    with pytest.raises(ArchiveError, match="size"):
        read(front + data + bytes(1536))


def test_long_header_is_refused() -> None:
    header = tarfile.TarInfo("PaxHeaders/page")
    header.type, header.size = tarfile.XHDTYPE, 1 << 20
    with pytest.raises(ArchiveError, match="header has more than"):
        read(header.tobuf() + bytes(2048))


@given(st.binary(max_size=600), st.integers(0, 2560), st.integers(1, 600))
def test_damaged_archives_give_files_or_an_error(damage: bytes, place: int, step: int) -> None:
    data = bytearray(packed({"ü" * 60: b"x" * 700, "b": b""}))
    data[place : place + len(damage)] = damage
    try:
        entries = read(bytes(data), step)
    except ArchiveError:
        return
    assert all(entry.offset + entry.size <= len(data) for entry in entries.values())

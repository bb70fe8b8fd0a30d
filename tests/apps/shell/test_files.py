"""Files of a proxy: names, room, effects that are carried out as a whole or not at all, and a disk that is full (A1)."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from locum.apps.shell.files import OPEN, Files, is_name
from locum.roles.app_network import MAX_FILE_NAME, MAX_FILES, MAX_LOAD

ROOM = 1 << 20


def opened(directory: Path, room: int = ROOM) -> Files:
    return Files(os.open(directory, os.O_RDONLY | os.O_DIRECTORY), room)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return opened(tmp_path)


def refused(call: Callable[[], object]) -> int | None:
    """The error; no descriptor of the file is left in a traceback."""
    try:
        call()
    except OSError as problem:
        return problem.errno
    raise AssertionError("it was carried out")


def test_content_of_every_effect(files: Files, tmp_path: Path) -> None:
    files.append("a", b"hello ")
    files.append("a", b"world")
    assert files.load("a", 6, 100) == b"world" and files.load("a", 50, 1) == b""
    files.truncate("a", 5)
    files.append("a", b"!")
    assert (tmp_path / "a").read_bytes() == b"hello!"
    files.truncate("zeros", 3)
    assert files.size("zeros") == 3 and files.load("zeros", 0, 9) == b"\0\0\0"
    files.append("b", b"new")
    files.rename("b", "a")
    assert files.listing() == [("a", 3), ("zeros", 3)]
    assert (tmp_path / "a").read_bytes() == b"new" and not (tmp_path / "b").exists()
    files.append("a", b"er")
    files.remove("zeros")
    files.remove("never")
    assert opened(tmp_path).listing() == files.listing() == [("a", 5)]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/etc/passwd", ".hidden", "a b", "ä", "a\0b", "a\n", "x" * 101]
)
def test_names_that_no_file_has(files: Files, name: str) -> None:
    assert not is_name(name)
    assert refused(lambda: files.append(name, b"x")) == errno.EINVAL
    assert refused(lambda: files.truncate(name, 1)) == errno.EINVAL
    assert refused(lambda: files.load(name, 0, 1)) == errno.EINVAL
    files.append("a", b"x")
    assert refused(lambda: files.rename("a", name)) == errno.EINVAL
    assert refused(lambda: files.remove(name)) == errno.EINVAL
    assert is_name("x" * MAX_FILE_NAME) and files.listing() == [("a", 1)]


def test_missing_files_and_wrong_places(files: Files) -> None:
    files.append("a", b"x")
    for call in (
        lambda: files.load("b", 0, 1),
        lambda: files.rename("b", "a"),
        lambda: files.opened("b"),
    ):
        assert refused(call) == errno.ENOENT
    assert refused(lambda: files.load("a", -1, 1)) == errno.EINVAL
    assert refused(lambda: files.truncate("a", -1)) == errno.EINVAL


def test_room_is_for_all_files_together(files: Files) -> None:
    files.append("a", bytes(ROOM - 10))
    assert refused(lambda: files.append("b", bytes(11))) == errno.ENOSPC
    assert refused(lambda: files.truncate("b", 11)) == errno.ENOSPC
    assert files.listing() == [("a", ROOM - 10)], "nothing of them was carried out"
    files.append("b", bytes(10))
    files.truncate("a", 0)
    files.append("b", bytes(ROOM - 10))
    files.append("c", b"")
    files.rename("c", "b")
    files.append("a", bytes(ROOM))


def test_room_counts_files_that_were_there(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(bytes(ROOM - 1))
    assert refused(lambda: opened(tmp_path).append("new", b"xx")) == errno.ENOSPC


def test_number_of_files_is_bounded(files: Files) -> None:
    before = len(os.listdir("/proc/self/fd"))  # other tests of this process have some
    for number in range(MAX_FILES):
        files.append(f"f{number}", b"x")
    assert refused(lambda: files.append("more", b"x")) == errno.EMFILE
    files.append("f0", b"y")
    files.rename("f1", "f2")
    files.append("more", b"x")
    assert len(os.listdir("/proc/self/fd")) <= before + OPEN
    assert files.load("f0", 0, 9) == b"xy" and len(files.listing()) == MAX_FILES


def test_one_load_is_bounded(files: Files) -> None:
    files.append("a", bytes(ROOM))
    assert len(files.load("a", 0, ROOM)) == MAX_LOAD


def test_file_that_is_replaced_is_read_to_its_end(files: Files) -> None:
    files.append("a", b"old")
    old = files.opened("a")
    files.append("b", b"new")
    files.rename("b", "a")
    assert os.pread(old.fd, 9, 0) == b"old" and files.load("a", 0, 9) == b"new"


def test_things_of_an_earlier_process_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("/etc/passwd")
    files = opened(tmp_path)
    assert files.listing() == []
    assert refused(lambda: files.append("link", b"x")) == errno.ELOOP
    assert refused(lambda: files.load("link", 0, 9)) == errno.ENOENT


def test_file_that_comes_while_they_are_listed(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in gives a sent file its name between the listing and the look at its size."""
    (tmp_path / "there").write_bytes(b"12345")
    part = tmp_path / ".coming.part"
    part.write_bytes(b"123")
    listed = [*os.scandir(tmp_path)]
    part.rename(tmp_path / "coming")
    monkeypatch.setattr(os, "scandir", lambda _directory: iter(listed))
    files.look()
    assert files.listing() == [("there", 5)]
    monkeypatch.undo()
    files.look()
    assert files.listing() == [("coming", 3), ("there", 5)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_full_disk_leaves_nothing_of_an_effect(small_disk: Path) -> None:
    files = opened(small_disk, 1 << 30)
    files.append("a", bytes(600 << 10))
    assert refused(lambda: files.append("a", bytes(600 << 10))) == errno.ENOSPC
    assert refused(lambda: files.append("b", bytes(600 << 10))) == errno.ENOSPC
    assert files.listing() == [("a", 600 << 10)]
    assert sorted(os.listdir(small_disk)) == ["a"] and (small_disk / "a").stat().st_size == 600 << 10
    files.append("a", bytes(200 << 10))
    files.remove("a")
    files.append("b", bytes(900 << 10))
    assert files.size("b") == 900 << 10

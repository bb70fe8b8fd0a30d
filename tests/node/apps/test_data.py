"""Files of proxies: names, ranges, uploads that appear whole, removal, and directories that are of no use any more."""

import errno
import hashlib
import os
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from locum.node.apps.data import AppData, DataError, checked_name

DEVICE, OTHER = IPv4Address("10.10.100.4"), IPv4Address("10.10.100.5")
DAY = 86400.0


@pytest.fixture
def data(tmp_path: Path) -> AppData:
    return AppData(tmp_path / "apps")


def sent(data: AppData, file: str, content: bytes, name: str = "one") -> None:
    for offset in range(0, len(content), 4):
        data.stage(DEVICE, name, file, offset, content[offset : offset + 4])
    data.commit(DEVICE, name, file, len(content), hashlib.sha256(content).digest())


def test_upload_appears_whole(data: AppData) -> None:
    data.stage(DEVICE, "one", "content", 0, b"0123")
    assert data.files(DEVICE, "one") == [] and data.staged(DEVICE, "one", "content") == 4
    sent(data, "content", b"0123456789")
    assert data.files(DEVICE, "one") == [("content", 10)]
    assert data.read(DEVICE, "one", "content", 3, 4) == (b"3456", 10)
    assert data.staged(DEVICE, "one", "content") == 0


def test_upload_replaces_the_file_before(data: AppData) -> None:
    sent(data, "content", b"old")
    data.stage(DEVICE, "one", "content", 0, b"ne")
    assert data.read(DEVICE, "one", "content", 0, 9) == (b"old", 3)
    sent(data, "content", b"new!")
    assert data.read(DEVICE, "one", "content", 0, 9) == (b"new!", 4)


def test_damaged_upload_is_refused_and_removed(data: AppData) -> None:
    sent(data, "content", b"old")
    data.stage(DEVICE, "one", "content", 0, b"new")
    with pytest.raises(DataError, match="did not arrive"):
        data.commit(DEVICE, "one", "content", 3, hashlib.sha256(b"NEW").digest())
    assert data.staged(DEVICE, "one", "content") == 0
    assert data.read(DEVICE, "one", "content", 0, 9) == (b"old", 3)


def test_piece_at_the_wrong_place_writes_nothing(data: AppData) -> None:
    assert data.stage(DEVICE, "one", "content", 0, b"0123") == 4
    assert data.stage(DEVICE, "one", "content", 8, b"89") == 4
    assert data.stage(DEVICE, "one", "content", 2, b"xx") == 4
    assert data.stage(DEVICE, "one", "content", 4, b"4567") == 8


def test_repeated_commit_is_answered_alike(data: AppData) -> None:
    sent(data, "content", b"0123")
    data.commit(DEVICE, "one", "content", 4, hashlib.sha256(b"0123").digest())
    with pytest.raises(DataError, match="nothing of content"):
        data.commit(DEVICE, "one", "content", 4, hashlib.sha256(b"4567").digest())


def test_full_disk_leaves_the_upload_where_it_was(data: AppData, monkeypatch: pytest.MonkeyPatch) -> None:
    data.stage(DEVICE, "one", "content", 0, b"0123")
    written = os.pwrite

    def full(descriptor: int, piece: memoryview, offset: int) -> int:
        written(descriptor, piece[:2], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        data.stage(DEVICE, "one", "content", 4, b"4567")
    monkeypatch.undo()
    assert data.staged(DEVICE, "one", "content") == 4
    assert data.stage(DEVICE, "one", "content", 4, b"4567") == 8


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a b", "ä", "x" * 101])
def test_wrong_file_name_is_refused(data: AppData, name: str) -> None:
    with pytest.raises(DataError, match="is no name of a file"):
        checked_name(name)
    with pytest.raises(DataError):
        data.read(DEVICE, "one", name, 0, 1)


@pytest.mark.parametrize("name", ["..", "a/b", ".", "ä" * 64, "x y", "%2E"])
def test_any_name_of_an_order_has_its_own_directory(data: AppData, name: str) -> None:
    directory = data.directory(DEVICE, name, make=True)
    assert directory.parent == data.root / str(DEVICE)
    sent(data, "file", b"1", name)
    assert data.files(DEVICE, name) == [("file", 1)]
    assert data.directory(DEVICE, ".") != data.directory(DEVICE, "%2E")


def test_symbolic_link_is_not_followed(data: AppData, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (data.directory(DEVICE, "one", make=True) / "link").symlink_to(tmp_path / "secret")
    assert data.files(DEVICE, "one") == []
    with pytest.raises(OSError, match="symbolic"):
        data.read(DEVICE, "one", "link", 0, 9)


def test_removal_takes_everything_of_one_order(data: AppData) -> None:
    sent(data, "file", b"1")
    sent(data, "file", b"2", "two")
    data.stage(DEVICE, "one", "more", 0, b"1")
    assert data.used(DEVICE) == 3 and data.used(OTHER) == 0
    data.remove(DEVICE, "one")
    data.remove(DEVICE, "one")
    assert data.files(DEVICE, "one") == [] and data.files(DEVICE, "two") == [("file", 1)]
    data.remove(DEVICE, "two")
    assert list(data.root.iterdir()) == []


def test_old_directories_without_use_are_removed(data: AppData) -> None:
    for name in ("old", "kept", "new"):
        sent(data, "file", b"1", name)
        long_ago = data.directory(DEVICE, name).stat().st_mtime - 8 * DAY
        os.utime(data.directory(DEVICE, name), (long_ago, long_ago))
    data.touch(DEVICE, "new")
    removed = data.sweep(7 * DAY, frozenset({data.directory(DEVICE, "kept")}))
    assert removed == [data.directory(DEVICE, "old")]
    assert data.files(DEVICE, "kept") and data.files(DEVICE, "new")


def test_missing_file_is_named(data: AppData) -> None:
    with pytest.raises(DataError, match="one has no file content"):
        data.digest(DEVICE, "one", "content")
    sent(data, "content", b"0123")
    assert data.digest(DEVICE, "one", "content") == (hashlib.sha256(b"0123").digest(), 4)

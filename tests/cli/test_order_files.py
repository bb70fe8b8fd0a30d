"""Files of orders at the device's disk: resumed, checked, whole or not there; directories go up in one go."""

import base64
import fcntl
import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from locum.cli.main import cli
from locum.cli.orders import files as module
from locum.cli.orders.commands import _made, _name_of, _settings
from locum.cli.orders.files import ARCHIVE, PIECE, TransferFailed, Wanted, fetch, send_directory, send_file
from locum.node.control.client import NodeClient, NodeRefused

CONTENT = os.urandom(3 * PIECE + 17)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
FOX = Wanted("fox", len(CONTENT), DIGEST)


class Node:
    """A node whose stand-in has one file and takes others; `trouble` may change an answer."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content = content
        self.offsets: list[int] = []
        self.trouble: Callable[[int, dict[str, Any]], dict[str, Any]] = lambda _number, answer: answer
        self.sent = b""
        self.committed: Mapping[str, Any] = {}
        self.asked = 0

    @property
    def client(self) -> NodeClient:
        return cast(NodeClient, self)

    def stream(
        self, request: str, arguments: Iterable[Mapping[str, Any]], window: int
    ) -> Generator[Any, None, None]:
        assert request == "order read" and window > 1
        for given in arguments:
            offset = given["offset"]
            self.offsets.append(offset)
            piece = self.content[offset : offset + given["limit"]]
            answer = {"data": base64.b64encode(piece).decode(), "bytes": len(self.content)}
            yield self.trouble(len(self.offsets), answer)

    def request(self, request: str, **given: Any) -> Any:
        self.asked += 1
        match request:
            case "order digest":
                return {"sha256": hashlib.sha256(self.content).hexdigest(), "bytes": len(self.content)}
            case "order write":
                data = base64.b64decode(given["data"])
                if given["offset"] == len(self.sent) or not given["offset"]:
                    self.sent = self.sent[: given["offset"]] + data
                return self.trouble(self.asked, {"bytes": len(self.sent)})
            case "order commit":
                self.committed = given
                return {}
        raise AssertionError(request)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)


def test_file_comes_whole_under_its_name(tmp_path: Path) -> None:
    assert fetch(Node().client, "order", FOX, tmp_path)
    assert (tmp_path / "fox").read_bytes() == CONTENT and os.listdir(tmp_path) == ["fox"]


def test_file_goes_up_under_its_name(tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    path.write_bytes(CONTENT)
    node = Node(b"")
    assert send_file(node.client, "order", path) == len(CONTENT) and node.sent == CONTENT
    assert (node.committed["file"], node.committed["sha256"]) == ("book.xlsx", DIGEST)
    with pytest.raises(TransferFailed, match="nothing has changed"):
        send_file(node.client, "order", tmp_path / "missing")


def test_file_that_is_here_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "fox").write_bytes(CONTENT)
    node = Node()
    assert not fetch(node.client, "order", FOX, tmp_path)
    assert node.offsets == []


def test_digest_is_asked_for_where_the_result_has_none(tmp_path: Path) -> None:
    assert fetch(Node().client, "order", Wanted("fox", len(CONTENT)), tmp_path)
    with pytest.raises(TransferFailed, match="has changed at the stand-in"):
        fetch(Node(CONTENT + b"x").client, "order", Wanted("fox", len(CONTENT)), tmp_path / "..")


def test_unanswered_piece_is_asked_for_again(tmp_path: Path) -> None:
    node = Node()
    node.trouble = lambda number, answer: {"again": "no answer"} if number in (2, 3) else answer
    assert fetch(node.client, "order", FOX, tmp_path)
    assert node.offsets[:4] == [0, PIECE, PIECE, PIECE]


def test_interrupted_file_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    node = Node()
    node.trouble = lambda number, answer: {"again": "no answer"} if number == 3 else answer
    with pytest.raises(TransferFailed, match=f"no answer; the next fetch goes on at byte {2 * PIECE}"):
        fetch(node.client, "order", FOX, tmp_path)
    assert not (tmp_path / "fox").exists()
    again = Node()
    assert fetch(again.client, "order", FOX, tmp_path) and again.offsets[0] == 2 * PIECE
    assert (tmp_path / "fox").read_bytes() == CONTENT


def test_damaged_file_leaves_nothing(tmp_path: Path) -> None:
    node = Node()
    wrong = base64.b64encode(bytes(PIECE)).decode()
    node.trouble = lambda number, answer: {**answer, "data": wrong} if number == 1 else answer
    with pytest.raises(TransferFailed, match="did not arrive as it is"):
        fetch(node.client, "order", FOX, tmp_path)
    assert os.listdir(tmp_path) == []
    assert fetch(Node().client, "order", FOX, tmp_path)


def test_remainder_of_another_file_is_not_used(tmp_path: Path) -> None:
    (tmp_path / ".fox.locum-part").write_bytes(bytes(len(CONTENT) + 1))
    node = Node()
    assert fetch(node.client, "order", FOX, tmp_path) and node.offsets[0] == 0


def test_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    node = Node()
    node.trouble = lambda number, answer: {**answer, "bytes": 1} if number == 2 else answer
    with pytest.raises(TransferFailed, match="has changed"):
        fetch(node.client, "order", FOX, tmp_path)


def test_full_disk_is_told_before_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "fstatvfs", lambda _: os.statvfs_result((1, 1, *([0] * 8))))
    assert found.f_bavail
    with pytest.raises(
        TransferFailed, match=rf"no room; {len(CONTENT)} bytes are needed, and the file is still"
    ):
        fetch(Node().client, "order", FOX, tmp_path)
    assert os.listdir(tmp_path) == []


def test_second_fetch_at_the_same_time_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / ".fox.locum-part", "wb") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        with pytest.raises(TransferFailed, match="another fetch"):
            fetch(Node().client, "order", FOX, tmp_path)
    assert fetch(Node().client, "order", FOX, tmp_path)


def test_link_of_another_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("keep")
    (tmp_path / ".fox.locum-part").symlink_to(tmp_path / "victim")
    with pytest.raises(TransferFailed, match="symbolic links"):
        fetch(Node().client, "order", FOX, tmp_path)
    assert (tmp_path / "victim").read_text() == "keep"


def test_missing_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(TransferFailed, match="No such file or directory"):
        fetch(Node().client, "order", FOX, tmp_path / "nowhere")


def site(directory: Path) -> None:
    (directory / "sub").mkdir()
    (directory / "index.html").write_text("<p>fox</p>")
    (directory / "sub" / "large").write_bytes(CONTENT)


def test_directory_goes_up_as_one_archive(tmp_path: Path) -> None:
    site(tmp_path)
    node = Node()
    size = send_directory(node.client, "order", tmp_path)
    assert size == len(node.sent)
    assert node.committed == {
        "name": "order",
        "file": ARCHIVE,
        "bytes": size,
        "sha256": hashlib.sha256(node.sent).hexdigest(),
    }
    with tarfile.open(fileobj=io.BytesIO(node.sent), mode="r:") as archive:
        assert archive.getnames() == ["sub", "index.html", "sub/large"]
        member = archive.extractfile("sub/large")
        assert member is not None and member.read() == CONTENT
        assert {member.uid for member in archive.getmembers()} == {0}


def test_lost_answer_to_a_piece_is_no_fault(tmp_path: Path) -> None:
    site(tmp_path)
    node = Node()
    node.trouble = lambda number, answer: {"again": "no answer"} if number == 2 else answer
    assert send_directory(node.client, "order", tmp_path) == len(node.sent)


def test_upload_beside_another_is_refused(tmp_path: Path) -> None:
    site(tmp_path)
    node = Node()
    node.trouble = lambda number, answer: {"bytes": 7} if number == 2 else answer
    with pytest.raises(TransferFailed, match="another upload"):
        send_directory(node.client, "order", tmp_path)
    assert not node.committed


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_other_things_than_files_are_refused(kind: str, tmp_path: Path) -> None:
    site(tmp_path)
    if kind == "link":
        (tmp_path / "odd").symlink_to("/etc/passwd")
    else:
        os.mkfifo(tmp_path / "odd")
    node = Node()
    with pytest.raises(TransferFailed, match="odd is neither a file nor a directory; nothing was sent"):
        send_directory(node.client, "order", tmp_path)
    assert node.sent == b""


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 2)
    site(tmp_path)
    with pytest.raises(TransferFailed, match="more than 2 files"):
        send_directory(Node().client, "order", tmp_path)


def test_settings_are_json_or_text() -> None:
    pairs = ("a=8", 'b=["x", 1]', "c=true", "d=a b", 'e="8"', "f=", "g=NaN", "url=http://h/?a=b")
    assert _settings(pairs) == {
        "a": 8,
        "b": ["x", 1],
        "c": True,
        "d": "a b",
        "e": "8",
        "f": "",
        "g": "NaN",
        "url": "http://h/?a=b",
    }


@pytest.mark.parametrize(
    ("pairs", "reason"), [(["a"], "KEY=VALUE"), (["=1"], "KEY=VALUE"), (["a=1", "a=2"], "twice")]
)
def test_wrong_settings_are_wrong_usage(pairs: list[str], reason: str) -> None:
    from click.testing import CliRunner

    result = CliRunner().invoke(cli, ["order", "add", "download", "fox", *pairs])
    assert result.exit_code == 2 and reason in result.output


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.org/pub/fox.tar.gz?x=1", "fox.tar.gz"),
        ("https://example.org/", "example.org"),
        ("http://example.org/a%20b/", "a-20b"),
        ("http://example.org/.hidden", "hidden"),
        ("x", "x"),
        ("http://example.org/" + "x" * 99, "x" * 64),
    ],
)
def test_name_of_a_download(url: str, name: str) -> None:
    assert _name_of(url) == name


class Site:
    """A node that has an order `site`."""

    def request(self, request: str, **_: Any) -> Any:
        row = {"order": "site", "kind": "publish", "state": "waiting"}
        return {"order list": [row], "order show": row | {"settings": {"port": 80, "charset": ""}}}[request]


@pytest.mark.parametrize("settings", [{}, {"port": 80}, {"port": 80, "charset": ""}])
def test_same_publish_command_replaces_the_content(settings: dict[str, Any]) -> None:
    assert _made(cast(NodeClient, Site()), "site", settings) is None


@pytest.mark.parametrize("settings", [{"port": 81}, {"port": 80, "index": ["a"]}])
def test_publish_does_not_change_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(NodeRefused, match=f"with another {list(settings)[-1]}; cancel it"):
        _made(cast(NodeClient, Site()), "site", settings)

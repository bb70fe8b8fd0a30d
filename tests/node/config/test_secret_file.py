"""Files with secrets: only their owner may read them, and each refusal says how to mend it."""

import os
from pathlib import Path

import pytest

from locum.node.config.secret_file import SecretFileError, one_line, secret_text


def test_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("s3cret\n")
    path.chmod(0o640)
    with pytest.raises(SecretFileError) as raised:
        secret_text(path, "the key")
    assert str(raised.value) == f"{path} is open to others (mode 0640); run: chmod 600 {path}"
    path.chmod(0o600)
    assert secret_text(path, "the key") == "s3cret\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist; put the key, mode 0600"),
        (b"\xff", "is not ASCII text; put the key"),
        (bytes(70_000), "more than"),
    ],
)
def test_file_without_a_secret_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    with pytest.raises(SecretFileError, match=said):
        secret_text(path, "the key")


def test_directory_and_missing_encoding_are_named(tmp_path: Path) -> None:
    with pytest.raises(SecretFileError, match="cannot be read: Is a directory"):
        secret_text(tmp_path, "the key")
    path = tmp_path / "key"
    path.write_bytes("wörd".encode())
    path.chmod(0o600)
    assert secret_text(path, "the key", "utf-8") == "wörd"


def test_pipe_of_this_user_is_read() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"s3cret\n")
    os.close(writing)
    assert one_line(secret_text(Path(f"/dev/fd/{reading}"), "the key"), "pipe") == "s3cret"
    os.close(reading)


@pytest.mark.parametrize("text", ["", "a\nb"])
def test_secret_is_one_line(text: str) -> None:
    with pytest.raises(SecretFileError, match=r"pipe has . lines; the secret is one line"):
        one_line(text, "pipe")

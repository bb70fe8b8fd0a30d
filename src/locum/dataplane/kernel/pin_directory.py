"""The directories of one node under the bpffs: its pinned maps and links are in them."""

from contextlib import suppress
from pathlib import Path
from shutil import rmtree

_PARTS = ("maps", "links", "renewal")
_TRIES = 3


def make_directory(directory: Path) -> None:
    """Make the node's directory with those of its maps and links."""
    for part in _PARTS:
        _make(directory / part)


def remove_directory(directory: Path) -> None:
    """Remove the pins and directories of the node, and the directory of all nodes with the last of them."""
    for part in _PARTS:
        for path in (directory / part).iterdir():
            path.unlink()
        (directory / part).rmdir()
    directory.rmdir()
    _remove_if_empty(directory.parent)


def discard_directory(directory: Path) -> None:
    """Remove as much of a directory as an opening that failed has made of it."""
    rmtree(directory, ignore_errors=True)
    _remove_if_empty(directory.parent)


def _make(directory: Path) -> None:
    """Make the directory and its parents; repeat if another node removes an empty parent meanwhile."""
    for _ in range(_TRIES - 1):
        with suppress(FileNotFoundError):
            directory.mkdir(parents=True, exist_ok=True)
            return
    directory.mkdir(parents=True, exist_ok=True)


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()

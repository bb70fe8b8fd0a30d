"""Received bytes that a proxy replaces: the program's stream, its bounds, and its file."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.sessions.tcp.consumed import (
    MAX_REPLACEMENTS,
    MAX_REPLACING,
    Consumed,
    Replacement,
    Replacements,
)
from locum.sessions.tcp.errors import SessionError

STREAM = bytes(range(200))


def _read(replacements: Replacements, offset: int, limit: int) -> bytes:
    return replacements.read(offset, limit, lambda at, count: STREAM[at : at + count], len(STREAM))


@given(
    st.lists(
        st.tuples(
            st.integers(0, 199), st.integers(1, 60), st.sampled_from([b"", b"", b"x", b"replaced" * 4])
        ),
        max_size=12,
    ),
    st.integers(0, 300),
    st.integers(0, 300),
)
def test_stream_is_that_of_a_plain_model(
    ranges: list[tuple[int, int, bytes]], offset: int, limit: int
) -> None:
    """The model has, for each received byte, the bytes that the program gets in its place."""
    replacements = Replacements()
    model = [bytes([byte]) for byte in STREAM]
    owner: dict[int, tuple[int, int]] = {}
    for start, length, data in ranges:
        length = min(length, len(STREAM) - start)
        places = range(start, start + length)
        touched = {owner[place] for place in places if place in owner}
        whole = all(low >= start and high <= start + length for low, high in touched)
        if not data and len(touched) == 1 and not any(model[place] for place in places):
            whole = True
        try:
            replacements.add(Replacement(start, length, data))
        except SessionError:
            assert not whole or not data
            continue
        assert whole, "a part of a range was replaced"
        for place in places:
            model[place] = b""
            owner[place] = (start, start + length)
        model[start] = data
        if not data:  # ranges that adjoin and are left out are one
            low = high = start
            while low - 1 in owner and not any(model[p] for p in range(*owner[low - 1])):
                low = owner[low - 1][0]
            high = start + length
            while high in owner and not any(model[p] for p in range(*owner[high])):
                high = owner[high][1]
            for place in range(low, high):
                owner[place] = (low, high)
    wanted = b"".join(model)
    assert _read(replacements, 0, 10_000) == wanted
    assert _read(replacements, offset, limit) == wanted[offset : offset + limit]
    assert replacements.surplus == len(wanted) - len(STREAM)


def test_later_replacement_takes_the_place_of_those_it_covers() -> None:
    replacements = Replacements()
    replacements.add(Replacement(10, 5, b"five"))
    replacements.add(Replacement(20, 5, b""))
    replacements.add(Replacement(10, 5, b"again"))
    assert _read(replacements, 8, 10) == b"\x08\x09again\x0f\x10\x11"
    replacements.add(Replacement(9, 20, b"!"))
    assert len(replacements) == 1 and (replacements.consumed, replacements.replacing) == (20, 1)


@pytest.mark.parametrize(("start", "length"), [(-1, 4), (0, 0), (5, -1), (12, 2), (8, 4), (14, 9)])
def test_wrong_ranges_change_nothing(start: int, length: int) -> None:
    replacements = Replacements()
    replacements.add(Replacement(10, 5, b"five"))
    with pytest.raises(SessionError):
        replacements.add(Replacement(start, length, b"new"))
    assert [*replacements] == [Replacement(10, 5, b"five")]


def test_part_of_a_range_that_is_left_out_may_be_left_out_again() -> None:
    replacements = Replacements()
    for start in (0, 10, 20, 10):
        replacements.add(Replacement(start, 10, b""))
    assert [*replacements] == [Replacement(0, 30, b"")] and replacements.surplus == -30
    with pytest.raises(SessionError):
        replacements.add(Replacement(10, 10, b"late"))


def test_bounds() -> None:
    replacements = Replacements()
    with pytest.raises(SessionError, match="bytes take the place"):
        replacements.add(Replacement(0, 1, bytes(MAX_REPLACING + 1)))
    for number in range(MAX_REPLACEMENTS):
        replacements.add(Replacement(2 * number, 1, b""))
    with pytest.raises(SessionError, match="ranges are replaced"):
        replacements.add(Replacement(2 * MAX_REPLACEMENTS + 1, 1, b""))
    replacements.add(Replacement(1, 1, b""))  # it joins two
    assert len(replacements) == MAX_REPLACEMENTS - 1


def test_restarted_daemon_knows_replacements(tmp_path: Path) -> None:
    consumed = Consumed("s", tmp_path)
    consumed.replace(Replacement(3, 4, b"word"))
    consumed.replace(Replacement(50, 4, b""))
    with (tmp_path / "s.consumed").open("ab") as file:
        file.write(b"\0" * 9)  # of one that was being written when the daemon was killed
    again = Consumed("s", tmp_path)
    again.recover()
    assert [*again.replacements] == [*consumed.replacements] and again.surplus == -4
    again.replace(Replacement(60, 1, b"x"))
    third = Consumed("s", tmp_path)
    third.recover()
    assert [*third.replacements] == [*again.replacements]
    third.remove()
    assert not [*tmp_path.iterdir()]


def test_file_of_much_that_is_left_out_stays_small(tmp_path: Path) -> None:
    consumed = Consumed("s", tmp_path)
    for number in range(5000):
        consumed.replace(Replacement(100 * number, 100, b""))
    assert len(consumed.replacements) == 1
    assert (tmp_path / "s.consumed").stat().st_size < 30_000
    again = Consumed("s", tmp_path)
    again.recover()
    assert again.surplus == -500_000


def test_full_disk_replaces_nothing(tmp_path: Path) -> None:
    consumed = Consumed("s", tmp_path)
    consumed.replace(Replacement(0, 4, b"1234"))
    with _room_in_files(30), pytest.raises(OSError):
        consumed.replace(Replacement(4, 4, b"5678"))
    assert len(consumed.replacements) == 1
    consumed.replace(Replacement(8, 4, b"9012"))
    again = Consumed("s", tmp_path)
    again.recover()
    assert [item.start for item in again.replacements] == [0, 8]


@contextmanager
def _room_in_files(count: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_replacements_behind_a_position_are_taken_back(tmp_path: Path) -> None:
    consumed = Consumed("one", tmp_path)
    for item in (Replacement(0, 4, b"x"), Replacement(10, 10, b""), Replacement(30, 4, b"y")):
        consumed.replace(item)
    consumed.take_back(40)
    assert len(consumed.replacements) == 3
    consumed.take_back(15)
    kept = [Replacement(0, 4, b"x"), Replacement(10, 5, b"")]
    assert list(consumed.replacements) == kept and consumed.surplus == -8
    consumed.replace(Replacement(15, 2, b"z"))
    again = Consumed("one", tmp_path)
    again.recover()
    assert list(again.replacements) == [*kept, Replacement(15, 2, b"z")]
    again.take_back(0)
    assert not list(again.replacements) and again.surplus == 0

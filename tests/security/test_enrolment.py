"""Proof of a code: both ends have one set of keys with the same code only, and every change of a message parts them."""

import hashlib
from collections.abc import Callable

import pytest

from locum.security.enrolment import Exchange, Exchanged
from locum.security.sealing import seal, unseal
from locum.wire.enrolment.messages import ELEMENT_BYTES

SECRET = bytes.fromhex("0123456789")
NONCE = bytes(12)


def entropy(seed: bytes) -> Callable[[int], bytes]:
    """Bytes that follow from the seed."""
    return lambda count: hashlib.shake_256(seed).digest(count)


def ends(
    device: bytes = SECRET, server: bytes = SECRET, numbers: tuple[int, int] = (7, 7)
) -> tuple[Exchange, Exchange]:
    return (
        Exchange(device, numbers[0], is_server=False, entropy=entropy(b"device")),
        Exchange(server, numbers[1], is_server=True, entropy=entropy(b"server")),
    )


def exchanged(device: Exchange, server: Exchange, at_server: bytes = b"hello") -> tuple[Exchanged, Exchanged]:
    return (
        device.finish(server.element, b"hello", b"answer"),
        server.finish(device.element, at_server, b"answer"),
    )


def test_same_code_gives_the_same_keys() -> None:
    device, server = exchanged(*ends())
    assert device.joined == server.joined
    assert (device.sealing.own, device.sealing.peer) == (server.sealing.peer, server.sealing.own)
    keys = (
        *(getattr(device.joined, name) for name in ("preshared", "registration", "control")),
        device.sealing.own,
    )
    assert [len(key) for key in keys] == [32, 32, 16, 32]
    assert len({*keys, device.sealing.peer, device.joined.registration[:16]}) == 6, "no key has two uses"
    assert not any(key.hex() in repr(device) for key in keys)
    assert unseal(server.sealing.peer, seal(device.sealing.own, NONCE, b"proof", b""), b"") == b"proof"


def test_other_randomness_gives_other_keys() -> None:
    first = exchanged(*ends())[0]
    other = Exchange(SECRET, 7, is_server=False, entropy=entropy(b"again"))
    second = exchanged(other, ends()[1])[0]
    assert first.joined != second.joined


@pytest.mark.parametrize(
    "wrong",
    [
        {"device": bytes.fromhex("0123456788")},
        {"server": bytes.fromhex("0123456788")},
        {"numbers": (7, 8)},
    ],
    ids=str,
)
def test_wrong_code_proves_nothing(wrong: dict[str, bytes]) -> None:
    device, server = exchanged(*ends(**wrong))  # type: ignore[arg-type]
    assert device.joined != server.joined
    with pytest.raises(ValueError, match="not sealed"):
        unseal(server.sealing.peer, seal(device.sealing.own, NONCE, b"proof", b""), b"")


def test_changed_message_parts_the_ends() -> None:
    device, server = exchanged(*ends(), at_server=b"hello to another server")
    assert device.joined.registration != server.joined.registration
    with pytest.raises(ValueError, match="not sealed"):
        unseal(server.sealing.peer, seal(device.sealing.own, NONCE, b"proof", b""), b"")


def test_message_boundaries_are_bound() -> None:
    device, server = ends()
    one = device.finish(server.element, b"ab", b"c")
    other = server.finish(device.element, b"a", b"bc")
    assert one.joined != other.joined


@pytest.mark.parametrize(
    ("element", "problem"),
    [
        (b"", "33 bytes, not 0"),
        (bytes(34), "33 bytes, not 34"),
        (b"B" + bytes(32), "not valid"),
        (b"B\x01" + bytes(31), "not valid"),
        (b"B" + b"\xff" * 32, "not valid"),
        (b"B\x02" + bytes(31), "not valid"),
        (b"C" + bytes(32), "not valid"),
    ],
    ids=["empty", "long", "small-order", "neutral", "field", "no-point", "side"],
)
def test_elements_outside_the_group_are_refused(element: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ends()[0].finish(element, b"", b"")


def test_reflected_element_is_refused() -> None:
    device = ends()[0]
    for reflected in (device.element, b"B" + device.element[1:]):
        with pytest.raises(ValueError, match="not valid"):
            ends()[0].finish(reflected, b"", b"")


def test_an_element_has_the_size_of_the_message() -> None:
    assert [len(end.element) for end in ends()] == [ELEMENT_BYTES] * 2

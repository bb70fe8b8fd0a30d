"""Invitations on a virtual clock: one device each, 15 minutes, five wrong proofs, and the same after a restart."""

import hashlib
from itertools import count

import pytest

from locum.node.enrolment.invitations import (
    MOST_OPEN,
    MOST_WRONG,
    REMEMBERED,
    InvitationError,
    Invitations,
)
from locum.wire.enrolment.messages import Denied

QUARTER = 900.0
LAPTOP, OTHER = b"l" * 32, b"o" * 32


def invitations() -> Invitations:
    drawn = count()
    return Invitations(lambda size: hashlib.shake_256(str(next(drawn)).encode()).digest(size))


def test_exactly_one_device_wins() -> None:
    server = invitations()
    invited = server.invite("laptop", QUARTER, 0.0)
    assert server.secret(invited.number) == invited.secret
    assert invited.secret.hex() not in repr(invited)
    used = server.proved(invited.number, LAPTOP, 1.0)
    assert not isinstance(used, Denied) and (used.name, used.joined) == ("laptop", LAPTOP)
    assert server.proved(invited.number, OTHER, 2.0) is Denied.USED
    assert server.proved(invited.number, LAPTOP, 3.0) == used, "its answer was lost"
    assert server.proved(invited.number, LAPTOP, QUARTER) is Denied.USED
    assert server.open_rows(1.0) == {}, "the secret of a used code is in no row"


def test_expired_code_is_told_after_the_proof() -> None:
    server = invitations()
    number = server.invite("laptop", QUARTER, 0.0).number
    assert server.open_rows(QUARTER - 1) and not server.open_rows(QUARTER)
    assert server.proved(number, LAPTOP, QUARTER) is Denied.EXPIRED
    server.forget(QUARTER + REMEMBERED - 1)
    secret = server.secret(number)
    assert server.secret(number) == secret
    server.forget(QUARTER + REMEMBERED)
    assert server.secret(number) not in (secret, server.secret(number)), "erased: another each time"
    assert server.proved(number, LAPTOP, QUARTER + REMEMBERED) is Denied.EXPIRED


def test_code_ends_after_five_wrong_proofs() -> None:
    server = invitations()
    number = server.invite("laptop", QUARTER, 0.0).number
    assert [server.wrong(number, 1.0) for _ in range(MOST_WRONG + 1)] == [False] * 4 + [True, False]
    assert server.proved(number, LAPTOP, 2.0) is Denied.EXPIRED
    assert server.open_rows(2.0) == {}


def test_unknown_numbers_have_random_secrets() -> None:
    server = invitations()
    number = server.invite("laptop", QUARTER, 0.0).number
    unknown = (number + 1) & 0x7FFF
    assert server.secret(unknown) != server.secret(unknown) and len(server.secret(unknown)) == 5
    assert not server.wrong(unknown, 1.0)


def test_restart_keeps_open_codes_and_their_wrong_proofs() -> None:
    server = invitations()
    open_one, used = server.invite("laptop", QUARTER, 0.0), server.invite("phone", QUARTER, 0.0)
    for _ in range(MOST_WRONG - 1):
        server.wrong(open_one.number, 1.0)
    server.proved(used.number, LAPTOP, 1.0)
    restarted = invitations()
    assert restarted.restore(server.open_rows(2.0), 2.0) == []
    assert restarted.secret(open_one.number) == open_one.secret
    assert restarted.secret(used.number) != used.secret
    assert restarted.wrong(open_one.number, 3.0)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("x", {}),
        ("32768", {}),
        ("1", {"secret": "00"}),
        ("1", {"secret": "zz"}),
        ("1", {"name": 1}),
        ("1", {"expires_at": None}),
        ("1", {"wrong": "x"}),
    ],
)
def test_unreadable_rows_are_named(key: str, change: dict[str, object]) -> None:
    row = {"name": "laptop", "secret": "0123456789", "expires_at": 5.0, "wrong": 0} | change
    server = invitations()
    assert server.restore({key: row, "2": {}}, 0.0) == [key, "2"]
    assert server.open_rows(0.0) == {}


def test_second_invitation_of_a_name_ends_the_first() -> None:
    server = invitations()
    first, second = (server.invite("laptop", QUARTER, 0.0) for _ in range(2))
    assert server.proved(first.number, LAPTOP, 1.0) is Denied.EXPIRED
    assert not isinstance(server.proved(second.number, LAPTOP, 1.0), Denied)


def test_open_invitations_are_bounded() -> None:
    server = invitations()
    for number in range(MOST_OPEN):
        server.invite(f"device-{number}", QUARTER, 0.0)
    with pytest.raises(InvitationError, match="256 invitations are open: wait"):
        server.invite("one more", QUARTER, 1.0)
    assert server.invite("one more", QUARTER, QUARTER).name == "one more"


def test_remembered_codes_are_bounded() -> None:
    server = invitations()
    numbers = [server.invite("laptop", QUARTER, 0.0).number for _ in range(MOST_OPEN + 10)]
    server.forget(QUARTER)
    first, last = numbers[0], numbers[-1]
    assert server.secret(first) != server.secret(first), "the oldest are erased"
    assert server.secret(last) == server.secret(last)

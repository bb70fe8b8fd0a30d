"""A SIP registration on a virtual clock: kept alive, with credentials, and given up for a reason (A7)."""

import re

import pytest

from locum.apps.call.messages import challenge, credentials
from tests.apps.call.world import ACCOUNT, REGISTRAR, World, invite

NONCE = 'WWW-Authenticate: Digest realm="example.org", nonce="n1", qop="auth,auth-int", opaque="o"\r\n'


def registering() -> World:
    return World(**ACCOUNT)


def test_registration_is_renewed_before_it_expires() -> None:
    world = registering()
    for _ in range(5):
        (register,) = world.registers
        assert world.sent[0].host == "sip.example.org" and world.sent[0].port == 5060
        assert str(register.uri) == "sip:example.org" and register.headers["Contact"] == "<sip:ann@10.9.0.5>"
        world.answer(register, 200, "Contact: <sip:ann@10.9.0.5>;expires=100\r\n")
        world.advance(49)
        assert world.registers == []
        world.advance(22)
        assert len(world.registers) >= 1
        world.sent = world.sent[-1:]
    assert "registered for 100 seconds" in world.notes and world.told == []


def test_challenge_is_answered_by_a_digest() -> None:
    world = registering()
    first = world.registers[0]
    world.answer(first, 401, NONCE)
    (second,) = world.registers
    found = challenge(second.headers["Authorization"])
    assert found is not None and found["username"] == "ann" and found["opaque"] == "o"
    assert len(found["response"]) == 32 and "qop=auth, nc=00000001" in second.headers["Authorization"]
    assert second.cseq.sequence == first.cseq.sequence + 1 and second.call_id == first.call_id
    world.answer(second, 200)
    assert "registered for 300 seconds" in world.notes and "s3cret" not in repr(world.effects)


@pytest.mark.parametrize(
    "algorithm, response",
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_digest_is_that_of_the_standard(algorithm: str, response: str) -> None:
    """RFC 7616 section 3.9.1."""
    given = challenge(
        'Digest realm="http-auth@example.org", qop="auth, auth-int", '
        'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", '
        'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS", '
        f"algorithm={algorithm}"
    )
    assert given is not None
    client = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    found = credentials(given, "Mufasa", "Circle of Life", "GET", "/dir/index.html", client)
    assert found is not None and f'response="{response}"' in found


def test_quotes_in_challenges_are_kept() -> None:
    given = challenge('digest Realm="a\\"b, c", nonce="n", stale=TRUE')
    assert given == {"realm": 'a"b, c', "nonce": "n", "stale": "TRUE"}
    said = credentials(given, "u", "p", "REGISTER", "sip:x", "c")
    assert said is not None and 'realm="a\\"b, c"' in said and "qop" not in said


def test_unanswered_register_is_repeated_and_then_tried_later() -> None:
    """RFC 3261 section 17.1.2.2, timers E and F."""
    world = registering()
    world.advance(31)
    assert 9 <= len(world.sent) <= 12 and len({sent.data for sent in world.sent}) == 1
    world.advance(7)
    assert "does not answer" in world.notes and world.told == []
    world.advance(3600)
    branches = {re.findall(rb"branch=(\w+)", sent.data)[0] for sent in world.sent}
    assert 8 < len(branches) < 40
    world.advance(1)
    while not world.registers:
        world.advance(1)
    world.answer(world.registers[-1], 200)
    assert "registered" in world.notes


@pytest.mark.parametrize(
    "code, fields, reason",
    [
        (403, "", "the registrar refuses: 403 Word"),
        (401, "", "the registrar asks for credentials of an unknown kind"),
        (
            401,
            'WWW-Authenticate: Basic realm="x"\r\n',
            "the registrar asks for credentials of an unknown kind",
        ),
        (407, NONCE, "the registrar asks for credentials of an unknown kind"),
        (
            401,
            'WWW-Authenticate: Digest realm="x", nonce="y", algorithm=SHA-512-256\r\n',
            "the registrar asks for credentials of an unknown kind",
        ),
        (
            401,
            'WWW-Authenticate: Digest realm="x", nonce="y", qop="auth-int"\r\n',
            "the registrar asks for credentials of an unknown kind",
        ),
    ],
)
def test_vain_registration_ends_with_its_reason(code: int, fields: str, reason: str) -> None:
    world = registering()
    world.answer(world.registers[0], code, fields)
    assert world.told == [("registration_failed", {"reason": reason})] and world.result["failed"] == reason
    world.advance(3600)
    assert world.sent == []


def test_wrong_password_is_tried_once() -> None:
    world = registering()
    world.answer(world.registers[0], 401, NONCE)
    world.answer(world.registers[0], 401, NONCE.replace("n1", "n2"))
    assert world.told == [("registration_failed", {"reason": "the registrar refuses user and password"})]


def test_stale_nonce_is_replaced() -> None:
    world = registering()
    world.answer(world.registers[0], 401, NONCE)
    world.answer(world.registers[0], 401, NONCE.replace('opaque="o"', "stale=true"))
    world.answer(world.registers[0], 200)
    assert "registered" in world.notes


def test_longer_interval_is_taken_from_the_registrar() -> None:
    world = registering()
    world.answer(world.registers[0], 423, "Min-Expires: 1800\r\n")
    (register,) = world.registers
    assert register.expires == 1800
    world.answer(register, 200, "Expires: 1800\r\n")
    assert "registered for 1800 seconds" in world.notes


def test_busy_registrar_is_asked_again() -> None:
    world = registering()
    world.answer(world.registers[0], 503)
    world.advance(6)
    assert len(world.registers) >= 1 and world.told == []


def test_foreign_answers_are_passed_over() -> None:
    world = registering()
    old = world.registers[0]
    world.answer(old, 200)
    world.answer(old, 403)
    assert world.told == []
    world.answer(old, 100)
    assert world.told == []


def test_calls_come_from_the_registrar_alone() -> None:
    world = registering()
    world.answer(world.registers[0], 200)
    assert world.hear(invite(), peer="203.0.113.66") == [] and "elsewhere" in world.notes
    assert world.hear(invite(), peer=REGISTRAR)[0].code == 180
    world.start()
    assert world.hear(invite(call="c9", branch="z9hG4bK9"), peer="203.0.113.66") == []

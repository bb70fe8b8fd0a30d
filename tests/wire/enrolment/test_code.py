"""Codes of invitations: vectors, every way of typing one, and each single mistake is found before anything is sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.wire.enrolment.code import _DIGITS, MOST_CHARACTERS, Code, CodeError, _check, parse

SECRET = bytes.fromhex("0123456789")
VECTORS = [
    (Code("192.0.2.1", 7, SECRET), "3000-0G10-0704-HMAS-W9VW"),
    (Code("server.example", 7, SECRET), "server.example/400W-0J6H-B7H4-SB"),
    (Code("192.0.2.1", 7, SECRET, 443), "192.0.2.1:443/400W-0J6H-B7H4-61"),
    (Code("2001:db8::1", 0x7FFF, SECRET), "[2001:db8::1]/7ZZW-0J6H-B7H4-6B"),
    (Code("2001:db8::1", 0, SECRET, 51821), "[2001:db8::1]:51821/4000-0J6H-B7H4-Z9"),
]
HOSTS = st.one_of(
    st.ip_addresses().map(str),
    st.from_regex(r"[a-z][a-z0-9]{0,20}(\.[a-z][a-z0-9-]{0,9}[a-z0-9]){0,3}", fullmatch=True),
)
CODES = st.builds(
    Code,
    HOSTS,
    st.integers(0, 0x7FFF),
    st.binary(min_size=5, max_size=5),
    st.integers(1, 0xFFFF) | st.just(51820),
)


@pytest.mark.parametrize(("code", "text"), VECTORS, ids=lambda value: str(value)[:30])
def test_vectors(code: Code, text: str) -> None:
    assert str(code) == text
    assert parse(text) == code
    assert SECRET.hex() not in repr(code)


@given(CODES)
def test_code_is_read_again(code: Code) -> None:
    assert parse(str(code)) == code
    assert len(str(code).rpartition("/")[2].replace("-", "")) in (14, 20)


def test_typing_habits_change_nothing() -> None:
    text = str(Code("192.0.2.1", 7, SECRET))
    typed = text.lower().replace("-", " ").replace("0", "o").replace("1", "l")
    assert parse(typed) == parse(text) == parse(text.replace("-", "").replace("1", "i"))


@given(CODES, st.data())
def test_each_wrong_character_is_found(code: Code, data: st.DataObject) -> None:
    before, slash, rest = str(code).rpartition("/")
    place = data.draw(st.sampled_from([n for n, letter in enumerate(rest) if letter != "-"]))
    wrong = data.draw(st.sampled_from([digit for digit in _DIGITS if digit != rest[place]]))
    with pytest.raises(CodeError, match="mistyped"):
        parse(before + slash + rest[:place] + wrong + rest[place + 1 :])


@given(CODES, st.data())
def test_each_exchanged_pair_is_found(code: Code, data: st.DataObject) -> None:
    before, slash, rest = str(code).rpartition("/")
    letters = list(rest.replace("-", "")[:-2])
    first, second = (data.draw(st.integers(0, len(letters) - 1)) for _ in range(2))
    if letters[first] == letters[second]:
        return
    letters[first], letters[second] = letters[second], letters[first]
    with pytest.raises(CodeError, match="mistyped"):
        parse(before + slash + "".join(letters) + rest[-2:])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has 0 letters"),
        ("3G00", "has 4 letters and digits, not 20"),
        ("server.example/3G00", "has 4 letters and digits, not 14"),
        ("U" * 20, "'U' is in no code"),
        ("é" * 20, "in no code"),
        ("0" * (MOST_CHARACTERS + 1), "more than 300"),
        ("-" * 30, "has 0 letters"),
    ],
)
def test_text_that_is_no_code(text: str, problem: str) -> None:
    with pytest.raises(CodeError, match=problem):
        parse(text)


@pytest.mark.parametrize(
    "host", ["", "a..b", "-a", "Server", "192.0.2.256", "1.2.3", "fe80::1%eth0", "a/b", "x" * 64]
)
def test_wrong_hosts_are_refused(host: str) -> None:
    with pytest.raises(ValueError, match="no address and no host name"):
        Code(host, 7, SECRET)


@pytest.mark.parametrize(
    ("before", "problem"),
    [
        ("[2001:db8::1", "between"),
        ("[192.0.2.1]", "between"),
        ("2001:db8::1", "no server"),
        ("a..b", "no server"),
        ("", "no server"),
        ("server:0", "no port"),
        ("server:65536", "no port"),
        ("server:", "no port"),
        ("server:²", "no port"),
    ],
)
def test_wrong_server_before_a_code(before: str, problem: str) -> None:
    rest = "400W0J6HB7H4"
    with pytest.raises(CodeError, match=problem):
        parse(f"{before}/{rest}{_check(before + '/', rest)}")


def test_code_of_a_later_version_is_named() -> None:
    for rest, before in (("Z" * 18, ""), ("Z" * 12, "server/"), ("0" * 11 + "1", "server/")):
        with pytest.raises(CodeError, match="newer version"):
            parse(before + rest + _check(before, rest))


@given(st.text(max_size=60))
def test_any_text_is_a_code_or_a_code_error(text: str) -> None:
    try:
        code = parse(text)
    except CodeError:
        return
    assert parse(str(code)) == code

"""Settings of the download proxy, addresses, and what a server may tell about digests (A4)."""

from collections.abc import Mapping
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.apps.download.address import address, plain_name
from locum.apps.download.digests import digests, of_representation
from locum.apps.download.response import HttpError, Response
from locum.apps.download.settings import MAX_DOWNLOADS, settings
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import SettingError

URL = "https://files.example/a.bin"


@pytest.mark.parametrize(
    "table, key",
    [
        ({}, "url"),
        ({"url": 3}, "url"),
        ({"url": []}, "url"),
        ({"url": "ftp://files.example/"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://a b/"}, "url"),
        ({"url": "http://user:word@files.example/"}, "url"),
        ({"url": "http://files.example:99999/"}, "url"),
        ({"url": "http://files.example/" + "a" * 3000}, "url"),
        ({"url": [URL] * (MAX_DOWNLOADS + 1)}, "url"),
        ({"url": [{"url": URL, "sha1": "x"}]}, "url"),
        ({"url": [3]}, "url"),
        ({"url": [URL], "sha256": "00" * 32}, "sha256"),
        ({"url": URL, "sha256": "00"}, "sha256"),
        ({"url": URL, "size": -1}, "size"),
        ({"url": URL, "size": True}, "size"),
        ({"url": URL, "size": 2, "max_size": 1}, "size"),
        ({"url": URL, "name": "../x"}, "name"),
        ({"url": URL, "name": ".x"}, "name"),
        ({"url": URL, "name": "x.part"}, "name"),
        ({"url": [{"url": URL, "name": "x"}, {"url": URL, "name": "1-x"}, {"url": URL, "name": "x"}]}, ""),
        ({"url": URL, "parallel": 9}, "parallel"),
        ({"url": URL, "retries": -1}, "retries"),
        ({"url": URL, "least_rate": 1.5}, "least_rate"),
        ({"url": URL, "deliver": "never"}, "deliver"),
        ({"url": URL, "no_room": 1}, "no_room"),
        ({"url": URL, "downgrade": "yes"}, "downgrade"),
        ({"url": URL, "decode": "yes"}, "decode"),
        ({"url": URL, "decode": {"max_ratio": 0}}, "decode.max_ratio"),
        ({"url": URL, "decode": {"ratio": 1}}, "decode.ratio"),
        ({"ports": 80}, "ports"),
        ({"ports": [0]}, "ports"),
        ({"ports": [80], "quiet": -1}, "quiet"),
        ({"url": URL, "sha-256": ""}, "sha-256"),
    ],
)
def test_wrong_settings_name_their_key(table: Mapping[str, JSON], key: str) -> None:
    if not key:
        assert [wanted.name for wanted in settings(table).files] == ["x", "1-x", "2-x"]
        return
    with pytest.raises(SettingError) as caught:
        settings(table)
    assert caught.value.key == key


def test_names_follow_from_addresses() -> None:
    urls: list[JSON] = [
        "http://a/x/file.tar.gz?y=1",
        "http://b/",
        "http://c/file.tar.gz",
        "http://d/..%2f%00x",
    ]
    names = [wanted.name for wanted in settings({"url": urls}).files]
    assert names == ["file.tar.gz", "download", "2-file.tar.gz", "__x"]


@given(st.text())
def test_any_text_becomes_a_safe_name_or_none(text: str) -> None:
    name = plain_name(text)
    assert not name.startswith(".") and len(name) <= 60 and "/" not in name and name == plain_name(name)


@given(st.text())
def test_any_text_is_an_address_or_an_error(text: str) -> None:
    try:
        found = address(text)
    except ValueError:
        return
    assert found.target.startswith("/") and address(str(found)) == found


@pytest.mark.parametrize(
    "text, authority, target",
    [
        ("http://[2001:db8::1]:81/a", "[2001:db8::1]:81", "/a"),
        ("https://files.example:443/ä?q=ö", "files.example", "/%C3%A4?q=%C3%B6"),
        ("http://files.example?x=1", "files.example", "/?x=1"),
        ("http://files.example/a%20b", "files.example", "/a%20b"),
    ],
)
def test_addresses_as_requests_have_them(text: str, authority: str, target: str) -> None:
    found = address(text)
    assert (found.authority, found.target) == (authority, target)


def test_digest_fields_that_cannot_be_read_count_as_absent() -> None:
    """RFC 9530 section 2: unknown algorithms are passed over; other values are no digests."""
    sha = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    good = {"repr-digest": f"md5=:AAAA:, sha-256=:{sha}:"}
    assert list(of_representation(good)) == ["sha-256"]
    for bad in (f"sha-256={sha}", "sha-256=:AAAA:", "sha-256=:***:", "", ",,,"):
        assert not digests({"repr-digest": bad}, "repr-digest")
    assert list(of_representation({"digest": f"SHA-256={sha},unixsum=30637"})) == ["sha-256"]


@given(st.lists(st.binary(max_size=60), max_size=20), st.booleans())
def test_any_bytes_are_an_answer_or_an_error(pieces: list[bytes], headed: bool) -> None:
    response = Response({})
    begun = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"] if headed else []
    with suppress(HttpError):
        for piece in (*begun, *pieces):
            response.receive(piece)
        response.finish()


@given(st.binary(max_size=300), st.integers(1, 50))
def test_pieces_make_no_difference(content: bytes, step: int) -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%sREST" % (len(content), content)
    response, found = Response({}), b""
    for at in range(0, len(whole), step):
        found += b"".join(
            piece for piece in response.receive(whole[at : at + step]) if isinstance(piece, bytes)
        )
    assert found == content and response.over and response.rest == b"REST"

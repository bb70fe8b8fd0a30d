"""The magic packet of Wake-on-LAN."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.wire.wake_on_lan import magic_packet

CARD = bytes.fromhex("020000000009")


def test_magic_packet_is_that_of_the_publication() -> None:
    assert magic_packet(CARD).hex() == "ff" * 6 + "020000000009" * 16
    assert (
        magic_packet(CARD, b"\x01\x02\x03\x04\x05\x06").hex()
        == "ff" * 6 + "020000000009" * 16 + "010203040506"
    )


@given(st.binary(max_size=8), st.binary(max_size=8))
def test_other_lengths_are_refused(card: bytes, password: bytes) -> None:
    if len(card) == 6 and len(password) in (0, 4, 6):
        assert len(magic_packet(card, password)) == 102 + len(password)
        return
    with pytest.raises(ValueError, match="bytes"):
        magic_packet(card, password)

"""Lines of `wg show`, and arguments of `wg set`."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from locum.node.config.wireguard.values import Address, Endpoint, Peer
from locum.node.wireguard.book import PeerBook, anew, keepalive, settings_of
from locum.node.wireguard.tool import InterfaceState, PeerState, Secret, WireGuardError, read_dump

DUMP = (
    "priv\tpub\t51820\t0x4c57\n"
    "one\t(none)\t[2001:db8::1]:5\t10.1.0.2/32,10.1.0.3/32\t1796018710\t10\t20\t20\n"
    "two\tpsk\t(none)\t(none)\t0\t0\t0\toff\n"
)


def address(text: str) -> Address:
    from ipaddress import ip_address

    return ip_address(text)


def test_dump_becomes_a_state_without_secrets() -> None:
    state = read_dump(DUMP)
    assert state == InterfaceState(
        "pub",
        51820,
        0x4C57,
        (
            PeerState(
                "one", Endpoint("2001:db8::1", 5), ("10.1.0.2/32", "10.1.0.3/32"), 1796018710, 10, 20, 20
            ),
            PeerState("two", None, (), 0, 0, 0, 0),
        ),
    )
    assert "priv" not in repr(state) and "psk" not in repr(state)
    assert read_dump("(none)\t(none)\t0\toff\n") == InterfaceState("", 0, 0)


@given(some.text(alphabet="a1.:[]\t\n()", max_size=60))
def test_unknown_lines_are_one_error(text: str) -> None:
    try:
        read_dump(text)
    except WireGuardError as problem:
        assert "\n" not in str(problem)


def test_arguments_of_a_peer() -> None:
    peer = Peer("key", address("10.1.0.1"), "hidden", None, 20)
    at = Endpoint("192.0.2.1", 5)
    whole = [
        "peer", "key", "preshared-key", Secret("hidden"), "endpoint", "192.0.2.1:5",
        "allowed-ips", "10.1.0.1/32", "persistent-keepalive", "20",
    ]  # fmt: skip
    assert settings_of(peer, at) == whole
    assert "hidden" not in repr(whole)
    assert settings_of(peer, None, allowed=False)[5] == ""
    assert keepalive(peer, at)[-7:] == ["192.0.2.1:5", *keepalive(peer)[-6:]][-7:]
    assert anew(peer, at)[:5] == ["peer", "key", "remove", "peer", "key"]
    assert [word for word in keepalive(peer) if word in ("0", "20")] == ["0", "20"]


def test_book_gives_an_address_to_one_peer() -> None:
    book = PeerBook(address("10.1.0.1"))
    book.add(Peer("one", address("10.1.0.2")), None)
    for wrong in ("10.1.0.1", "10.1.0.2"):
        with pytest.raises(WireGuardError, match=f"address {wrong} belongs to"):
            book.add(Peer("two", address(wrong)), None)
    assert list(book.known) == ["one"]
    assert book.strangers(read_dump(DUMP)) == ["two"]


def test_book_tells_of_moves_and_counts_bytes() -> None:
    book = PeerBook(address("10.1.0.1"))
    book.add(Peer("one", address("10.1.0.2")), Endpoint("192.0.2.9", 9))

    def look(host: str, received: int, handshake: int = 7) -> list[str]:
        state = PeerState("one", Endpoint(host, 9), (), handshake, received, 0, 0)
        return [str(move.now) for move in book.observe(InterfaceState("", 0, 0, (state,)))]

    assert look("192.0.2.9", 100) == []
    assert look("192.0.2.8", 150) == ["192.0.2.8:9"]
    assert look("192.0.2.8", 30, 8) == []
    assert book.counts["received-bytes"] == 180 and book.counts["handshakes"] == 2

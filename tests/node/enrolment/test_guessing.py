"""Limits of wrong proofs on a virtual clock: the guesser waits, others do not, and memory is bounded."""

from ipaddress import IPv4Address, IPv6Address

from locum.node.enrolment.guessing import (
    ALL_REFILL,
    IN_ALL,
    MOST_SOURCES,
    PER_SOURCE,
    SOURCE_REFILL,
    GuessLimit,
)

GUESSER, DEVICE = IPv4Address("198.51.100.7"), IPv4Address("203.0.113.5")


def test_guesser_waits_and_others_do_not() -> None:
    limit = GuessLimit()
    admitted = 0
    for _ in range(1000):
        if limit.admits(GUESSER, 0.0):
            admitted += 1
            limit.wrong(GUESSER, 0.0)
    assert admitted == PER_SOURCE
    assert limit.admits(DEVICE, 0.0)
    assert not limit.admits(GUESSER, 0.5 / SOURCE_REFILL)
    assert limit.admits(GUESSER, 1.1 / SOURCE_REFILL)


def test_right_proofs_are_not_counted() -> None:
    limit = GuessLimit()
    assert all(limit.admits(DEVICE, 0.0) for _ in range(1000))


def test_host_with_a_prefix_is_one_source() -> None:
    limit = GuessLimit()
    for number in range(int(PER_SOURCE)):
        limit.wrong(IPv6Address(f"2001:db8:0:1::{number:x}"), 0.0)
    assert not limit.admits(IPv6Address("2001:db8:0:1:ffff::1"), 0.0)
    assert limit.admits(IPv6Address("2001:db8:0:2::1"), 0.0)


def test_mapped_address_is_the_ipv4_source() -> None:
    limit = GuessLimit()
    for _ in range(int(PER_SOURCE)):
        limit.wrong(IPv6Address(f"::ffff:{GUESSER}"), 0.0)
    assert not limit.admits(GUESSER, 0.0)
    assert limit.admits(DEVICE, 0.0)


def test_guesses_from_everywhere_are_bounded() -> None:
    limit = GuessLimit()
    admitted = 0
    for number in range(1000):
        if limit.admits(GUESSER + number, 0.0):
            admitted += 1
            limit.wrong(GUESSER + number, 0.0)
    assert admitted == IN_ALL
    assert not limit.admits(DEVICE, 0.0)
    assert limit.admits(DEVICE, 1.1 / ALL_REFILL)


def test_sources_are_bounded_and_the_latest_are_kept() -> None:
    limit = GuessLimit()
    for number in range(MOST_SOURCES + 5):
        for _ in range(int(PER_SOURCE)):
            limit.wrong(GUESSER + number, 0.0)
    later = 100.0  # the bucket of all is full again; a source's has three proofs
    for _ in range(4):
        limit.wrong(GUESSER + MOST_SOURCES + 4, later)
    assert len(limit._sources) == MOST_SOURCES
    assert not limit.admits(GUESSER + MOST_SOURCES + 4, later)
    assert limit.admits(GUESSER, later)


def test_clock_that_is_set_back_refills_nothing() -> None:
    limit = GuessLimit()
    for _ in range(int(PER_SOURCE)):
        limit.wrong(GUESSER, 100.0)
    assert not limit.admits(GUESSER, 50.0)

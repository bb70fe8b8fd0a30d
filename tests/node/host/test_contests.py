"""A setting that is taken away again and again is made again at once at first, and then less and less often."""

from locum.node.host.contests import CALM, LONGEST, TRIES, Contests

RULE = ("rule", 2, 100)


def test_waits_grow_and_end() -> None:
    contests = Contests()
    now = 1000.0
    for _ in range(TRIES - 1):
        assert contests.wait(RULE, now) == 0
        contests.repaired(RULE, now)
    assert not contests.contested(now)
    waits = []
    for _ in range(9):
        contests.repaired(RULE, now)
        waits.append(contests.wait(RULE, now))
        assert contests.contested(now) == [RULE]
        now += waits[-1]
        assert contests.wait(RULE, now) == 0
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, LONGEST, LONGEST]
    assert contests.wait(("rule", 2, 101), now) == 0
    now += CALM + 1
    assert not contests.contested(now)
    contests.repaired(RULE, now)
    assert contests.wait(RULE, now) == 0


def test_memory_is_bounded() -> None:
    contests = Contests()
    for number in range(20_000):
        contests.repaired(("address", number), float(number))
    assert len(contests._known) <= 4096

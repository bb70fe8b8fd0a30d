"""Mutants of the programs die: a small sample here; `make mutants` tries all."""

import pytest

from tests.dataplane.mutants.equivalent import EQUIVALENT
from tests.dataplane.mutants.generate import Mutant, mutants
from tests.dataplane.mutants.schema import CHOSEN, combined
from tests.dataplane.mutants.trial import SOURCES, Fate, compared, replaying

SAMPLE = (
    "home.h at_home: never `b->flags & LOCUM_RULES`",
    "locum.bpf.c leave: never `(skb->mark & LOCUM_MARK_MASK) == LOCUM_MARK_LOCAL`",
    "parse.h refused: never `is_v4(&p->source) || is_v4(&p->destination)`",
    "scope.h to_several: || as && `ype == PACKET_BROADCAST || skb->pkt_type == PACKET`",
    "rules.h filtered: negated `w->packet.unread`",
)
"""Mutants that the comparison's first worlds notice."""
HARMLESS = "renew.h back_to_ingress: never `source.kind != RENEWAL_SOURCE`"
"""A mutant of another program than those that are compared."""


@pytest.fixture(scope="module")
def every() -> dict[str, Mutant]:
    found = [mutant for path in SOURCES.glob("*.[ch]") for mutant in mutants(path)]
    named = {mutant.name: mutant for mutant in found}
    assert len(named) == len(found) > 1500
    return named


def test_every_decision_has_mutants(every: dict[str, Mutant]) -> None:
    """One change each, of the text that it names; those that are said to be equivalent exist."""
    for path in SOURCES.glob("*.[ch]"):
        source = path.read_text()
        of_file = [mutant for mutant in every.values() if mutant.file == path.name]
        assert all(mutant.applied(source) != source for mutant in of_file)
        negated = sum(mutant.kind == "negated" for mutant in of_file)
        assert negated == sum(mutant.kind == "never" for mutant in of_file)
    kinds = {mutant.kind for mutant in every.values()}
    assert {"&& as ||", "|| as &&", "< as <=", "== as !=", "flag not set", "never, at ?"} <= kinds
    assert set(EQUIVALENT) <= set(every), "not in the sources any more"


def test_mutants_share_a_source(every: dict[str, Mutant]) -> None:
    """Nearly every mutant can be one of many in a source, which has their texts and its own."""
    for path in SOURCES.glob("*.[ch]"):
        of_file = [mutant for mutant in every.values() if mutant.file == path.name]
        text, alone = combined(path.read_text(), list(enumerate(of_file, 1)))
        assert len(alone) <= 2
        assert all(
            (f"{CHOSEN} == {number} " in text or f"{CHOSEN} == {number})" in text) != (number in alone)
            for number in range(1, len(of_file) + 1)
        )


def test_sample_dies(every: dict[str, Mutant]) -> None:
    """And one that changes nothing lives: `replaying` would say so if the program without a mutant differed."""
    with replaying(SOURCES) as replay:
        fates = dict(compared(replay, [every[name] for name in (*SAMPLE, HARMLESS)], SOURCES, worlds=2))
    assert {mutant.name: fate for mutant, fate in fates.items()} == {
        **dict.fromkeys(SAMPLE, Fate.DIFFERS),
        HARMLESS: Fate.SURVIVED,
    }

"""`python -m tests.dataplane.mutants [--match PATTERN] [--model-only] [--part K/N]`: try every mutant, and name the survivors.

Exit status: 0 when all died but the equivalent ones, 1 when others survived.
"""

import argparse
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.dataplane.mutants.equivalent import EQUIVALENT
from tests.dataplane.mutants.generate import Mutant, mutants
from tests.dataplane.mutants.trial import SOURCES, WORLDS, Fate, compared, fragile, replaying, run_tests

ORDER = (
    "access.h",
    "scope.h",
    "rules.h",
    "locum.bpf.c",
    "service.h",
    "follow.h",
    "parse.h",
    "local_end.h",
    "home.h",
)
"""Files of the security decisions, tried first."""


def chosen(pattern: str, sources: Path) -> list[Mutant]:
    """All mutants of these sources whose names have this pattern, the equivalent ones left out."""
    names = sorted(path.name for path in sources.glob("*.[ch]"))
    names = [*ORDER, *(name for name in names if name not in ORDER)]
    found = [mutant for name in names for mutant in mutants(sources / name)]
    return [mutant for mutant in found if mutant.name not in EQUIVALENT and re.search(pattern, mutant.name)]


def fates(
    wanted: Sequence[Mutant], sources: Path, worlds: int, *, real: bool
) -> Iterator[tuple[Mutant, Fate]]:
    """Each mutant and its fate; with `real` the survivors of the comparison come last, after tests with real packets."""
    alive = []
    with replaying(sources) as replay:
        for mutant, fate in compared(replay, wanted, sources, worlds):
            if fate.dead or not real:
                yield mutant, fate
            else:
                alive.append(mutant)
    for mutant in alive:
        yield mutant, run_tests(mutant, sources)


def main(words: Sequence[str]) -> int:
    """Print one line for each mutant as it is tried, and the survivors at the end."""
    parser = argparse.ArgumentParser(prog="python -m tests.dataplane.mutants", description=__doc__)
    parser.add_argument("--match", default="", metavar="PATTERN", help="only mutants with such names")
    parser.add_argument("--model-only", action="store_true", help="no tests with real packets")
    parser.add_argument("--part", default="1/1", metavar="K/N", help="every N-th mutant, from the K-th on")
    parser.add_argument("--worlds", type=int, default=WORLDS, metavar="N", help="of the comparison")
    parser.add_argument(
        "--fragile", choices=("yes", "no"), help="only those that the verifier may refuse, or only others"
    )
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="locum-sources-") as folder:
        sources = Path(folder) / "bpf"
        shutil.copytree(SOURCES, sources)  # they may be changed meanwhile
        return tried(arguments, sources)


def tried(arguments: argparse.Namespace, sources: Path) -> int:
    """Try the mutants of these sources that were asked for; returns the exit status."""
    first, step = map(int, arguments.part.split("/"))
    wanted = chosen(arguments.match, sources)
    if arguments.fragile:
        wanted = [mutant for mutant in wanted if fragile(mutant, sources) == (arguments.fragile == "yes")]
    wanted = wanted[first - 1 :: step]
    counts: Counter[Fate] = Counter()
    survivors: list[Mutant] = []
    for mutant, fate in fates(wanted, sources, arguments.worlds, real=not arguments.model_only):
        counts[fate] += 1
        print(f"{counts.total()}/{len(wanted)} {fate.value}: {mutant.name} (line {mutant.line})", flush=True)
        if not fate.dead:
            survivors.append(mutant)
    print(", ".join(f"{count} {fate.value}" for fate, count in counts.items()))
    for mutant in survivors:
        print(f"SURVIVED: {mutant.name} (line {mutant.line})")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

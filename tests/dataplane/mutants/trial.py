"""Trial of mutants: build many at once, give them packets whose results are known, and run tests with real packets on the rest.

A mutant that the verifier refuses is dead: no daemon would start with it.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from locum.dataplane import DataPlaneError
from locum.dataplane.build import BuildError, compile_objects
from tests.dataplane.model.test_comparison import compared_place
from tests.dataplane.mutants.generate import Mutant, without_text
from tests.dataplane.mutants.programs import Programs
from tests.dataplane.mutants.replay import Replay, opened, survivors
from tests.dataplane.mutants.schema import DECLARED, bears_alone, combined

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "bpf"
WORLDS = 20
"""Of the comparison: half of those of its own test, which are more than most mutants need."""
BATCH = 24
"""Mutants in one object: more of them take the verifier long."""
WAVE = 2
"""Objects that are loaded at the same time."""
KERNEL_TESTS = ("tests/dataplane/layout", "tests/dataplane/kernel")


class Fate(Enum):
    """Result of a trial."""

    UNBUILT = "does not compile"
    REFUSED = "refused by the verifier"
    DIFFERS = "differs from the model"
    FAILED = "stops a test with an error"
    HUNG = "hangs"
    CAUGHT = "fails a test with real packets"
    SURVIVED = "survived"

    @property
    def dead(self) -> bool:
        """True unless no test noticed the change."""
        return self is not Fate.SURVIVED


@contextlib.contextmanager
def built(numbered: Mapping[int, Mutant], of: Path = SOURCES) -> Iterator[tuple[Path, list[int]]]:
    """The object with these mutants, and the numbers of those that it has not. One alone needs no number. Raises BuildError."""
    with tempfile.TemporaryDirectory(prefix="locum-mutants-") as folder:
        sources = Path(folder) / "bpf"
        shutil.copytree(of, sources)
        left_out = []
        for name in sorted({mutant.file for mutant in numbered.values()}):
            changed = sources / name
            text = changed.read_text()
            of_file = [(number, mutant) for number, mutant in numbered.items() if mutant.file == name]
            if len(numbered) == 1:
                text = of_file[0][1].applied(text)
            else:
                text, alone = combined(text, of_file)
                left_out += alone
            changed.write_text(text)
        main = sources / "locum.bpf.c"
        main.write_text((DECLARED if numbered else "") + main.read_text())
        for other in set(sources.glob("*.bpf.c")) - {main}:
            other.unlink()
        objects = compile_objects(sources, Path(folder) / "objects", warnings=False)
        (built_object,) = [path for path in objects if path.name == main.name.replace(".c", ".o")]
        yield built_object, left_out


@dataclass(slots=True)
class _Loading:
    """Objects of one wave, and the mutants that are dead before any packet."""

    replay: Replay
    sources: Path
    loaded: list[tuple[Programs, list[int]]] = field(default_factory=list)
    dead: dict[int, Fate] = field(default_factory=dict)

    def add(self, numbered: dict[int, Mutant]) -> None:
        """Build and load these mutants together, or in smaller parts if that cannot be."""
        fate = Fate.UNBUILT
        try:
            with built(numbered, self.sources) as (path, left_out):
                fate = Fate.REFUSED
                together = [number for number in numbered if number not in left_out]
                if together:
                    self.loaded.append((Programs(path, self.replay.maps, self.replay.pins), together))
            for number in left_out:
                self.add({number: numbered[number]})
        except (BuildError, DataPlaneError):
            if len(numbered) == 1:
                self.dead[next(iter(numbered))] = fate
                return
            for half in (0, 1):
                self.add(dict(list(numbered.items())[half::2]))


def fragile(mutant: Mutant, sources: Path) -> bool:
    """True if the verifier may well refuse the mutant, and with it all others of the same object."""
    return bears_alone(without_text((sources / mutant.file).read_text()), mutant)


@contextlib.contextmanager
def replaying(sources: Path) -> Iterator[Replay]:
    """A replay of the programs of these sources in a namespace of its own, in which the caller is then."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="locum-mutants-"))
        space, root = stack.enter_context(compared_place(Path(folder) / "bpf"))
        stack.enter_context(space.inside())
        path, _ = stack.enter_context(built({}, sources))
        yield stack.enter_context(opened(root, path))


def compared(
    replay: Replay, wanted: Sequence[Mutant], sources: Path, worlds: int = WORLDS
) -> Iterator[tuple[Mutant, Fate]]:
    """Each mutant and its fate among the packets of the comparison, in parts of BATCH * WAVE."""
    for begin in range(0, len(wanted), BATCH * WAVE):
        numbered = dict(enumerate(wanted[begin : begin + BATCH * WAVE], 1))
        loading = _Loading(replay, sources)
        hardy = {number: mutant for number, mutant in numbered.items() if not fragile(mutant, sources)}
        parts = -(-len(hardy) // BATCH)
        for part in range(parts):  # neighbours in the text stand in different objects
            loading.add(dict(list(hardy.items())[part::parts]))
        for number, mutant in numbered.items():
            if number not in hardy:
                loading.add({number: mutant})
        alive = {number for _, number in survivors(replay, loading.loaded, worlds)}
        for programs, _ in loading.loaded:
            programs.close()
        for number, mutant in numbered.items():
            yield mutant, loading.dead.get(number, Fate.SURVIVED if number in alive else Fate.DIFFERS)


def run_tests(mutant: Mutant, sources: Path, tests: Sequence[str] = KERNEL_TESTS) -> Fate:
    """Run tests with real packets on the object of this mutant until one fails."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "tests.dataplane.mutants.plugin"]
    command += ["-p", "no:cacheprovider", "-p", "no:xdist", *tests]
    with built({1: mutant}, sources) as (path, _):
        environment = {**os.environ, "MUTANT_OBJECT": str(path)}
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, timeout=900, check=False
            )
        except subprocess.TimeoutExpired:
            return Fate.HUNG
    return Fate.CAUGHT if done.returncode == 1 else Fate.SURVIVED if done.returncode == 0 else Fate.FAILED

"""Result of a benchmark: alternating samples of a value and of its baseline, and notes."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Thoroughness of a run."""

    rounds: int = 7
    """Samples of each kind; the report's figures are their medians."""
    short_rounds: int = 25
    """The same for samples that take a fraction of a second: many short pairs beside each other agree better than few long ones."""
    long_rounds: int = 5
    """The same for samples that take half a minute each."""
    seconds: int = 2
    """Length of one sample of a throughput."""
    scale: float = 1.0
    """Share of the full table sizes that the size-bound benchmarks use."""


QUICK = Settings(rounds=5, short_rounds=9, long_rounds=1, seconds=1, scale=0.02)
"""A run that shows that the benchmark works; its figures mean little."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row. `values` and `baselines` are in the order in which they were sampled, pairwise neighbours in time."""

    name: str
    unit: str
    values: tuple[float, ...]
    baselines: tuple[float, ...] | None
    notes: tuple[str, ...] = ()

    @property
    def value(self) -> float:
        """The median of the samples."""
        return statistics.median(self.values)

    @property
    def baseline(self) -> float | None:
        """The median of the baseline's samples; None without a baseline."""
        return None if self.baselines is None else statistics.median(self.baselines)

    @property
    def ratios(self) -> tuple[float, ...]:
        """Value over baseline of each pair of neighbours in time; pairs with a baseline of zero are left out."""
        pairs = zip(self.values, self.baselines or (), strict=self.baselines is not None)
        return tuple(value / baseline for value, baseline in pairs if baseline)

    @property
    def ratio(self) -> float | None:
        """Median of the pairs' ratios: a drift of the machine that both samples of a pair share is not in it."""
        return statistics.median(self.ratios) if self.ratios else None


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """A row that could not be measured, and why."""

    name: str
    reason: str


def spread(samples: Sequence[float]) -> float:
    """Half the distance from the least to the greatest sample, as a share of the median; 0 for a zero median."""
    middle = statistics.median(samples)
    return (max(samples) - min(samples)) / 2 / middle if middle else 0.0


def in_turns(rounds: int, *ways: Callable[[], float]) -> tuple[tuple[float, ...], ...]:
    """Sample each variant once to warm up, then `rounds` times alternating; the samples of each.

    Every second round runs backwards, so that a slow drift of the machine weighs on all ways alike.
    """
    for way in ways:
        way()
    samples: tuple[list[float], ...] = tuple([] for _ in ways)
    for number in range(rounds):
        order = list(zip(ways, samples, strict=True))
        for way, taken in order if number % 2 == 0 else reversed(order):
            taken.append(way())
    return tuple(tuple(taken) for taken in samples)

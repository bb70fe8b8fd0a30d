"""Text about the results of sessions: a summary line, and a line for each session that was left or lost."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

# In the order in which they are counted; words behind a number.
_COUNTED = (
    ("went", "went to the stand-in"),
    ("returned", "returned"),
    ("arrived", "arrived while asleep"),
    ("coming", "still coming"),
    ("closed", "closed meanwhile"),
    ("stayed", "stayed"),
    ("lost", "lost"),
)
AMISS = ("stayed", "lost")
"""Fates that make a sleep or a wake one that is done, but not for every session."""


def counted(number: int) -> str:
    """So many sessions."""
    return "1 session" if number == 1 else f"{number} sessions"


def summary(word: str, report: Mapping[str, Any]) -> str:
    """Such as "asleep: 3 sessions went to the stand-in, 1 session stayed"."""
    numbers = ((report.get(fate, 0), words) for fate, words in _COUNTED)
    parts = [f"{counted(number)} {words}" for number, words in numbers if number]
    return f"{word}: {', '.join(parts) or 'no sessions'}"


def details(report: Mapping[str, Any]) -> list[str]:
    """A line for each session that stayed, was lost or is still coming."""
    rows = [row for row in report["sessions"] if row["fate"] in (*AMISS, "coming")]
    return [f"  {row['fate']}: {owner(row)}, {row['flow']}{_because(row)}" for row in rows]


def forecast(rows: Iterable[Mapping[str, Any]]) -> str:
    """Such as "29 would go, 1 would stay"."""
    counts = Counter(row["fate"] for row in rows)
    return f"{counts['goes']} would go, {counts['stays']} would stay"


def owner(row: Mapping[str, Any]) -> str:
    """The programs of a session, such as "sshd, bash (processes 11, 12)"."""
    names, pids = ", ".join(row["programs"]), list(row["pids"])
    if not pids:
        return names or "no program"
    return f"{names or 'a program'} ({'process' if len(pids) == 1 else 'processes'} {_joined(pids)})"


def amiss(report: Mapping[str, Any]) -> bool:
    """True if a session stayed or was lost."""
    return any(report.get(fate, 0) for fate in AMISS)


def _because(row: Mapping[str, Any]) -> str:
    return f": {row['reason']}" if row["reason"] else ""


def _joined(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))

"""The ladder diagram of a run: nodes as columns, messages of the source text as arrows with their numbers.

Made from the merged event stream alone. A message that both ends report is one arrow; one that only its sender
reports is drawn to where it was meant to go, dashed.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from locum.lab.network.topology import Node, Place
from locum.lab.timeline import LAB, Event

_MN, _AN, _HA, _MNPS, _CN = (
    Place.MOBILE_NODE, Place.ACCESS_NODE, Place.HOME_AGENT, Place.STAND_IN, Place.CORRESPONDENT
)  # fmt: skip
SENDERS: dict[str, tuple[Place, ...]] = {
    "601": (_MN, _MNPS),
    "602": (_AN,),
    "603": (_HA,),
    "604": (_AN,),
    "634": (_MN,),
    "632": (_MNPS,),
    "618": (_AN,),
    "622": (_AN,),
    "624": (_AN,),
    "1170": (_HA,),
    "1172": (_MNPS,),
    "1204": (_MN,),
    "1206": (_MN,),
    "1210": (_HA, _MNPS),
    "1208": (_MNPS,),
    "1212": (_AN, _MN),
    "trigger": (_AN, _HA, _CN, _MN),
}
RECEIVERS: dict[str, tuple[Place, ...]] = {
    "601": (_AN, _HA),
    "602": (_HA,),
    "603": (_AN, _MN, _MNPS),
    "604": (_MN, _MNPS),
    "634": (_MNPS,),
    "632": (_MN,),
    "618": (_MN, _MNPS),
    "622": (_AN,),
    "624": (_AN,),
    "1170": (_AN,),
    "1172": (_HA,),
    "1204": (_HA,),
    "1206": (_MNPS,),
    "1210": (_AN, _HA),
    "1208": (_HA,),
    "1212": (_HA,),
    "trigger": (_MNPS,),
}
EVIDENCE = {
    "601": ("601", "602"),
    "602": ("602", "603"),
    "603": ("603", "604"),
    "604": ("604",),
    "634": ("634", "632"),
    "632": ("632", "634"),
    "618": ("618",),
    "622": ("622", "624"),
    "624": ("624", "622"),
    "1170": ("1170",),
    "1172": ("1172", "1170"),
    "1204": ("1204",),
    "1206": ("1206",),
    "1210": ("1210",),
    "1208": ("1208",),
    "1212": ("1212",),
    "trigger": ("trigger", "601"),
}
"""A message arrived if its receiver reports it, or sends the next one."""
SENT = "sent"
"""The event kind of a sent message; every other kind is about a received one, but for `ASKED`."""
ASKED = "page-asked"
"""The event kind of a 1172 that was sent."""
EARLY = 0.05
"""Seconds by which a receiver's event may precede the sender's own: they are two processes."""
PATIENCE = 5.0
"""Seconds after which a message without a report of its receiver counts as lost."""


MOST_ROWS = 400
"""Largest number of rows; a run under attack has thousands of messages."""


@dataclass(frozen=True, slots=True)
class Arrow:
    """A message from one node to another. `arrived` is None when no receiver reported it."""

    time: float
    message: str
    sender: str
    receiver: str
    label: str = ""
    arrived: float | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened at one node, or to all of them (node "lab")."""

    time: float
    node: str
    text: str


Row = Arrow | Note


@dataclass(frozen=True, slots=True)
class Ladder:
    """Columns from left to right, rows from top to bottom."""

    title: str
    columns: tuple[Node, ...]
    rows: tuple[Row, ...]

    @property
    def messages(self) -> list[str]:
        return [row.message for row in self.rows if isinstance(row, Arrow)]


def draw(
    title: str,
    events: Iterable[Event],
    nodes: Sequence[Node],
    owner: Callable[[str], str | None],
    notes: frozenset[str] = frozenset(),
) -> Ladder:
    """Make the ladder. `owner` gives the node that has an address; `notes` are the kinds shown besides messages."""
    places = {node.name: node.place for node in nodes}
    ordered = sorted(events, key=lambda event: event.time)
    times = [event.time for event in ordered]
    used: set[int] = set()
    rows: list[Row] = []
    for index, event in enumerate(ordered):
        if _is_message(event, places):
            first = bisect_left(times, event.time - EARLY)
            rows.append(_arrow(index, range(first, len(ordered)), ordered, places, owner, used))
    for index, event in enumerate(ordered):
        if event.node == LAB or (event.node in places and event.kind in notes and index not in used):
            rows.append(Note(event.time, event.node, event.kind.replace("-", " ") + _summary(event)))
    rows.sort(key=lambda row: row.time)
    rows = _collapsed(rows)
    if len(rows) > MOST_ROWS:
        left_out = Note(
            rows[MOST_ROWS].time, LAB, f"{len(rows) - MOST_ROWS} more rows are in the event stream"
        )
        rows = [*rows[:MOST_ROWS], left_out]
    shown = {name for row in rows if isinstance(row, Arrow) for name in (row.sender, row.receiver)}
    shown |= {row.node for row in rows if isinstance(row, Note)}
    return Ladder(title, tuple(node for node in nodes if node.name in shown), tuple(rows))


def _is_message(event: Event, places: dict[str, Place]) -> bool:
    return event.kind in (SENT, ASKED) and places.get(event.node) in SENDERS.get(_number(event), ())


def _number(event: Event) -> str:
    return (event.message or "").rstrip("'")


def _arrow(
    index: int,
    candidates: Iterable[int],
    events: Sequence[Event],
    places: dict[str, Place],
    owner: Callable[[str], str | None],
    used: set[int],
) -> Arrow:
    """The arrow of a message that was sent, with its arrival if there is evidence of it."""
    event = events[index]
    number = _number(event)
    addressed = _addressed(event, RECEIVERS[number], places, owner)
    for later in candidates:
        other = events[later]
        if later in used:
            continue
        if other.time > event.time + PATIENCE:
            break
        receives = addressed in (None, other.node) and places.get(other.node) in RECEIVERS[number]
        if receives and other.node != event.node and _number(other) in EVIDENCE[number]:
            if other.kind == SENT and _number(other) == number:
                continue
            if other.kind != SENT:
                used.add(later)
            return Arrow(event.time, event.message or "", event.node, other.node, _label(event), other.time)
    receiver = addressed or next(
        name for place in RECEIVERS[number] for name in places if places[name] is place and name != event.node
    )
    return Arrow(event.time, event.message or "", event.node, receiver, _label(event))


def _collapsed(rows: Sequence[Row]) -> list[Row]:
    """Merge a repeated message (634 fetch and its 632) into one row with its count."""
    kept: list[Row] = []
    times: dict[int, int] = {}
    for row in rows:
        for back in (1, 2):
            if back <= len(kept) and isinstance(row, Arrow) and _same(kept[-back], row):
                place = len(kept) - back
                times[place] = times.get(place, 1) + 1
                break
        else:
            kept.append(row)
    for place, count in times.items():
        row = kept[place]
        if isinstance(row, Arrow):
            kept[place] = replace(row, label=f"{row.label} ({count} times)".strip())
    return kept


def _same(row: Row, other: Arrow) -> bool:
    return isinstance(row, Arrow) and (row.message, row.sender, row.receiver, row.label) == (
        other.message,
        other.sender,
        other.receiver,
        other.label,
    )


def _addressed(
    event: Event, wanted: Sequence[Place], places: dict[str, Place], owner: Callable[[str], str | None]
) -> str | None:
    """The receiver, if the event mentions an address of one."""
    for value in event.detail.values():
        name = owner(value) if isinstance(value, str) else None
        if name is not None and name != event.node and places.get(name) in wanted:
            return name
    return None


def _label(event: Event) -> str:
    """Label of the message, in a word or two."""
    detail = event.detail
    if "request" in detail:
        return str(detail["request"]).replace("-", " ").replace("_", " ")
    if "code" in detail:
        return f"code {detail['code']}"
    if "lifetime" in detail:
        return f"lifetime {detail['lifetime']}"
    if "responsible" in detail:
        return "responsible" if detail["responsible"] else "not responsible"
    return ""


def _summary(event: Event) -> str:
    return "".join(f" · {key.replace('_', ' ')} {value}" for key, value in event.detail.items())

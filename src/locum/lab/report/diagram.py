"""Layout of a ladder: as lines of text, as one self-contained HTML page, and as a picture. It knows no event."""

import html
from collections.abc import Iterable

from locum.lab.network.topology import Node
from locum.lab.report.ladder import Ladder, Note, Row
from locum.lab.timeline import LAB

# As text --------------------------------------------------------------------------------------------------------------

WIDTH = 17
MARGIN = 9
QUIET = 1.0
"""Seconds without a row after which the diagram shows that time passed."""


def as_text(ladder: Ladder) -> str:
    """The diagram in box-drawing characters, one line a row."""
    if not ladder.rows:
        return f"{ladder.title}\n(no messages)\n"
    centres = {node.name: MARGIN + WIDTH // 2 + index * WIDTH for index, node in enumerate(ladder.columns)}
    width = MARGIN + WIDTH * len(ladder.columns)
    head = _place(
        width, [(centres[node.name], f"{node.name} {node.number}".strip()) for node in ladder.columns]
    )
    lines = [ladder.title, "", head]
    start = previous = ladder.rows[0].time
    rails = _place(width, [(centre, "│") for centre in centres.values()])
    for row in ladder.rows:
        if row.time - previous > QUIET:
            lines.append(_overlay(rails, MARGIN, f"  … {row.time - previous:.1f} s …"))
        previous = row.time
        stamp = f"{row.time - start:7.3f}  "
        lines.append(stamp + _text_row(row, rails, centres)[MARGIN:])
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _text_row(row: Row, rails: str, centres: dict[str, int]) -> str:
    if isinstance(row, Note):
        at = centres.get(row.node, MARGIN)
        return _overlay(rails, at, f"● {row.text}" if row.node in centres else f"══ {row.text} ")
    begin, end = centres[row.sender], centres[row.receiver]
    left, right = min(begin, end), max(begin, end)
    stroke = "─" if row.arrived is not None else "╌"
    text = f" {row.message} {row.label} "
    room = right - left - 3
    body = (text if len(text) <= room else f" {row.message} ").center(right - left - 1, stroke)
    body = body[:-1] + "▶" if end > begin else "◀" + body[1:]
    return _overlay(rails, left + 1, body)


def _place(width: int, items: Iterable[tuple[int, str]]) -> str:
    line = " " * width
    for centre, text in items:
        line = _overlay(line, centre - len(text) // 2, text)
    return line


def _overlay(line: str, at: int, text: str) -> str:
    at = max(at, 0)
    return line.ljust(at)[:at] + text + line[at + len(text) :]


# As a page ------------------------------------------------------------------------------------------------------------

STEP, COLUMN, LEFT, TOP = 30, 170, 90, 90
STYLE = """
:root { --ink: #1d2430; --soft: #8b95a5; --rail: #d5dae2; --paper: #ffffff; --mark: #b45309; --message: #1d4ed8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --soft: #8b95a5; --rail: #39414f; --paper: #14171d; --mark: #f0b357; --message: #8ab4ff; }
}
body { margin: 2rem; background: var(--paper); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.3rem; }
svg { max-width: 100%; height: auto; }
text { fill: var(--ink); font: 13px system-ui, sans-serif; }
.name { font-weight: 600; font-size: 15px; } .place, .time, .quiet { fill: var(--soft); font-size: 12px; }
.rail { stroke: var(--rail); stroke-width: 2; } .message { stroke: var(--message); stroke-width: 1.8; }
.lost { stroke-dasharray: 5 4; } .number { font-weight: 700; fill: var(--message); }
.mark { fill: var(--mark); font-weight: 600; } .markline { stroke: var(--mark); stroke-dasharray: 2 5; }
.dot { fill: var(--soft); } .head { fill: var(--message); }
"""


def as_html(ladder: Ladder) -> str:
    """The diagram as one HTML file that needs nothing else; details show when the pointer rests on a row."""
    title = html.escape(ladder.title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n'
        f"<p>Times in seconds from the first row. Numbers are those of the source text's figures. A dashed arrow was "
        f"sent and not reported as received.</p>\n{_svg(ladder)}</body></html>\n"
    )


def as_svg(ladder: Ladder) -> str:
    """The diagram as one picture that needs nothing else."""
    return _svg(ladder, 'xmlns="http://www.w3.org/2000/svg" ', f"<style>{STYLE}</style>") + "\n"


def _svg(ladder: Ladder, namespace: str = "", head: str = "") -> str:
    centres = {node.name: LEFT + COLUMN // 2 + index * COLUMN for index, node in enumerate(ladder.columns)}
    width = LEFT + COLUMN * max(len(ladder.columns), 1) + 40
    drawn: list[str] = []
    level = TOP
    start = previous = ladder.rows[0].time if ladder.rows else 0.0
    for row in ladder.rows:
        level += STEP
        if row.time - previous > QUIET:
            drawn.append(
                f'<text class="quiet" x="{LEFT}" y="{level}">… {row.time - previous:.1f} s pass …</text>'
            )
            level += STEP
        previous = row.time
        drawn.append(f'<text class="time" x="8" y="{level + 4}">{row.time - start:.3f} s</text>')
        drawn.append(_svg_row(row, level, centres, width))
    bottom = level + STEP
    heads = "".join(_svg_head(node, centres[node.name], bottom) for node in ladder.columns)
    return (
        f'<svg {namespace}viewBox="0 0 {width} {bottom + 20}" width="{width}" role="img" '
        f'aria-label="{html.escape(ladder.title)}">{head}\n'
        f'<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path class="head" d="M0 0L8 4L0 8z"/></marker></defs>\n{heads}\n' + "\n".join(drawn) + "\n</svg>"
    )


def _svg_head(node: Node, centre: int, bottom: int) -> str:
    number = f" {node.number}" if node.number else ""
    return (
        f'<line class="rail" x1="{centre}" y1="{TOP - 20}" x2="{centre}" y2="{bottom}"/>'
        f'<text class="name" x="{centre}" y="{TOP - 46}" text-anchor="middle">{html.escape(node.name + number)}</text>'
        f'<text class="place" x="{centre}" y="{TOP - 28}" text-anchor="middle">{html.escape(node.place.value)}</text>'
    )


def _svg_row(row: Row, level: int, centres: dict[str, int], width: int) -> str:
    if isinstance(row, Note):
        text = html.escape(row.text)
        if row.node not in centres or row.node == LAB:
            line = f'<line class="markline" x1="{LEFT}" y1="{level}" x2="{width - 10}" y2="{level}"/>'
            return f'{line}<text class="mark" x="{LEFT}" y="{level - 5}">{text}</text>'
        centre = centres[row.node]
        return (
            f'<circle class="dot" cx="{centre}" cy="{level}" r="4"/>'
            f'<text x="{centre + 10}" y="{level + 4}">{text}</text>'
        )
    begin, end = centres[row.sender], centres[row.receiver]
    lost = "" if row.arrived is not None else " lost"
    took = f", {1000 * (row.arrived - row.time):.1f} ms" if row.arrived else ""
    hint = html.escape(f"{row.message} {row.label}: {row.sender} to {row.receiver}{took}")
    return (
        f'<g><title>{hint}</title><line class="message{lost}" x1="{begin}" y1="{level}" x2="{end}" y2="{level}" '
        f'marker-end="url(#head)"/><text x="{(begin + end) // 2}" y="{level - 5}" text-anchor="middle">'
        f'<tspan class="number">{html.escape(row.message)}</tspan> {html.escape(row.label)}</text></g>'
    )

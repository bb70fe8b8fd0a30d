"""Fates of sessions as JSON for the control socket. The command line prints them."""

from typing import Any

from locum.node.events import flow_text
from locum.roles.session_report import Fate, Report, SessionFate

Row = dict[str, Any]


def report_row(report: Report) -> Row:
    """Number of sessions by result, and each session with its programs and the reason."""
    counts = report.counts()
    return {
        **{fate.value: counts[fate] for fate in Fate},
        "sessions": [fate_row(fate) for fate in report.fates],
    }


def fate_row(fate: SessionFate) -> Row:
    """One session."""
    return {
        "fate": fate.fate.value,
        "programs": list(fate.programs),
        "pids": list(fate.pids),
        "flow": flow_text(fate.flow),
        "reason": fate.reason,
    }

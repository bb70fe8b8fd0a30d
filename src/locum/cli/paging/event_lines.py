"""Events of a page as sentences for `locum monitor`: cause, path and outcome. Other events have no sentence."""

from collections.abc import Callable, Mapping
from typing import Any

Detail = Mapping[str, Any]

_MESSAGES = ("1170", "1172", "1172A")


def sentence(event: Mapping[str, Any]) -> str | None:
    """One sentence about the page of a device; None if the event is not about a page."""
    say = _SENTENCES.get(event["kind"])
    if say is None or event.get("message") not in _MESSAGES:
        return None
    try:
        said = say(event.get("detail", {}), event.get("flow") or "")
    except (KeyError, TypeError, AttributeError):  # of another version of the node
        return None
    return f"page of {event['home_address']}: {said}"


def _cause(detail: Detail, flow: str) -> str:
    match detail["cause"]:
        case "packet":
            return f"packet{' ' if flow else ''}{flow} by rule {detail['rule']}"
        case "event":
            return f"event {detail['event']} of {detail['app']}"
    return str(detail["cause"])


def _sent(detail: Detail, flow: str) -> str:
    again = f" again (attempt {detail['attempt']})" if detail["attempt"] > 1 else ""
    return f"sent to the access node {detail['to']}{again}; {_cause(detail, flow)}"


def _calling(detail: Detail, flow: str) -> str:
    way = detail.get("way")
    by = f" by {way}" if way else ""
    unknown = "" if detail["known"] else ", by broadcast"
    return f"the device is called on {', '.join(detail['links'])}{by}{unknown}"


def _called(detail: Detail, flow: str) -> str:
    return f"{detail['outcome']} after {_times(detail['calls'], 'call')}"


def _paged(detail: Detail, flow: str) -> str:
    what = f"{detail['cause']} {detail.get('detail', '')}".strip()
    return f"heard by way of {detail['by']}; {what}; {detail['decision']}"


def _answered(detail: Detail, flow: str) -> str:
    who = "the device" if detail["by"] == "mn" else "the access node for it"
    return f"answered by {who}, from {detail['from']}"


def _ended(detail: Detail, flow: str) -> str:
    more = f", {detail['folded']} further causes" if detail["folded"] else ""
    reason = f" ({detail['reason']})" if detail.get("reason") else ""
    attempts = _times(detail["attempts"], "attempt")
    return (
        f"{detail['outcome']}{reason} after {detail['seconds']:g} s, {attempts}{more}; {_cause(detail, flow)}"
    )


def _asked(detail: Detail, flow: str) -> str:
    return f"asked of {detail['to']}; event {detail['event']} of {detail['app']}"


def _outcome(detail: Detail, flow: str) -> str:
    reason = f" ({detail['reason']})" if detail.get("reason") else ""
    again = f", again in {detail['again']:g} s" if detail.get("again") else ""
    return f"{detail['outcome']}{reason}{again}; event {detail['event']} of {detail['app']}"


_SENTENCES: Mapping[str, Callable[[Detail, str], str]] = {
    "sent": _sent,
    "calling": _calling,
    "called": _called,
    "paged": _paged,
    "page-answered": _answered,
    "page-ended": _ended,
    "page-asked": _asked,
    "page-outcome": _outcome,
}


def _times(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"

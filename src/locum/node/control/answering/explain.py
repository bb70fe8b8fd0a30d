"""The request `locum explain`: the data plane's decision about a packet, by the model of the tests."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from locum.node.config.rule_table import PROTOCOLS
from locum.node.config.settings import Address
from locum.node.control.server import RequestFailed

if TYPE_CHECKING:
    from locum.node.control.view import NodeView

_MOST = {"dscp": 0x3F, "spi": 0xFFFFFFFF, "flow_label": 0xFFFFF}


def explain(node: "NodeView", arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Outcome, reasons, and both in words. Raises RequestFailed."""
    from locum.dataplane.model.explain import Question

    source, source_port = _end(arguments, "source")
    destination, destination_port = _end(arguments, "destination")
    numbers = {key: _number(arguments, key, most) for key, most in _MOST.items()}
    outer = arguments.get("outer_source")
    question = Question(
        source,
        destination,
        _protocol(arguments.get("protocol"), source),
        source_port,
        destination_port,
        link=None if arguments.get("here") else str(arguments.get("link") or node.plane.interfaces[0]),
        outer_source=None if outer is None else _address(outer, "outer_source"),
        **numbers,
    )
    try:
        found = node.plane.explain(question)
    except ValueError as problem:
        raise RequestFailed(str(problem)) from None
    return {
        "outcome": found.outcome.name.lower(),
        "verdict": found.verdict,
        "home_address": None if found.entry is None else str(found.entry.home_address),
        "rule": None if found.rule is None else found.rule.identifier,
        "tunnel": None if found.tunnel is None else str(found.tunnel.destination),
        "link": found.link,
        "filters": {place.value: identifier for place, identifier in found.filters},
        "steps": list(found.steps),
    }


def _end(arguments: Mapping[str, Any], key: str) -> tuple[Address, int]:
    """ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT."""
    text = str(arguments.get(key, ""))
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if port and not (port.isdecimal() and int(port) <= 0xFFFF):
        raise RequestFailed(f"{key}: {port!r} is no port")
    return _address(host, key), int(port or 0)


def _address(text: Any, key: str) -> Address:
    try:
        return ip_address(str(text))
    except ValueError:
        raise RequestFailed(
            f"{key}: {text!r} is no address; write ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT"
        ) from None


def _protocol(value: Any, source: Address) -> int:
    name = str(value).lower()
    if name == "icmp" and source.version == 6:
        name = "icmpv6"
    number = PROTOCOLS.get(name, int(name) if name.isdecimal() else 256)
    if number > 0xFF:
        raise RequestFailed(f"protocol: {value!r} is neither a number nor one of {', '.join(PROTOCOLS)}")
    return number


def _number(arguments: Mapping[str, Any], key: str, most: int) -> int:
    value = arguments.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise RequestFailed(f"{key}: a number from 0 to {most}")
    return value

"""States and results of proxies as 632 carries them (1079), for events, orders and users.

The state that a proxy returns is a map. What it has under RESULT is for the device; everything else is for the next proxy alone.
A result is a map of the proxy's own choice, in which these keys have a meaning that every kind shares:

    done        True: the order has been carried out, and is not run again
    failed      a text: the order cannot be carried out, and is not run again; not for what may go better next time
    problem     a text: it did not get on in this sleep, and may in the next one; the stand-in adds it for a proxy that keeps failing.
                Beside done: a part of the order has failed
    progress    a number or a small map of numbers and texts, for `locum order list`
    datagrams   [[address, port, own port, bytes], ...]: UDP datagrams that the device gets when it is awake, as if they came then
    files       [[name, bytes, SHA-256 in hexadecimal digits or ""], ...]: finished files that the device may fetch
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

from locum.roles.action_values.addresses import JSON
from locum.roles.action_values.app_orders import APPS
from locum.wire.control import Flow
from locum.wire.ip import build_udp

Address: TypeAlias = IPv4Address | IPv6Address
_UDP = 17

TOPIC_LEVELS = 16
"""Levels of the topic of a broker's message that the event `published` has one by one."""
RESULT = "result"
"""Key of a proxy's result in its state: everything else is for the next proxy alone."""
DONE, FAILED, PROBLEM, PROGRESS, FILES = "done", "failed", "problem", "progress", "files"
DATAGRAMS = "datagrams"
MAX_DATAGRAMS = 16
"""Datagrams of one proxy."""
MAX_FAILURE = 200
"""Characters of a reason under FAILED or PROBLEM; the rest is cut off."""


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A finished file of a proxy; `digest` is its SHA-256 in hexadecimal digits, or empty."""

    name: str
    size: int
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The meaning of a result. `failed` is empty unless the order cannot be carried out."""

    done: bool = False
    failed: str = ""
    problem: str = ""
    progress: JSON = None
    files: tuple[ResultFile, ...] = ()


def outcome(state: object) -> Outcome:
    """The outcome in a proxy's state; parts that are missing or of another shape count as absent."""
    result = state.get(RESULT) if isinstance(state, dict) else None
    if not isinstance(result, dict):
        return Outcome()
    failed, problem, files = result.get(FAILED), result.get(PROBLEM), result.get(FILES)
    return Outcome(
        done=result.get(DONE) is True,
        failed=str(failed)[:MAX_FAILURE] if failed else "",
        problem=str(problem)[:MAX_FAILURE] if problem else "",
        progress=plain(result.get(PROGRESS)),
        files=tuple(file for item in files if (file := _file(item))) if isinstance(files, list) else (),
    )


def troubled(state: Mapping[str, object], problem: str) -> Mapping[str, object]:
    """The state of a proxy that has failed at last, with the problem in its result; unchanged if that is another's map."""
    result = state.get(RESULT, {})
    if not problem or not isinstance(result, dict) or result.get(DONE) is True:
        return state
    return {**state, RESULT: {**result, PROBLEM: problem[:MAX_FAILURE]}}


def _file(item: object) -> ResultFile | None:
    match item:
        case [str(name), int(size), str(digest)] if size >= 0 and not isinstance(size, bool):
            return ResultFile(name, size, digest)
    return None


def results(application: Mapping[str, object]) -> Mapping[str, object]:
    """The result of each proxy by its name, for users; those without a result are left out, and so are datagrams."""
    found = {name: state[RESULT] for name, state in states(application).items() if RESULT in state}
    return {
        name: {key: value for key, value in result.items() if key != DATAGRAMS}
        if isinstance(result, dict)
        else result
        for name, result in found.items()
    }


def datagrams(application: Mapping[str, object], home_address: Address) -> list[bytes]:
    """Packets of the datagrams in all results, to the home address; entries of another shape are left out."""
    packets: list[bytes] = []
    for state in states(application).values():
        result = state.get(RESULT)
        listed = result.get(DATAGRAMS) if isinstance(result, dict) else None
        for item in listed[:MAX_DATAGRAMS] if isinstance(listed, list) else ():
            with suppress(ValueError):
                packets += _packet(item, home_address)
    return packets


def _packet(item: object, home_address: Address) -> list[bytes]:
    """Raises ValueError for an address that is none, and for a payload that no packet takes."""
    match item:
        case [str(address), int(port), int(own), bytes(payload)] if 0 < port < 65536 and 0 < own < 65536:
            peer = ip_address(address)
            if peer.version == home_address.version:
                return [build_udp(Flow(_UDP, home_address, own, peer, port), payload)]
    return []


def states(application: Mapping[str, object]) -> Mapping[str, Mapping[str, object]]:
    """The state of each proxy by its name."""
    found = application.get(APPS)
    if not isinstance(found, dict):
        return {}
    return {str(name): state for name, state in found.items() if isinstance(state, dict)}


def plain(value: object) -> JSON:
    """The value as JSON has it: bytes as hexadecimal digits, other foreign types as text."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return value.hex()
        case list() | tuple():
            return [plain(item) for item in value]
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
    return str(value)

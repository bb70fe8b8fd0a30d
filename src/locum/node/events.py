"""One stream of events and counts per node. Logs, `locum monitor`, the lab's reports and metrics are views of it.

An event is a JSON object: time, node, kind (what happened, past tense), message (number in the source text where
there is one), home_address, flow, detail. Nothing here decides anything.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from io import TextIOWrapper
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from locum.wire.flow import Flow

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, default=str).encode

Event = dict[str, Any]
Subscriber = Callable[[str], None]


class EventStream:
    """The one stream of a node's events."""

    def __init__(self, node: str, path: Path | None = None, limit: int = 256 << 20) -> None:
        """`path`: file that gets a line per event; past `limit` bytes it is renamed to `<path>.1` and begun anew.

        Raises OSError when the file cannot be opened.
        """
        self._node, self._path, self._limit = node, path, limit
        self._file: TextIOWrapper | None = None
        self._written = 0
        self._subscribers: list[Subscriber] = []
        self.counts: Counter[str] = Counter()  # events by kind
        self.reasons: Counter[str] = Counter()  # counted refusals and drops of the daemon
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open(path)

    def _open(self, path: Path) -> None:
        self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - lives as long as the node
        self._written = self._file.tell()

    def emit(
        self,
        kind: str,
        message: str | None = None,
        home_address: object = None,
        flow: object = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Say that something happened. `message` is its number in the source text, such as "601"."""
        self.counts[kind] += 1
        if self._file is None and not self._subscribers:
            return
        line = _encode(
            {
                "time": time.time(),
                "node": self._node,
                "kind": kind,
                "message": message,
                "home_address": None if home_address is None else str(home_address),
                "flow": None if flow is None else flow_text(flow),
                "detail": detail or {},
            }
        )
        if self._file is not None:
            self._write(line)
        for subscriber in tuple(self._subscribers):
            subscriber(line)

    def _write(self, line: str) -> None:
        assert self._file is not None and self._path is not None
        self._file.write(line + "\n")
        self._written += len(line) + 1
        if self._written >= self._limit:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._open(self._path)

    def count(self, reason: str, number: int = 1) -> None:
        """Count a refusal or a drop."""
        self.reasons[reason] += number

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Give every further event, as a line of JSON without its end, to `subscriber`; the result ends that."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


_FLOW = re.compile(
    r"(tcp|udp|\d{1,3}) (\[[0-9a-f:.]+\]|[0-9.]+):(\d{1,5}) > (\[[0-9a-f:.]+\]|[0-9.]+):(\d{1,5})"
)


def flow_text(flow: object) -> str:
    """Text form of a flow: "tcp 10.0.0.1:5000 > 192.0.2.1:80". Other values as their own text."""
    return str(flow)


def flow_of_text(text: object) -> Flow:
    """The flow that `flow_text` wrote. Raises ValueError."""
    found = _FLOW.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f'{text!r} is no flow such as "tcp 10.50.0.9:40000 > 192.0.2.1:80"')
    protocol, local, local_port, peer, peer_port = found.groups()
    number = {"tcp": 6, "udp": 17}.get(protocol)
    return Flow(
        int(protocol) if number is None else number,
        ip_address(local.strip("[]")),
        int(local_port),
        ip_address(peer.strip("[]")),
        int(peer_port),
    )


def prometheus_text(node: str, groups: Mapping[str, Mapping[str, int | float]]) -> str:
    """Counters by group in Prometheus' text format; a group becomes `locum_<group>_total{name="..."}`."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily
    from prometheus_client.exposition import generate_latest
    from prometheus_client.registry import Collector

    class Groups(Collector):
        def collect(self) -> list[CounterMetricFamily]:
            families = []
            for group, values in groups.items():
                family = CounterMetricFamily(
                    f"locum_{group}", f"Locum: {group.replace('_', ' ')}", labels=["node", "name"]
                )
                for name, value in sorted(values.items()):
                    family.add_metric([node, name], value)
                families.append(family)
            return families

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Groups())
    return generate_latest(registry).decode()

"""Findings about a host, from facts that are values; pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PORT = 51820
INTERFACE = "locum0"
_FILTERING = {"input", "forward"}


@dataclass(frozen=True, slots=True)
class Facts:
    """The host as it was found; None stands for what could not be read."""

    root: bool
    libbpf: bool
    wireguard_tools: bool
    wireguard: bool
    server: bool
    forwarding: bool | None
    ruleset: Sequence[Mapping[str, Any]] | None
    """Objects of `nft -j list ruleset`; empty without nft."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or that could not be looked at."""

    what: str
    why: str
    remedy: str
    unknown: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.why}; {self.remedy}"


def findings(facts: Facts) -> list[Finding]:
    """All that is wrong, in the order in which a person mends it."""
    found = []
    if not facts.root:
        found.append(Finding("not root", "some checks read what is root's", "run it with sudo", unknown=True))
    if not facts.libbpf:
        found.append(Finding("no libbpf.so.1", "the data plane cannot be loaded", "apt-get install libbpf1"))
    if not facts.wireguard_tools:
        why = "keys and peers of WireGuard are set by wg"
        found.append(Finding("no wg", why, "apt-get install wireguard-tools"))
    if not facts.wireguard:
        why = "the way between device and server cannot be encrypted"
        found.append(
            Finding("no WireGuard in the kernel, no wireguard-go", why, "apt-get install wireguard-go")
        )
    if facts.server:
        found += _server(facts)
    return found


def _server(facts: Facts) -> Iterator[Finding]:
    """Findings about a server alone: a device forwards nothing, and answers come back to it."""
    if facts.forwarding is None:
        yield Finding(
            "forwarding unknown", "/proc could not be read", "sysctl net.ipv4.ip_forward", unknown=True
        )
    elif not facts.forwarding:
        why = "packets between devices and the Internet are dropped"
        yield Finding("no IPv4 forwarding", why, "sysctl -w net.ipv4.ip_forward=1")
    if facts.ruleset is None:
        yield Finding(
            "firewall unknown", "nft could not list its rules", "run `nft list ruleset` as root", unknown=True
        )
        return
    for chain in dropping(facts.ruleset):
        place = f"{chain['family']} {chain['table']} {chain['name']}"
        if chain["hook"] == "input":
            why = f"devices may not reach port {PORT}"
            rules = [
                f"'nft insert rule {place} {protocol} dport {PORT} accept'" for protocol in ("udp", "tcp")
            ]
        else:
            why = "packets of devices may not pass"
            rules = [f"'nft insert rule {place} {way} {INTERFACE} accept'" for way in ("iifname", "oifname")]
        yield Finding(f"chain {place} drops what no rule accepts", why, "run " + " and ".join(rules))


def dropping(ruleset: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Base chains of input and forward that drop the rest, in tables where no rule accepts what a server needs."""
    rules = [item["rule"] for item in ruleset if "rule" in item]
    found = []
    for chain in (item["chain"] for item in ruleset if "chain" in item):
        if chain.get("type") != "filter" or chain.get("hook") not in _FILTERING:
            continue
        own = [rule for rule in rules if _table(rule) == _table(chain)]
        ending = [rule["expr"] for rule in own if rule["chain"] == chain["name"]][-1:]
        ends = any(_drops_all(expressions) for expressions in ending)
        wanted: object = PORT if chain["hook"] == "input" else INTERFACE
        if (chain.get("policy") == "drop" or ends) and not any(
            _accepts(rule["expr"], wanted) for rule in own
        ):
            found.append(chain)
    return found


def _table(item: Mapping[str, Any]) -> tuple[str, str]:
    return item["family"], item["table"]


def _drops_all(expressions: Sequence[Mapping[str, Any]]) -> bool:
    """True if a rule drops without a condition, as the last one of firewalld does."""
    return all(expression.keys() <= {"counter", "drop", "reject"} for expression in expressions) and any(
        "drop" in expression or "reject" in expression for expression in expressions
    )


def _accepts(expressions: Sequence[Mapping[str, Any]], wanted: object) -> bool:
    rights = [expression["match"]["right"] for expression in expressions if "match" in expression]
    named = any(
        right == wanted or (isinstance(right, dict) and wanted in right.get("set", ())) for right in rights
    )
    return named and any("accept" in expression for expression in expressions)

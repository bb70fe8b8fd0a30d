"""Findings of `locum doctor`, from hosts as values."""

from dataclasses import replace
from typing import Any

import pytest

from locum.node.setup.findings import Facts, dropping, findings

GOOD = Facts(
    root=True,
    libbpf=True,
    wireguard_tools=True,
    wireguard=True,
    server=True,
    forwarding=True,
    ruleset=(),
)


def chain(hook: str, policy: str = "drop") -> dict[str, Any]:
    names = {"family": "inet", "table": "filter", "name": hook}
    return {"chain": {**names, "type": "filter", "hook": hook, "policy": policy}}


def rule(where: str, *expressions: dict[str, Any], table: str = "filter") -> dict[str, Any]:
    return {"rule": {"family": "inet", "table": table, "chain": where, "expr": list(expressions)}}


def match(right: object) -> dict[str, Any]:
    return {"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": right}}


def test_a_good_host_has_no_findings() -> None:
    assert findings(GOOD) == []


@pytest.mark.parametrize(
    ("changed", "what", "unknown"),
    [
        ({"root": False}, "not root", True),
        ({"libbpf": False}, "no libbpf.so.1", False),
        ({"wireguard_tools": False}, "no wg", False),
        ({"wireguard": False}, "no WireGuard in the kernel, no wireguard-go", False),
        ({"forwarding": False}, "no IPv4 forwarding", False),
        ({"forwarding": None}, "forwarding unknown", True),
        ({"ruleset": None}, "firewall unknown", True),
        ({"ruleset": (chain("input"),)}, "chain inet filter input drops what no rule accepts", False),
    ],
)
def test_each_fault_is_one_finding(changed: dict[str, Any], what: str, unknown: bool) -> None:
    [finding] = findings(replace(GOOD, **changed))
    assert (finding.what, finding.unknown) == (what, unknown)
    assert str(finding).count("; ") == 1


def test_a_device_needs_no_forwarding_and_no_open_port() -> None:
    assert findings(replace(GOOD, server=False, forwarding=False, ruleset=(chain("input"),))) == []


@pytest.mark.parametrize("right", [51820, {"set": [22, 51820]}])
def test_a_rule_that_accepts_the_port_is_enough(right: object) -> None:
    assert dropping((chain("input"), rule("input", match(right), {"accept": None}))) == []
    assert dropping((chain("input"), rule("input", match(right), {"drop": None}))) != []
    assert dropping((chain("input"), rule("input", match(right), {"accept": None}, table="other"))) != []


def test_a_rule_of_a_called_chain_lets_devices_pass() -> None:
    accepting = rule("DOCKER-USER", match("locum0"), {"accept": None})
    assert dropping((chain("forward"), accepting)) == []
    assert dropping((chain("forward"), rule("DOCKER-USER", match("eth0"), {"accept": None}))) != []


def test_a_last_rule_that_rejects_all_is_a_drop() -> None:
    rejecting = rule("input", {"counter": {"packets": 0}}, {"reject": None})
    assert dropping((chain("input", "accept"), rejecting)) != []
    assert dropping((chain("input", "accept"), rule("input", match(22), {"drop": None}))) == []
    assert dropping((chain("output"), rejecting)) == []

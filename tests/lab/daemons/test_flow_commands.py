"""The command line over real nodes: flow rules from everywhere, triggers by a correspondent's agent, peers, explanations."""

import json
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

import pytest

from locum.lab.configuration import HOME_ADDRESS4, Pair, Plan
from locum.lab.errors import LabError
from locum.lab.processes import wait_until
from locum.lab.scenarios.stand_ins.fig07 import stand_ins
from locum.lab.steps.contexts import ACCESS, FORBIDDEN_PORT, REFUSED, context, policed, refuse
from locum.lab.steps.stand_ins import Registering, registering
from locum.lab.world import Lab

STAND_IN = Registering("mnps", bid=1)
HOME = str(HOME_ADDRESS4)
ANYBODY = "203.0.113.7"
PLAN = Plan(
    default_coa=False,
    associations=(
        Pair("cn", "mnps", at_far={"may_trigger": True}),
        Pair("an1", "mnps"),
        Pair("an1", "an3", ACCESS, ACCESS),
    ),
    tables={**registering(STAND_IN), "cn": {}, "an1": {"foreign_agent": {"profile": [policed()]}}},
)
"""The correspondent runs an agent of its own: a node with an association and no role (C8)."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab("flow-commands", tmp_path_factory.mktemp("lab"), PLAN, captures=False) as made:
        made.wait_registered()
        yield made


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    """Return the lab of all tests here; what a test has left when it fails ends with it."""
    yield shared
    if stand_ins(shared):
        shared.command("cn", "trigger", "release", HOME, "--mnps", STAND_IN.address)
        wait_until("the device to be told", lambda: responsible(shared, "mn")[-1:] == [True])
        wait_until("the stand-in to be told", lambda: responsible(shared, "mnps")[-1:] == [False])
    for rule in told(shared, "ha", "flow", "list"):
        node = {"mn": "mn", "at-mnps": "mnps", "admin": "ha"}[rule["owner"]]
        home = ("--home-address", HOME) if node == "ha" else ()
        shared.command(node, "flow", "remove", *home, str(rule["id"]))


def told(lab: Lab, node: str, *arguments: str) -> Any:
    """Output of `locum -j`."""
    return json.loads(lab.command(node, "-j", *arguments))


def refused(lab: Lab, node: str, *arguments: str) -> str:
    """Error message of `locum`, with exit code 1."""
    with pytest.raises(LabError) as failure:
        lab.command(node, *arguments)
    assert "ended with 1" in str(failure.value)
    return str(failure.value)


def goes(lab: Lab, port: int, protocol: str = "udp") -> tuple[int | None, str | None]:
    """Rule and tunnel of the home agent for a packet of any sender."""
    said = told(lab, "ha", "explain", protocol, f"{ANYBODY}:4000", f"{HOME}:{port}")
    return said["rule"], said["tunnel"]


def care_of(lab: Lab, access_node: str) -> str:
    return str(lab.configuration.care_of(access_node))


def responsible(lab: Lab, node: str) -> list[bool]:
    """The 618 notices to a node, in order."""
    return [event.detail["responsible"] for event in lab.timeline.of(node) if event.kind == "notified"]


@pytest.mark.parametrize("options", [(), ("--protocol", "udp", "--destination-port", str(FORBIDDEN_PORT))])
def test_stand_in_flows_are_policed_as_at_the_device(lab: Lab, options: tuple[str, ...]) -> None:
    """The stand-in does not know the device's place; packets refused there are refused here (C4, C6, R20)."""
    assert refuse(lab, "an1") == REFUSED
    fetched = len(asked(lab))
    before = {node: len(responsible(lab, node)) for node in ("mn", "mnps")}
    lab.command("cn", "trigger", "take", HOME, "--mnps", STAND_IN.address, *options)
    wait_until("the context", lambda: "policy" in context(lab, "an3").get("blocks", {}), 10)
    assert refuse(lab, "an3") == REFUSED
    assert asked(lab)[fetched:] == [care_of(lab, "an1")]
    # They may come later than all that another node has seen, also those of an earlier release.
    wait_until("the stand-in to be told", lambda: True in responsible(lab, "mnps")[before["mnps"] :], 10)
    told = responsible(lab, "mnps")[before["mnps"] :]
    assert all(told[told.index(True) :]), "the stand-in has what it asked for"
    wait_until("the device to be told", lambda: bool(options) in responsible(lab, "mn")[before["mn"] :], 10)
    if options:  # a registration that it renews meanwhile is followed by the same notice
        assert False not in responsible(lab, "mn")[before["mn"] :], "it has all but some"
    taken = len(responsible(lab, "mn"))
    lab.command("cn", "trigger", "release", HOME, "--mnps", STAND_IN.address)
    wait_until("the device to be told", lambda: True in responsible(lab, "mn")[taken:], 10)
    wait_until("the stand-in to be told", lambda: responsible(lab, "mnps")[-1] is False, 10)
    assert responsible(lab, "mn")[-1] is True
    assert refuse(lab, "an1") == REFUSED


def asked(lab: Lab) -> list[str]:
    """Access nodes that the stand-in's access node has asked for the context."""
    sent = [event for event in lab.timeline.of("an3") if (event.kind, event.message) == ("sent", "622")]
    return [event.detail["to"] for event in sent if event.detail.get("errand") == "fetch"]


def test_correspondents_agent_triggers_take_and_release(lab: Lab) -> None:
    assert lab.command("cn", "trigger", "take", HOME, "--mnps", STAND_IN.address) == "taken\n"
    assert stand_ins(lab) == ["at-mnps"]
    assert goes(lab, 9999) == (None, care_of(lab, "an3"))
    assert lab.command("cn", "trigger", "take", HOME, "--mnps", STAND_IN.address) == "taken\n"
    assert lab.command("cn", "trigger", "release", HOME, "--mnps", STAND_IN.address) == "released\n"
    assert stand_ins(lab) == []
    assert goes(lab, 9999) == (None, care_of(lab, "an1"))


def test_unauthorised_triggers_are_refused(lab: Lab) -> None:
    said = refused(lab, "an1", "trigger", "take", HOME, "--mnps", STAND_IN.address)
    assert "not-authorised" in said and "may_trigger" in said
    assert "no association" in refused(lab, "an2", "trigger", "take", HOME, "--mnps", STAND_IN.address)
    other = refused(lab, "cn", "trigger", "take", "10.10.100.77", "--mnps", STAND_IN.address)
    assert "not-authorised" in other
    assert "is not an address" in refused(lab, "cn", "trigger", "take", "nobody", "--mnps", STAND_IN.address)
    assert stand_ins(lab) == []
    assert lab.counters("mnps")["refusals"]["trigger-not-authorised"] == 2


def test_selector_of_a_trigger_becomes_a_stand_in_rule(lab: Lab) -> None:
    selected = ("--mnps", STAND_IN.address, "--protocol", "udp", "--destination-port", "7000-7009")
    lab.command("cn", "trigger", "take", HOME, *selected)
    (rule,) = told(lab, "ha", "flow", "list")
    assert (rule["owner"], rule["to"], rule["destination_port"]) == ("at-mnps", [1], "7000-7009")
    assert goes(lab, 7005) == (rule["id"], care_of(lab, "an3"))
    assert goes(lab, 7010) == (None, care_of(lab, "an1"))
    assert goes(lab, 7005, "tcp") == (None, care_of(lab, "an1"))
    made = told(lab, "mnps", "flow", "add", "--protocol", "tcp", "--destination-port", "8007")
    assert [row["id"] for row in told(lab, "mnps", "flow", "list")] == [rule["id"], made["id"]]
    assert goes(lab, 8007, "tcp") == (made["id"], care_of(lab, "an3"))
    assert "identifier and priority" in refused(lab, "mnps", "flow", "add", "--priority", "1", "--to", "1")
    lab.command("mnps", "flow", "remove", str(rule["id"]))
    lab.command("cn", "trigger", "release", HOME, "--mnps", STAND_IN.address)
    assert (told(lab, "ha", "flow", "list"), told(lab, "mnps", "flow", "list")) == ([], [])


def test_device_registers_rules_to_registered_bindings(lab: Lab) -> None:
    web = ("--protocol", "tcp", "--destination-port", "80")
    assert "153" in refused(lab, "mn", "flow", "add", "--priority", "5", "--to", "9", *web)
    assert "binding identifiers" in refused(lab, "mn", "flow", "add", "--priority", "5", "--to", "mnps", *web)
    assert "set bid in [mobile_node]" in refused(
        lab, "mn", "flow", "add", "--priority", "5", "--to", "mn", *web
    )
    own = told(lab, "mn", "flow", "add", "--priority", "5", "--drop", *web)["id"]
    assert goes(lab, 80, "tcp") == (own, None)
    (rule,) = told(lab, "ha", "flow", "list")
    assert (rule["owner"], rule["action"], rule["id"], sorted(rule["live"])) == ("mn", "drop", own, [4, 6])
    overlap = refused(lab, "mn", "flow", "add", "--priority", "5", "--drop", "--protocol", "tcp")
    assert "same packets" in overlap
    assert [row["id"] for row in told(lab, "mn", "flow", "list")] == [own]
    lab.command("mn", "flow", "remove", str(own))
    assert (told(lab, "ha", "flow", "list"), told(lab, "mn", "flow", "list")) == ([], [])
    assert f"no rule {own}" in refused(lab, "mn", "flow", "remove", str(own))


def test_administrator_rules_at_the_home_agent(lab: Lab) -> None:
    home = ("--home-address", HOME)
    made = told(lab, "ha", "flow", "add", *home, "--priority", "3", "--to", "mnps", "--to", "mn",
                "--source", "198.51.100.0/24", "--protocol", "udp", "--source-port", "53")  # fmt: skip
    assert (made["owner"], made["id"] >= 32768, made["live"], made["packets"]) == ("admin", True, [4], 0)
    said = told(lab, "ha", "explain", "udp", "198.51.100.9:53", f"{HOME}:40000")
    assert (said["rule"], said["tunnel"]) == (made["id"], care_of(lab, "an1"))
    assert "is there already" in refused(
        lab, "ha", "flow", "add", *home, "--id", str(made["id"]), "--priority", "9", "--drop"
    )
    assert "10.1.1.1" in refused(
        lab, "ha", "flow", "add", "--home-address", "10.1.1.1", "--priority", "9", "--drop"
    )
    assert "priority" in refused(lab, "ha", "flow", "add", *home, "--drop")
    assert "choose one" in refused(lab, "ha", "flow", "add", "--priority", "9", "--drop")
    gone = lab.command("ha", "flow", "remove", *home, str(made["id"]))
    assert gone == f"rule {made['id']} is gone\n"


def test_peers_are_listed_without_their_keys(lab: Lab) -> None:
    text = lab.command("mnps", "-j", "peer", "list")
    rows = {(row["kind"], row["address"]): row for row in json.loads(text)}
    agent = rows["control", str(lab.topology.address4("cn"))]
    assert (agent["may_trigger"], HOME in agent["speaks_for"]) == (True, True)
    assert agent["received"] > 0 and agent["last_heard"] < 600
    assert rows["control", care_of(lab, "an1")]["may_trigger"] is False
    assert rows["home-agent", str(lab.topology.address4("ha"))]["spi"] == STAND_IN.spi
    home = {(row["kind"], row.get("name")) for row in told(lab, "ha", "peer", "list")}
    assert {("mobile-node", None), ("stand-in", "at-mnps"), ("foreign-agent", None)} <= home
    secrets = [path.read_text().strip() for path in (lab.configuration.folder / "keys").iterdir()]
    assert not any(secret in text for secret in secrets)
    assert "may trigger" in lab.command("mnps", "peer", "list")


def test_explanations_give_reasons_and_refuse_impossible_packets(lab: Lab) -> None:
    said = lab.command("ha", "explain", "tcp", f"{ANYBODY}:1", f"{HOME}:22").splitlines()
    assert said[0].startswith(f"home agent: entry of {HOME}")
    assert said[-1] == f"the packet goes into the tunnel to {care_of(lab, 'an1')}"
    inside = told(lab, "an1", "explain", "udp", f"{ANYBODY}:1", f"{HOME}:2",
                  "--tunnel-from", str(lab.topology.address4("ha")))  # fmt: skip
    assert (inside["outcome"], inside["link"]) == ("delivered", "radio0")
    forged = told(lab, "an1", "explain", "udp", f"{ANYBODY}:1", f"{HOME}:2", "--tunnel-from", ANYBODY)
    assert forged["outcome"] == "dropped"
    assert "two families" in refused(lab, "ha", "explain", "udp", "[2001:db8::1]:4", f"{HOME}:5")
    assert "no port" in refused(lab, "ha", "explain", "udp", f"{ANYBODY}:99999", f"{HOME}:5")
    assert "protocol" in refused(lab, "ha", "explain", "carrier-pigeon", ANYBODY, HOME)


def test_contexts_are_listed_at_an_access_node(lab: Lab) -> None:
    assert all(IPv4Address(row["home_address"]) for row in told(lab, "an1", "context", "list"))
    assert "no access node" in refused(lab, "ha", "context", "list")


def test_correspondents_agent_has_no_role(lab: Lab) -> None:
    status = told(lab, "cn", "status")
    assert (status["roles"], status["interfaces"]) == ([], {"eth0": "up"})

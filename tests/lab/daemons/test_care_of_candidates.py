"""Routing of a device on real nodes: binding identifier and weight (RFC 7629, R8), rules of one family."""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from locum.lab.captures.capture import READ_EVERY
from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6, Pair, Plan, merged
from locum.lab.errors import LabError
from locum.lab.processes import Program, wait_until
from locum.lab.programs import stream
from locum.lab.programs.talking import say
from locum.lab.scenarios.routing.flows import datagrams
from locum.lab.scenarios.stand_ins.fig07 import held, stand_ins, told
from locum.lab.scenarios.stand_ins.fig10 import login
from locum.lab.steps.stand_ins import Registering, registering
from locum.lab.steps.story import live, watch
from locum.lab.world import Lab

STAND_IN = Registering("mnps", bid=1)
OWN, WEIGHT = 5, 3
PLAN = Plan(
    default_coa=False,
    associations=(Pair("cn", "mnps", at_far={"may_trigger": True}),),
    tables=merged(
        {**registering(STAND_IN), "cn": {}}, {"mn": {"mobile_node": {"bid": OWN, "weight": WEIGHT}}}
    ),  # type: ignore[arg-type]
)
HOMES = {4: HOME_ADDRESS4, 6: HOME_ADDRESS6}
TAKE = ("trigger", "take", str(HOME_ADDRESS4), "--mnps", STAND_IN.address)
RELEASE = ("trigger", "release", str(HOME_ADDRESS4), "--mnps", STAND_IN.address)
FLOWS = 256


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab("device-ways", tmp_path_factory.mktemp("lab"), PLAN) as made:
        made.wait_registered()
        # a starting device asks its stand-ins to release triggered takeovers: wait for the end of that
        wait_until(
            "the device's request to release", lambda: told(made, "trigger-done", "trigger", "mn") == 1
        )
        yield made


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    """Return the lab of all tests here; the rules of a test and the stand-in's registration end with it."""
    yield shared
    if stand_ins(shared):
        shared.command("cn", *RELEASE)
    for node in ("mn", "mnps"):
        for rule in said(shared, node, "flow", "list"):
            shared.command(node, "flow", "remove", str(rule["id"]))
    wait_until("the rules to be gone", lambda: not shared.flow_rules() and not stand_ins(shared))


def said(lab: Lab, node: str, *arguments: str) -> Any:
    """Output of `locum -j`."""
    return json.loads(lab.command(node, "-j", *arguments))


def place(lab: Lab, protocol: str, port: int | None, version: int) -> tuple[str | None, int | None]:
    """The home agent's destination for a packet of the correspondent to that port, and its rule."""
    peer = lab.topology.address4("cn") if version == 4 else lab.topology.address6("cn")
    ends = [
        str(address) if port is None else f"[{address}]:{number}"
        for address, number in ((peer, 40000), (HOMES[version], port))
    ]
    found = said(lab, "ha", "explain", protocol, *ends)
    owner = None if found["tunnel"] is None else lab.topology.owner(found["tunnel"])
    return owner, found["rule"]


def selectors(rules: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {rule["id"]: rule["selector"] for rule in rules}


def stream_to(lab: Lab, port: int, flows: int = 1, version: int = 4) -> Program:
    """Numbered datagrams of the correspondent to a home address."""
    rate = 100 if flows == 1 else 2 * flows
    command = [
        sys.executable,
        "-m",
        "locum.lab.programs.stream",
        str(HOMES[version]),
        str(port),
        str(rate),
        "1.5",
    ]
    return lab.processes.start("cn", f"stream-{port}", [*command, str(stream.PAYLOAD), "-", str(flows)])


def test_a_rule_is_of_the_families_that_it_names_at_both_ends(lab: Lab) -> None:
    """At the device, at the stand-in, and by a trigger; and the lists agree."""
    udp = ("--protocol", "udp", "--destination-port")
    lab.command("cn", *TAKE, *udp, "6999")  # so that binding 1 is registered
    six = said(lab, "mn", "flow", "add", "--priority", "10", "--to", "1", "--family", "6", *udp, "7000")["id"]
    four = said(lab, "mn", "flow", "add", "--priority", "10", "--to", "1", "--family", "4", *udp, "7001")[
        "id"
    ]
    both = said(lab, "mn", "flow", "add", "--priority", "10", "--to", "1", *udp, "7002")["id"]
    ping = said(lab, "mn", "flow", "add", "--priority", "10", "--to", "1", "--protocol", "icmp")["id"]
    assert [place(lab, "udp", 7000, version) for version in (4, 6)] == [("an1", None), ("an3", six)]
    assert [place(lab, "udp", 7001, version) for version in (4, 6)] == [("an3", four), ("an1", None)]
    assert [place(lab, "udp", 7002, version) for version in (4, 6)] == [("an3", both), ("an3", both)]
    assert place(lab, "icmp", None, 4) == place(lab, "icmpv6", None, 6) == ("an3", ping)
    own = selectors(said(lab, "mn", "flow", "list"))
    at_home = {data["id"]: data for data in said(lab, "ha", "flow", "list")}
    assert own == {selector: at_home[selector]["selector"] for selector in own} and set(own) == {
        six,
        four,
        both,
        ping,
    }
    assert own[six]["destination"] == str(HOME_ADDRESS6) and own[ping] == {"protocol": "icmp"}
    assert [at_home[identifier]["live"] for identifier in (six, four, both, ping)] == [
        [6],
        [4],
        [4, 6],
        [4, 6],
    ]
    for selector in own:
        lab.command("mn", "flow", "remove", str(selector))
    made = said(lab, "mnps", "flow", "add", "--family", "6", *udp, "7010")["id"]
    several = said(lab, "mnps", "flow", "add", "--protocol", "icmp")
    lab.command("cn", *TAKE, "--family", "4", *udp, "7011")
    lab.command(
        "cn", "trigger", "take", str(HOME_ADDRESS6), "--mnps", STAND_IN.address, "--family", "6", *udp, "7012"
    )
    assert [place(lab, "udp", 7010, version) for version in (4, 6)] == [("an1", None), ("an3", made)]
    assert [place(lab, "udp", 7011, version)[0] for version in (4, 6)] == ["an3", "an1"]
    assert [place(lab, "udp", 7012, version)[0] for version in (4, 6)] == ["an1", "an3"]
    pings = [several["id"], *(other["id"] for other in several["others"])]
    assert [place(lab, "icmp", None, 4), place(lab, "icmpv6", None, 6)] == [("an3", ping) for ping in pings]
    listed = selectors(said(lab, "mnps", "flow", "list"))
    assert listed == selectors(said(lab, "ha", "flow", "list")) and len(listed) == 6
    with pytest.raises(LabError, match="no IPv6 home address is known"):
        lab.command("cn", *TAKE, "--family", "6", *udp, "7013")


def test_ssh_stays_at_the_device_and_the_stand_in_takes_the_rest(lab: Lab) -> None:
    """By the device's own rules: stand-in 1, else me; and before that, ssh to me."""
    (own,) = [care_of for care_of in lab.bindings()[0]["care_of"] if care_of["registrant"] == "mn"]
    assert (own["bid"], own["weight"]) == (OWN, WEIGHT)
    ssh = login(lab)
    lab.command("cn", *TAKE, "--protocol", "udp", "--destination-port", "6999")
    stays = said(
        lab, "mn", "flow", "add", "--priority", "10", "--to", "mn", "--protocol", "tcp", "--source-port", "22"
    )
    rest = said(lab, "mn", "flow", "add", "--priority", "20", "--to", "1", "--to", "mn", "--protocol", "udp")
    assert (stays["to"], rest["to"]) == ([OWN], [1, OWN])
    assert say(ssh, "echo here $((6*7))") == "here 42"
    sent = [stream_to(lab, 7001, version=version) for version in (4, 6)]
    assert say(ssh, "echo here $((6*8))") == "here 48"
    for program in sent:
        program.wait(10)
    lab.command("cn", *RELEASE)  # the stand-in is gone: else me
    assert stand_ins(lab) == []
    stream_to(lab, 7002).wait(10)
    assert say(ssh, "echo here $((6*9))") == "here 54"
    say(ssh, "exit 3", answered=False)
    assert ssh.wait(10) == 3
    rules = {flow_rule["id"]: flow_rule for flow_rule in lab.flow_rules()}
    assert rules[stays["id"]]["packets"] >= 5  # two answers, the end, and acknowledgements
    lab.pause(READ_EVERY)
    for port, where, elsewhere in ((7001, "mnps", "mn"), (7002, "mn", "mnps")):
        for version in (4, 6) if port == 7001 else (4,):
            out = datagrams(lab.captures.files["cn"], outgoing=True)[version, port]
            assert len(out) > 100 and datagrams(lab.captures.files[where])[version, port] == out
            assert not datagrams(lab.captures.files[elsewhere])[version, port]


def test_flows_are_shared_between_device_and_stand_in_by_weight(lab: Lab) -> None:
    lab.command("cn", *TAKE, "--protocol", "udp", "--destination-port", "6999")
    lab.command("mn", "flow", "add", "--priority", "10", "--share", "--to", "1", "--to", "mn", "--protocol", "udp",
                "--destination-port", "7003")  # fmt: skip
    stream_to(lab, 7003, FLOWS).wait(20)
    lab.pause(READ_EVERY)
    out = datagrams(lab.captures.files["cn"], outgoing=True)[4, 7003]
    places: defaultdict[int, set[str]] = defaultdict(set)
    for node in ("mn", "mnps"):
        found = datagrams(lab.captures.files[node])[4, 7003]
        out = out - found
        for source_port, _ in found:
            places[source_port].add(node)
    assert not out and len(places) == FLOWS and all(len(place) == 1 for place in places.values())
    count = Counter(node for place in places.values() for node in place)
    # five times the deviation that chance has
    assert abs(count["mn"] / FLOWS - WEIGHT / (WEIGHT + 1)) < 0.135


def test_session_kept_by_a_rule_sleeps_and_comes_back(lab: Lab) -> None:
    """A live download that the device's own rule leads to the device; the stand-in registers for everything (R4)."""
    server, films = live(lab)
    rule = said(lab, "mn", "flow", "add", "--priority", "10", "--to", "mn", "--protocol", "tcp",
                "--source-port", "80")  # fmt: skip
    film = watch(lab, films)
    film.wait_for(3_000_000)
    with pytest.raises(LabError, match=f"rule {rule['id']}"):
        lab.command("mn", "give", "--port", "80")
    awake = lab.flow_rules()
    lab.command("mn", "sleep", "--to", "mnps")
    before, asleep = held(lab), lab.flow_rules()
    wait_until("the stand-in to receive", lambda: held(lab) >= before + 4_000_000, 20)
    assert lab.all_frozen([film.program])
    lab.cut()
    wait_until("the stand-in to receive", lambda: held(lab) >= before + 8_000_000, 20)
    assert (awake[0]["live"], awake[0]["packets"] > 0, asleep[0]["live"]) == (
        [4, 6],
        True,
        [],
    )  # it is passed over
    lab.restore()
    lab.command("mn", "wake")
    assert film.finish(60) == 0 and film.correct and server.connections("/live/film") == 1
    assert [flow_rule["id"] for flow_rule in lab.flow_rules()] == [rule["id"]]
    (own,) = [care_of for care_of in lab.bindings()[0]["care_of"] if care_of["registrant"] == "mn"]
    assert (own["bid"], own["brief"], stand_ins(lab)) == (OWN, False, [])
    assert lab.flow_rules()[0]["packets"] > 0


def test_binding_identifier_of_the_stand_in_is_refused(lab: Lab) -> None:
    """The stand-in's own: the device is refused while that is registered, and says which code."""
    lab.command("cn", *TAKE)
    file = lab.configuration.file("mn")
    text = file.read_text()
    lab.crash("mn")
    file.write_text(text.replace(f"bid = {OWN}\n", f"bid = {STAND_IN.bid}\n"))
    lab.launch("mn")
    lab.wait_ready("mn")
    wait_until("the refusal", lambda: lab.counters("mn")["refusals"].get("denied-152", 0) > 0, 15)
    lab.crash("mn")
    file.write_text(text)
    lab.launch("mn")
    lab.wait_ready("mn")
    wait_until("the registration", lambda: told(lab, "registered", "604", "mn") >= 2, 30)
    assert [
        care_of.get("bid") for care_of in lab.bindings()[0]["care_of"] if care_of["registrant"] == "mn"
    ] == [OWN]

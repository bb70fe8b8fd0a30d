"""Profiles that pages bring to access nodes (P8), and addresses that they bring to devices (P9), on real nodes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from locum.lab.captures.pcap import datagrams
from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6, Pair, Plan, Table
from locum.lab.processes import wait_until
from locum.lab.programs import stream
from locum.lab.programs.radius.freeradius import FreeRadius, client
from locum.lab.world import Lab
from locum.roles.action_values.page_calls import PageCall
from locum.roles.mobile_ipv4.page_calls import is_experimental, read_call
from locum.wire.mobile_ip.registration import RegistrationRequest
from tests.lab.daemons.test_fast_pages import BRIEF, REGISTRATION, REQUEST, UDP
from tests.lab.daemons.test_paging_classifier import NUMBER, state, stream_to

HOME = str(HOME_ADDRESS4)
FORBIDDEN, ALLOWED = 7_031, 7_032
"""UDP ports that page; the profile's filter drops the first at the access node."""
FILTER = 7
POLICY: Table = {"servers": [{"address": "10.10.5.2", "secret_file": "key:radius"}], "timeout": 1.0}


def profiled(forwarding: str) -> Plan:
    """Only the home agent asks the policy server: the access node knows the profile by the page, or not at all."""
    found: Table = {
        "page_seconds": 60.0,
        "page_profile": "profile",
        "page_forwarding": forwarding,
        "mobile": None,
    }
    return Plan(
        short_lifetime=BRIEF,
        extras=("aaa",),
        associations=(Pair("ha", "an1"), Pair("ha", "an2")),
        tables={"ha": {"home_agent": found, "policy": POLICY}},
    )


@contextmanager
def served(place: Path, plan: Plan, user: str, lines: Callable[[Lab], list[str]]) -> Iterator[Lab]:
    """A lab whose policy server knows the device."""
    with Lab("provisions", place, plan) as lab:
        secret = lab.configuration.key("radius").read_text().strip()
        known = client("ha", lab.topology.address4("ha"), secret)
        key = lab.configuration.key("mn-ha").read_text().strip()
        said = ["Session-Timeout := 600", "Locum-SPI := 1000", f'Locum-Key := "{key}"', *lines(lab)]
        server = FreeRadius(lab.processes, "aaa", lab.place.path / "aaa", known)
        server.start(f"{user}\tAuth-Type := Accept\n\t" + ",\n\t".join(said) + "\n\n")
        lab.wait_registered("an1", 60.0)
        yield lab


def profile(lab: Lab) -> list[str]:
    udp = 'protocol = "udp", destination_port'
    return [
        f"Locum-Home-Address := {HOME_ADDRESS4}",
        f"Locum-Home-Address-V6 := {HOME_ADDRESS6}",
        f"Locum-Default-CoA := {lab.configuration.care_of('an3')}",
        f'Locum-MNPS := \'name = "proxy", address = "{lab.topology.address4("mnps")}", spi = 1100\'',
        f'Locum-MNPS-Key := "1100 {lab.configuration.key("mnps-ha").read_text().strip()}"',
        f'Locum-Rule += \'id = 5, priority = 3, action = "page", {udp} = "{FORBIDDEN}-{ALLOWED}"\'',
        f"Locum-Filter-To := 'id = {FILTER}, action = \"drop\", {udp} = {FORBIDDEN}'",
    ]


def dropped(lab: Lab) -> dict[int, int]:
    """Packets that each rule of the device's filter has taken at its access node."""
    rows: list[dict[str, Any]] = lab.ask("an1", "filter list")
    return {row["id"]: row["packets"] for row in rows if row["home_address"] == HOME and row["id"]}


@pytest.mark.parametrize("forwarding", ["registration", "before"])
def test_profile_of_a_page_polices_its_first_packet(tmp_path: Path, forwarding: str) -> None:
    with served(tmp_path, profiled(forwarding), HOME, profile) as lab:
        assert dropped(lab) == {}, "the access node does not have the profile"
        lab.command("mn", "sleep")
        wait_until("the rule to be in force", lambda: lab.flow_rules()[0]["live"] == [4, 6], 20.0)
        stream_to(lab, FORBIDDEN)  # its first packet pages
        stream_to(lab, ALLOWED)
        wait_until("the device to wake", lambda: state(lab) == "awake", 60.0)
        lab.wait_registered("an1", 60.0)
        wait_until("the filter", lambda: dropped(lab) == {FILTER: NUMBER}, 20.0)
        lab.pause(0.5)
        told = [event for event in lab.timeline.of("an1") if event.kind in ("page-profile", "calling")]
        assert [event.kind for event in told[:2]] == ["page-profile", "calling"]
        assert told[0].detail["blocks"] == ["policy", "paging"]
        lab.finish()
        arrived = [stream.order(lab.captures.files["mn"], port) for port in (FORBIDDEN, ALLOWED)]
    assert arrived == [[], list(range(NUMBER))]


# Allocation

NAI = "mn@example.org"
POOL: Table = {"name": "guests", "prefix": "10.10.100.0/24", "first": HOME, "last": "10.10.100.19"}
ALLOCATING = Plan(
    short_lifetime=BRIEF,
    extras=("aaa",),
    associations=(Pair("ha", "an1"), Pair("ha", "an2")),
    tables={
        "ha": {"policy": POLICY, "home_agent": {"mobile": None, "page_seconds": 60.0, "pool": [POOL]}},
        "mn": {"mobile_node": {"nai": NAI}},
    },
)


def pooled(lab: Lab) -> list[str]:
    return ['Locum-Pool := "guests"', *profile(lab)[1:5]]


def test_paged_device_asks_for_the_allocated_address(tmp_path: Path) -> None:
    """Woken by command it asks for any address, woken by a page for the one that the pool has for it."""
    begins = []
    with served(tmp_path, ALLOCATING, NAI, pooled) as lab:
        home_agent = lab.topology.address4("ha")
        for wake in (("mn", "wake"), ("ha", "page", HOME)):
            lab.command("mn", "sleep")
            wait_until("the device to sleep", lambda: state(lab) == "asleep", 20.0)
            lab.pause(BRIEF + 1.0)  # its short registration is over
            begins.append(lab.timeline.mark("wake"))
            lab.command(*wake, patience=90.0)
            wait_until("the device to wake", lambda: state(lab) == "awake", 60.0)
            lab.wait_registered("an1", 60.0)
        assert [row["home_address"] for row in lab.bindings() if row["care_of"]] == [HOME]
        lab.finish()
        called, asked = messages(lab.captures.files["mn"])
    own = (HOME_ADDRESS4, home_agent)
    assert {call.allocation for call in called} == {own}, "in the call, as the home agent signed it"
    first = [next(request for time, request in asked if time >= begin) for begin in begins]
    assert [request.home_address for request in first] == [IPv4Address(0), own[0]]
    assert first[1].home_agent == home_agent


def messages(file: Path) -> tuple[list[PageCall], list[tuple[float, RegistrationRequest]]]:
    """Calls that came to the device, and its registration requests."""
    called, asked = [], []
    for one in datagrams(file):
        payload = one.transport[8:]
        if one.protocol != UDP or one.transport[2:4] != REGISTRATION:
            continue
        if one.outgoing and payload[:1] == bytes((REQUEST,)):
            asked.append((one.time, RegistrationRequest.decode(payload)))
        elif not one.outgoing and is_experimental(payload):
            called.append(read_call(payload))
    return called, asked

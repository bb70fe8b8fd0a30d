"""Memory of a home agent for each binding: the role's, and that of the data plane's state."""

import gc
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from random import Random

from locum.dataplane.compact import compact_state
from locum.dataplane.state import ForwardingState
from locum.node.tables import StoredRow
from locum.roles import actions as a
from locum.roles.action_values.addresses import Source
from locum.roles.home_agent.binding import Mobile
from locum.roles.home_agent.configuration import HomeAgentConfiguration
from locum.roles.home_agent.role import HomeAgent
from locum.roles.mobile_ipv4.signing import signed
from locum.security.association import Association
from locum.security.replay import ntp64
from locum.wire.mobile_ip.extensions import AuthKind
from locum.wire.mobile_ip.registration import Flag, RegistrationRequest

HA, CARE_OF = IPv4Address("10.5.0.1"), IPv4Address("10.1.0.1")
KEY, NOW = Association(300, b"k" * 16), 1_790_000_000.0
DEVICES = [int(IPv4Address("10.64.0.1")) + number for number in range(2000)]
REQUEST = RegistrationRequest(1800, HA, HA, CARE_OF, ntp64(NOW), Flag.T, ())
MOST = 1000  # bytes a binding
Site = tuple[HomeAgent, ForwardingState]


def home_agent() -> HomeAgent:
    mobiles = [Mobile(IPv4Address(device), KEY) for device in DEVICES]
    return HomeAgent(HomeAgentConfiguration(HA), mobiles, {}, Random(1))


def registered(messages: list[bytes], store: Callable[[a.Persist], None]) -> Site:
    """All devices register."""
    role, state = home_agent(), compact_state()
    role.restore([], now=NOW)
    for message in messages:
        for action in role.receive(message, Source(IPv4Address(int(CARE_OF)), 434, "core"), now=NOW):
            state.perform(action)
            if isinstance(action, a.Persist):
                store(action)
    return role, state


def restored(rows: list[StoredRow]) -> Site:
    """The same after a restart."""
    role, state = home_agent(), compact_state()
    for action in role.restore(rows, now=NOW):
        state.perform(action)
    return role, state


def taken(make: Callable[[], Site]) -> float:
    """Bytes for each binding that are left when it is made."""
    gc.collect()
    tracemalloc.start()
    try:
        role, state = make()
        gc.collect()
        assert (
            len(state.bindings) == len(state.acceptances) == len(role.visitor_list(now=NOW)) == len(DEVICES)
        )
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / len(DEVICES)
    finally:
        tracemalloc.stop()


def test_bindings_take_little_memory_after_a_restart_too() -> None:
    """Configuration, registration and forwarding of one device."""
    messages = [
        signed(replace(REQUEST, home_address=IPv4Address(device)).encode(), AuthKind.MN_HA, KEY)
        for device in DEVICES
    ]
    rows: list[StoredRow] = []
    registered(messages, lambda row: rows.append(StoredRow(row.table, row.key, json.dumps(row.value))))
    assert taken(lambda: registered(messages, lambda _row: None)) <= MOST
    assert taken(lambda: restored(rows)) <= MOST

"""Requests that a foreign agent has relayed: their numbers, and the cost of one more during a flood."""

from ipaddress import IPv4Address
from random import Random
from time import process_time

from locum.roles import actions as a
from locum.roles.action_values.addresses import Source
from locum.roles.foreign_agent.configuration import AccessLink, ForeignAgentConfiguration
from locum.roles.foreign_agent.relay import Pending
from locum.roles.foreign_agent.role import ForeignAgent
from locum.roles.foreign_agent.under_way import PendingKey, UnderWay
from locum.roles.mobile_ipv4.signing import signed
from locum.security.association import Association
from locum.wire.mobile_ip.extensions import AuthKind
from locum.wire.mobile_ip.registration import Flag, RegistrationRequest
from tests.roles.world import AN1, HA

KEY = Association(300, b"k" * 16)
FIRST = IPv4Address("11.0.0.0")


def request(home: IPv4Address, number: int, lifetime: int = 60) -> RegistrationRequest:
    return RegistrationRequest(lifetime, home, HA, AN1, number, Flag.T)


def from_sender(home: IPv4Address, sender: int) -> Source:
    return Source(home, 434, "radio0", bytes((2, 0, 0, 0, 0, sender)), AN1)


def test_numbers_are_those_of_a_new_count() -> None:
    random, under_way, plain = Random(5), UnderWay[Pending](), dict[PendingKey, Pending]()
    for step in range(3000):
        home, number = FIRST + random.randrange(12), random.randrange(4)
        who = f"{home}@example.org" if home == FIRST else home
        sender = from_sender(home, random.randrange(3))
        if random.random() < 0.6:
            said = request(home, number, random.choice((0, 60)))
            pending = Pending(said, sender, 60, float(step), random.random() < 0.3)
            under_way[who, number] = plain[who, number] = pending
        else:
            assert under_way.pop((who, number), None) == plain.pop((who, number), None)
        assert list(under_way.items()) == list(plain.items())
        place = sender.link, sender.link_layer
        assert under_way.of_sender(place) == len([held for held in plain.values() if held.sender == place])
        assert under_way.of(who) == [key for key in plain if key[0] == who]
        known = {FIRST + random.randrange(12) for _ in range(random.randrange(20))}
        coming = {whose for (whose, _), held in plain.items() if held.brings_visitor}
        assert under_way.coming(who, known) == len(coming - known - {who})


def test_cost_of_a_request_does_not_grow_with_a_flood() -> None:
    def cost(flood: int) -> float:
        """Seconds of the cheapest of some requests while so many others are under way."""
        links = (AccessLink("radio0", AN1),)
        agent = ForeignAgent(
            ForeignAgentConfiguration(AN1, links, max_visitors=20_000), {}, {}, (), Random(1)
        )
        agent.restore([], now=0.0)
        times = []
        for number in range(flood + 20):
            home = FIRST + number
            message = signed(request(home, number << 8).encode(), AuthKind.MN_HA, KEY)
            began = process_time()
            done = agent.receive(message, from_sender(home, number % 16), now=1.0)
            times.append(process_time() - began)
            assert any(isinstance(action, a.SendRegistration) for action in done)
        return min(times[flood:])

    assert cost(3000) < 8 * cost(20)  # it was more than fifty times as much

"""Keys between a mobile node and a foreign agent that follow from an AAA association (RFC 3957)."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from locum.roles.action_values.addresses import Addr, Source
from locum.roles.foreign_agent.configuration import KeyMode
from locum.roles.foreign_agent.role import ForeignAgent
from locum.roles.home_agent.binding import Mobile
from locum.roles.home_agent.configuration import HomeAgentConfiguration
from locum.roles.home_agent.role import HomeAgent
from locum.roles.mobile_ipv4.agent_options import wrapped_agent_key
from locum.roles.mobile_ipv4.signing import signed
from locum.roles.mobile_node.handover import OwnStandIn
from locum.roles.mobile_node.role import SleepingNode
from locum.roles.registrant.registrant import RegistrationClient
from locum.security.association import AaaAssociation, Algorithm, Association
from locum.security.key_wrapping import unwrap_key
from locum.wire.mobile_ip.extensions import (
    MN_FA_NONCE_REQUEST,
    AgentNonceReply,
    AuthKind,
    NonceRequest,
    VendorNormal,
)
from locum.wire.mobile_ip.registration import (
    REGISTRATION_REPLY,
    REGISTRATION_REQUEST,
    Flag,
    RegistrationReply,
    RegistrationRequest,
)
from tests.roles.world import AN1, AN2, HA, HOA, HOA6, STAND_IN, Host, World

AGENT = Association(400, b"a" * 16)
DAY = 86_400


class Keyed:
    """A world whose device shares a key with the AAA server alone. Messages are kept by the host that they reach."""

    def __init__(
        self,
        algorithm: Algorithm = Algorithm.HMAC_SHA_1,
        *,
        asks: bool = True,
        mode: KeyMode = KeyMode.OFFERED,
        home_agents: bool = True,
        plain: bool = False,
        key_lifetime: int = DAY,
    ) -> None:
        """`home_agents`: foreign agents and the home agent share keys. `plain`: the device shares one with the home agent."""
        self.aaa = AaaAssociation(700, b"k" * 16, algorithm)
        own: Association = Association(700, b"k" * 16, algorithm) if plain else self.aaa
        self.world = world = World(default=False)
        self.heard: dict[str, list[bytes]] = {host.name: [] for host in world.hosts}
        self._give = world.give
        world.give = self.give  # type: ignore[method-assign]
        keyed: dict[Addr, Association] = {AN1: AGENT, AN2: AGENT} if home_agents else {}
        at_home = HomeAgentConfiguration(HA, key_lifetime=key_lifetime)
        world.ha.make = lambda: HomeAgent(at_home, [Mobile(HOA, own, HOA6)], keyed, world.random)
        device = replace(world.device.mobile.configuration, association=self.aaa, agent_keys=asks)
        world.mn.make = lambda: SleepingNode(
            RegistrationClient(device, {}, world.random), (OwnStandIn("mnps", STAND_IN),), world.random
        )
        for agent in (world.an1, world.an2):
            assert isinstance(agent.role, ForeignAgent)
            configuration = replace(agent.role.configuration, visitor_keys=mode)
            agent.make = self._agent(configuration, {HA: AGENT} if home_agents else {})
        for host in (world.ha, world.an1, world.an2, world.mn):
            host.rows.clear()
            world.start(host)

    def _agent(self, configuration: object, homes: dict[Addr, Association]) -> Callable[[], ForeignAgent]:
        return lambda: ForeignAgent(configuration, homes, {}, (), self.world.random)  # type: ignore[arg-type]

    def give(self, host: Host, message: bytes, source: Source) -> None:
        self.heard[host.name].append(message)
        self._give(host, message, source)

    def requests(self, host: str = "an1") -> list[RegistrationRequest]:
        return [RegistrationRequest.decode(m) for m in self.heard[host] if m[0] == REGISTRATION_REQUEST]

    def replies(self, host: str = "mn") -> list[RegistrationReply]:
        return [RegistrationReply.decode(m) for m in self.heard[host] if m[0] == REGISTRATION_REPLY]

    def registered(self) -> bool:
        return self.world.device.mobile.registered is not None

    def asked(self, host: str = "an1") -> list[bool]:
        return [asks_for_agent_key(request) for request in self.requests(host)]


def asks_for_agent_key(request: RegistrationRequest) -> bool:
    """True for a request for the key; one that has neither it nor a proof for the agent fails."""
    asks = any(said.type == MN_FA_NONCE_REQUEST for said in request.all(NonceRequest))
    assert asks == (request.authentication(AuthKind.MN_FA) is None)
    return asks


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_mobile_node_and_agent_get_one_key(algorithm: Algorithm) -> None:
    keyed = Keyed(algorithm)
    keyed.world.advance(20)
    assert keyed.registered()
    (request,) = [request for request in keyed.requests() if asks_for_agent_key(request)]
    reply = next(reply for reply in keyed.replies() if reply.accepted)
    grant, proof = reply.find(AgentNonceReply), reply.authentication(AuthKind.MN_FA)
    assert grant is not None and (grant.lifetime, grant.aaa_spi) == (DAY, 700) and proof is not None
    said = [said for said in request.all(NonceRequest) if said.type == MN_FA_NONCE_REQUEST]
    key = keyed.aaa.digest(grant.nonce + HOA.packed)
    assert proof.spi == said[0].spi
    assert Association(proof.spi, key, algorithm).verify(proof.covered, proof.authenticator)
    # The key itself travels to the agent alone, and encrypted
    sent = keyed.replies("an1")[-1]
    wrapped = wrapped_agent_key(sent)
    assert wrapped is not None and unwrap_key(AGENT, wrapped, grant.nonce) == key
    assert not any(key in message for heard in keyed.heard.values() for message in heard)
    assert not reply.all(VendorNormal)
    keyed.world.advance(400)
    renewal = keyed.requests()[-1].authentication(AuthKind.MN_FA)
    assert keyed.asked().count(True) == 1 and renewal is not None and renewal.spi == grant.spi
    assert Association(renewal.spi, key, algorithm).verify(renewal.covered, renewal.authenticator)
    assert keyed.replies()[-1].authentication(AuthKind.MN_FA) is not None and keyed.registered()


def test_wrong_or_missing_proof_is_refused_by_the_agent() -> None:
    keyed = Keyed()
    keyed.world.advance(20)
    first = next(message for message in keyed.heard["an1"] if message[0] == REGISTRATION_REQUEST)
    at_home = len(keyed.heard["ha"])
    request = RegistrationRequest(
        60, HOA, HA, AN1, RegistrationRequest.decode(first).identification + 9, Flag.T
    )
    home = signed(request.encode(), AuthKind.MN_HA, Association(300, b"x" * 16))
    source = Source(HOA, 434, "radio0", bytes(6), AN1)
    for message in (home, signed(home, AuthKind.MN_FA, Association(300, b"x" * 16))):
        keyed.give(keyed.world.an1, message, source)
    keyed.world.advance(1)
    assert [reply.code for reply in keyed.replies()[-2:]] == [67, 67] and len(keyed.heard["ha"]) == at_home
    assert keyed.registered()


def test_key_survives_restarts_and_is_replaced_before_it_ends() -> None:
    keyed = Keyed(key_lifetime=1000)
    keyed.world.advance(20)
    for host in (keyed.world.an1, keyed.world.mn, keyed.world.ha):
        keyed.world.kill(host)
        keyed.world.start(host)
    keyed.world.advance(300)
    assert keyed.asked().count(True) == 1 and keyed.registered()
    keyed.world.advance(2700)
    assert keyed.registered() and 3 <= keyed.asked().count(True) <= 7
    assert not [reply for reply in keyed.replies() if not reply.accepted]
    keyed.world.kill(keyed.world.mn)
    keyed.world.advance(1100)
    assert not [key for key in keyed.world.an1.rows if key[0] == "key"]


def test_agent_without_its_store_gets_another_key() -> None:
    keyed = Keyed()
    keyed.world.advance(20)
    keyed.world.kill(keyed.world.an1)
    keyed.world.an1.rows.clear()
    keyed.world.start(keyed.world.an1)
    keyed.world.advance(300)
    assert keyed.asked().count(True) == 2 and keyed.registered()
    assert 67 in [reply.code for reply in keyed.replies()]


def test_each_agent_has_its_own_key() -> None:
    keyed = Keyed()
    keyed.world.advance(20)
    keyed.world.cut("radio0")
    keyed.world.advance(20)
    assert keyed.registered() and keyed.asked("an2").count(True) == 1
    keyed.world.mend("radio0")
    keyed.world.cut("radio1")
    keyed.world.advance(20)
    assert keyed.registered() and keyed.asked("an1").count(True) == 1
    spis = {request.authentication(AuthKind.MN_FA) for request in keyed.requests("an1")[-1:]}
    assert spis and None not in spis


def test_agent_that_requires_keys() -> None:
    asking = Keyed(mode=KeyMode.REQUIRED)
    asking.world.advance(20)
    assert asking.registered()
    silent = Keyed(mode=KeyMode.REQUIRED, asks=False)
    silent.world.advance(20)
    assert not silent.registered() and {reply.code for reply in silent.replies()} == {67}
    # No key comes from a home agent that shares none with the agent
    alone = Keyed(mode=KeyMode.REQUIRED, home_agents=False)
    alone.world.advance(20)
    assert not alone.registered() and {reply.code for reply in alone.replies()} == {107}


@pytest.mark.parametrize("options", [{"home_agents": False}, {"mode": KeyMode.OFF}])
def test_without_a_grant_the_mobile_node_registers_all_the_same(options: dict[str, object]) -> None:
    keyed = Keyed(**options)  # type: ignore[arg-type]
    keyed.world.advance(400)
    assert keyed.registered() and all(keyed.asked())
    assert not any(reply.find(AgentNonceReply) for reply in keyed.replies())


def test_unwrapping_fails_under_any_other_association_or_nonce() -> None:
    randomness = Random(3)
    keyed = Keyed()
    keyed.world.advance(20)
    sent = keyed.replies("an1")[-1]
    wrapped, grant = wrapped_agent_key(sent), sent.find(AgentNonceReply)
    assert wrapped is not None and grant is not None
    damaged = bytearray(wrapped)
    damaged[randomness.randrange(len(damaged))] ^= 1
    for association, data, nonce in (
        (Association(400, b"b" * 16), wrapped, grant.nonce),
        (AGENT, bytes(damaged), grant.nonce),
        (AGENT, wrapped, bytes(16)),
        (AGENT, b"", grant.nonce),
        (AGENT, wrapped[:-8], grant.nonce),
    ):
        with pytest.raises(ValueError):
            unwrap_key(association, data, nonce)

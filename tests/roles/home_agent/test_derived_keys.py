"""Devices that share a key with the AAA server alone (RFC 3957): keys for the home agent, their loss, their end, and refusals."""

from random import Random

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Source
from locum.roles.foreign_agent.admission import Admission
from locum.roles.home_agent.binding import Mobile
from locum.roles.home_agent.configuration import HomeAgentConfiguration
from locum.roles.home_agent.role import HomeAgent
from locum.roles.mobile_ipv4.signing import signed, signed_for_aaa
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.roles.registrant.registrant import RegistrationClient
from locum.security.association import AaaAssociation, Algorithm, Association, Replay
from locum.wire.mobile_ip.extensions import (
    AuthKind,
    GeneralizedAuthentication,
    HomeNonceReply,
    MobileFaChallenge,
    Nai,
    NonceRequest,
)
from locum.wire.mobile_ip.registration import Flag, RegistrationReply, RegistrationRequest
from tests.roles.world import AN1, COLOCATED, HA, HOA, START

NAI = "somebody@example.org"
DAY = 86_400


class Pair:
    """A device with a care-of address of its own, and its home agent, with the rows of both."""

    def __init__(
        self,
        algorithm: Algorithm = Algorithm.HMAC_SHA_1,
        replay: Replay = Replay.TIMESTAMP,
        key: bytes = b"k" * 16,
        key_lifetime: int = DAY,
        nai: str | None = None,
    ) -> None:
        self.now = START
        self.aaa = AaaAssociation(700, b"k" * 16, algorithm, replay)
        self.own = AaaAssociation(700, key, algorithm, replay)
        self.key_lifetime, self.nai = key_lifetime, nai
        self.requests: list[RegistrationRequest] = []
        self.messages: list[bytes] = []
        self.replies: list[RegistrationReply] = []
        self.at_home: dict[tuple[str, str], a.Persist] = {}
        self.at_device: dict[tuple[str, str], a.Persist] = {}
        self.counted: list[str] = []
        self.deaf = False
        self.start_home()
        self.start_device()

    def start_home(self) -> None:
        configuration = HomeAgentConfiguration(HA, key_lifetime=self.key_lifetime)
        self.home = HomeAgent(configuration, [Mobile(HOA, self.aaa)], {}, Random(7))
        self._store(self.home.restore(list(self.at_home.values()), now=self.now), self.at_home)

    def start_device(self, ahead: float = 0.0) -> None:
        configuration = MobileNodeConfiguration(
            HOA, HA, ("radio0",), self.own, colocated=True, care_of_address=COLOCATED,
            nai=self.nai, fixed=self.nai is not None,
        )  # fmt: skip
        self.client = RegistrationClient(configuration, {}, Random(8))
        self._did(self.client.restore(list(self.at_device.values()), now=self.now))
        self._did(self.client.happened(a.WallClockStepped(ahead), now=self.now))
        self._did(self.client.happened(a.LinkUp("radio0", (COLOCATED,)), now=self.now))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.client.deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self._did(self.client.timeout(now=self.now))
        self.now = end

    def _store(self, actions: list[a.Action], rows: dict[tuple[str, str], a.Persist]) -> None:
        for action in actions:
            if isinstance(action, a.Persist):
                rows[action.table, action.key] = action
            elif isinstance(action, a.Forget):
                rows.pop((action.table, action.key), None)
            elif isinstance(action, a.Count):
                self.counted.append(action.reason)

    def hear(self, message: bytes) -> list[bytes]:
        """The replies of the home agent."""
        source = Source(COLOCATED, 434, "core", None, HA)
        actions = self.home.receive(message, source, now=self.now)
        self._store(actions, self.at_home)
        return [action.message for action in actions if isinstance(action, a.Reply)]

    def _did(self, actions: list[a.Action]) -> None:
        self._store(actions, self.at_device)
        for action in actions:
            if not isinstance(action, a.SendRegistration):
                continue
            self.messages.append(action.message)
            self.requests.append(RegistrationRequest.decode(action.message))
            for reply in [] if self.deaf else self.hear(action.message):
                self.replies.append(RegistrationReply.decode(reply))
                back = Source(HA, 434, "radio0", None, COLOCATED)
                self._did(self.client.receive(reply, back, now=self.now))

    def asks_for_key(self, request: RegistrationRequest) -> bool:
        """True for a request that proves itself to the AAA server alone, and asks for a key."""
        asks, proves = request.find(NonceRequest) is not None, request.to_aaa is not None
        assert asks == proves == (request.authentication(AuthKind.MN_HA) is None)
        return asks


@pytest.mark.parametrize("nai", [None, NAI])
@pytest.mark.parametrize("replay", list(Replay))
@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_key_is_derived_used_and_survives_restarts(
    algorithm: Algorithm, replay: Replay, nai: str | None
) -> None:
    pair = Pair(algorithm, replay, nai=nai)
    assert pair.client.registered is not None and pair.asks_for_key(pair.requests[0])
    grant = pair.replies[-1].find(HomeNonceReply)
    assert grant is not None and (grant.lifetime, grant.aaa_spi) == (DAY, 700)
    asked = pair.requests[-1].find(NonceRequest)
    assert asked is not None
    # RFC 3957 section 5, with the transform of the AAA association
    who = HOA.packed if nai is None else nai.encode()
    key = Association(700, b"k" * 16, algorithm).digest(grant.nonce + who)
    proof = pair.replies[-1].authentication(AuthKind.MN_HA)
    assert proof is not None and proof.spi == asked.spi
    assert Association(proof.spi, key, algorithm).verify(proof.covered, proof.authenticator)
    first = len(pair.requests)
    pair.advance(250)
    assert len(pair.requests) > first and not any(map(pair.asks_for_key, pair.requests[first:]))
    sent = pair.requests[-1].authentication(AuthKind.MN_HA)
    assert sent is not None and sent.spi == grant.spi != asked.spi
    pair.start_home()
    pair.start_device()
    before = len(pair.requests)
    pair.advance(500)
    assert not any(map(pair.asks_for_key, pair.requests[before:]))
    assert pair.client.registered is not None and pair.home.visitor_list(now=pair.now)[0].care_of


def test_device_with_another_aaa_key_is_refused() -> None:
    pair = Pair(key=b"x" * 16)
    pair.advance(60)
    assert pair.client.registered is None and "refused-144" in pair.counted
    assert {reply.code for reply in pair.replies} == {144} and not pair.home.visitor_list(now=pair.now)[
        0
    ].care_of
    assert ("key", str(HOA)) not in pair.at_home


def test_key_ends_and_is_replaced_before() -> None:
    pair = Pair(key_lifetime=1000)
    old = pair.home._homes[HOA].association
    last = pair.messages[0]
    pair.deaf = True
    pair.now += 1001
    request = RegistrationRequest(
        60,
        HOA,
        HA,
        COLOCATED,
        RegistrationRequest.decode(last).identification + (1001 << 32),
        Flag.D | Flag.T,
    )
    back = Association(old.spi, old.key, old.algorithm)
    (refusal,) = pair.hear(signed(request.encode(), AuthKind.MN_HA, back))
    assert RegistrationReply.decode(refusal).code == 131
    lasting = Pair(key_lifetime=1000)
    lasting.advance(3000)
    assert lasting.client.registered is not None
    assert 3 <= sum(map(lasting.asks_for_key, lasting.requests)) <= 6
    assert not {"refused-131", "refused-144"} & set(lasting.counted)


def test_home_agent_without_its_store_gives_a_new_key() -> None:
    pair = Pair()
    pair.at_home.clear()
    pair.start_home()
    pair.advance(320)
    assert "refused-131" in pair.counted  # under the lost key, unsigned and not believed
    assert pair.client.registered is not None and sum(map(pair.asks_for_key, pair.requests)) == 2
    assert pair.home.visitor_list(now=pair.now)[0].care_of


def test_replay_changes_neither_binding_nor_key() -> None:
    pair = Pair()
    pair.advance(200)
    association = pair.home._homes[HOA].association
    held = pair.home.visitor_list(now=pair.now)[0].care_of
    (reply,) = pair.hear(pair.messages[0])
    answer = RegistrationReply.decode(reply)
    assert answer.code == 133 and pair.home._homes[HOA].association is association
    assert pair.home.visitor_list(now=pair.now)[0].care_of == held


def test_clock_is_learnt_under_the_key_of_the_refusal() -> None:
    pair = Pair()
    pair.at_device.clear()
    pair.start_device(ahead=-5000.0)
    assert pair.client.registered is not None
    assert [reply.code for reply in pair.replies[-2:]] == [133, 0]


def test_changed_aaa_key_ends_the_derived_one() -> None:
    pair = Pair()
    assert pair.home._homes[HOA].signs(pair.now)
    pair.home.serve(Mobile(HOA, pair.aaa), now=pair.now)
    assert pair.home._homes[HOA].signs(pair.now)
    pair.home.serve(Mobile(HOA, AaaAssociation(701, b"n" * 16)), now=pair.now)
    assert not pair.home._homes[HOA].signs(pair.now)
    restarted = Pair()
    restarted.aaa = AaaAssociation(700, b"n" * 16, Algorithm.HMAC_SHA_1)
    restarted.start_home()
    assert not restarted.home._homes[HOA].signs(restarted.now) and ("key", str(HOA)) not in restarted.at_home


def test_revocation_is_proved_by_the_derived_key() -> None:
    pair = Pair()
    pair.now += 1
    actions = pair.home.revocation.revoke(HOA, reason="test", now=pair.now)
    (notice,) = [action.message for action in actions if isinstance(action, a.SendRegistration)]
    before = len(pair.requests)
    heard = pair.client.receive(notice, Source(HA, 434, "radio0", None, COLOCATED), now=pair.now)
    assert any(isinstance(action, a.Reply) for action in heard)
    pair._did(heard)
    assert len(pair.requests) == before + 1 and pair.client.registered is not None


def test_nothing_behind_the_proof_counts() -> None:
    pair = Pair()
    request = RegistrationRequest(
        60, HOA, HA, COLOCATED, pair.requests[0].identification + (5 << 32), Flag.D | Flag.T,
        (NonceRequest(42, 300),),
    )  # fmt: skip
    whole = signed_for_aaa(request.encode(), pair.aaa)
    pair.now += 5
    # Another proof behind it, wrong, makes the request one to the home agent
    forged = signed(whole + Nai(NAI).encode(), AuthKind.MN_HA, Association(900, b"f" * 16))
    (reply,) = pair.hear(forged)
    assert RegistrationReply.decode(reply).code == 131
    (reply,) = pair.hear(whole + Nai(NAI).encode())
    assert RegistrationReply.decode(reply).code == 0 and RegistrationReply.decode(reply).find(Nai) is None


def test_access_node_relays_proof_for_aaa() -> None:
    request = RegistrationRequest(
        60, HOA, HA, AN1, 1 << 40, Flag.T, (NonceRequest(42, 300), MobileFaChallenge(b"challenge"))
    )
    aaa = Association(700, b"k" * 16)
    whole = signed_for_aaa(request.encode(), aaa)
    admission = Admission(AN1, 600, True, {})
    relayed = admission.check(RegistrationRequest.decode(whole + Nai(NAI).encode()), [b"challenge"])
    assert relayed == whole
    found = RegistrationRequest.decode(relayed).find(GeneralizedAuthentication)
    assert found is not None and aaa.verify(found.covered, found.authenticator)

"""Refusals that go on, and acceptances that grant nothing: a registrant asks again, later each time, and never falls silent."""

from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Source
from locum.roles.mobile_ipv4.signing import signed
from locum.roles.registrant.attachment import Registered, RegistrationTarget
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.roles.registrant.registrant import RegistrationClient
from locum.roles.registrant.timing import RETRY_MAX
from locum.security.association import Association
from locum.security.replay import mismatch_identification
from locum.wire.mobile_ip.extensions import AuthKind
from locum.wire.mobile_ip.registration import Code, RegistrationReply, RegistrationRequest
from tests.roles.world import COLOCATED, HA, HOA, START

KEY = Association(300, b"k" * 16)
HOUR = 3600.0
LIFETIME = 300

# (request, seconds since 1970) -> (code, lifetime, identification), None: no reply
Answer = Callable[[RegistrationRequest, float], tuple[int, int, int] | None]


class Registering:
    """A mobile node with a care-of address of its own, and a home agent that answers as it is told after `delay` seconds."""

    def __init__(self, *, lifetime: int = LIFETIME, delay: float = 0.01) -> None:
        configuration = MobileNodeConfiguration(
            HOA, HA, ("radio0",), KEY, colocated=True, care_of_address=COLOCATED, lifetime=lifetime
        )
        self.client = RegistrationClient(configuration, {}, Random(7))
        self.now, self.delay = START, delay
        self.requests: list[tuple[float, RegistrationRequest]] = []
        self.events: list[a.Emit] = []
        self.answer: Answer = lambda asked, _: (Code.ACCEPTED, asked.lifetime, asked.identification)

    def held(self) -> Registered | None:
        """The registration that the node believes in; packets take its path."""
        held = self.client.registered
        assert (held is None) is (self.client.attachment is None)
        return held

    def begin(self) -> None:
        self._perform(self.client.restore((), now=self.now))
        self._perform(self.client.happened(a.LinkUp("radio0", (COLOCATED,)), now=self.now))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.client.deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self._perform(self.client.timeout(now=self.now))
        self.now = max(self.now, end)

    def _perform(self, actions: list[a.Action]) -> None:
        self.events += [action for action in actions if isinstance(action, a.Emit)]
        for action in actions:
            if isinstance(action, a.SendRegistration):
                asked = RegistrationRequest.decode(action.message)
                self.requests.append((self.now, asked))
                self.now += self.delay
                answer = self.answer(asked, self.now)
                if answer is None:
                    continue
                code, lifetime, identification = answer
                reply = RegistrationReply(code, lifetime, HOA, HA, identification)
                message = signed(reply.encode(), AuthKind.MN_HA, KEY)
                source = Source(HA, 434, "radio0", None, COLOCATED)
                self._perform(self.client.receive(message, source, now=self.now))

    @property
    def gaps(self) -> list[float]:
        """Seconds between the last few requests."""
        times = [at for at, _ in self.requests[-4:]]
        return [later - earlier for earlier, later in pairwise(times)]


def never_fresh(asked: RegistrationRequest, now: float) -> tuple[int, int, int]:
    return Code.IDENTIFICATION_MISMATCH, 0, mismatch_identification(asked.identification, now + HOUR)


def test_lasting_133_is_answered_ever_more_slowly() -> None:
    node = Registering()
    node.answer = never_fresh
    node.begin()
    node.advance(HOUR)
    assert min(node.gaps) >= RETRY_MAX
    assert HOUR / RETRY_MAX - 2 <= len(node.requests) <= HOUR / RETRY_MAX + 8


@pytest.mark.parametrize("code", [Code.MOBILE_NODE_FAILED_AUTHENTICATION, Code.INSUFFICIENT_RESOURCES])
def test_lasting_refusal_is_answered_ever_more_slowly(code: Code) -> None:
    node = Registering()
    node.answer = lambda asked, _: (code, 0, asked.identification)
    node.begin()
    node.advance(HOUR)
    assert min(node.gaps) >= RETRY_MAX and len(node.requests) <= HOUR / RETRY_MAX + 8


def test_every_133_teaches_the_home_agents_clock() -> None:
    node = Registering()
    node.answer = never_fresh
    node.begin()
    node.advance(HOUR)
    node.answer = lambda asked, now: (
        Code.IDENTIFICATION_MISMATCH,
        0,
        mismatch_identification(asked.identification, now - HOUR),
    )
    node.advance(2 * RETRY_MAX)
    (_, asked) = node.requests[-1]
    behind = (mismatch_identification(0, node.now) - asked.identification) / (1 << 32)
    assert HOUR - 1 <= behind <= HOUR + 2 * RETRY_MAX


@pytest.mark.parametrize("refusal", [Code.IDENTIFICATION_MISMATCH, Code.INSUFFICIENT_RESOURCES])
def test_lost_reply_does_not_begin_the_waiting_anew(refusal: Code) -> None:
    """A repetition of a request is as many refusals later as the request."""
    node = Registering()
    node.answer = lambda asked, now: (refusal, 0, mismatch_identification(asked.identification, now + HOUR))
    node.begin()
    node.advance(3 * RETRY_MAX)
    refused, before = node.answer, len(node.requests)
    answers: list[Answer] = [lambda *_: None, refused]
    node.answer = lambda asked, now: answers.pop(0)(asked, now) if answers else refused(asked, now)
    node.advance(2 * RETRY_MAX)
    after = [at for at, _ in node.requests[before:]]
    assert 1 <= after[1] - after[0] < 2, "repeated, for no reply came"
    assert after[2] - after[1] >= RETRY_MAX


def test_first_133_is_followed_at_once_again_after_an_acceptance() -> None:
    node = Registering()
    node.answer = never_fresh
    node.begin()
    node.advance(HOUR)
    node.answer = lambda asked, _: (Code.ACCEPTED, asked.lifetime, asked.identification)
    node.advance(2 * RETRY_MAX)
    assert node.held() is not None
    before = len(node.requests)
    answers: list[Answer] = [never_fresh, node.answer]
    node.answer = lambda asked, now: answers.pop(0)(asked, now)
    node.advance(LIFETIME * 2 / 3)
    assert len(node.requests) == before + 2 and node.held() is not None


@pytest.mark.parametrize("lifetime", [0, 1])
def test_acceptance_that_grants_nothing_is_asked_again(lifetime: int) -> None:
    """Lifetime 0 (section 3.4), or one that is over before the reply is here."""
    node = Registering(delay=1.5 if lifetime else 0.01)
    node.answer = lambda asked, _: (Code.ACCEPTED, lifetime, asked.identification)
    node.begin()
    node.advance(HOUR)
    assert node.held() is None
    assert node.client.target is RegistrationTarget.ORDINARY
    assert min(node.gaps) >= RETRY_MAX and len(node.requests) >= HOUR / (RETRY_MAX + node.delay) - 2
    assert "registered" not in [event.kind for event in node.events]
    node.answer = lambda asked, _: (Code.ACCEPTED, asked.lifetime, asked.identification)
    node.advance(2 * RETRY_MAX)
    assert node.held() is not None


def test_renewal_that_grants_nothing_ends_the_registration() -> None:
    node = Registering()
    node.begin()
    assert node.held() is not None
    node.answer = lambda asked, _: (Code.ACCEPTED, 0, asked.identification)
    node.advance(LIFETIME * 2 / 3)
    assert node.held() is None
    assert node.events[-1].detail["code"] == 0


@pytest.mark.parametrize(
    ("asked", "granted"), [(LIFETIME, 2 * LIFETIME), (LIFETIME, 0xFFFF), (0xFFFF, 0xFFFF)]
)
def test_no_more_is_believed_than_was_asked(asked: int, granted: int) -> None:
    node = Registering(lifetime=asked)
    node.answer = lambda asked, _: (Code.ACCEPTED, granted, asked.identification)
    node.begin()
    held = node.held()
    assert held is not None and held.lifetime == asked and held.renew_at == START + asked * 2 / 3
    node.advance(asked)
    assert len(node.requests) == 2

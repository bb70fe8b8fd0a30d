"""Triggers to take and release at a stand-in (C8): authorisation, actions, and the time of the answer."""

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import cast

import pytest

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Selector
from locum.roles.actions import Action, Answer, Answered, Ask, Asked, Count, Emit, Forget, NoAnswer, Persist
from locum.roles.home_agent.binding import CareOf, Mobile
from locum.roles.home_agent.expiry_triggers import ExpiryTriggers
from locum.roles.mnps.configuration import StoodInFor
from locum.roles.mnps.registration import MAX_FLOWS, Standing, StandInRegistration
from locum.roles.mnps.triggering import ASKING_DEVICE, PATIENCE, Triggering
from locum.roles.mobile_node.release_after_return import Returning
from locum.roles.registrant.attachment import AttachmentLost, RegistrationAccepted, RegistrationTarget
from locum.security.association import Algorithm, Association, Replay
from locum.wire.control import decode_618
from locum.wire.control.answer import Status
from locum.wire.control.trigger import (
    PATH,
    Operation,
    Reason,
    Trigger,
    decode_trigger,
    decode_trigger_answer,
    encode_trigger,
)
from locum.wire.mobile_ip.registration import Flag
from locum.wire.takes import Takes
from locum.wire.traffic_selector import Ipv4Selector, TrafficSelector, UnknownSelector, address_range

HOME, HOME_V6 = IPv4Address("10.36.0.4"), IPv6Address("2001:db8::4")
UNSERVED = IPv4Address("10.36.0.9")
STAND_IN, AN1, AN2 = IPv4Address("10.3.0.2"), IPv4Address("10.1.0.1"), IPv4Address("10.2.0.1")
WEB = Ipv4Selector(destination_port=(80, 80), protocol=(6, 6))
MAIL = Ipv4Selector(destination_port=(25, 25), protocol=(6, 6))
KEY = Association(1000, bytes(16), Algorithm.HMAC_SHA_256, Replay.TIMESTAMP)
DEVICE = StoodInFor(HOME, IPv4Address("10.5.0.1"), KEY, 7, HOME_V6)


@dataclass
class Registered:
    """A registration whose home agent the test plays."""

    device: StoodInFor = DEVICE
    holds: bool = True
    refused: int | None = None
    takes: Takes | None = None
    wants: list[tuple[Takes | None, tuple[Selector, ...]]] = field(default_factory=list)

    def standing(self, home_addresses: tuple[Addr, ...]) -> Standing | None:
        mine = {self.device.home_address, self.device.home_address_v6}
        return cast(Standing, self) if mine & set(home_addresses) else None


class Host:
    """The triggers of one stand-in, with everything around it played by the test."""

    def __init__(self, registered: bool = True, rows: tuple[Persist, ...] = ()) -> None:
        self.registration = Registered()
        self.rows = {(row.table, row.key): row for row in rows}
        self.now = 0.0
        self.asks: list[Ask] = []
        self.answers: dict[int, Status] = {}
        self.counts: list[str] = []
        self.guards: list[list[Addr]] = []
        self.exchange = 0
        self.role = Triggering(
            STAND_IN,
            cast(StandInRegistration, self.registration) if registered else None,
            lambda homes, now: self.want(tuple(homes)),
            self.guard,
        )
        self.perform(self.role.restore(tuple(self.rows.values()), now=0))

    def want(self, homes: tuple[Addr, ...]) -> list[Action]:
        self.registration.wants.append(self.role.wanted(homes))
        self.registration.holds = False
        return []

    def guard(self) -> list[Action]:
        self.guards.append(self.role.guarded())
        return []

    def perform(self, actions: list[Action] | None) -> None:
        for action in actions or []:
            match action:
                case Persist():
                    self.rows[action.table, action.key] = action
                case Forget():
                    self.rows.pop((action.table, action.key), None)
                case Ask():
                    self.asks.append(action)
                case Answer():
                    assert action.exchange not in self.answers
                    self.answers[action.exchange] = decode_trigger_answer(action.body)
                case Count():
                    self.counts.append(action.reason)

    def ask(
        self,
        operation: Operation,
        *selectors: TrafficSelector,
        homes: tuple[Addr, ...] = (HOME, HOME_V6),
        reason: Reason = Reason.COMMAND,
        peer: Addr = AN1,
        authorised: tuple[Addr, ...] = (HOME, HOME_V6),
        may: bool = True,
        access_node: Addr | None = None,
    ) -> int:
        self.exchange += 1
        body = encode_trigger(Trigger(operation, homes, selectors, reason, access_node))
        event = Asked(self.exchange, PATH, body, peer, authorised, may)
        self.perform(self.role.asked(event, now=self.now))
        self.perform(self.role.follow(now=self.now))
        return self.exchange

    def switched(self, refused: int | None = None) -> None:
        """The home agent has answered."""
        self.registration.holds, self.registration.refused = refused is None, refused
        self.perform(self.role.follow(now=self.now))

    @property
    def wanted(self) -> tuple[Takes | None, tuple[Selector, ...]]:
        return self.role.wanted((HOME,))


TAKE, RELEASE = Operation.TAKE, Operation.RELEASE
NOTHING: tuple[None, tuple[()]] = (None, ())


@pytest.fixture
def host() -> Host:
    return Host()


def test_take_and_release_are_answered_after_the_switch(host: Host) -> None:
    take = host.ask(TAKE)
    assert (host.wanted, host.answers) == ((Takes.ALL, ()), {})
    assert host.guards[-1] == [HOME, HOME_V6]
    host.switched()
    assert host.answers == {take: Status.OK}
    release = host.ask(RELEASE, peer=AN2)
    assert (host.wanted, release in host.answers) == (NOTHING, False)
    assert host.role.guarded() == [HOME, HOME_V6]  # packets are still on their way here
    host.switched()
    assert host.answers[release] is Status.OK
    assert (host.role.guarded(), host.rows, host.guards[-1]) == ([], {}, [])


def test_two_takes_share_one_registration(host: Host) -> None:
    first, second = host.ask(TAKE, peer=AN1), host.ask(TAKE, peer=AN2)
    host.switched()
    third = host.ask(TAKE, peer=AN2)
    assert [host.answers[request] for request in (first, second, third)] == [Status.OK] * 3
    assert len(host.registration.wants) == 1
    host.ask(RELEASE, peer=AN2)  # wherever it is back, it is back
    host.switched()
    host.ask(RELEASE, peer=AN1)
    assert (host.wanted, len(host.registration.wants)) == (NOTHING, 2)


def test_selectors_add_up_and_are_released_one_by_one(host: Host) -> None:
    host.ask(TAKE, WEB)
    host.switched()
    host.ask(TAKE, MAIL, WEB)
    assert (host.wanted[0], host.wanted[1]) == (Takes.RULED, (WEB, MAIL))
    host.switched()
    host.ask(RELEASE, WEB)
    assert host.wanted[1] == (MAIL,)
    host.switched()
    host.ask(TAKE)
    assert host.wanted == (Takes.ALL, ())
    host.switched()
    kept = host.ask(RELEASE, MAIL)
    assert (host.answers[kept], host.wanted) == (Status.REFUSED, (Takes.ALL, ()))
    host.ask(RELEASE)
    host.switched()
    assert host.wanted[0] is None


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"may": False}, Status.NOT_AUTHORISED),
        ({"authorised": ()}, Status.NOT_AUTHORISED),
        ({"authorised": (HOME,)}, Status.NOT_AUTHORISED),
        ({"homes": (UNSERVED,), "authorised": (UNSERVED,)}, Status.REFUSED),
        ({"homes": (HOME, UNSERVED), "authorised": (HOME, UNSERVED)}, Status.MALFORMED),
    ],
)
def test_unauthorised_trigger_changes_no_state(host: Host, change: dict[str, object], status: Status) -> None:
    refused = host.ask(TAKE, **change)  # type: ignore[arg-type]
    assert (host.answers[refused], host.wanted, host.rows) == (status, NOTHING, {})
    assert len(host.counts) == 1


def test_impossible_trigger_changes_no_state(host: Host) -> None:
    unknown = host.ask(TAKE, UnknownSelector(77, b""))
    assert host.answers[unknown] is Status.MALFORMED
    event = Asked(99, PATH, b"\xff", AN1, (HOME,), True)
    host.perform(host.role.asked(event, now=0))
    assert host.answers[99] is Status.MALFORMED
    networks = (IPv4Network((int(IPv4Address("10.9.0.0")) + number, 32)) for number in range(MAX_FLOWS + 1))
    many = [Ipv4Selector(source=address_range(network)) for network in networks]
    host.ask(TAKE, *many[:MAX_FLOWS])
    host.switched()
    over = host.ask(TAKE, many[-1])
    assert (host.answers[over], len(host.wanted[1])) == (Status.LIMIT, MAX_FLOWS)


def test_device_may_trigger_for_its_own_address(host: Host) -> None:
    host.ask(TAKE, peer=AN1)
    host.switched()
    taken = host.wanted
    back = host.ask(RELEASE, peer=HOME, may=False, reason=Reason.BACK)
    assert (host.answers[back], host.wanted) == (Status.OK, taken)  # it was not taken because it was away
    released = host.ask(RELEASE, peer=HOME, may=False)
    host.switched()
    assert (host.answers[released], host.wanted) == (Status.OK, NOTHING)
    again = host.ask(RELEASE, peer=HOME, may=False)
    assert host.answers[again] is Status.OK  # there is nothing to release


def test_device_reported_lost_is_asked_first(host: Host) -> None:
    take = host.ask(TAKE, reason=Reason.LOST)
    (asked,) = host.asks
    assert (asked.peer, asked.path, asked.timeout) == (HOME, "618", ASKING_DEVICE)
    assert decode_618(asked.body).responsible
    assert (host.wanted, host.answers) == (NOTHING, {})
    host.perform(host.role.happened(NoAnswer(asked.request, "silence"), now=1))
    host.switched()
    assert (host.wanted, host.answers) == ((Takes.ALL, ()), {take: Status.OK})


def test_a_device_that_answers_is_not_lost(host: Host) -> None:
    take = host.ask(TAKE, reason=Reason.LOST)
    host.perform(host.role.happened(Answered(host.asks[0].request, b""), now=1))
    assert (host.answers, host.wanted, host.rows) == ({take: Status.WRONG_STATE}, NOTHING, {})
    assert host.role.happened(NoAnswer(3, "another's"), now=1) is None


@pytest.mark.parametrize("reason", [Reason.LOST, Reason.EXPIRED])
def test_a_device_that_has_handed_everything_over_is_not_lost(host: Host, reason: Reason) -> None:
    host.registration.takes = Takes.ALL
    take = host.ask(TAKE, reason=reason)
    assert (host.answers, host.wanted, host.rows, host.asks) == ({take: Status.OK}, NOTHING, {}, [])


def test_release_ends_the_question_whether_a_device_is_lost(host: Host) -> None:
    host.ask(TAKE, reason=Reason.LOST)
    host.ask(RELEASE, peer=HOME, may=False, reason=Reason.BACK)
    host.perform(host.role.happened(NoAnswer(host.asks[0].request, "late"), now=1))
    assert host.wanted == NOTHING


def test_refusal_of_the_home_agent_is_undone_and_reported(host: Host) -> None:
    take = host.ask(TAKE)
    host.switched(refused=131)
    assert (host.answers, host.wanted) == ({take: Status.REFUSED}, NOTHING)
    host.switched()
    assert (host.rows, host.role.guarded()) == ({}, [])


def test_silent_home_agent_is_awaited_while_requests_pend(host: Host) -> None:
    take = host.ask(TAKE)
    assert host.role.deadline() == PATIENCE
    host.perform(host.role.timeout(now=PATIENCE))
    assert (host.answers, host.wanted) == ({take: Status.BUSY}, (Takes.ALL, ()))
    again = host.ask(TAKE)
    host.switched()
    assert host.answers[again] is Status.OK


def test_devices_access_node_is_registered_and_survives_restart(host: Host) -> None:
    host.ask(TAKE, WEB, access_node=AN2)
    assert host.role.device_at((HOME_V6,)) == AN2
    host.switched()
    host.ask(TAKE, MAIL)  # from a sender that does not know
    assert host.role.device_at((HOME,)) == AN2
    host.switched()
    again = Host(rows=tuple(host.rows.values()))
    assert again.role.device_at((HOME,)) == AN2
    again.ask(RELEASE)
    assert again.role.device_at((HOME,)) is None
    assert Host().role.device_at((HOME,)) is None


@pytest.mark.parametrize("selectors", [(), (WEB, MAIL)])
def test_a_restart_goes_on(host: Host, selectors: tuple[Selector, ...]) -> None:
    host.ask(TAKE, *selectors)
    again = Host(rows=tuple(host.rows.values()))
    assert again.wanted == host.wanted
    assert again.registration.wants == [host.wanted]
    assert again.guards == [[HOME, HOME_V6]]


def test_foreign_and_broken_rows_are_ignored(host: Host) -> None:
    broken = (
        Persist("triggered", "x", {}),
        Persist(
            "triggered",
            "y",
            {"home_addresses": ["10.36.0.4"], "selectors": [[9, ""]], "reason": 1, "by": "z"},
        ),
        Persist("handover", "z", {}),
    )
    again = Host(rows=broken)
    assert (again.wanted, list(again.rows)) == (NOTHING, [("handover", "z")])


def test_without_a_registration_only_an_expired_binding_is_taken() -> None:
    host = Host(registered=False)
    assert host.answers[host.ask(TAKE)] is Status.REFUSED
    taken = host.ask(TAKE, reason=Reason.EXPIRED)
    assert (host.answers[taken], host.role.guarded()) == (Status.OK, [HOME, HOME_V6])
    released = host.ask(RELEASE)
    assert (host.answers[released], host.role.guarded(), host.rows) == (Status.OK, [], {})


# Senders: a returned device, a home agent whose binding has expired -----------------------------------------------


def triggers(actions: list[Action]) -> list[tuple[Addr, Operation, Reason]]:
    asks = [action for action in actions if isinstance(action, Ask)]
    found = [(ask.peer, decode_trigger(ask.body)) for ask in asks]
    return [(peer, trigger.operation, trigger.reason) for peer, trigger in found]


def test_unreachable_device_releases_after_its_registration() -> None:
    returning = Returning((STAND_IN,))
    accepted, homes = RegistrationAccepted(RegistrationTarget.ORDINARY, 300), (HOME, HOME_V6)
    release = [(STAND_IN, RELEASE, Reason.BACK)]
    assert triggers(returning.outcome(accepted, homes)) == release  # it cannot know of earlier runs
    assert returning.outcome(accepted, homes) == []
    lost = AttachmentLost.__new__(AttachmentLost)
    assert returning.outcome(lost, homes) == []
    assert returning.outcome(RegistrationAccepted(RegistrationTarget.BRIEF, 10), homes) == []
    assert returning.outcome(RegistrationAccepted(RegistrationTarget.ORDINARY, 0), homes) == []
    assert returning.asked_by(STAND_IN, homes) == []  # it asks again after its registration
    assert triggers(returning.outcome(accepted, homes)) == release


def test_device_releases_a_stand_in_that_doubts() -> None:
    """Its answer may have come after the stand-in had given up and taken over."""
    returning, homes = Returning((STAND_IN,)), (HOME, HOME_V6)
    returning.outcome(RegistrationAccepted(RegistrationTarget.ORDINARY, 300), homes)
    assert triggers(returning.asked_by(STAND_IN, homes)) == [(STAND_IN, RELEASE, Reason.BACK)]
    assert returning.asked_by(AN1, homes) == []  # its access node tells who receives packets


def care_of(*, brief: bool) -> CareOf:
    return CareOf(AN1, 300, 1.0, 0, AN1, brief)


def test_home_agent_triggers_at_expiry_and_at_return() -> None:
    mobile = Mobile(HOME, KEY, HOME_V6, stand_in=STAND_IN)
    asks = ExpiryTriggers(enabled=True)
    assert triggers(asks.expired(mobile, [care_of(brief=True)])) == []  # asleep
    assert triggers(asks.registered(mobile)) == []
    assert triggers(asks.expired(mobile, [care_of(brief=False)])) == [(STAND_IN, TAKE, Reason.EXPIRED)]
    assert triggers(asks.registered(mobile)) == [(STAND_IN, RELEASE, Reason.BACK)]
    assert triggers(asks.registered(mobile)) == []
    assert ExpiryTriggers(enabled=False).expired(mobile, [care_of(brief=False)]) == []


def test_home_agent_names_the_last_access_node_of_the_device() -> None:
    mobile = Mobile(HOME, KEY, stand_in=STAND_IN)
    at_an1, own = care_of(brief=False), replace(care_of(brief=False), address=HOME, flags=int(Flag.D))
    for lost, wanted in (
        ((at_an1,), AN1),
        ((at_an1, replace(at_an1, address=AN2), own), AN2),
        ((own,), None),
    ):
        (asked,) = [
            action for action in ExpiryTriggers(enabled=True).expired(mobile, lost) if isinstance(action, Ask)
        ]
        assert decode_trigger(asked.body).access_node == wanted


def test_trigger_emits_an_event(host: Host) -> None:
    event = Asked(1, PATH, encode_trigger(Trigger(TAKE, (HOME,), (WEB,))), AN1, (HOME,), True)
    told = [action for action in host.role.asked(event, now=0) if isinstance(action, Emit)]
    assert [(action.kind, action.message, action.home_address) for action in told] == [
        ("triggered", PATH, HOME)
    ]
    assert told[0].detail == {"operation": "take", "from": str(AN1), "reason": "command", "selectors": 1}

"""Rules that a device leaves at the home agent (1204), and those of its application agents (1208): P1, P2, P12, P14.

A message replaces its sender's set as a whole, or changes nothing. The newest message of a sender counts, sets end with their
lifetime, and rows bring them back after a restart. It must not know the kernel's rules, nor the course of a page.
"""

from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from ipaddress import IPv4Address
from typing import Final, Protocol, TypeAlias

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import RuleVerdict, Selector
from locum.roles.actions import Action, Answer, Asked, Count, Event, Forget, Persist, WallClockStepped
from locum.roles.home_agent.binding import Mobile
from locum.roles.home_agent.device_location import sleeper_told
from locum.roles.home_agent.forwarding_choice import agent_targets, most_rules, places
from locum.roles.home_agent.registry import Home
from locum.roles.paging.left_rules import (
    TABLE,
    Left,
    LeftRule,
    LeftSet,
    left_changed,
)
from locum.roles.paging.sent import latest
from locum.roles.parts import Part, readable
from locum.roles.rules import DEFAULT, both_families
from locum.roles.timers import Deadlines
from locum.security.association import Replay
from locum.security.replay import wall_of
from locum.wire.control.paging.agent_rules import PATH as PATH_1208
from locum.wire.control.paging.agent_rules import AgentRules1208, decode_1208
from locum.wire.control.paging.page_rules import PATH as PATH_1204
from locum.wire.control.paging.page_rules import DeviceState, PageRules1204, decode_1204
from locum.wire.control.paging.rules import AgentRule, PageAction, PageRule
from locum.wire.control.paging.status import ItemStatus, PagingStatus, StatusAnswer, encode_status_answer
from locum.wire.errors import WireError
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector, TrafficSelector

# Seconds after which a device that has said that it sleeps counts as asleep: by then it has the answer, has handed over, and has
# made its registration short, or is gone.
FALLS_ASLEEP: Final = 10.0
_VERDICTS: Mapping[PageAction, RuleVerdict] = {
    PageAction.PAGE: RuleVerdict.PAGE,
    PageAction.AGENT: RuleVerdict.AGENT,
    PageAction.DROP: RuleVerdict.DROP,
    PageAction.HOLD: RuleVerdict.HOLD,
    PageAction.FORWARD: RuleVerdict.FORWARD,
}

Message: TypeAlias = PageRules1204 | AgentRules1208


class Kept(Protocol):
    """The bindings of the home agent, as far as these rules change them."""

    def leave(self, home: Home, left: Left, reason: str) -> list[Action]:
        """Keep and persist these sets, and let the data plane follow."""

    def has_room(self, home: Home, left: Left) -> bool:
        """True if the data plane has room for these sets."""


class Pages(Protocol):
    """Pages in progress."""

    def registered(self, home: Home, *, now: float) -> list[Action]:
        """The device may be awake."""


class _Refused(Exception):
    """A refused message: its answer, and the reason that is counted."""

    def __init__(
        self, status: PagingStatus, counter: str, text: str, items: Sequence[ItemStatus] = ()
    ) -> None:
        super().__init__(text)
        self.counter = counter
        self.answer = StatusAnswer(status, text, tuple(items))


class LeftRules(Part):
    """The rules that were left for the devices in `homes`; `most_lifetime` in seconds."""

    def __init__(
        self,
        homes: Mapping[IPv4Address, Home],
        kept: Kept,
        pages: Pages,
        most_lifetime: int,
        *,
        located: bool = False,
    ) -> None:
        """With `located` a location server of this host is told where sleepers are."""
        self._homes, self._kept, self._pages, self._most_lifetime = homes, kept, pages, most_lifetime
        self._located = located
        self._ahead = 0.0  # seconds that the wall clock is ahead of steady seconds
        self._due: Deadlines[tuple[IPv4Address, str]] = Deadlines()

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start with the sets of an earlier run; the bindings are restored after this, and forward."""
        found_sets, actions = readable(rows, TABLE, self._read)
        for row, (home, found) in sorted(found_sets, key=lambda pair: _age(pair[0])):
            if home is None:
                actions.append(Forget(row.table, row.key))
                continue
            home.left = home.left.with_set(found)
            self._wake_up(home, found)
        for home in self._homes.values():
            before = home.left
            home.left = before.expired(now).asleep_by(now)
            actions += left_changed(home.mobile.home_address, before, home.left, "expired")
            actions += self._refit(home, home.mobile.rules)
        return actions

    def _read(self, row: Persist) -> tuple[Home | None, LeftSet]:
        """The device of a row, None if the home agent knows it no longer, and its set."""
        address, _, sender = row.key.partition(" ")
        return self._homes.get(IPv4Address(address)), LeftSet.from_row(sender, row.value)

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Messages 1204 and 1208, and steps of the wall clock, which concern others as well."""
        if isinstance(event, WallClockStepped):
            self._ahead = event.ahead
        if not isinstance(event, Asked) or event.path not in (PATH_1204, PATH_1208):
            return None
        try:
            return self._asked(event, now)
        except WireError as error:
            answer = StatusAnswer(PagingStatus.MALFORMED, str(error))
            return [Count(f"{event.path}-{error.reason}"), _answer(event, answer)]
        except _Refused as refused:
            return [Count(f"{event.path}-{refused.counter}"), _answer(event, refused.answer)]

    def timeout(self, *, now: float) -> list[Action]:
        """End the sets whose lifetime is over."""
        actions: list[Action] = []
        for home_address, _sender in self._due.due(now):
            home = self._homes.get(home_address)
            if home is None:
                continue
            if (left := home.left.expired(now).asleep_by(now)) is not home.left:
                actions += self._kept.leave(home, left, "expired")
            if left.device is not None:
                self._wake_up(home, left.device)
        return actions

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._due.next()

    def refit(self, home: Home) -> list[Action]:
        """The configuration of the home address has changed; the data plane follows later."""
        return self._refit(home, home.rules)

    # Messages ----------------------------------------------------------------------------------------------------

    def _asked(self, asked: Asked, now: float) -> list[Action]:
        """Raises WireError or _Refused, and then nothing has changed."""
        message: Message = decode_1204(asked.body) if asked.path == PATH_1204 else decode_1208(asked.body)
        home = self._authorised(asked, message.home_addresses)
        agent = _agent_of(home.mobile, asked.peer)
        if isinstance(message, AgentRules1208) is (agent is None):
            text = "it is no stand-in of the device" if agent is None else "a stand-in sends 1208"
            raise _Refused(PagingStatus.NOT_AUTHORISED, "not-authorised", text)
        sender = agent if isinstance(message, AgentRules1208) else None
        digest = sha256(asked.body).hexdigest()[:32]
        before = home.left.of(sender)
        most = latest(now + self._ahead)
        if message.sent > most:
            raise _Refused(PagingStatus.REFUSED, "future", "the sender's clock is ahead")
        if before is not None and message.sent <= before.sent <= most:
            granted = before.lifetime if message.lifetime else 0
            if (message.sent, digest) == (before.sent, before.digest) and bool(granted) == bool(
                message.lifetime
            ):
                return [_answer(asked, StatusAnswer(PagingStatus.OK, lifetime=granted))]  # it came twice
            raise _Refused(PagingStatus.STALE, "stale", "a later message has been taken")
        new = self._set(home, message, sender, digest, now)
        left = home.left.with_set(new)
        if new.lifetime and not self._kept.has_room(home, left):
            raise _Refused(PagingStatus.LIMIT, "no-room", "the data plane has no room for these rules")
        was_asleep = home.asleep(now)
        for found in _others(left, sender):
            if any(_takes_from(rule, other) for rule in new.rules for other in found.rules):
                left = left.without(found.agent)
        actions = self._kept.leave(home, left, "superseded" if new.lifetime else "removed")
        if was_asleep and not home.asleep(now):
            actions += self._pages.registered(home, now=now)
        self._wake_up(home, new)
        if self._located and isinstance(message, AgentRules1208) and new.lifetime:
            actions += sleeper_told(home, now, self._ahead)
        return [*actions, _answer(asked, StatusAnswer(PagingStatus.OK, lifetime=new.lifetime))]

    def _authorised(self, asked: Asked, home_addresses: Collection[Addr]) -> Home:
        """The device with all of these home addresses. Raises _Refused."""
        if not set(home_addresses) <= set(asked.authorised):
            text = f"{asked.peer} does not speak for these home addresses here"
            raise _Refused(PagingStatus.NOT_AUTHORISED, "not-authorised", text)
        for address in (*home_addresses, *asked.authorised):
            home = self._homes.get(address) if isinstance(address, IPv4Address) else None
            if home is not None and set(home_addresses) <= {
                home.mobile.home_address,
                home.mobile.home_address_v6,
            }:
                return home
        raise _Refused(PagingStatus.UNKNOWN, "unknown", "no device with these home addresses is served here")

    def _set(self, home: Home, message: Message, sender: Addr | None, digest: str, now: float) -> LeftSet:
        """The set that the message leaves. Raises _Refused."""
        ended = LeftSet(message.sent, digest, sender)
        if not message.lifetime:
            return ended
        rules = _read_rules(home.mobile, message.rules, sender)
        _check_overlaps(home, rules, sender, now)
        granted = min(message.lifetime, self._most_lifetime)
        left = home.left
        new = LeftSet(message.sent, digest, sender, left.numbered(sender, rules), granted, now + granted)
        if isinstance(message, PageRules1204):
            new = self._of_device(home, message, new, now)
        over = places(home.mobile, left.with_set(new)) + len(home.rules) - most_rules(home.mobile)
        if over > 0:
            text = f"{over} more than the home address may have"
            late = sorted(rules, key=lambda rule: rule.priority)[-over:] if rules else []
            items = [ItemStatus(rule.item, PagingStatus.LIMIT) for rule in late]
            raise _Refused(PagingStatus.LIMIT, "limit", text, items)
        return new

    def _of_device(self, home: Home, message: PageRules1204, new: LeftSet, now: float) -> LeftSet:
        """With what only a device says. Raises _Refused."""
        agent = message.agent
        if agent is not None and not agent_targets(home.mobile, agent):
            raise _Refused(PagingStatus.UNKNOWN, "unknown-agent", f"{agent} is no stand-in of the device")
        says_so = message.state is DeviceState.ASLEEP and not self._registered_since(home, message.sent)
        asleep = says_so and home.left.asleep  # already
        return LeftSet(
            new.sent,
            new.digest,
            None,
            new.rules,
            new.lifetime,
            new.expires_at,
            _VERDICTS[message.otherwise],
            agent,
            asleep,
            now + FALLS_ASLEEP if says_so and not asleep else None,
            message.way,
        )

    def _registered_since(self, home: Home, sent: int) -> bool:
        """True if the device registered in full after it sent a message: it was delayed, and the device is awake again.

        Both times are by the device's clock. Identifications that are nonces tell no time.
        """
        last = home.binding.identification
        if last is None or home.association.replay is not Replay.TIMESTAMP:
            return False
        return wall_of(last, near=sent / 1000) * 1000 > sent + 1

    # Sets --------------------------------------------------------------------------------------------------------

    def _wake_up(self, home: Home, found: LeftSet) -> None:
        key = home.mobile.home_address, found.key
        if found.lifetime:
            soon = found.expires_at if found.asleep_at is None else found.asleep_at
            self._due.set(key, min(soon, found.expires_at))
        else:
            self._due.cancel(key)

    def _refit(self, home: Home, rules: Sequence[object]) -> list[Action]:
        """End the sets of agents that are no stand-ins any more, and those that `rules` leave no room for."""
        actions: list[Action] = []

        def end(agent: Addr | None, reason: str) -> None:
            before, home.left = home.left, home.left.without(agent)
            actions.extend(left_changed(home.mobile.home_address, before, home.left, reason))

        for found in home.left.agents:
            if found.agent is not None and not agent_targets(home.mobile, found.agent):
                end(found.agent, "not-authorised")
        for found in reversed(home.left.sets):  # the device's is the first
            if len(rules) + places(home.mobile, home.left) <= most_rules(home.mobile):
                break
            end(found.agent, "no-room")
        return actions


def _read_rules(
    mobile: Mobile, said: Sequence[PageRule] | Sequence[AgentRule], sender: Addr | None
) -> tuple[LeftRule, ...]:
    """The rules of a message, without numbers. Raises _Refused with the status of each that does not fit."""
    rules: list[LeftRule] = []
    bad: list[ItemStatus] = []
    for one in said:
        verdict = _VERDICTS[one.action] if isinstance(one, PageRule) else RuleVerdict.AGENT
        agent = one.agent if isinstance(one, PageRule) else one.agent or sender
        selectors = _both(one.selectors)
        if selectors is None:
            bad.append(ItemStatus(one.identifier, PagingStatus.MALFORMED, "selectors of one family each"))
        elif agent is not None and not agent_targets(mobile, agent):
            bad.append(
                ItemStatus(one.identifier, PagingStatus.UNKNOWN, f"{agent} is no stand-in of the device")
            )
        else:
            rules.append(LeftRule(one.identifier, 0, one.priority, verdict, selectors, agent))
    if bad:
        raise _Refused(PagingStatus.REFUSED, "refused", "some of its rules are not possible", bad)
    return tuple(rules)


def _both(said: Sequence[TrafficSelector]) -> tuple[Selector, ...] | None:
    """The selectors of one rule, each family once; None: that is not so."""
    found: list[Selector] = []
    for selector in said:
        if not isinstance(selector, Ipv4Selector | Ipv6Selector):
            return None
        found += both_families(selector) if len(said) == 1 else (selector,)
    return None if len({type(selector) for selector in found}) != len(found) else tuple(found)


def _check_overlaps(home: Home, rules: Sequence[LeftRule], sender: Addr | None, now: float) -> None:
    """Raises _Refused if two rules of the set, or one of it and one of another agent, take the same packets.

    The agent that came first keeps them while it is there. Between the device and its agents priorities decide, then the
    device.
    """
    present = [found for found in _others(home.left, sender) if _is_there(home, found.agent, now)]
    others = [rule for found in present for rule in found.rules]
    bad: list[ItemStatus] = []
    for place, rule in enumerate(rules):
        if any(rule.contends(other) for other in rules[:place]):
            text = "another rule of this priority takes the same packets"
        elif any(_takes_from(rule, other) for other in others):
            text = "another agent has a rule for these packets"
        else:
            continue
        bad.append(ItemStatus(rule.item, PagingStatus.OVERLAPS, text))
    if bad:
        raise _Refused(PagingStatus.OVERLAPS, "overlaps", "some of its rules overlap with others", bad)


def _others(left: Left, sender: Addr | None) -> list[LeftSet]:
    """The sets of the other agents; none for a device."""
    return [] if sender is None else [found for found in left.agents if found.agent != sender]


def _takes_from(rule: LeftRule, other: LeftRule) -> bool:
    """True if the rules of two agents cannot both be in force."""
    return rule.same_packets(other) or rule.contends(other)


def _is_there(home: Home, agent: Addr | None, now: float) -> bool:
    """True if an agent is registered, or need not register."""
    if DEFAULT in agent_targets(home.mobile, agent) and home.registered().default is not None:
        return True
    return any(
        registrant.binding.without_expired(now).care_of
        for registrant in home.stand_ins
        if registrant.stand_in is not None and registrant.stand_in.address == agent
    )


def _agent_of(mobile: Mobile, peer: Addr) -> IPv4Address | None:
    """The address by which a stand-in of the device is known; None: the peer is none."""
    for stand_in in mobile.stand_ins:
        if peer in (stand_in.address, stand_in.address_v6):
            return stand_in.address
    return mobile.stand_in if peer in (mobile.stand_in, mobile.stand_in_v6) else None


def _age(row: Persist) -> float:
    """The order in which sets were left, nearly: a set that was left again has moved."""
    sent = row.value.get("sent")
    return sent if isinstance(sent, int) else 0.0


def _answer(asked: Asked, answer: StatusAnswer) -> Answer:
    return Answer(asked.exchange, encode_status_answer(answer))

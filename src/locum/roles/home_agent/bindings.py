"""The bindings and rules of a home agent: kept, persisted, expired, and followed by the data plane (R1, R2, R4, R5).

Every change goes through `Bindings`. This module must not know messages, nor whether a change is permitted.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.action_values.flows import Encapsulation
from locum.roles.action_values.forwarding_order import HomeEntries, home_difference
from locum.roles.action_values.paging import ReleasePaged
from locum.roles.action_values.registration import Refusal, RefusalReason, RegistrationFlag
from locum.roles.actions import Action, Count, Emit, Event, Forget, ForwardingRefused, Persist
from locum.roles.home_agent.binding import Binding, CareOf, Mobile
from locum.roles.home_agent.device_location import location_told
from locum.roles.home_agent.expiry_triggers import ExpiryTriggers
from locum.roles.home_agent.forwarding_choice import (
    NOTHING,
    Redirect,
    fits_while_waking,
    is_asleep,
    waits,
    while_waking,
)
from locum.roles.home_agent.registry import STAND_IN_TABLE, TABLE, Home, Registrant
from locum.roles.home_agent.requested_changes import rules_without
from locum.roles.mobile_ipv4.broadcasts import broadcast_at_end, broadcast_for_visitor
from locum.roles.paging.left_rules import NOTHING_LEFT, Left, left_changed, left_forgotten
from locum.roles.parts import Part
from locum.roles.room import Occupancy, Places
from locum.roles.rules import (
    ADMIN,
    FIRST_ASSIGNED,
    KeptRule,
    RuleRefused,
    added,
    free_identifier,
    stored,
    without,
)
from locum.roles.timers import Deadlines
from locum.security.association import Replay

# Rules that were signalled or made by an administrator; the key is the home address and the identifier
RULE_TABLE: Final = "rule"
# Of broadcasts, a second: a storm in the home network must not fill the links of mobile nodes
MOST_COPIES = 200
_BROADCAST = int(RegistrationFlag.BROADCAST)
ALL_HOSTS = IPv4Address("255.255.255.255")


class Bindings(Part):
    """Of the home agent at `address`; `triggers` asks stand-ins to take over for a device that has expired."""

    def __init__(
        self,
        address: IPv4Address,
        mobiles: Iterable[Mobile],
        triggers: ExpiryTriggers,
        room: Places | None = None,
        networks: Sequence[IPv4Network] = (),
    ) -> None:
        """`networks` are the home networks whose broadcasts are copied."""
        self._address, self._triggers = address, triggers
        self._occupancy = Occupancy(room)
        self._refused: set[Addr] = set()  # home addresses whose last changes the data plane has not made
        self.located = False  # a location server of this host is told of registrations
        self.homes = {mobile.home_address: Home(mobile) for mobile in mobiles}
        self._expiries: Deadlines[Registrant] = Deadlines()
        # Those that ask for broadcasts, by destination: all hosts, or those of one network
        self._listeners: dict[IPv4Address, dict[Home, None]] = {ALL_HOSTS: {}}
        self._listeners |= {network.broadcast_address: {} for network in networks}
        self._networks = tuple(networks)
        self._copies = (0, 0)  # in this second, counted from the start of the clock

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start with the bindings and rules of an earlier run; a default CoA is bound from the first moment (R2)."""
        actions: list[Action] = []
        rules: list[Persist] = []
        for row in rows:
            if row.table in (TABLE, STAND_IN_TABLE):
                actions += self._restore_binding(row)
            elif row.table == RULE_TABLE:
                rules.append(row)
        for row in rules:
            actions += self._restore_rule(row)
        for home in self.homes.values():
            gone: list[str] = []
            for registrant in (home, *home.stand_ins):
                held = registrant.binding
                current = held.without_expired(now)
                self.keep(registrant, current)
                if current != held:
                    actions.append(Persist(registrant.table, registrant.key, current.to_row()))
                if registrant is not home and not current.care_of:
                    gone.append(registrant.name)
                    if held.care_of:  # it has expired meanwhile
                        actions += self._agent_lost(registrant)
            if gone and home.rules:
                actions += self.keep_rules(home, rules_without(home.rules, *gone))
        # What stays in memory is there by now; what is made for one step alone lies behind it and can be given back.
        for home in self.homes.values():
            actions += self.forward(home)
        return actions

    def timeout(self, *, now: float) -> list[Action]:
        """Expiry of care-of addresses: the next in the order of choice takes over (R2, R5)."""
        actions: list[Action] = []
        for registrant in self._expiries.due(now):
            home, held = registrant.home, registrant.binding
            current = held.without_expired(now)
            lost: list[JSON] = [
                str(care_of.address) for care_of in held.care_of if care_of not in current.care_of
            ]
            rules = home.rules
            if registrant is not home and not current.care_of:
                rules = rules_without(rules, registrant.name)
                actions += self._agent_lost(registrant)
            actions += self.change(registrant, current, rules, home.left)
            detail: dict[str, JSON] = {
                "care_of": lost,
                "in_force": [str(address) for address in home.in_force(self._address)],
            }
            if registrant is not home:
                detail["registrant"] = registrant.name
            actions.append(Emit("expired", None, current.home_address, None, detail))
            if registrant is home and not current.care_of:
                actions += self._triggers.expired(home.mobile, held.care_of)
        return actions

    def deadline(self) -> float | None:
        """Steady seconds at which the next care-of address expires."""
        return self._expiries.next()

    def accepted_last(self) -> Iterator[int]:
        """Timestamps, of every registrant."""
        for home in self.homes.values():
            for stand_in in (home, *home.stand_ins):
                last = stand_in.binding.identification
                if last is not None and stand_in.association.replay is Replay.TIMESTAMP:
                    yield last

    def forget_identifications(
        self, homes: Iterable[Home], beyond: Callable[[int | None], float]
    ) -> list[Action]:
        """Forget identifications that lie in the future, so that the registrants' next ones count.

        `beyond`: seconds until the wall clock would accept an identification.
        """
        actions: list[Action] = []
        for home in homes:
            for registrant in (home, *home.stand_ins):
                held = registrant.binding
                if registrant.association.replay is not Replay.TIMESTAMP:
                    continue
                if not (seconds := beyond(held.identification)):
                    continue
                current = replace(held, identification=None)
                self.keep(registrant, current)
                detail: dict[str, JSON] = {"registrant": registrant.name, "ahead": round(seconds, 3)}
                actions += [
                    Persist(registrant.table, registrant.key, current.to_row()),
                    Emit("identification-forgotten", None, home.mobile.home_address, None, detail),
                ]
        return actions

    def _restore_binding(self, row: Persist) -> list[Action]:
        address, _, name = row.key.partition(" ")
        try:
            home = self.homes.get(IPv4Address(address))
            if home is None:
                return []
            binding = Binding.from_row(home.mobile.home_address, row.value)
        except (ValueError, KeyError, TypeError):
            return [Count("unreadable-row")]
        if row.table == TABLE:
            home.binding = binding
            return []
        for stand_in in home.stand_ins:
            if stand_in.name == name:
                stand_in.binding = binding
                return []
        return [Forget(row.table, row.key)]  # it is not authorised any more

    def _restore_rule(self, row: Persist) -> list[Action]:
        """Restore a rule; remove it if it contradicts the configuration."""
        address, _, number = row.key.partition(" ")
        try:
            home = self.homes.get(IPv4Address(address))
            rule = KeptRule.from_row(int(number), row.value)
            if home is not None:
                home.rules = added(home.rules, rule, home.most_rules)
        except RuleRefused:
            return [Forget(row.table, row.key), Count("rule-does-not-fit")]
        except (ValueError, KeyError, TypeError):
            return [Count("unreadable-row")]
        return []

    # Changes -----------------------------------------------------------------------------------------------------

    def admit(self, registrant: Registrant, after: Binding, rules: tuple[KeptRule, ...]) -> list[Action]:
        """The same as `change`, if the data plane has room for it. Raises Refusal, and then nothing changes.

        A device that registers in full is awake, whatever it has said before (P14).
        """
        left = registrant.home.left
        if left is not NOTHING_LEFT and registrant.stand_in is None and not is_asleep(after):
            left = left.awake()
        if not self._occupancy.ample and not self._fits(registrant, after, rules, left):
            raise Refusal(RefusalReason.NO_RESOURCES)
        return self.change(registrant, after, rules, left)

    def _fits(self, registrant: Registrant, after: Binding, rules: tuple[KeptRule, ...], left: Left) -> bool:
        """True if there is room in the data plane for the home address as it would be."""
        home = registrant.home
        same = rules is home.rules and left is home.left
        if self._occupancy.ample or (same and registrant.binding.forwards_as(after)):
            return True
        before = registrant.binding, home.rules, home.left
        registrant.binding, home.rules, home.left = after, rules, left
        try:
            wanted = home.wanted(self._address)
        finally:
            registrant.binding, home.rules, home.left = before
        return self._occupancy.admits(zip(home.forwarded(self._address), wanted, strict=True))

    def change(
        self, registrant: Registrant, after: Binding, rules: tuple[KeptRule, ...], left: Left
    ) -> list[Action]:
        """Keep, persist, and let the data plane follow."""
        if registrant.stand_in is None and not after.care_of:
            after = after.after(registrant.binding)
        if self.located and isinstance(registrant, Home):
            told = location_told(registrant.mobile, registrant.binding, after)
            return [*self._change(registrant, after, rules, left), *told]
        return self._change(registrant, after, rules, left)

    def _change(
        self, registrant: Registrant, after: Binding, rules: tuple[KeptRule, ...], left: Left
    ) -> list[Action]:
        home, row = registrant.home, Persist(registrant.table, registrant.key, after.to_row())
        if (
            rules is home.rules
            and left is home.left
            and registrant.binding.forwards_as(after)
            and not (self._refused and home.mobile.home_address in self._refused)
        ):
            self.keep(registrant, after)
            return [row]
        home.changing(self._address)
        self.keep(registrant, after)
        actions: list[Action] = [row]
        if rules is not home.rules:
            actions += self.keep_rules(home, rules)
        if left is not home.left:
            actions += self.keep_left(home, left, "")
        return actions + self.forward(home)

    def keep_left(self, home: Home, left: Left, reason: str) -> list[Action]:
        """Keep and persist what the device and its agents left; `reason` is for users, why sets have ended."""
        before, home.left = home.left, left
        return left_changed(home.mobile.home_address, before, left, reason)

    @staticmethod
    def _agent_lost(registrant: Registrant) -> list[Action]:
        """A stand-in has died: its rules are without a target, and its packets fall back until it registers again (P2)."""
        stand_in, home = registrant.stand_in, registrant.home
        found = None if stand_in is None else home.left.of(stand_in.address)
        if found is None or not found.lifetime:
            return []
        detail: dict[str, JSON] = {"by": found.key, "name": registrant.name, "rules": len(found.rules)}
        return [Emit("agent-lost", "1208", home.mobile.home_address, None, detail)]

    def leave(self, home: Home, left: Left, reason: str) -> list[Action]:
        """The same, and the data plane follows."""
        home.changing(self._address)
        return [*self.keep_left(home, left, reason), *self.forward(home)]

    def has_room(self, home: Home, left: Left) -> bool:
        """True if the data plane has room for these sets once the device sleeps."""
        return self._fits(home, home.binding.keeping(()), home.rules, left)

    def keep(self, registrant: Registrant, binding: Binding) -> None:
        """Keep the binding, and the time of its next expiry."""
        registrant.binding = binding
        flags = 0
        for care_of in binding.care_of:
            flags |= care_of.flags
        if flags & _BROADCAST and isinstance(registrant, Home):
            self._listen(registrant)
        elif self._listeners[ALL_HOSTS] and isinstance(registrant, Home):
            self._listen_no_more(registrant)
        expiry = binding.next_expiry()
        if expiry is None:
            self._expiries.cancel(registrant)
        else:
            self._expiries.set(registrant, expiry)

    def keep_rules(self, home: Home, rules: tuple[KeptRule, ...]) -> list[Action]:
        """Keep and persist the differences."""
        before, home.rules = home.rules, rules
        gone = [rule for rule in before if rule not in rules and stored(rule)]
        new = [rule for rule in rules if rule not in before and stored(rule)]
        if not gone and not new:
            return []
        named = {rule.identifier for rule in new}
        actions: list[Action] = [
            Forget(RULE_TABLE, f"{home.key} {rule.identifier}")
            for rule in gone
            if rule.identifier not in named
        ]
        actions += [Persist(RULE_TABLE, f"{home.key} {rule.identifier}", rule.to_row()) for rule in new]
        detail: dict[str, JSON] = {
            "removed": sorted(rule.identifier for rule in gone if rule.identifier not in named),
            "set": sorted(named),
            "rules": len(rules),
        }
        return [*actions, Emit("rules-changed", None, home.mobile.home_address, None, detail)]

    def forward(self, home: Home) -> list[Action]:
        """Change the data plane to match the registrations, with differences only."""
        actions: list[Action] = []
        if home.redirect is not None and not (home.left.asleep or is_asleep(home.binding)):
            home.redirect = None  # it has woken, and has its packets
        before, wanted = home.forward(self._address)
        for had, after in zip(before, wanted, strict=True):
            if had is not after:
                self._occupancy.changed(had, after)
                actions += _entries_changed(had, after)
        if self._refused and home.mobile.home_address in self._refused:
            self._refused.discard(home.mobile.home_address)
            for entries in wanted:
                actions += entries.entries()  # all of it once more
        return actions

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """The data plane has refused changes: a home address gets all of its entries with its next change."""
        if not isinstance(event, ForwardingRefused):
            return None
        refused = frozenset(event.home_addresses)
        self._refused |= refused & self.homes.keys()
        if any(home_address.version == 6 for home_address in refused):
            self._refused |= {
                home_address
                for home_address, home in self.homes.items()
                if home.mobile.home_address_v6 in refused
            }
        return []

    def redirect(self, home: Home, to: Redirect | None) -> list[Action] | None:
        """Send packets that would page the device to this place (P10); None: let them page it again.

        Those that waited go first, in order. The result is None, and nothing changes, without room for it.
        """
        before = home.redirect
        if to == before:
            return []
        home.changing(self._address)
        had, home.redirect = home.forwarded(self._address), to
        wanted = home.wanted(self._address)
        if to is not None and not (
            all(fits_while_waking(*both) for both in zip(had, wanted, strict=True))
            and (self._occupancy.ample or self._occupancy.admits(zip(had, wanted, strict=True)))
        ):
            home.redirect = before
            return None
        return self.forward(home)

    def broadcast(self, packet: bytes, *, now: float) -> list[Action]:
        """A copy of a broadcast of a home network for each mobile node of it that asks for them (RFC 5944 section 4.3).

        One to the address of a network is for its mobile nodes alone; any other destination is none. Those that have had the last ones that a second allows come last with the next one.
        """
        listeners = self._listeners.get(IPv4Address(packet[16:20]), {})
        second, copies = self._copies if self._copies[0] == int(now) else (int(now), 0)
        actions: list[Action] = []
        served: list[Home] = []
        for home in listeners if copies < MOST_COPIES else ():
            own = self._broadcast_copies(home, packet, now)
            if copies + len(own) > MOST_COPIES and copies:
                break
            served.append(home)
            actions += own
            copies += len(own)
        self._copies = (second, copies)
        if left := len(listeners) - len(served):
            actions.append(Count("broadcast-too-many", left))
            for home in served:
                listeners[home] = listeners.pop(home)
        return actions

    def _listen(self, home: Home) -> None:
        self._listeners[ALL_HOSTS][home] = None
        for network in self._networks:
            if home.mobile.home_address in network:
                self._listeners[network.broadcast_address][home] = None

    def _listen_no_more(self, home: Home) -> None:
        for listeners in self._listeners.values():
            listeners.pop(home, None)

    def _broadcast_copies(self, home: Home, packet: bytes, now: float) -> list[Action]:
        actions: list[Action] = []
        for care_of in home.binding.without_expired(now).care_of:
            if not care_of.flags & _BROADCAST:
                continue
            if care_of.co_located:
                gre, said = care_of.encapsulation is Encapsulation.GRE, care_of.outer
                outer = None if said is None else (said.address, said.port)
                actions.append(broadcast_at_end(packet, self._address, care_of.address, outer, gre=gre))
            else:
                actions.append(broadcast_for_visitor(packet, self._address, home.mobile.home_address))
        return actions

    def drop(self, registrant: Registrant, gone: Sequence[CareOf], reason: str) -> list[Action]:
        """Revoke these care-of addresses; `reason` is for users."""
        home, held = registrant.home, registrant.binding
        kept = held.keeping(tuple(care_of for care_of in held.care_of if care_of not in gone))
        rules, lost = home.rules, list[Action]()
        if registrant is not home and not kept.care_of:
            rules = rules_without(rules, registrant.name)
            lost = self._agent_lost(registrant)
        actions = [*lost, *self.change(registrant, kept, rules, home.left)]
        detail: dict[str, JSON] = {
            "care_of": [str(rule.address) for rule in gone],
            "reason": reason,
            "in_force": [str(address) for address in home.in_force(self._address)],
        }
        return [*actions, Emit("revoked", None, home.mobile.home_address, None, detail)]

    def forget(self, home: Home) -> list[Action]:
        """Forget the rules of a home address that is not served any more; its packets go natively."""
        actions: list[Action] = [
            Forget(RULE_TABLE, f"{home.key} {rule.identifier}") for rule in home.rules if stored(rule)
        ]
        actions += left_forgotten(home.mobile.home_address, home.left)
        for had in home.forwarded(self._address):
            self._occupancy.changed(had, NOTHING)
            actions += _entries_changed(had, NOTHING)
        self._refused.discard(home.mobile.home_address)
        return actions

    def cancel(self, registrant: Registrant) -> None:
        """Let the registrant's care-of addresses expire no more; no broadcasts are copied for it."""
        self._expiries.cancel(registrant)
        if isinstance(registrant, Home):
            self._listen_no_more(registrant)

    # Rules of administrators -------------------------------------------------------------------------------------

    def home(self, home_address: IPv4Address) -> Home:
        """The home address as it is served. Raises RuleRefused when it is not."""
        home = self.homes.get(home_address)
        if home is None:
            raise RuleRefused(RefusalReason.PROHIBITED, f"{home_address} is not served here")
        return home

    def add_rule(self, home_address: IPv4Address, rule: KeptRule) -> list[Action]:
        """Add a rule of an administrator: owner ADMIN, it survives a restart. Raises RuleRefused."""
        home = self.home(home_address)
        rules = added(home.rules, replace(rule, owner=ADMIN), home.most_rules)
        if not self._fits(home, home.binding, rules, home.left):
            raise RuleRefused(RefusalReason.NO_RESOURCES, "the data plane has no room for one more rule")
        home.changing(self._address)
        return [*self.keep_rules(home, rules), *self.forward(home)]

    def numbered(self, home_address: IPv4Address, rule: KeptRule) -> KeptRule:
        """The rule with an identifier that no rule of that home address has. Raises RuleRefused."""
        return replace(rule, identifier=free_identifier(self.home(home_address).rules, FIRST_ASSIGNED))

    def remove_rule(self, home_address: IPv4Address, identifier: int) -> list[Action]:
        """Remove a rule that was signalled or added by an administrator. Raises RuleRefused for others."""
        home = self.home(home_address)
        rules, _ = without(home.rules, identifier, ADMIN)
        home.changing(self._address)
        return [*self.keep_rules(home, rules), *self.forward(home)]


def _entries_changed(had: HomeEntries, after: HomeEntries) -> list[Action]:
    """The changes of a home address's entries. Packets that waited for the device go out first, in order (P17)."""
    if not waits(had) or waits(after):
        return [*home_difference(had, after)]
    assert had.entry is not None
    release = ReleasePaged(had.entry.home_address)
    waking = while_waking(had, after)
    return [*home_difference(had, waking), release, *home_difference(waking, after), release]

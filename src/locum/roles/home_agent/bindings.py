"""The bindings and rules of a home agent: kept, persisted, expired, and followed by the data plane (R1, R2, R4, R5).

Every change goes through `Bindings`. This module must not know messages, nor whether a change is permitted.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final

from locum.roles.action_values.addresses import JSON
from locum.roles.action_values.forwarding_order import home_difference
from locum.roles.action_values.registration import RefusalReason
from locum.roles.actions import Action, Count, Emit, Forget, Persist
from locum.roles.home_agent.binding import Binding, CareOf, Mobile
from locum.roles.home_agent.expiry_triggers import ExpiryTriggers
from locum.roles.home_agent.forwarding_choice import NOTHING, in_force, installed, most_rules
from locum.roles.home_agent.registry import STAND_IN_TABLE, TABLE, Home, Registrant
from locum.roles.home_agent.requested_changes import rules_without
from locum.roles.parts import Part
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


class Bindings(Part):
    """Of the home agent at `address`; `triggers` asks stand-ins to take over for a device that has expired."""

    def __init__(self, address: IPv4Address, mobiles: Iterable[Mobile], triggers: ExpiryTriggers) -> None:
        self._address, self._triggers = address, triggers
        self.homes = {mobile.home_address: Home(mobile) for mobile in mobiles}
        self._expiries: Deadlines[Registrant] = Deadlines()

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start with the bindings and rules of an earlier run; a default CoA is bound from the first moment (R2)."""
        actions: list[Action] = []
        for row in rows:
            if row.table in (TABLE, STAND_IN_TABLE):
                actions += self._restore_binding(row)
        for row in rows:
            if row.table == RULE_TABLE:
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
            if gone and home.rules:
                actions += self.keep_rules(home, rules_without(home.rules, *gone))
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
            actions += self.change(registrant, current, rules)
            detail: dict[str, JSON] = {
                "care_of": lost,
                "in_force": [str(address) for address in in_force(home.v4)],
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

    def _restore_binding(self, row: Persist) -> list[Action]:
        address, _, name = row.key.partition(" ")
        try:
            binding = Binding.from_row(address, row.value)
        except (ValueError, KeyError, TypeError):
            return [Count("unreadable-row")]
        home = self.homes.get(binding.home_address)
        if home is None:
            return []
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
                home.rules = added(home.rules, rule, most_rules(home.mobile))
        except RuleRefused:
            return [Forget(row.table, row.key), Count("rule-does-not-fit")]
        except (ValueError, KeyError, TypeError):
            return [Count("unreadable-row")]
        return []

    # Changes -----------------------------------------------------------------------------------------------------

    def change(self, registrant: Registrant, after: Binding, rules: tuple[KeptRule, ...]) -> list[Action]:
        """Keep, persist, and let the data plane follow."""
        home, before = registrant.home, registrant.binding
        self.keep(registrant, after)
        actions: list[Action] = [Persist(registrant.table, registrant.key, after.to_row())]
        if rules is not home.rules:
            actions += self.keep_rules(home, rules)
        elif before.forwards_as(after):
            return actions
        return actions + self.forward(home)

    def keep(self, registrant: Registrant, binding: Binding) -> None:
        """Keep the binding, and the time of its next expiry."""
        registrant.binding = binding
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
        registered, mobile, address = home.registered(), home.mobile, self._address
        before, home.v4 = home.v4, installed(registered, mobile.home_address, address)
        actions: list[Action] = [*home_difference(before, home.v4)]
        if mobile.home_address_v6 is not None:
            before, home.v6 = home.v6, installed(registered, mobile.home_address_v6, address)
            actions += home_difference(before, home.v6)
        return actions

    def drop(self, registrant: Registrant, gone: Sequence[CareOf], reason: str) -> list[Action]:
        """Revoke these care-of addresses; `reason` is for users."""
        home, held = registrant.home, registrant.binding
        kept = held.keeping(tuple(care_of for care_of in held.care_of if care_of not in gone))
        rules = home.rules
        if registrant is not home and not kept.care_of:
            rules = rules_without(rules, registrant.name)
        actions = self.change(registrant, kept, rules)
        detail: dict[str, JSON] = {
            "care_of": [str(rule.address) for rule in gone],
            "reason": reason,
            "in_force": [str(address) for address in in_force(home.v4)],
        }
        return [*actions, Emit("revoked", None, home.mobile.home_address, None, detail)]

    def forget(self, home: Home) -> list[Action]:
        """Forget the rules of a home address that is not served any more; its packets go natively."""
        actions: list[Action] = [
            Forget(RULE_TABLE, f"{home.key} {rule.identifier}") for rule in home.rules if stored(rule)
        ]
        for address, had in ((home.mobile.home_address, home.v4), (home.mobile.home_address_v6, home.v6)):
            if address is not None:
                actions += home_difference(had, NOTHING)
        return actions

    def cancel(self, registrant: Registrant) -> None:
        """Let the registrant's care-of addresses expire no more."""
        self._expiries.cancel(registrant)

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
        rules = added(home.rules, replace(rule, owner=ADMIN), most_rules(home.mobile))
        return [*self.keep_rules(home, rules), *self.forward(home)]

    def numbered(self, home_address: IPv4Address, rule: KeptRule) -> KeptRule:
        """The rule with an identifier that no rule of that home address has. Raises RuleRefused."""
        return replace(rule, identifier=free_identifier(self.home(home_address).rules, FIRST_ASSIGNED))

    def remove_rule(self, home_address: IPv4Address, identifier: int) -> list[Action]:
        """Remove a rule that was signalled or added by an administrator. Raises RuleRefused for others."""
        home = self.home(home_address)
        rules, _ = without(home.rules, identifier, ADMIN)
        return [*self.keep_rules(home, rules), *self.forward(home)]

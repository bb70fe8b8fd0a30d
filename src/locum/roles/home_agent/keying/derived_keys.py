"""Keys for mobile nodes that share one with the AAA server alone (RFC 3957): offers, and the associations that follow.

It must not know bindings, nor why a registration is accepted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Final

from locum.roles.action_values.addresses import JSON, Randomness
from locum.roles.action_values.registration import (
    KeyGrant,
    Proof,
    Received,
    Registration,
    RegistrationAnswer,
)
from locum.roles.actions import Action, Forget, Persist
from locum.roles.home_agent.registry import Home, Registrant
from locum.roles.parts import Part, readable
from locum.roles.profile import association_from, association_row
from locum.security.association import FIRST_SPI, AaaAssociation, Association, DerivedAssociation
from locum.security.key_wrapping import wrap_key

TABLE: Final = "key"
NONCE_BYTES = 16  # section 5: at least 128 bits
# An answer with a grant may be this much longer than its request: its sender is known
GRANT_BYTES = 64


@dataclass(frozen=True, slots=True)
class Offer:
    """An association that a registration may lead to, and the registration with a way to answer under it."""

    association: Association
    source: AaaAssociation
    received: Received


class HomeKeys(Part):
    """The derived associations of these homes, each for `lifetime` seconds."""

    def __init__(self, homes: Mapping[IPv4Address, Home], lifetime: int, randomness: Randomness) -> None:
        self._homes, self._lifetime, self._randomness = homes, lifetime, randomness

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """The associations of an earlier run, as far as they still hold."""
        found, actions = readable(rows, TABLE, _from_row)
        for row, (home_address, association, until, source) in found:
            home = self._homes.get(home_address)
            aaa = None if home is None else home.mobile.association
            if home is None or not isinstance(aaa, AaaAssociation) or _mark(aaa) != source or until <= now:
                actions.append(Forget(row.table, row.key))
            else:
                home.association = _derived(association, aaa, until)
        return actions

    def registrant(self, home: Home, proof: Proof | None, now: float) -> Registrant | None:
        """The registrant of that home address whose proof this is: each has its own SPI (R4)."""
        if proof is None:
            return None
        if home.signs(now) and proof.holds(home.association):
            return home
        return next((stand_in for stand_in in home.stand_ins if proof.holds(stand_in.association)), None)

    def offer(self, home: Home, received: Received) -> Offer | None:
        """A new key for a mobile node that has proved itself by its AAA association and asks for one; else None."""
        registration = received.registration
        aaa, proof = home.mobile.association, registration.aaa_proof
        to_mobile = registration.options.key_spi
        if not isinstance(aaa, AaaAssociation) or proof is None or to_mobile is None or to_mobile < FIRST_SPI:
            return None
        if not proof.holds(aaa):
            return None
        nonce = self._nonce()
        grant = KeyGrant(
            self._lifetime, aaa.outgoing_spi, self._free_spi(home), aaa.algorithm, aaa.replay, nonce
        )
        key = aaa.digest(nonce + identifier(registration))
        association = Association(grant.spi, key, grant.algorithm, grant.replay, to_mobile)

        def write(
            registration: Registration,
            answer: RegistrationAnswer,
            home_agent: IPv4Address,
            *,
            mobile: Association | None,
            agent: Association | None,
        ) -> bytes:
            if mobile is not None:
                answer, mobile = replace(answer, key=grant), association
            return received.write(registration, answer, home_agent, mobile=mobile, agent=agent)

        answered = replace(received, size=received.size + GRANT_BYTES, write=write)
        return Offer(association, aaa, answered)

    def with_agent_key(self, home: Home, received: Received) -> Received:
        """The registration with a way to grant the key that its mobile node and its foreign agent ask for.

        Both know the request as the mobile node's by any of its proofs. An acceptance carries the nonce for the mobile
        node, and the key itself for the foreign agent, encrypted under its association with the home agent.
        """
        registration, aaa = received.registration, home.mobile.association
        to_mobile, to_agent = registration.options.agent_key_spi, registration.options.agent_spi
        if not isinstance(aaa, AaaAssociation) or to_mobile is None or to_agent is None:
            return received
        if to_mobile < FIRST_SPI or to_agent < FIRST_SPI:
            return received
        nonce = self._nonce()
        grant = KeyGrant(self._lifetime, aaa.outgoing_spi, to_agent, aaa.algorithm, aaa.replay, nonce)
        key = aaa.digest(nonce + identifier(registration))

        def write(
            registration: Registration,
            answer: RegistrationAnswer,
            home_agent: IPv4Address,
            *,
            mobile: Association | None,
            agent: Association | None,
        ) -> bytes:
            if agent is not None and mobile is not None and answer.refused is None and answer.lifetime:
                wrapped = wrap_key(agent, key, nonce)
                answer = replace(answer, agent_key=grant, agent_key_wrapped=wrapped)
            return received.write(registration, answer, home_agent, mobile=mobile, agent=agent)

        return replace(received, write=write)

    def _nonce(self) -> bytes:
        return self._randomness.getrandbits(8 * NONCE_BYTES).to_bytes(NONCE_BYTES, "big")

    def adopt(self, home: Home, offer: Offer, now: float) -> list[Action]:
        """The association of an accepted registration; the earlier one ends."""
        until = now + self._lifetime
        home.association = _derived(offer.association, offer.source, until)
        row: dict[str, JSON] = {
            "association": association_row(offer.association),
            "source": _mark(offer.source),
            "until": until,
        }
        return [Persist(TABLE, home.key, row)]

    def _free_spi(self, home: Home) -> int:
        taken = {home.mobile.association.spi, home.association.spi}
        taken.update(stand_in.association.spi for stand_in in home.stand_ins)
        while (spi := self._randomness.getrandbits(32)) < FIRST_SPI or spi in taken:
            pass
        return spi


def identifier(registration: Registration) -> bytes:
    """The mobile node's identifier in a derivation: its NAI, else its home address (section 5)."""
    nai = registration.options.nai
    return registration.home_address.packed if nai is None else nai.encode()


def _derived(association: Association, source: AaaAssociation, until: float) -> DerivedAssociation:
    return DerivedAssociation(
        association.spi,
        association.key,
        association.algorithm,
        association.replay,
        association.sent_spi,
        association.short_key,
        source,
        until,
    )


def _mark(source: AaaAssociation) -> str:
    """Names the association with the AAA server, and changes with its key."""
    return f"{source.spi} {source.digest(b'source')[:8].hex()}"


def _from_row(row: Persist) -> tuple[IPv4Address, Association, float, JSON]:
    """Home address, association, its end in steady seconds, and the mark of its source; raises ValueError, KeyError or TypeError."""
    until = row.value["until"]
    if not isinstance(until, int | float):
        raise ValueError("a time is a number")
    association = association_from(_part(row.value["association"]))
    return IPv4Address(row.key), association, until, row.value["source"]


def _part(row: JSON) -> Mapping[str, JSON]:
    if not isinstance(row, Mapping):
        raise ValueError("an association is an object")
    return row

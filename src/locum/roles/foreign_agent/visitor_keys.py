"""Keys between mobile nodes and this foreign agent that follow from AAA associations (RFC 3957).

The home agent stands for the AAA server: it grants the mobile node a nonce, and sends the key to this agent under their own
association. It must not know visitors, links or forwarding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr, Randomness
from locum.roles.action_values.registration import Options, Proof, Registration
from locum.roles.actions import Action, Forget, Persist
from locum.roles.foreign_agent.configuration import KeyMode
from locum.roles.mobile_ipv4.agent_keys import GivenKey
from locum.roles.parts import Part, readable
from locum.roles.profile import association_from, association_row
from locum.roles.timers import Deadlines
from locum.security.association import FIRST_SPI, Association
from locum.security.key_wrapping import unwrap_key

TABLE: Final = "key"
MOST_KEYS = 4096  # the oldest is forgotten, and its mobile node asks for another


@dataclass(frozen=True, slots=True)
class _Key:
    association: Association
    until: float  # steady seconds


class VisitorKeys(Part):
    """The derived associations by home address; `home_agents` are the associations that may bring them."""

    def __init__(
        self, mode: KeyMode, home_agents: Mapping[Addr, Association], randomness: Randomness
    ) -> None:
        self._mode, self._home_agents, self._randomness = mode, home_agents, randomness
        self._keys: dict[IPv4Address, _Key] = {}
        self._timers: Deadlines[IPv4Address] = Deadlines()

    # Requests ----------------------------------------------------------------------------------------------------

    def admits(self, home_address: IPv4Address, proof: Proof | None, *, asks: bool) -> bool:
        """True if the mobile node proves itself by the key, or asks for one: the home agent checks its proof then."""
        if self._mode is KeyMode.OFF or asks:
            return True
        held = self.get(home_address)
        if held is not None:
            return proof is not None and proof.holds(held)
        # One that is lost here: the mobile node asks for another after a refusal
        return proof is None and self._mode is KeyMode.OFFERED

    def fill(self, options: Options, asked: Registration, now: float) -> Options:
        """Tell the home agent that the key is taken here, and by which SPI messages to us will name it."""
        if self._mode is KeyMode.OFF or asked.options.agent_key_spi is None or asked.lifetime == 0:
            return options
        if asked.home_agent not in self._home_agents or asked.options.stand_in is not None:
            return options
        return replace(options, agent_spi=self._free_spi())

    # Replies -----------------------------------------------------------------------------------------------------

    def learn(
        self,
        home_address: IPv4Address,
        home_agent: IPv4Address,
        given: GivenKey,
        agent_spi: int | None,
        now: float,
    ) -> list[Action]:
        """Take the key of an acceptance that the home agent has signed for us. ValueError: the reply contradicts itself.

        `agent_spi` is the one of our request.
        """
        grant, carrier = given.grant, self._home_agents.get(home_agent)
        if given.wrapped is None or carrier is None or given.to_mobile is None or grant.spi != agent_spi:
            raise ValueError("the mobile node is granted a key that was not asked for here")
        key = unwrap_key(carrier, given.wrapped, grant.nonce)
        association = Association(grant.spi, key, grant.algorithm, sent_spi=given.to_mobile)
        return self._keep(home_address, _Key(association, now + grant.lifetime))

    def lacks(self, home_address: IPv4Address) -> bool:
        """True if a key is required, and there is none."""
        return self._mode is KeyMode.REQUIRED and self.get(home_address) is None

    def get(self, home_address: IPv4Address) -> Association | None:
        """The derived association with this mobile node."""
        held = self._keys.get(home_address)
        return None if held is None else held.association

    # Time, and rows ----------------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """Steady seconds at which the next key ends."""
        return self._timers.next()

    def timeout(self, *, now: float) -> list[Action]:
        """Forget keys whose lifetime is over."""
        return [action for home_address in self._timers.due(now) for action in self._drop(home_address)]

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """The keys of an earlier run, as far as they still hold."""
        found, actions = readable(rows, TABLE, lambda row: (IPv4Address(row.key), _from_row(row.value)))
        for row, (home_address, held) in found:
            if held.until <= now or self._mode is KeyMode.OFF:
                actions.append(Forget(row.table, row.key))
            else:
                self._hold(home_address, held)
        return actions

    def _keep(self, home_address: IPv4Address, held: _Key) -> list[Action]:
        self._keys.pop(home_address, None)
        self._hold(home_address, held)
        value: dict[str, JSON] = {"association": association_row(held.association), "until": held.until}
        actions: list[Action] = [Persist(TABLE, str(home_address), value)]
        if len(self._keys) > MOST_KEYS:
            actions += self._drop(next(iter(self._keys)))
        return actions

    def _hold(self, home_address: IPv4Address, held: _Key) -> None:
        self._keys[home_address] = held
        self._timers.set(home_address, held.until)

    def _drop(self, home_address: IPv4Address) -> list[Action]:
        del self._keys[home_address]
        self._timers.cancel(home_address)
        return [Forget(TABLE, str(home_address))]

    def _free_spi(self) -> int:
        """An SPI that no key has; two requests under way would need the same 32 random bits to clash."""
        taken = {held.association.spi for held in self._keys.values()}
        while (spi := self._randomness.getrandbits(32)) < FIRST_SPI or spi in taken:
            pass
        return spi


def _from_row(row: Mapping[str, JSON]) -> _Key:
    association, until = row["association"], row["until"]
    if not isinstance(association, Mapping) or not isinstance(until, int | float):
        raise ValueError("a key has an association and a time")
    return _Key(association_from(association), float(until))

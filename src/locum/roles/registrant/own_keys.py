"""A registrant's associations with its agents: configured, or derived from one with the AAA server (RFC 3957).

It must not know messages, links or the agents' answers beside the keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address

from locum.roles.action_values.addresses import JSON, Addr, Randomness
from locum.roles.action_values.registration import KeyGrant
from locum.roles.profile import association_from, association_row
from locum.roles.registrant.attachment import Attachment
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.security.association import FIRST_SPI, LAST_SPI, AaaAssociation, Association

MOST_AGENTS = 16  # foreign agents whose derived keys are kept; the oldest is forgotten
MOST_UNANSWERED = 2  # requests under a derived key; every second one after them asks for a new key


class OwnKeys:
    """The association of one registrant."""

    def __init__(self, configuration: MobileNodeConfiguration, randomness: Randomness) -> None:
        self._configured = configuration.association
        self._nai, self._margin = configuration.nai, configuration.lifetime
        self._randomness = randomness
        self._learnt: Association | None = None
        self._expires_at = 0.0  # steady seconds
        self._unanswered = 0
        self._sent_at = 0.0
        # SPI of messages to us, in a request for a new key; None: no key is asked for
        self.asked: int | None = None

    @property
    def association(self) -> Association:
        """The association with the home agent; until one is derived, that with the AAA server."""
        return self._configured if self._learnt is None else self._learnt

    @property
    def proving(self) -> Association:
        """The association that signs the next request."""
        return self.association if self.asked is None else self._configured

    def begin(self, now: float) -> None:
        """Choose the key of the next request. A key that would end before the registration is replaced."""
        if not isinstance(self._configured, AaaAssociation):
            return
        self._unanswered += 1
        self._sent_at = now
        doubted = self._unanswered > MOST_UNANSWERED and self._unanswered % 2 == 1
        if self._learnt is not None and now + self._margin < self._expires_at and not doubted:
            self.asked = None
        elif self.asked is None:
            self.asked = max(FIRST_SPI, self._randomness.getrandbits(32) & LAST_SPI)

    def signer(self, grant: KeyGrant | None, home_address: IPv4Address) -> Association | None:
        """The association that has to prove the answer to the last request; None: it has none of ours."""
        if self.asked is None:
            return self.association
        if grant is None or grant.aaa_spi != self._configured.spi or grant.spi < FIRST_SPI:
            return None
        identifier = home_address.packed if self._nai is None else self._nai.encode()
        key = self._configured.digest(grant.nonce + identifier)
        return Association(self.asked, key, grant.algorithm, grant.replay, grant.spi)

    def answered(self, signer: Association, grant: KeyGrant | None, *, accepted: bool) -> None:
        """An answer that `signer` proves has come; with an acceptance its key holds from now on."""
        self._unanswered = 0
        if self.asked is not None and grant is not None and accepted:
            self._learnt, self.asked = signer, None
            self._expires_at = self._sent_at + grant.lifetime

    def to_row(self) -> JSON:
        """The part of a row."""
        if self._learnt is None:
            return None
        return {
            "association": association_row(self._learnt),
            "aaa_spi": self._configured.spi,
            "expires_at": self._expires_at,
        }

    def from_row(self, row: JSON) -> None:
        """From part of a row of our own; raises ValueError, KeyError or TypeError for anything else."""
        with_aaa = isinstance(self._configured, AaaAssociation)
        if not isinstance(row, Mapping) or not with_aaa or row["aaa_spi"] != self._configured.spi:
            return
        association, expires_at = row["association"], row["expires_at"]
        if not isinstance(association, Mapping) or not isinstance(expires_at, int | float):
            raise ValueError("a derived association has a time")
        self._learnt, self._expires_at = association_from(association), float(expires_at)


@dataclass(frozen=True, slots=True)
class _AgentKey:
    """A derived association with one foreign agent; `expires_at` is in steady seconds."""

    association: Association
    expires_at: float

    def to_row(self) -> JSON:
        return {"association": association_row(self.association), "expires_at": self.expires_at}

    @classmethod
    def from_row(cls, row: JSON) -> "_AgentKey":
        """Raises ValueError, KeyError or TypeError for anything but a row of our own."""
        if not isinstance(row, Mapping):
            raise ValueError("a derived association is an object")
        association, expires_at = row["association"], row["expires_at"]
        if not isinstance(association, Mapping) or not isinstance(expires_at, int | float):
            raise ValueError("a derived association has a time")
        return cls(association_from(association), float(expires_at))


class AgentKeys:
    """The associations of one registrant with foreign agents, by their addresses: `configured`, or derived ones.

    A request for a derived one has no proof for the foreign agent; the home agent's acceptance has the nonce, and the
    foreign agent proves that it knows the key. Without a nonce in it the foreign agent takes no keys, or the request was
    refused.
    """

    def __init__(
        self,
        configuration: MobileNodeConfiguration,
        configured: Mapping[Addr, Association],
        randomness: Randomness,
    ) -> None:
        aaa = configuration.association
        self._aaa = aaa if configuration.agent_keys and isinstance(aaa, AaaAssociation) else None
        self._nai, self._margin = configuration.nai, configuration.lifetime
        self._configured, self._randomness = dict(configured), randomness
        self._learnt: dict[Addr, _AgentKey] = {}
        self._now = 0.0
        self._agent: Addr | None = None  # of the last request
        self._unanswered = 0  # requests to it
        self._used: Association | None = None  # that signed the last request
        self.asked: int | None = None  # SPI of messages to us, in a request for a key

    def begin(self, now: float) -> None:
        """A request is about to be made."""
        self._now = now

    def proving(self, attachment: Attachment, lifetime: int) -> Association | None:
        """The association that signs this request for the foreign agent; None: none does, and `asked` says why."""
        if attachment.agent != self._agent:
            self._agent, self._unanswered, self.asked = attachment.agent, 0, None
        self._unanswered += 1
        self._used = self._chosen(attachment, lifetime)
        return self._used

    def _chosen(self, attachment: Attachment, lifetime: int) -> Association | None:
        configured = None if attachment.direct else self._configured.get(attachment.agent)
        if attachment.direct or configured is not None or self._aaa is None:
            self.asked = None
            return configured
        held = self._learnt.get(attachment.agent)
        doubted = self._unanswered > MOST_UNANSWERED and self._unanswered % 2 == 1
        lasting = held is not None and self._now + (self._margin if lifetime else 0) < held.expires_at
        if held is not None and lasting and not doubted:
            self.asked = None
            return held.association
        if attachment.colocated:  # an agent that only passes requests on takes no keys
            self.asked = None
        elif self.asked is None:
            self.asked = max(FIRST_SPI, self._randomness.getrandbits(32) & LAST_SPI)
        return None

    def signer(
        self, grant: KeyGrant | None, attachment: Attachment, home_address: IPv4Address
    ) -> Association | None:
        """The association that has to prove the answer to the last request; None: the foreign agent has none."""
        if attachment.agent != self._agent:
            return None if attachment.direct else self._configured.get(attachment.agent)
        if self.asked is None or self._aaa is None:
            return self._used
        if grant is None or grant.aaa_spi != self._aaa.spi or grant.spi < FIRST_SPI:
            return None
        key = self._aaa.digest(
            grant.nonce + (home_address.packed if self._nai is None else self._nai.encode())
        )
        return Association(self.asked, key, grant.algorithm, sent_spi=grant.spi)

    def answered(
        self, signer: Association | None, grant: KeyGrant | None, attachment: Attachment, *, accepted: bool
    ) -> None:
        """An answer of the home agent has come, which `signer` proves to be by this foreign agent."""
        self._unanswered = 0
        if self.asked is None or grant is None or signer is None or not accepted:
            return
        self._learnt.pop(attachment.agent, None)
        self._learnt[attachment.agent] = _AgentKey(signer, self._now + grant.lifetime)
        if len(self._learnt) > MOST_AGENTS:
            del self._learnt[next(iter(self._learnt))]
        self.asked = None

    def to_row(self) -> JSON:
        """The part of a row."""
        if self._aaa is None:
            return None
        keys: dict[str, JSON] = {str(agent): held.to_row() for agent, held in self._learnt.items()}
        return {"aaa_spi": self._aaa.spi, "keys": keys}

    def from_row(self, row: JSON) -> None:
        """From part of a row of our own; raises ValueError, KeyError or TypeError for anything else."""
        if not isinstance(row, Mapping) or self._aaa is None or row["aaa_spi"] != self._aaa.spi:
            return
        keys = row["keys"]
        if not isinstance(keys, Mapping):
            raise ValueError("derived associations are an object")
        self._learnt = {ip_address(agent): _AgentKey.from_row(held) for agent, held in keys.items()}

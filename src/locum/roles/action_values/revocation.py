"""A revocation and its acknowledgment, in the terms of neither signalling version (RFC 3543, RFC 5846).

The roles decide about permission and results; this file must not know messages.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address

from locum.roles.action_values.registration import Proof


@dataclass(frozen=True, slots=True)
class Revocation:
    """The sender no longer serves this binding."""

    home_address: IPv4Address
    home_agent: IPv4Address
    care_of: IPv4Address  # the foreign agent's, or a co-located one
    identifier: int  # 32 bits of the sender's clock: later than all that it said before
    from_home_agent: bool
    inform: bool = False  # tell the mobile node; from a foreign agent: shall I tell it?
    proof: Proof | None = None  # under the association of home agent and mobile node
    agent_proof: Proof | None = None  # under that of home agent and foreign agent


@dataclass(frozen=True, slots=True)
class Acknowledgment:
    """The answer to a revocation that holds; home address and identifier are those of the revocation."""

    home_address: IPv4Address
    identifier: int
    inform: bool = False  # from a home agent: tell the mobile node; from a foreign agent: it was told
    proof: Proof | None = None
    agent_proof: Proof | None = None

"""A mobile node's side of registration revocation (RFC 3543), with a co-located care-of address.

Part of its registrations. A foreign agent is notified itself, and notifies the mobile node by an advertisement. It must
not know the mobile node's behaviour without a registration.
"""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import JSON
from locum.roles.action_values.registration import Options, ReceivedAnswer, RevocationSupport
from locum.roles.action_values.revocation import Revocation
from locum.roles.actions import Action, Count
from locum.roles.mobile_ipv4.revocations import read_revocation
from locum.roles.registrant.attachment import Attachment
from locum.roles.registrant.own_keys import OwnKeys
from locum.roles.revocation import Revocable, Stamps, acknowledgment, unbelievable
from locum.wire.errors import WireError


class MobileRevocation:
    """Agreement with the home agent, and checks of a revocation."""

    def __init__(self, home_address: IPv4Address, home_agent: IPv4Address, keys: OwnKeys) -> None:
        self.now = 0.0  # steady seconds of the request that is being made
        self.home_address, self.home_agent = home_address, home_agent
        self._keys = keys
        self._stamps = Stamps()
        self._agreed: Revocable | None = None

    def fill(self, options: Options, attachment: Attachment, lifetime: int) -> Options:
        """Only the node at the tunnel's end itself takes revocations (section 3.2)."""
        if not attachment.colocated or not lifetime:
            return options
        timestamp = self._stamps.next(self.home_address, self.now)
        return replace(options, revocations=RevocationSupport(timestamp, inform=True))

    def replied(self, reply: ReceivedAnswer, attachment: Attachment) -> Sequence[Action]:
        """The home agent's clock, where it takes part."""
        found = reply.answer.revocations if attachment.colocated else None
        if found is not None:
            self._agreed = Revocable(found.timestamp, found.inform)
        return ()

    def believed(self, message: bytes, attachment: Attachment | None) -> tuple[bytes | None, list[Action]]:
        """The signed answer to a valid revocation; otherwise actions that count the reason."""
        try:
            notice = read_revocation(message)
        except WireError as error:
            return None, [Count(f"revocation-{error.reason}")]
        last = None if self._agreed is None else self._agreed.timestamp
        reason = unbelievable(notice, notice.proof, self._keys.association, last, from_home_agent=True)
        if reason is None and not self._names(notice, attachment):
            reason = "revocation-not-for-us"
        if reason is None and self._agreed is None:
            reason = "revocation-not-agreed"
        if reason is not None or self._agreed is None:
            return None, [Count(reason or "revocation-not-agreed")]
        self._agreed = replace(self._agreed, timestamp=notice.identifier)
        return acknowledgment(notice, self._keys.association, between_agents=False, inform=True), []

    def _names(self, notice: Revocation, attachment: Attachment | None) -> bool:
        """This home address; the care-of address too, unless it is given up already."""
        if (notice.home_address, notice.home_agent) != (self.home_address, self.home_agent):
            return False
        return attachment is None or notice.care_of == attachment.care_of

    def to_row(self) -> JSON:
        """The part of a row."""
        return None if self._agreed is None else self._agreed.to_row()

    def from_row(self, row: JSON) -> None:
        """From part of a row of our own; raises ValueError for anything else."""
        self._agreed = Revocable.from_row(row)

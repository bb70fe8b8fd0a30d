"""The attachment that packets take now, and the forwarding entries it needs.

This module must not know registrations: the registrant says which attachment is in use.
"""

from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Addr, Source
from locum.roles.action_values.flows import Encapsulation
from locum.roles.action_values.forwarding import LeaveAgent
from locum.roles.actions import Action
from locum.roles.forwarding import NOTHING, changes
from locum.roles.registrant.attachment import Attachment, colocated_forwarding, with_broadcasts
from locum.roles.registrant.configuration import MobileNodeConfiguration


class AttachmentInUse:
    """The attachment of one registrant. With `on_behalf` the packets are another host's, and nothing is installed here."""

    def __init__(self, configuration: MobileNodeConfiguration, *, on_behalf: bool) -> None:
        self.attachment: Attachment | None = None
        self.home_agent: Addr = configuration.home_agent
        self._broadcasts = configuration.broadcast_addresses
        self._on_behalf = on_behalf
        self._forwarding = NOTHING
        self._ahead: str | None = None  # the link that packets take before the first registration

    def go_ahead(self, agent: Source, configuration: MobileNodeConfiguration) -> list[Action]:
        """Send packets by the access node that has called, until a registration says which path is in use (P10)."""
        link, address = agent.link, agent.address
        if self.attachment is not None or self._on_behalf or configuration.colocated:
            return []
        if link is None or link not in configuration.links or not isinstance(address, IPv4Address):
            return []
        left: list[Action] = []
        if self._ahead is not None and self._ahead != link:
            left.append(LeaveAgent(self._ahead))
        self._ahead = link
        path = Attachment(link, address, address, False, agent.link_layer)
        return [*left, path.use(configuration.home_addresses)]

    def change(
        self,
        attachment: Attachment | None,
        home_addresses: tuple[Addr, ...],
        *,
        udp: bool,
        ipv6: bool = True,
    ) -> list[Action]:
        """Return the actions that make this attachment the one in use; None: no attachment.

        The first of `home_addresses` is the IPv4 one. `udp`: the tunnel is packed in UDP. Without `ipv6` the home agent
        has not accepted the IPv6 home address.
        """
        before, self.attachment = self.attachment, attachment
        if self._on_behalf:
            return []
        encapsulation = Encapsulation.UDP if udp else Encapsulation.IPIP
        if attachment is not None and not udp:
            encapsulation = attachment.encapsulation
        wanted = colocated_forwarding(
            attachment, self.home_agent, home_addresses, encapsulation=encapsulation
        )
        if attachment is not None and attachment.broadcasts:
            wanted = with_broadcasts(wanted, attachment, self.home_agent, home_addresses[0], self._broadcasts)
        actions, self._forwarding = changes(self._forwarding, wanted), wanted
        ahead, self._ahead = self._ahead, None
        if ahead is not None and (attachment is None or attachment.link != ahead):
            actions.append(LeaveAgent(ahead))
        if before is not None and (attachment is None or attachment.link != before.link):
            actions.append(LeaveAgent(before.link))
        if attachment is not None and attachment != before:
            actions.append(attachment.use(home_addresses if ipv6 else home_addresses[:1]))
        return actions

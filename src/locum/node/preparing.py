"""Addresses, routes and rules of a host that its roles need from their start on."""

from locum.dataplane.kernel.host.sysctls import Sysctls
from locum.node.config.settings import Settings
from locum.node.host.network import HostNetwork
from locum.node.uses.home_address import UsedHomeAddress
from locum.node.uses.traffic import Uses


async def prepare_host(settings: Settings, network: HostNetwork, sysctls: Sysctls) -> UsedHomeAddress | None:
    """Make them; what leads programs to a device's home address, if any shall use it. Raises OSError."""
    from locum.dataplane.kernel.device import device_name

    device = device_name(settings.node.name)
    for address in settings.carried_addresses:
        await network.own_home_address(address)
    if (mnps := settings.mnps) is not None:
        links = (*mnps.links, device)  # held packets come back by the re-injection device
        agent = settings.home_agent is not None or settings.foreign_agent is not None
        await network.receive_for(mnps.configuration.home_prefixes, links, forwards=agent)
        if settings.home_agent is not None:
            await network.send_home(mnps.configuration.home_prefixes, device, mnps.links)
            # The kernel forwards no packet with an early socket, and the host's own translation makes such packets
            sysctls.set("net/ipv4/ip_early_demux", "0")
    mobile = settings.mobile_node
    if mobile is None or not mobile.uses.led:
        return None
    used = UsedHomeAddress(Uses(mobile.uses, mobile.configuration.colocated), network, device)
    await used.begin(mobile.configuration.home_addresses)
    return used

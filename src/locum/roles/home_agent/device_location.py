"""The device's access node in the home agent's answer to a stand-in (C4)."""

from ipaddress import IPv4Address

from locum.roles.action_values.registration import ContextTransferRequest
from locum.roles.home_agent.binding import Binding


def device_location(asked: ContextTransferRequest | None, device: Binding, now: float) -> IPv4Address | None:
    """The access node of the device, for the answer to a stand-in that asked so and does not know it already.

    None when the registration is not about a context, or the device is at no access node: without a care-of address, or
    with a co-located one.
    """
    if asked is None or asked.towards:
        return None
    current = device.without_expired(now).care_of
    agents = [care_of.address for care_of in current if not care_of.co_located]
    if not agents or asked.access_node in agents:
        return None
    return agents[-1]

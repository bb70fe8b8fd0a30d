"""Tells a stand-in where its device is, in the reply of the home agent (C4)."""

from locum.roles.home_agent.binding import Binding
from locum.roles.transfer_instruction import _values
from locum.wire.mobile_ip.extensions import Extension
from locum.wire.mobile_ip.registration import Flag, RegistrationRequest
from locum.wire.mobile_ip.vendor import (
    TransferContext,
    encode_vendor,
)


def told_to_stand_in(request: RegistrationRequest, device: Binding, now: float) -> tuple[Extension, ...]:
    """What the home agent adds to its reply to a stand-in: where the device is, if the request does not say so already.

    Nothing when the request is not about a context, or the device is at no access node: without a care-of address, or
    with a co-located one.
    """
    named = [each for each in _values(request) if isinstance(each, TransferContext) and not each.towards]
    if not named:
        return ()
    current = device.without_expired(now).care_of
    agents = [each.address for each in current if not each.flags & Flag.D]
    if not agents or named[-1].access_node in agents:
        return ()
    return (encode_vendor(TransferContext(agents[-1])),)

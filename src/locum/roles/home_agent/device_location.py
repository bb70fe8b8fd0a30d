"""The device's access node in the home agent's answer to a stand-in (C4), and its location as messages show it (P6)."""

from ipaddress import IPv4Address
from typing import Final

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.locations import TellLocation
from locum.roles.action_values.registration import ContextTransferRequest
from locum.roles.home_agent.binding import Binding, CareOf, Mobile
from locum.roles.home_agent.registry import Home
from locum.security.association import Replay
from locum.security.replay import wall_of
from locum.wire.control.paging.location import Location1212
from locum.wire.control.paging.page_rules import DeviceState

LOCATED: Final = 7 * 86_400  # seconds for which the place of a sleeper is asked to be kept
UNDATED: Final = 1  # milliseconds since 1970: older than every report


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


def location_told(mobile: Mobile, before: Binding, after: Binding) -> list[TellLocation]:
    """The location that a changed binding of the device shows (1202), for the location server of this host.

    The last care-of address counts. A brief one shows nothing: the device is on its way to sleep or back.
    """
    if not after.care_of:
        left = [care_of for care_of in before.care_of if not care_of.brief]
        return [TellLocation(_location(mobile, left[-1], 0))] if left else []
    last = after.care_of[-1]
    return [] if last.brief else [TellLocation(_location(mobile, last, last.lifetime))]


def sleeper_told(home: Home, now: float, ahead: float) -> list[TellLocation]:
    """The location that rules of its stand-in (1208) show of a device that sleeps: the access node of its last registration.

    The place was observed when it registered, the newest registration counts. Identifications that are nonces tell no time.
    `ahead`: seconds that the wall clock is ahead of `now`.
    """
    access_node, last = home.binding.access_node, home.binding.identification
    if access_node is None or not home.asleep(now):
        return []
    observed = UNDATED
    if last is not None and home.association.replay is Replay.TIMESTAMP:
        observed = max(UNDATED, round(wall_of(last, near=now + ahead) * 1000))
    mobile = home.mobile
    homes: tuple[Addr, ...] = (mobile.home_address,)
    if mobile.home_address_v6 is not None:
        homes = (*homes, mobile.home_address_v6)
    place = Location1212(
        homes, LOCATED, observed, access_node=access_node, care_of=access_node, state=DeviceState.ASLEEP
    )
    return [TellLocation(place)]


def _location(mobile: Mobile, care_of: CareOf, lifetime: int) -> Location1212:
    homes: tuple[Addr, ...] = (mobile.home_address,)
    if mobile.home_address_v6 is not None:
        homes = (*homes, mobile.home_address_v6)
    access_node = None if care_of.co_located else care_of.address
    return Location1212(homes, lifetime, 0, access_node=access_node, care_of=care_of.address)

"""Packets of a paged device that come before the home agent's reply to its registration (P17).

The home agent lets packets that have waited go with the change of its binding, and its reply goes out after that: an access node
that waits for the reply would refuse the packets. So it holds them from the request of a paged device on. It must not know how a
device is called.
"""

from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final

from locum.roles.action_values.registration import Registration
from locum.roles.actions import Action, Asked, Event
from locum.roles.foreign_agent.contexts.in_flight import InFlight, Mobile
from locum.roles.mobile_ipv4.transfer_instructions import Instruction
from locum.roles.parts import Part
from locum.wire.control.paging.page import PATH, decode_1170
from locum.wire.errors import WireError

WAKING: Final = 60.0  # seconds after the end of a page in which its device may register
MOST: Final = 4096  # devices; beyond, the one that was paged first is forgotten


class PagedArrivals(Part):
    """Devices that were paged here. `served` is true for a home address whose packets are taken anyway."""

    def __init__(self, flights: InFlight, served: Callable[[IPv4Address], bool]) -> None:
        self._flights, self._served = flights, served
        self._paged: dict[IPv4Address, float] = {}  # until when it may register

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Remember the device of a page, which is another part's."""
        if isinstance(event, Asked) and event.path == PATH:
            try:
                page = decode_1170(event.body)
            except WireError:
                return None
            if isinstance(page.home_address, IPv4Address) and page.home_address in event.authorised:
                self._paged.pop(page.home_address, None)
                self._paged[page.home_address] = now + page.seconds + WAKING
                if len(self._paged) > MOST:
                    del self._paged[next(iter(self._paged))]
        return None

    def relayed(self, asked: Registration, _named: Instruction | None, now: float) -> list[Action]:
        """A request goes to a home agent with an association: hold the packets of a paged device for it."""
        home_address = asked.home_address
        if not asked.lifetime or now >= self._paged.get(home_address, now) or self._served(home_address):
            return []
        six = next((prefix.prefix for prefix in asked.options.prefixes if prefix.length == 128), None)
        return self._flights.herald(Mobile(home_address, asked.home_agent, six), now=now)

"""Addresses of a peer's end point, from its name, in an order of their own: the next one is tried when one fails."""

import asyncio
import socket
from ipaddress import ip_address

from locum.node.config.wireguard.values import Address, Endpoint

_PATIENCE = 3.0  # seconds for the host's resolver


class Candidates:
    """Addresses of one end point. The last ones stay known while its name cannot be resolved."""

    def __init__(self, endpoint: Endpoint, stored: Address | None = None) -> None:
        """`stored`: an address that an earlier run has reached."""
        self.endpoint = endpoint
        known = endpoint.address or stored
        self._addresses: list[Address] = [known] if known is not None else []
        self._asking: asyncio.Task[list[Address]] | None = None

    @property
    def in_order(self) -> tuple[Address, ...]:
        """The one in use first."""
        return tuple(self._addresses)

    def failed(self) -> None:
        """The first one did not answer: another comes first."""
        self._addresses = self._addresses[1:] + self._addresses[:1]

    def chosen(self, address: Address) -> None:
        """It comes first from now on."""
        self._addresses = [address, *(other for other in self._addresses if other != address)]

    async def resolve(self, patience: float = _PATIENCE) -> bool:
        """Ask the resolver for at most `patience` seconds; true if addresses are known. A late answer counts next time."""
        if self.endpoint.address is not None:
            return True
        if self._asking is None:
            self._asking = asyncio.ensure_future(_addresses_of(self.endpoint))
        done, _waiting = await asyncio.wait({self._asking}, timeout=patience)
        if done:
            found, self._asking = self._asking.result(), None
            if found:
                kept = [address for address in self._addresses if address in found]
                self._addresses = [*kept, *(address for address in found if address not in kept)]
        return bool(self._addresses)

    def close(self) -> None:
        """Wait for no answer any more."""
        if self._asking is not None:
            self._asking.cancel()


async def _addresses_of(endpoint: Endpoint) -> list[Address]:
    """Addresses of a name, each once, the two families in turn (RFC 8305 section 4); none: it has none now."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return []
    unique = list(dict.fromkeys(ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))
    families: tuple[list[Address], list[Address]] = (
        [address for address in unique if address.version == unique[0].version],
        [address for address in unique if address.version != unique[0].version],
    )
    longest = max((len(addresses) for addresses in families), default=0)
    return [addresses[n] for n in range(longest) for addresses in families if n < len(addresses)]

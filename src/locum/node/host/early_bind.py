"""Sockets on an address that the host may not have yet: an interface that comes late keeps no node from starting."""

import logging
import socket
from typing import Any

from locum.node.config.settings import Settings
from locum.node.events import EventStream
from locum.node.host.link_watch import LinkWatch

log = logging.getLogger("locum.node")

_IP_FREEBIND = 15  # linux/in.h
_IPV6_FREEBIND = 78  # linux/in6.h; also for IPv4 addresses that are mapped into IPv6


def bind_early(made: socket.socket, address: tuple[Any, ...]) -> None:
    """Bind; packets come as soon as the address is there (ip(7), IP_FREEBIND). Raises OSError: busy, not permitted."""
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    else:
        made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
    made.bind(address)


def miss_addresses(settings: Settings, watch: LinkWatch, events: EventStream) -> None:
    """Tell of configured addresses that the host does not have. Their sockets work once it has them; a mistyped one never."""
    # Home addresses of a device on this host are given to it by us.
    own = settings.mobile_node.configuration.home_addresses if settings.mobile_node else ()
    for table, key, address in settings.bound_addresses:
        if address.is_unspecified or address in own or watch.is_local(address):
            continue
        events.emit("address-missing", detail={"address": address, "table": table, "key": key})
        log.warning("%s: [%s] %s: %s is no address of this host yet", settings.file, table, key, address)

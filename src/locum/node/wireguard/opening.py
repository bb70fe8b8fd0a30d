"""WireGuard as a part of a node: opened if the configuration has it, and ended with the node."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from locum.node.config.settings import Settings
from locum.node.events import EventStream
from locum.node.tables import HostStore

if TYPE_CHECKING:
    from locum.node.wireguard.service import WireGuard


async def opened(
    settings: Settings,
    store: HostStore,
    events: EventStream,
    closers: AsyncExitStack,
    failed: Callable[[], bool],
) -> "WireGuard | None":
    """The service, which `closers` end: the interface outlives us, unless we made it and `failed` to start then.

    None: the configuration has no [wireguard]. Raises WireGuardError or OSError.
    """
    if settings.wireguard is None:
        return None
    from locum.node.wireguard.service import WireGuard

    service = WireGuard(settings.wireguard, settings.node.interfaces, store, events)

    async def end() -> None:
        await service.close(remove=failed() and not service.interface.adopted)

    await service.open()
    closers.push_async_callback(end)
    return service

"""The node beside other programs of its host: it keeps its own settings, and finds those of others that are in its way."""

from typing import TYPE_CHECKING

from locum.node.config.settings import Settings
from locum.node.events import EventStream
from locum.node.host.keeper import Keeper
from locum.node.host.network import HostNetwork
from locum.node.host.surroundings import Surroundings, said

if TYPE_CHECKING:
    from locum.dataplane.plane import DataPlane


class Beside:
    """Open once the roles are restored; closed before the network is left as it was found."""

    def __init__(
        self, settings: Settings, plane: "DataPlane", network: HostNetwork, events: EventStream
    ) -> None:
        self.keeper = Keeper(plane, network, events)
        self.surroundings = Surroundings(settings, plane, events)

    def open(self) -> None:
        """Begin. Raises OSError."""
        self.keeper.open()
        self.surroundings.open()

    async def close(self) -> None:
        """End; a second call does nothing."""
        await self.surroundings.close()
        await self.keeper.close()

    def troubles(self) -> dict[str, list[str]]:
        """Obstacles of the host, displaced programs, and settings that another program takes away again and again."""
        found = {
            "obstacles": [str(obstacle) for obstacle in self.surroundings.obstacles],
            "displaced": list(self.keeper.displaced),
            "contested": self.keeper.contested(),
        }
        return {kind: said for kind, said in found.items() if said}

    async def check(self) -> list[dict[str, str]]:
        """Look at the host now: each trouble with its place, and the command that ends it."""
        found = [said(obstacle) for obstacle in await self.surroundings.look()]
        found += [
            {
                "where": trouble,
                "problem": "another program sees packets first, and may keep them",
                "remedy": "bpftool net show; tc filter show",
            }
            for trouble in self.keeper.displaced
        ]
        found += [
            {
                "where": trouble,
                "problem": "another program takes it away again and again",
                "remedy": "ip monitor rule route address; see the user guide, Beside other programs",
            }
            for trouble in self.keeper.contested()
        ]
        return found

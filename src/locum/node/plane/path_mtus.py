"""Path MTUs of tunnels: events about them, probes of them, and the time at which narrow ones are forgotten. Decides nothing."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from locum.dataplane.plane import DataPlane
    from locum.node.events import EventStream
    from locum.roles.action_values.addresses import Addr


class PathMtus:
    """Emits `path-mtu-lowered` and `path-mtu-raised`; sends probes from `probe` on, in the running event loop."""

    def __init__(self, plane: "DataPlane", events: "EventStream") -> None:
        self._plane, self._events = plane, events
        self._widening: asyncio.TimerHandle | None = None
        self._serving: asyncio.TimerHandle | None = None
        self._filenos: list[int] = []  # of probes
        plane.tell_path_mtus(self._lowered)

    def probe(self) -> None:
        """Probe paths that large packets take (RFC 8899). Raises PermissionError without CAP_NET_RAW."""
        probes = self._plane.probes
        probes.open()
        probes.tell_raised = partial(self._tell, "path-mtu-raised")
        probes.tell_pending = self._serve_soon
        self._filenos = probes.filenos()
        for fileno in self._filenos:
            asyncio.get_running_loop().add_reader(fileno, probes.read, fileno)

    def close(self) -> None:
        """No more probes, and no more timers."""
        for fileno in self._filenos:
            asyncio.get_running_loop().remove_reader(fileno)
        if self._filenos:
            self._filenos = []
            self._plane.probes.close()
        for handle in (self._widening, self._serving):
            if handle is not None:
                handle.cancel()

    def _tell(self, kind: str, destination: "Addr", mtu: int) -> None:
        self._events.emit(kind, detail={"destination": str(destination), "mtu": mtu})

    def _lowered(self, destination: "Addr", mtu: int) -> None:
        self._tell("path-mtu-lowered", destination, mtu)
        self._widen_later()

    # Timers

    def _serve_soon(self) -> None:
        self._serve_in(0.0)

    def _serve_in(self, seconds: float) -> None:
        if self._serving is not None:
            self._serving.cancel()
        self._serving = asyncio.get_running_loop().call_later(seconds, self._serve)

    def _serve(self) -> None:
        self._serving = None
        wait = self._plane.probes.serve()
        if wait is not None:
            self._serve_in(wait)

    def _widen_later(self) -> None:
        from locum.dataplane.mtu.paths import PATH_MTU_AGE

        if self._widening is not None:
            self._widening.cancel()
        self._widening = asyncio.get_running_loop().call_later(PATH_MTU_AGE + 1, self._widen)

    def _widen(self) -> None:
        self._widening = None
        self._plane.refresh()
        if self._plane.narrow_paths:
            self._widen_later()

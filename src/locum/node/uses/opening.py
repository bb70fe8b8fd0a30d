"""Opens what programs of a device need to use its home address, beside rules and ways: control groups and their socket."""

import logging
from contextlib import AsyncExitStack
from functools import partial

from locum.dataplane.kernel.libbpf import DataPlaneError
from locum.node.config.settings import Settings
from locum.node.events import EventStream
from locum.node.sessions.freezer_name import freezer_name
from locum.node.uses.programs import Programs
from locum.node.uses.run_socket import SUFFIX, RunSocket

log = logging.getLogger("locum.uses")
_BOUND = 'traffic is "bound" in [mobile_node] of this node; "run" or "all" lets single programs choose'


async def open_programs(settings: Settings, events: EventStream, closers: AsyncExitStack) -> Programs | None:
    """Take requests of `locum run`; None: they are refused, with the reason. Raises OSError."""
    node, mobile = settings.node, settings.mobile_node
    if mobile is None:
        return None
    programs, why = None, _BOUND
    if mobile.uses.led:
        name = freezer_name(node.name, node.run_dir)
        try:
            programs = Programs(name, node.bpf_dir / "locum-uses" / name, partial(_tell, events))
        except (DataPlaneError, OSError) as problem:
            why = f"sockets cannot be marked here: {problem}"
            log.warning("locum run is not possible: %s", why)
    if programs is not None:
        programs.open()
        closers.push_async_callback(programs.close)
    requests = RunSocket(node.socket.with_suffix(SUFFIX), programs, events.count, why)
    await requests.open()
    closers.push_async_callback(requests.close)
    return programs


def _tell(events: EventStream, kind: str, detail: dict[str, object]) -> None:
    events.emit(kind, detail=detail)

"""Resident memory of the home agent daemon per binding, with 100,000 bindings registered over the wire, or restored.

The difference to a daemon with one mobile node, so that interpreter and libraries do not count, but all that a binding needs
does: its configuration, its replay state, its entry in the roles and in the node. Kernel maps are a note: they are not
the daemon's resident memory.
"""

from collections.abc import Collection
from pathlib import Path

from bench.home_agent import CARE_OF_ADDRESSES, LIFETIME, Site, home_agent, site
from bench.measurement import Measurement, Settings
from bench.registrar import exchange, register
from bench.report import quantity
from locum.wire.mobile_ip.registration import UDP_PORT

_MOBILES = 100_000


def resident(pid: int) -> int:
    """Resident memory of a process, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024


def kernel_maps(pid: int) -> int:
    """Memory of the BPF maps that a process holds open, in bytes, as the kernel accounts it."""
    maps: dict[str, int] = {}
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            lines = entry.read_text().splitlines()
        except FileNotFoundError:  # closed meanwhile
            continue
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        if "map_id" in fields:
            maps[fields["map_id"]] = int(fields["memlock"])
    return sum(maps.values())


def _register_all(at: Site) -> None:
    with at.client(UDP_PORT) as client:
        register(client, at.crowd, CARE_OF_ADDRESSES[0], lifetime=LIFETIME)


def measure(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    """The rows `ha_memory_100k` and `ha_memory_100k_restart`. One sample: memory does not vary as a throughput does."""
    with site(1) as at, home_agent(at) as daemon:
        _register_all(at)
        alone, empty_maps = resident(daemon.pid), kernel_maps(daemon.pid)
    mobiles = int(_MOBILES * settings.scale)
    with site(mobiles) as at:
        with home_agent(at) as daemon:
            configured = resident(daemon.pid)
            _register_all(at)
            bound, maps = resident(daemon.pid), kernel_maps(daemon.pid)
        restored = _restored(at)
    compared = f"{mobiles:,} bindings: daemon %s MiB, of which {quantity(alone / 2**20)} MiB with one binding"
    notes = (
        f"{compared % quantity(bound / 2**20)}; configured but unbound {quantity(configured / 2**20)} MiB",
        f"kernel maps, not in the value: {quantity(empty_maps / 2**20)} MiB for tables of this size and "
        f"{quantity((maps - empty_maps) / mobiles)} bytes per binding",
    )
    unit = "bytes/binding"
    rows = {
        "ha_memory_100k": Measurement("ha_memory_100k", unit, ((bound - alone) / mobiles,), None, notes),
        "ha_memory_100k_restart": Measurement(
            "ha_memory_100k_restart",
            unit,
            ((restored - alone) / mobiles,),
            None,
            (compared % quantity(restored / 2**20),),
        ),
    }
    return [row for name, row in rows.items() if name in wanted]


def _restored(at: Site) -> int:
    """Resident memory of a daemon that has read the bindings from its store, in bytes."""
    with home_agent(at) as daemon, at.client(UDP_PORT) as client:
        # An answer: the start, and the return of its memory, are over.
        exchange(client, at.crowd.sign(0, 1, CARE_OF_ADDRESSES[0], lifetime=LIFETIME))
        return resident(daemon.pid)

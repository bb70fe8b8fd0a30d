"""The one entry of the settings map: the re-injection device, the node's number, and which rarer tables are not empty."""

from locum.dataplane.kernel.libbpf import Map
from locum.dataplane.layout import maps

TRANSLATES, GROUPS, SOURCES = 1, 2, 0x20000  # LOCUM_TRANSLATES, LOCUM_GROUPS, LOCUM_SOURCES
_NUMBER_SHIFT = 24  # LOCUM_NUMBER
NARROW = 0x10000  # LOCUM_NARROW
PROBES = 0x40000  # LOCUM_PROBES
_ONLY = maps.WORD.pack(0)


class Uses:
    """Flags of tables that the program skips while they are empty. Flags of pinned tables stay set."""

    def __init__(self, settings: Map) -> None:
        self._settings = settings
        self._device, self._flags = maps.SETTINGS.unpack(settings.get(_ONLY) or maps.SETTINGS.pack(0, 0))

    def device(self, ifindex: int) -> None:
        """The re-injection device has this index."""
        self._device = ifindex
        self._write()

    def number(self, number: int) -> None:
        """The node has this number in its namespace."""
        self._flags = self._flags & (1 << _NUMBER_SHIFT) - 1 | number << _NUMBER_SHIFT
        self._write()

    def set(self, flag: int, used: bool) -> None:
        flags = self._flags | flag if used else self._flags & ~flag
        if flags != self._flags:
            self._flags = flags
            self._write()

    def _write(self) -> None:
        self._settings.put(_ONLY, maps.SETTINGS.pack(self._device, self._flags))

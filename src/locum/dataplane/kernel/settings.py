"""The one entry of the settings map: the re-injection device, and which of the rarer tables are not empty."""

from locum.dataplane.kernel.libbpf import Map
from locum.dataplane.layout import maps

TRANSLATES, GROUPS = 1, 2  # LOCUM_TRANSLATES, LOCUM_GROUPS
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

    def set(self, flag: int, used: bool) -> None:
        flags = self._flags | flag if used else self._flags & ~flag
        if flags != self._flags:
            self._flags = flags
            self._write()

    def _write(self) -> None:
        self._settings.put(_ONLY, maps.SETTINGS.pack(self._device, self._flags))

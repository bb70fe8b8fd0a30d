"""Translations (R12) in the kernel's maps: written, taken away, read back after a restart, counted.

Only the kernel keeps translated flows; an epoch in each translation keeps those of an earlier
one from meaning anything.
"""

import struct
from time import monotonic_ns

from locum.dataplane.kernel.entries import Entries
from locum.dataplane.kernel.settings import TRANSLATES, Uses
from locum.dataplane.layout import maps
from locum.dataplane.state import ForwardingState
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Translation

KEY = struct.Struct("<16s16s")
VALUE = struct.Struct("<16sQ")
COUNT = struct.Struct("<QQQQ")
TRANSLATED = struct.Struct("<32sQQQ")
TRANSLATED_FRAGMENT = struct.Struct("<16s16sII")
ZERO = COUNT.pack(0, 0, 0, 0)


def key_of(home_address: Addr, tunnel: Addr | None) -> bytes:
    return KEY.pack(maps.address(home_address), maps.NO_ADDRESS if tunnel is None else maps.address(tunnel))


def read(found: dict[str, Entries]) -> dict[tuple[Addr, Addr | None], Translation]:
    """Read the kernel's map of translations."""
    translations = {}
    for key, value in found["translations"].items():
        home, end = KEY.unpack(key)
        tunnel = None if end == maps.NO_ADDRESS else maps.address_of(end)
        translation = Translation(maps.address_of(home), maps.address_of(VALUE.unpack(value)[0]), tunnel)
        translations[translation.home_address, tunnel] = translation
    return translations


class TranslationTable:
    """Writes the kernel's map to match `state.translations`."""

    def __init__(self, found: dict[str, Entries], uses: Uses) -> None:
        self._maps, self._uses = found, uses

    def install(self, state: ForwardingState, translation: Translation) -> None:
        """Add or replace; ValueError when the addresses are of two families."""
        home, local = translation.home_address, translation.interface_address
        if home.version != local.version:
            raise ValueError(f"{home} and {local} are of two families: one cannot stand for the other")
        name, key = (home, translation.tunnel), key_of(home, translation.tunnel)
        state.translations[name] = translation
        self._maps["translations"].put(key, VALUE.pack(maps.address(local), monotonic_ns()))
        self._uses.set(TRANSLATES, True)

    def remove(self, state: ForwardingState, home_address: Addr, tunnel: Addr | None) -> None:
        """Remove a translation; a missing one is no error."""
        if state.translations.pop((home_address, tunnel), None) is None:
            return
        self._uses.set(TRANSLATES, bool(state.translations))
        self._maps["translations"].delete(key_of(home_address, tunnel))

    def counters(self, home_address: Addr, tunnel: Addr | None) -> tuple[maps.Counter, maps.Counter]:
        """Packets and bytes towards the interface address, and back."""
        value = self._maps["translations"].counter(key_of(home_address, tunnel)) or ZERO
        towards_packets, towards_bytes, back_packets, back_bytes = COUNT.unpack(value)
        return maps.Counter(towards_packets, towards_bytes), maps.Counter(back_packets, back_bytes)

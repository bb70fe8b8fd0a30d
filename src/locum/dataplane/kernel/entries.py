"""Tables whose entries change in place while programs read them: keys -> words, and values that are written once.

An element of a hash that is replaced or deleted goes to another key at once, so nothing that programs read is replaced, or
deleted before they have ended (`bpf/tables.h`). `Entries` looks like a `Map` of keys and values to its caller.
"""

import ctypes
import mmap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from locum.dataplane.kernel.grace import PORTION, Grace, word_of
from locum.dataplane.kernel.libbpf import (
    DataPlaneError,
    Map,
    TestRunOptions,
    checked,
    library,
)
from locum.dataplane.kernel.loading import Object
from locum.dataplane.layout import entries as layout

_ATTEMPTS = 3


class Changes:
    """Changes words in place, by the program that is made for it."""

    def __init__(self, loaded: Object) -> None:
        self._room = mmap.mmap(loaded.maps["changes"].fd, layout.CHANGES * layout.CHANGE.size)
        self._program = loaded.program(layout.PROGRAM)
        self._order = (ctypes.c_uint32 * 2)()  # the table, and the number of changes
        self._options = TestRunOptions(
            sz=ctypes.sizeof(TestRunOptions),
            ctx_in=ctypes.addressof(self._order),
            ctx_size_in=ctypes.sizeof(self._order),
        )
        self._given = ctypes.byref(self._options)
        self._run = library().bpf_prog_test_run_opts

    def change(
        self, number: int, changes: Sequence[tuple[bytes, int]], *, reset: bool = False
    ) -> list[tuple[int, int]]:
        """(old word, 0 or -errno) for each key and its new word in the table of that number; at most layout.CHANGES.

        `reset` lets the counters begin at 0 again.
        """
        size, pack = layout.CHANGE.size, layout.CHANGE.pack_into
        for place, (key, word) in enumerate(changes):
            pack(self._room, place * size, key, word, reset)
        self._start(number, len(changes))
        return [
            (old, result) for _, old, result in layout.CHANGE.iter_unpack(self._room[: len(changes) * size])
        ]

    def change_one(self, number: int, key: bytes, word: int, *, reset: bool = False) -> tuple[int, int]:
        """The same for one key, in a third of the time."""
        room = self._room
        layout.CHANGE.pack_into(room, 0, key, word, reset)
        self._start(number, 1)
        found: tuple[int, int] = layout.AFTER.unpack_from(room, layout.AFTER_AT)
        return found

    def _start(self, table: int, number: int) -> None:
        order = self._order
        order[0], order[1] = table, number
        checked(self._run(self._program, self._given), "change of a table")


@dataclass(slots=True)
class _Shared:
    number: int
    value: bytes
    users: int = 0


class Values:
    """Values under identifiers. With `shared`, equal values have one identifier, and go with their last user."""

    def __init__(self, table: Map, grace: Grace, *, shared: bool) -> None:
        self.table, self._grace, self.is_shared = table, grace, shared
        self._by_value: dict[bytes, _Shared] = {}
        self._by_number: dict[int, _Shared] = {}
        self._last, self._wrapped = 0, False

    def adopt(self, used: Mapping[int, int]) -> None:
        """Take those that are in the map; `used` has the number of words that have each identifier."""
        self._by_value.clear()
        self._by_number.clear()
        for key, value in self.table.items():
            number = int.from_bytes(key, "little")
            self._last = max(self._last, number)
            if number not in used:
                self._grace.later(self.table, key)
                continue
            self._grace.keep(self.table, key)
            if self.is_shared:
                shared = _Shared(number, value, used[number])
                self._by_number[number] = shared
                self._by_value.setdefault(value, shared)

    def take(self, value: bytes, users: int = 1) -> int:
        """The identifier of this value, for so many more users; more than one only where values are shared."""
        shared = self._by_value.get(value)
        if shared is None:
            number = self._write(value)
            if not self.is_shared:
                return number
            shared = self._by_value[value] = self._by_number[number] = _Shared(number, value)
        shared.users += users
        return shared.number

    def drop(self, number: int, users: int = 1) -> None:
        """So many users less."""
        if self.is_shared:
            shared = self._by_number.get(number)
            if shared is None:
                return
            shared.users -= users
            if shared.users:
                return
            del self._by_number[number]
            if self._by_value.get(shared.value) is shared:
                del self._by_value[shared.value]
        self._grace.later(self.table, layout.number(number))

    def get(self, number: int) -> bytes | None:
        """The value with this identifier."""
        return self.table.get(layout.number(number))

    def _write(self, value: bytes) -> int:
        number = self._next()
        try:
            self.table.put(layout.number(number), value)
        except DataPlaneError:
            if not self._grace.make_room(self.table, PORTION):
                raise
            self.table.put(layout.number(number), value)
        return number

    def _next(self) -> int:
        while True:
            self._wrapped = self._wrapped or self._last == layout.LAST_NUMBER
            self._last = self._last % layout.LAST_NUMBER + 1
            if not self._wrapped or self.get(self._last) is None:
                return self._last


@dataclass(slots=True)
class Entries:
    """One table of entries, with the places of its values: none (the word is the value), or one for each size."""

    number: int
    table: Map
    changes: Changes
    grace: Grace
    values: tuple[Values, ...] = ()
    name: str = field(init=False)
    _size: int = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.table.name
        self._size = layout.WORD_BYTES.get(self.name, 4)

    def adopt(self, used: Mapping[str, dict[int, int]]) -> None:
        """Note in `used` which values the entries in the map have; entries of nothing go."""
        for key, entry in self.table.items():
            word = word_of(entry)
            if not word:
                self.grace.later(self.table, key)
                continue
            self.grace.keep(self.table, key)
            if self.values:
                count = used[self._place(word).table.name]
                number = word & layout.LAST_NUMBER
                count[number] = count.get(number, 0) + 1

    # As a map

    def put(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Add or replace. Counters go on, those of a new entry begin at 0. Raises DataPlaneError when the table is full."""
        self.grace.settle()
        word = self._word_for(value)
        old, result = self.changes.change_one(self.number, key, word)
        if result:
            self._again([(key, word)])
        else:
            self._changed(key, old)

    def put_many(self, entries: list[tuple[bytes, bytes]], flags: int = 0) -> None:
        """The same for many, in few system calls. Raises DataPlaneError when the table is full; the others are written."""
        if len(entries) < 2:
            for key, value in entries:
                self.put(key, value)
            return
        self.grace.settle()
        words = (
            self._shared_words(entries) if self.values and self.values[0].is_shared else self._words(entries)
        )
        if failed := self._change(words):
            self._again(failed)

    def _words(self, entries: list[tuple[bytes, bytes]]) -> list[tuple[bytes, int]]:
        """The keys with words for their values."""
        words: list[tuple[bytes, int]] = []
        try:
            for key, value in entries:
                words.append((key, self._word_for(value)))
        except DataPlaneError:
            for _, word in words:
                self._drop(word)
            raise
        return words

    def _shared_words(self, entries: list[tuple[bytes, bytes]]) -> list[tuple[bytes, int]]:
        """The same for values that many have: each is looked up once."""
        place, words = self.values[0], dict.fromkeys([value for _, value in entries], 0)
        users = Counter([value for _, value in entries])
        try:
            for value in words:
                words[value] = place.take(value, users[value])
        except DataPlaneError:
            for value, word in words.items():
                if word:
                    place.drop(word, users[value])
            raise
        return [(key, words[value]) for key, value in entries]

    def _again(self, failed: list[tuple[bytes, int]]) -> None:
        """Make room, and try these once more. Raises DataPlaneError when there is none."""
        for _ in range(_ATTEMPTS):
            if not failed:
                return
            if not self.grace.make_room(self.table, len(failed) + PORTION):  # places that wait count as well
                break
            failed = self._change(failed)
        for _, word in failed:
            self._drop(word)
        if failed:
            raise DataPlaneError(
                f"the table {self.name} is full ({self.table.max_entries} entries): raise its limit"
            )

    def delete(self, key: bytes) -> bool:
        """True if it was there."""
        self.grace.settle()
        old, _ = self.changes.change_one(self.number, key, 0)
        return self._removed(key, old)

    def delete_many(self, keys: Sequence[bytes]) -> None:
        """Delete these keys in few system calls; missing ones are skipped."""
        if len(keys) < 2:
            for key in keys:
                self.delete(key)
            return
        self.grace.settle()
        for start in range(0, len(keys), layout.CHANGES):
            some = keys[start : start + layout.CHANGES]
            changed = self.changes.change(self.number, [(key, 0) for key in some])
            self._drop_many([old for old, _ in changed if old])
            self.grace.later_many(
                self.table, [key for key, (old, _) in zip(some, changed, strict=True) if old]
            )

    def get(self, key: bytes) -> bytes | None:
        word = word_of(self.table.get(key))
        return self._value_of(word) if word else None

    def counter(self, key: bytes) -> bytes | None:
        """The counters of an entry, None without one."""
        entry = self.table.get(key)
        return entry[8:] if entry is not None and word_of(entry) else None

    def reset(self, key: bytes) -> None:
        """Let the counters of an entry begin at 0 again."""
        word = word_of(self.table.get(key))
        if word:
            self.changes.change_one(self.number, key, word, reset=True)

    def items(self) -> list[tuple[bytes, bytes]]:
        """All entries; one that changes meanwhile has its old value or its new one, or is left out."""
        known = {
            place.table.name: {int.from_bytes(key, "little"): value for key, value in place.table.items()}
            for place in self.values
            if place.is_shared
        }
        found = []
        for key, entry in self.table.items():
            word = word_of(entry)
            if not word:
                continue
            value = None
            if self.values:
                value = known.get(self._place(word).table.name, {}).get(word & layout.LAST_NUMBER)
            if value is None:
                value = self._value_of(word)
            if value is not None:
                found.append((key, value))
        return found

    # Words

    def _place(self, word: int) -> Values:
        return self.values[1 if word & layout.LARGE else 0]

    def _word_for(self, value: bytes) -> int:
        if not self.values:
            return layout.THERE | int.from_bytes(value[: self._size], "little")
        for large, place in enumerate(self.values):
            if len(value) <= place.table.value_size:
                return place.take(value) | (layout.LARGE if large else 0)
        raise ValueError(f"{self.name}: a value of {len(value)} bytes has no room")

    def _value_of(self, word: int) -> bytes | None:
        if not self.values:
            return (word & ~layout.THERE).to_bytes(8, "little")[: self._size]
        return self._place(word).get(word & layout.LAST_NUMBER)

    def _drop(self, word: int) -> None:
        if word and self.values:
            self._place(word).drop(word & layout.LAST_NUMBER)

    def _drop_many(self, words: list[int]) -> None:
        """The values of these words have one user less for each; nearly all are the same few."""
        if self.values and self.values[0].is_shared:
            for word, users in Counter(words).items():
                self.values[0].drop(word, users)
        else:
            for word in words:
                self._drop(word)

    def _change(self, changes: Sequence[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
        """Change words, and let go of the old ones' values; returns those for which the kernel had no room."""
        failed = []
        for start in range(0, len(changes), layout.CHANGES):
            some, replaced = changes[start : start + layout.CHANGES], []
            for (key, word), (old, result) in zip(some, self.changes.change(self.number, some), strict=True):
                if result:
                    failed.append((key, word))
                elif old:
                    replaced.append(old)
                else:
                    self.grace.keep(self.table, key)
            self._drop_many(replaced)
        return failed

    def _changed(self, key: bytes, old: int) -> None:
        """The key has a new word, in the place of `old`."""
        if old:
            self._drop(old)
        else:
            self.grace.keep(self.table, key)

    def _removed(self, key: bytes, old: int) -> bool:
        """The word of the key is 0 now; it was `old`."""
        if old:
            self._drop(old)
            self.grace.later(self.table, key)
        return old != 0


def open_entries(loaded: Object) -> dict[str, Entries]:
    """The tables of entries of an object, by name; what an earlier daemon left in them has to be taken over."""
    grace, changes = Grace(), Changes(loaded)
    values = {name: Values(loaded.maps[name], grace, shared=shared) for name, shared in layout.VALUES.items()}
    found = {
        name: Entries(number, loaded.maps[name], changes, grace, tuple(values[place] for place in places))
        for number, (name, places) in enumerate(layout.ENTRIES.items())
    }
    return found


def take_over(found: Mapping[str, Entries]) -> None:
    """Take what is in the maps, whoever wrote it: values without an entry go, the others are kept for theirs."""
    places = {place.table.name: place for entries in found.values() for place in entries.values}
    used: dict[str, dict[int, int]] = {name: {} for name in places}
    for entries in found.values():
        entries.adopt(used)
    for name, place in places.items():
        place.adopt(used[name])


def settle(found: Mapping[str, Entries]) -> None:
    """Delete now what nothing leads to any more."""
    for entries in found.values():
        entries.grace.settle_all()


def settle_some(found: Mapping[str, Entries]) -> float | None:
    """Delete some of what nothing has led to for the grace period; seconds until there is more, None: no more waits."""
    return next(iter(found.values())).grace.settle()

"""Exact sums of binary64 numbers (IEEE 754): no rounding before the result, in any order and over any number of sleeps."""

_UNIT = 1074
"""Every finite binary64 number is a multiple of 2 to the power of minus this."""
_MAX_STATE = 2 + 512


class Exact:
    """A running sum, from which numbers can be taken away again."""

    __slots__ = ("_units",)

    def __init__(self) -> None:
        self._units = 0

    def add(self, value: float) -> None:
        """Add a finite number."""
        numerator, denominator = value.as_integer_ratio()
        self._units += numerator << (_UNIT + 1 - denominator.bit_length())

    def take_away(self, value: float) -> None:
        """Take a finite number away."""
        self.add(-value)

    def total(self) -> float | None:
        """The sum, correctly rounded; None if no binary64 number is as large."""
        return self.mean(1)

    def mean(self, count: int) -> float | None:
        """The sum divided by `count`, correctly rounded; None if no binary64 number is as large."""
        try:
            return self._units / (count << _UNIT)
        except OverflowError:
            return None

    def state(self) -> bytes:
        """The sum: two bytes with a power of two, then a signed whole number, both big-endian."""
        zeros = (self._units & -self._units).bit_length() - 1 if self._units else 0
        whole = self._units >> zeros
        return zeros.to_bytes(2, "big") + whole.to_bytes(whole.bit_length() // 8 + 1, "big", signed=True)

    @classmethod
    def of(cls, state: object) -> "Exact":
        """The sum of that state. Raises ValueError."""
        if not isinstance(state, bytes) or not 2 < len(state) <= _MAX_STATE:
            raise ValueError("this is not the state of a sum")
        zeros = int.from_bytes(state[:2], "big")
        if zeros > 2 * _UNIT:
            raise ValueError("this is not the state of a sum")
        made = cls()
        made._units = int.from_bytes(state[2:], "big", signed=True) << zeros
        return made

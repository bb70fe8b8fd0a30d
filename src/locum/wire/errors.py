"""The one error that a decoder raises. It must not know any message."""


class WireError(ValueError):
    """Bytes that are not the message they should be.

    `field` is the RFC's (or the CDDL's) name of the part that is wrong, `offset` the byte where it starts, counted
    from the start of the message, `reason` a short fixed word for counters and logs (`truncated`, `trailing`, `range`,
    `unknown-extension`, ...). `number` is the extension type when the reason is `unknown-extension`.
    """

    __slots__ = ("field", "number", "offset", "reason")

    def __init__(self, field: str, offset: int, reason: str, *, number: int | None = None) -> None:
        self.field = field
        self.offset = offset
        self.reason = reason
        self.number = number
        detail = "" if number is None else f" {number}"
        super().__init__(f"{field} at byte {offset}: {reason}{detail}")

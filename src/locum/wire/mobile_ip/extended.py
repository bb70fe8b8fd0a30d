"""Common part of Mobile IP messages with extensions (RFC 5944 section 1.8). It must not know any message."""

from typing import TypeVar

from locum.wire.cursor import Cursor
from locum.wire.errors import WireError
from locum.wire.mobile_ip.extensions import (
    MAX_MESSAGE,
    MN_AAA,
    Authentication,
    AuthKind,
    Extension,
    GeneralizedAuthentication,
    Nai,
)

E_ = TypeVar("E_", bound=Extension)


class Extended:
    """Common part of messages with extensions: finding extensions."""

    __slots__ = ()
    extensions: tuple[Extension, ...]

    def find(self, kind: type[E_]) -> E_ | None:
        """The first extension of that class."""
        return next((extension for extension in self.extensions if isinstance(extension, kind)), None)

    def all(self, kind: type[E_]) -> tuple[E_, ...]:
        """Every extension of that class, in order."""
        return tuple(extension for extension in self.extensions if isinstance(extension, kind))

    def authentication(self, kind: AuthKind) -> Authentication | None:
        """The authentication extension between those two."""
        for extension in self.extensions:
            if isinstance(extension, Authentication) and extension.kind is kind:
                return extension
        return None

    @property
    def to_aaa(self) -> GeneralizedAuthentication | None:
        """The authentication extension between the mobile node and its AAA server (RFC 4721 section 6)."""
        for extension in self.extensions:
            if isinstance(extension, GeneralizedAuthentication) and extension.subtype == MN_AAA:
                return extension
        return None

    @property
    def to_home(self) -> Authentication | GeneralizedAuthentication | None:
        """The authentication of the mobile node: to its home agent; in a request without that one, to its AAA server."""
        return self.authentication(AuthKind.MN_HA) or self.to_aaa

    @property
    def said_to_home(self) -> tuple[Extension, ...]:
        """The extensions that `to_home` protects; none without it."""
        proving = self.to_home
        for place, extension in enumerate(self.extensions):
            if extension is proving:
                return self.extensions[:place]
        return ()

    @property
    def mobile_nai(self) -> str | None:
        """The mobile node's NAI (RFC 2794 section 2), if under its own authentication (`to_home`)."""
        if len(self.extensions) < 2:
            return None
        return next(
            (extension.identifier for extension in self.said_to_home if isinstance(extension, Nai)),
            None,
        )

    def protected(self, kind: AuthKind) -> tuple[Extension, ...]:
        """The extensions that the authentication extension of that kind protects: those before it; none without it.

        What stands after it was not said by its sender, and must not be believed on its behalf.
        """
        for place, extension in enumerate(self.extensions):
            if isinstance(extension, Authentication) and extension.kind is kind:
                return self.extensions[:place]
        return ()


def open_message(data: bytes, expected: int, fixed: int) -> Cursor:
    """A cursor after the fixed part of `fixed` bytes, which is all there; the caller reads it from `data`.

    Raises WireError for another type than `expected`, for fewer bytes, or for more than MAX_MESSAGE.
    """
    if len(data) > MAX_MESSAGE:
        raise WireError("message", MAX_MESSAGE, "too-large")
    if not data:
        raise WireError("type", 0, "truncated")
    if data[0] != expected:
        raise WireError("type", 0, "unknown-message")
    if len(data) < fixed:
        raise WireError("message", len(data), "truncated")
    cursor = Cursor(data)
    cursor.position = fixed
    return cursor

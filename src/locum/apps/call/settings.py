"""Settings of the call proxy (A7)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sipmessage import URI

from locum.apps.call.messages import PORT
from locum.apps.values import MAX_TEXT, seconds, text, whole
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import SettingError
from locum.roles.app_network import MAX_HOST_NAME

OTHERS = {"busy": 486, "unavailable": 480, "decline": 603}
"""Answers to callers that are not named."""
MAX_CALLERS = 64


@dataclass(frozen=True, slots=True)
class Settings:
    """`registrar` None: calls come without a registration. Seconds."""

    contact: URI
    registrar: tuple[str, int] | None
    domain: str
    user: str
    password: str = field(repr=False)
    expires: int
    callers: frozenset[str]
    others: int
    ring: float

    @property
    def port(self) -> int:
        """The UDP port of the home address."""
        return self.contact.port or PORT

    def named(self, address: str) -> bool:
        """True if a call from `user@host` is for the device: it, its host (`@host`), or everybody (`*`) is named."""
        return bool(self.callers & {address, "@" + address.rpartition("@")[2], "*"})


def read(table: Mapping[str, JSON]) -> Settings:
    """Raises SettingError."""
    rest = dict(table)
    contact = _contact(rest)
    registrar = rest.pop("registrar", None)
    found: tuple[str, int] | None = None
    if registrar is not None:
        found = (
            text(registrar, "registrar", MAX_HOST_NAME),
            whole(rest.pop("port", PORT), "port", 1, 65535),
        )
    user = text(rest.pop("user", contact.user or ""), "user")
    settings = Settings(
        contact=contact,
        registrar=found,
        domain=text(rest.pop("domain", found[0] if found else contact.host), "domain", MAX_HOST_NAME),
        user=user,
        password=text(rest.pop("password", None), "password") if found else "",
        expires=whole(rest.pop("expires", 300), "expires", 60, 3600),
        callers=_callers(rest),
        others=_others(rest),
        ring=seconds(rest.pop("ring", 120.0), "ring", 5.0, 600.0),
    )
    if rest:
        raise SettingError(
            min(rest),
            "is not known; there are contact, registrar, port, domain, user, password, expires, callers, others, ring",
        )
    return settings


def _contact(rest: dict[str, JSON]) -> URI:
    address = text(rest.pop("contact", None), "contact")
    try:
        uri = URI.parse(address)
    except ValueError:
        uri = None
    if uri is None or uri.scheme != "sip" or not uri.user or uri.password:
        raise SettingError(
            "contact", "an address such as sip:ann@10.0.0.4:5060 is expected, at the home address"
        )
    return uri


def _callers(rest: dict[str, JSON]) -> frozenset[str]:
    value = rest.pop("callers", None)
    if not isinstance(value, list) or not 0 < len(value) <= MAX_CALLERS:
        raise SettingError(
            "callers", f'a list of 1 to {MAX_CALLERS} callers is expected, such as "bob@example.org"'
        )
    for caller in value:
        known = isinstance(caller, str) and len(caller) <= MAX_TEXT and caller.isprintable()
        if not known or not ("@" in str(caller) or caller == "*"):
            raise SettingError("callers", '"user@host", "@host" or "*" is expected')
    return frozenset(str(caller).lower() for caller in value)


def _others(rest: dict[str, JSON]) -> int:
    value = rest.pop("others", "busy")
    if not isinstance(value, str) or value not in OTHERS:
        raise SettingError("others", f"one of {', '.join(OTHERS)} is expected")
    return OTHERS[value]

"""Settings of the mail proxy (A6)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from locum.apps.mail.messages import Filter
from locum.apps.values import MAX_TEXT, seconds, text, whole
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import SettingError
from locum.roles.app_network import MAX_HOST_NAME

PORTS = {"tls": 993, "starttls": 143, "none": 143}
MAX_PARTS = 32
LONGEST_IDLE = 29 * 60.0
"""Seconds: servers end an IDLE after 30 minutes (RFC 2177)."""
MAX_SIZE = 1 << 40


@dataclass(frozen=True, slots=True)
class Account:
    """A mailbox that is watched. `renew` in seconds."""

    host: str
    port: int
    tls: str
    user: str
    password: str = field(repr=False)
    mailbox: str
    renew: float


@dataclass(frozen=True, slots=True)
class Settings:
    """`account` None: sessions at `ports` are attended instead."""

    account: Account | None
    filter: Filter
    ports: frozenset[int]


def read(table: Mapping[str, JSON]) -> Settings:
    """Raises SettingError. No message has a password in it."""
    rest = dict(table)
    attended = rest.pop("attended", False)
    if not isinstance(attended, bool):
        raise SettingError("attended", "true or false is expected")
    if attended:
        ports = _ports(rest.pop("ports", [143]))
        _nothing_else(rest, "attended, ports")
        return Settings(None, Filter(), ports)
    tls = rest.pop("tls", "tls")
    if not isinstance(tls, str) or tls not in PORTS:
        raise SettingError("tls", f"one of {', '.join(PORTS)} is expected")
    account = Account(
        host=text(rest.pop("host", None), "host", MAX_HOST_NAME),
        port=whole(rest.pop("port", PORTS[tls]), "port", 1, 65535),
        tls=tls,
        user=text(rest.pop("user", None), "user"),
        password=text(rest.pop("password", None), "password"),
        mailbox=_mailbox(rest),
        renew=seconds(rest.pop("renew", 900.0), "renew", 10.0, LONGEST_IDLE),
    )
    wanted = Filter(
        _parts(rest, "sender"),
        _parts(rest, "subject"),
        whole(rest.pop("least_size", 0), "least_size", 0, MAX_SIZE),
        whole(rest.pop("most_size", MAX_SIZE), "most_size", 0, MAX_SIZE) if "most_size" in rest else None,
    )
    _nothing_else(
        rest,
        "host, port, tls, user, password, mailbox, sender, subject, least_size, most_size, renew, attended, ports",
    )
    return Settings(account, wanted, frozenset())


def _nothing_else(rest: Mapping[str, JSON], known: str) -> None:
    if rest:
        raise SettingError(min(rest), f"is not known; there are {known}")


def _mailbox(rest: dict[str, JSON]) -> str:
    name = text(rest.pop("mailbox", "INBOX"), "mailbox")
    if not name.isascii():
        raise SettingError(
            "mailbox", "ASCII is expected: other letters as modified UTF-7 (RFC 3501 section 5.1.3)"
        )
    return name


def _parts(rest: dict[str, JSON], key: str) -> tuple[str, ...]:
    value = rest.pop(key, [])
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list) or len(parts) > MAX_PARTS:
        raise SettingError(key, f"a text, or a list of at most {MAX_PARTS} texts, is expected")
    for part in parts:
        if not isinstance(part, str) or not 0 < len(part) <= MAX_TEXT:
            raise SettingError(key, f"texts of 1 to {MAX_TEXT} characters are expected")
    return tuple(str(part).casefold() for part in parts)


def _ports(value: JSON) -> frozenset[int]:
    if not isinstance(value, list) or not value:
        raise SettingError("ports", "a list of ports is expected")
    for port in value:
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
            raise SettingError("ports", "a list of ports is expected")
    return frozenset(int(str(port)) for port in value)

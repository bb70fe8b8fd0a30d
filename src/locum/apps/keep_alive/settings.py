"""Settings of keep-alives, the protocols, and the ports by which they are known (A3)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from locum.apps.keep_alive.conversation import Conversation, Fixed, Sip
from locum.apps.keep_alive.irc import Irc
from locum.apps.keep_alive.mqtt import Mqtt
from locum.apps.keep_alive.options import SipOptions, Stun
from locum.apps.keep_alive.resuming import KEYS, RESUMABLE, Resumption, resumption
from locum.apps.keep_alive.web import Web
from locum.apps.keep_alive.websocket import WebSocket
from locum.apps.keep_alive.xmpp import Xmpp
from locum.apps.values import seconds
from locum.roles.action_values.addresses import JSON, Randomness
from locum.roles.app_contract import SettingError
from locum.roles.app_network import TCP, UDP
from locum.wire.control import Flow

PORTS = {1883: "mqtt", 6667: "irc", 5222: "xmpp"}
"""Registered ports of protocols that are spoken there in clear text."""
WEB_PORTS = (80, 8000, 8008, 8080, 8081, 8888)
SILENT = {
    22: "SSH's keep-alives need the connection's keys",
    **dict.fromkeys((443, 8443, 8883, 6697, 5223), "a keep-alive in TLS needs the connection's keys"),
}
"""Ports whose connections no stand-in can speak in, and why."""
AUTO, MQTT = "auto", "mqtt"
VERSIONS = {"3.1.1": 4, "5": 5}
"""Of MQTT: as it is written, and as the protocol has it."""
HOLD, EVENT, WAKE, RECONNECT = "hold", "event", "wake", "reconnect"
ON_DATA, ON_END = (HOLD, EVENT, WAKE), (EVENT, HOLD, WAKE, RECONNECT)
TRANSPORTS = {"tcp": TCP, "udp": UDP}
LEAST, MOST = 1.0, 86400.0  # seconds
MAX_PAYLOAD = 1024  # bytes

PROTOCOLS: Mapping[str, Callable[[Randomness], Conversation]] = {
    MQTT: lambda _random: Mqtt(),
    "websocket": WebSocket,
    "irc": lambda _random: Irc(),
    "xmpp": lambda _random: Xmpp(),
    "sip": lambda _random: Sip(),
    "http": Web,
}

DATAGRAMS: Mapping[str, Callable[[Flow, Randomness], Conversation]] = {
    "sip": SipOptions,
    "stun": lambda _flow, _random: Stun(),
}
"""Protocols over UDP."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`protocol` None: by port. Seconds. `resumption`: how ended connections are opened again; None: they are not."""

    protocol: str | None
    payload: bytes
    ports: frozenset[int]
    interval: float
    jitter: float
    on_data: str
    on_end: str = EVENT
    transport: int = TCP
    resumption: Resumption | None = None
    mqtt: int = VERSIONS["3.1.1"]

    def conversation(self, flow: Flow, random: Randomness) -> tuple[str, Conversation]:
        """Name and conversation of a session with a port of a correspondent that `ports` has."""
        if self.payload:
            return "payload", Fixed(self.payload)
        name = self.protocol or PORTS.get(flow.peer_port, "http")
        if self.transport == UDP:
            return name, DATAGRAMS[name](flow, random)
        if name == MQTT:
            return name, Mqtt(self.mqtt)
        return name, PROTOCOLS[name](random)


def read(table: Mapping[str, JSON]) -> Settings:
    """Raises SettingError."""
    rest = dict(table)
    transport = TRANSPORTS[_word(rest, "transport", tuple(TRANSPORTS))]
    protocol, payload = rest.pop("protocol", None), _payload(rest)
    known = DATAGRAMS if transport == UDP else PROTOCOLS
    if protocol is not None and (protocol != AUTO or transport == UDP) and protocol not in known:
        words = (*([] if transport == UDP else [AUTO]), *sorted(known))
        raise SettingError("protocol", f"one of {', '.join(words)} is expected")
    if payload and protocol is not None:
        raise SettingError("payload", "either this or protocol")
    if transport == UDP and protocol is None and not payload:
        raise SettingError("protocol", 'is missing, or a payload, beside transport = "udp"')
    ports = _ports(rest.pop("ports", None), protocol, named=protocol is not None or bool(payload))
    interval = seconds(rest.pop("interval", 30.0), "interval", LEAST, MOST)
    jitter = seconds(rest.pop("jitter", interval / 10), "jitter", 0.0, interval)
    version = VERSIONS[_word(rest, "mqtt_version", tuple(VERSIONS))]
    on_data, on_end = _word(rest, "on_data", ON_DATA), _word(rest, "on_end", ON_END)
    resumed: Resumption | None = None
    if on_end == RECONNECT:
        name = "payload" if payload else protocol
        if transport == UDP or (name != "payload" and name not in RESUMABLE):
            raise SettingError(
                "on_end",
                f"reconnect needs protocol {' or '.join(RESUMABLE)}, or a payload, over TCP: other protocols "
                "begin with credentials of the program",
            )
        given = {key: rest.pop(key) for key in KEYS if key in rest}
        resumed = resumption(given, str(name), interval)
    elif early := [key for key in KEYS if key in rest]:
        raise SettingError(early[0], f'needs on_end = "{RECONNECT}"')
    if rest:
        known_keys = "transport, protocol, payload, payload_hex, ports, interval, jitter, on_data, on_end, mqtt_version"
        raise SettingError(min(rest), f"is not known; there are {known_keys}, {', '.join(KEYS)}")
    chosen = None if protocol in (None, AUTO) else str(protocol)
    return Settings(chosen, payload, ports, interval, jitter, on_data, on_end, transport, resumed, version)


def _word(rest: dict[str, JSON], key: str, choice: tuple[str, ...]) -> str:
    """The first one is the default."""
    value = rest.pop(key, choice[0])
    if not isinstance(value, str) or value not in choice:
        raise SettingError(key, f"one of {', '.join(choice)} is expected")
    return value


def _payload(rest: dict[str, JSON]) -> bytes:
    """Empty if there is none."""
    text, digits = rest.pop("payload", None), rest.pop("payload_hex", None)
    if text is not None:
        if not isinstance(text, str) or not 0 < len(text.encode()) <= MAX_PAYLOAD:
            raise SettingError("payload", f"a text of 1 to {MAX_PAYLOAD} bytes is expected")
        if digits is not None:
            raise SettingError("payload_hex", "either this or payload")
        return text.encode()
    if digits is None:
        return b""
    try:
        data = bytes.fromhex(digits) if isinstance(digits, str) else b""
    except ValueError:
        data = b""
    if not 0 < len(data) <= MAX_PAYLOAD:
        raise SettingError("payload_hex", f"1 to {MAX_PAYLOAD} bytes in hexadecimal digits are expected")
    return data


def _ports(value: JSON, protocol: JSON, *, named: bool) -> frozenset[int]:
    if protocol == AUTO:
        if value is not None:
            raise SettingError("ports", 'are chosen by protocol = "auto"')
        return frozenset((*PORTS, *WEB_PORTS, *SILENT))
    if value is None:
        if named:
            raise SettingError("ports", "is missing: the ports of the correspondents that speak the protocol")
        return frozenset(PORTS)
    if not isinstance(value, list) or not value:
        raise SettingError("ports", "a list of ports is expected")
    for port in value:
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
            raise SettingError("ports", "a list of ports is expected")
        if not named and port not in PORTS:
            raise SettingError("ports", f"the protocol at port {port} is not known: name it in protocol")
    return frozenset(int(str(port)) for port in value)

"""Forms of `locum wake-on`: the packets and events that each selects, and options that do not fit."""

from shlex import quote
from typing import Any

import pytest

from locum.apps.keep_alive.published import Published
from locum.cli.paging.wake_on import FORMS as NAMED
from locum.node.config.toml_table import ConfigError
from locum.node.control.wish_forms import FORMS, wish
from locum.roles.mobile_node.paging.wishes import Wish
from locum.roles.paging.matching import matches
from locum.wire.control.paging.cause import ApplicationEvent
from locum.wire.control.paging.entry import ActionKind, EntryAction, Limits
from locum.wire.control.paging.page_request import Order
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector


def fits(wanted: Wish, kind: str, **detail: object) -> bool:
    assert wanted.entry is not None
    event = ApplicationEvent("any", kind, detail)
    return any(matches(pattern, event, {"limit": 5}) for pattern in wanted.entry.patterns)


def test_command_line_and_node_know_the_same_forms() -> None:
    assert NAMED == FORMS


@pytest.mark.parametrize(
    ("keys", "port", "protocol", "text"),
    [
        ({"form": "ssh"}, (22, 22), 6, "ssh"),
        ({"form": "ssh", "value": "2222"}, (2222, 2222), 6, "ssh 2222"),
        ({"form": "tcp", "value": "8000-8099"}, (8000, 8099), 6, "tcp 8000-8099"),
        ({"form": "udp", "value": "0x35"}, (53, 53), 17, "udp 0x35"),
        ({"form": "packets", "destination_port": 5, "protocol": "udp"}, (5, 5), 17,
         "packets --destination-port 5 --protocol udp"),
    ],
)  # fmt: skip
def test_forms_of_packets(keys: dict[str, Any], port: tuple[int, int], protocol: int, text: str) -> None:
    found, numbers = wish(keys), (protocol, protocol)
    assert found.selectors == (
        Ipv4Selector(destination_port=port, protocol=numbers),
        Ipv6Selector(destination_port=port, next_header=numbers),
    )
    assert (found.text, found.entry, found.proxy) == (text, None, "")


def test_source_of_packets_names_the_family() -> None:
    [selector] = wish({"form": "ssh", "from": "192.0.2.0/24"}).selectors
    assert isinstance(selector, Ipv4Selector) and selector.source is not None
    assert [str(end) for end in selector.source] == ["192.0.2.0", "192.0.2.255"]
    v4, v6 = wish({"form": "ping"}).selectors
    assert isinstance(v4, Ipv4Selector) and v4.protocol == (1, 1)
    assert isinstance(v6, Ipv6Selector) and v6.next_header == (58, 58)


def test_mail_by_sender_and_subject() -> None:
    found = wish({"form": "mail", "from": "Boss@example.org", "subject": "urgent"})
    said = {"name": "The boss", "subject": "urgent: come", "size": 1, "uid": 7}
    assert found.proxy == "mail"
    assert fits(found, "message_available", sender="boss@example.org", **said)
    assert fits(found, "message_available", sender="Boss@example.org", **said)
    assert not fits(found, "message_available", sender="other@example.org", **said)
    assert not fits(found, "message_available", sender="boss@example.org", **said | {"subject": "later"})
    assert fits(found, "message_available", messages=0, unread=40), "senders are not known"
    assert not fits(found, "watch_ended", reason="x")
    assert fits(wish({"form": "mail"}), "message_available", sender="a", **said)
    by_subject = wish({"form": "mail", "subject": "urgent"})
    assert fits(by_subject, "message_available", sender="a", **said)


def test_download_and_broker_and_call() -> None:
    download = wish({"form": "download"})
    assert fits(download, "delivered") and fits(download, "download_failed") and not fits(download, "quiet")
    broker = wish({"form": "mqtt"})
    assert broker.proxy == "keepalive" and fits(broker, "message_available", protocol="mqtt", bytes=9)
    assert not fits(broker, "message_available", protocol="irc", bytes=9)
    call = wish({"form": "call", "from": "sip:A@example.org"})
    assert call.proxy == "call" and fits(call, "call_from", caller="a@example.org")
    assert not fits(call, "call_from", caller="b@example.org")
    assert fits(wish({"form": "call", "from": "@example.org"}), "call_from", caller="b@example.org")
    assert fits(wish({"form": "call"}), "call_from", caller="z@example.com")


@pytest.mark.parametrize(
    ("topic", "taken", "others"),
    [
        ("alerts/#", ["alerts", "alerts/a", "alerts/a/b", "alerts/"], ["alert", "alertsx/a", "x/alerts/a"]),
        ("a/+/c", ["a/b/c", "a//c"], ["a/b/d", "a/c", "a/b/b/c", "a/b/c/d"]),
        ("+/b/#", ["a/b", "a/b/c"], ["b", "a/c/b", "$SYS/b"]),
        ("#", ["a", "a/b", "/"], ["$SYS/load"]),
        ("+", ["a", ""], ["a/b", "/"]),
        ("$SYS/#", ["$SYS/load"], ["SYS/load"]),
        ("a/b", ["a/b"], ["a/b/", "A/b"]),
        ("a/+/+/d", ["a/b/c/d"], ["a/b/d", "a/b/b/c/d"]),
    ],
)
def test_topics_of_a_broker(topic: str, taken: list[str], others: list[str]) -> None:
    """As the broker itself takes them (MQTT 5 section 4.7)."""
    found = wish({"form": "mqtt", "topic": topic})
    assert found.proxy == "keepalive" and found.text == f"mqtt --topic {quote(topic)}"

    def takes(name: str) -> bool:
        return fits(found, "published", **Published(name, "text", 4, 0, False).detail())

    assert [name for name in taken if name and not takes(name)] == []
    assert [name for name in others if takes(name)] == []
    assert fits(found, "published", protocol="mqtt", unread=2), "their topics are not known"
    assert not fits(found, "message_available", protocol="mqtt", bytes=9)


@pytest.mark.parametrize(
    "topic", ["a/#/b", "a/b#", "a/b+", "$share/g/a", "/".join("abcdefgh") + "/+", "+/" * 16 + "a"]
)
def test_topic_filters_that_cannot_be_watched(topic: str) -> None:
    with pytest.raises(ConfigError) as problem:
        wish({"form": "mqtt", "topic": topic})
    assert problem.value.key == "topic"


@pytest.mark.parametrize(
    "spelling",
    [
        "friend@example.org",
        "sip:Friend@example.org:5060",
        "SIPS:friend@example.org;transport=tcp",
        "@example.org",
    ],
)
def test_spellings_of_a_caller(spelling: str) -> None:
    found = wish({"form": "call", "from": spelling})
    assert fits(found, "call_from", caller="friend@example.org")
    assert not fits(found, "call_from", caller="friend@example.net")


@pytest.mark.parametrize(
    ("condition", "detail", "expected"),
    [
        ("size > 1000", {"size": 1001}, True),
        ("size>1000", {"size": 1000}, False),
        ("size >= 1000", {"size": 1000}, True),
        ("name = news", {"name": "news"}, True),
        ("name != news", {"name": "news"}, False),
        ('name = "7"', {"name": "7"}, True),
        ("name contains ew", {"name": "news"}, True),
        ("name glob n*", {"name": "news"}, True),
        ("size < left.limit", {"size": 4}, True),
        ("size <= left.limit", {"size": 6}, False),
        ('name = "=>"', {"name": "=>"}, True),
        ('name = ""', {"name": ""}, True),
        ("message.from = a", {"message": {"from": "a"}}, True),
    ],
)
def test_conditions_of_events(condition: str, detail: dict[str, Any], expected: bool) -> None:
    found = wish({"form": "event", "value": "computed", "where": [condition]})
    assert fits(found, "computed", **detail) is expected and found.proxy == ""


def test_limits_and_actions() -> None:
    found = wish(
        {"form": "event", "value": "quiet", "app": "own", "every": 60, "quiet": ["22:00-07:00"], "later": False,
         "actions": ["direct", "store"], "tell": "asleep"}
    )  # fmt: skip
    assert found.entry is not None and found.entry.limits == Limits(60, ((1320, 420),), later=False)
    assert found.entry.actions == (
        EntryAction(ActionKind.PAGE_DIRECT),
        EntryAction(ActionKind.STORE),
        EntryAction(ActionKind.TELL, text="asleep"),
    )
    assert found.text == (
        "event quiet --app own --every 60 --quiet 22:00-07:00 --not-later --direct --store --tell asleep"
    )
    ordered = wish({"form": "mail", "order": "before"}).entry
    assert ordered is not None and ordered.actions == (EntryAction(ActionKind.PAGE, Order.BEFORE),)


@pytest.mark.parametrize(
    ("keys", "key", "problem"),
    [
        ({"form": "telnet"}, "form", "one of"),
        ({"form": "tcp"}, "value", "a port is missing"),
        ({"form": "tcp", "value": "http"}, "value", "'http' is not a port, or a range such as 8000-8099"),
        ({"form": "tcp", "value": "65536"}, "value", "ports are 1 to 65535"),
        ({"form": "tcp", "value": "0"}, "value", "ports are 1 to 65535"),
        ({"form": "udp", "value": "9-8"}, "value", "the lower one first"),
        ({"form": "ssh", "every": 60}, "every", "is for events"),
        ({"form": "ssh", "quiet": ["22:00-07:00"]}, "quiet", "is for events"),
        ({"form": "ssh", "actions": ["direct"]}, "actions", "is for events"),
        ({"form": "ssh", "protocol": "udp"}, "protocol", "given by ssh"),
        ({"form": "ssh", "from": "a", "source": "b"}, "from", "either"),
        ({"form": "ssh", "from": "boss@example.org"}, "from", "address"),
        ({"form": "packets"}, "form", "every packet"),
        ({"form": "ping", "value": "x"}, "value", "too many"),
        ({"form": "mail", "value": "x"}, "value", "too many"),
        ({"form": "mail", "protocol": "tcp"}, "protocol", "is for packets"),
        ({"form": "download", "from": "x"}, "from", "is for mail and call"),
        ({"form": "call", "subject": "x"}, "subject", "is for mail"),
        ({"form": "mail", "where": ["a = 1"]}, "where", "is for the form event"),
        ({"form": "mail", "app": "x"}, "app", "is for the form event"),
        ({"form": "event"}, "value", "a kind of event is missing"),
        ({"form": "event", "value": "x", "where": ["a == 1"]}, "where", "no condition"),
        ({"form": "event", "value": "x", "where": ["a => 1"]}, "where", "no condition"),
        ({"form": "event", "value": "x", "where": ["a <> 1"]}, "where", "no condition"),
        ({"form": "event", "value": "x", "where": ["a >"]}, "where", "no value"),
        ({"form": "event", "value": "x", "where": ["a contains "]}, "where", "no value"),
        ({"form": "event", "value": "x", "where": ["a = left."]}, "where", "needs a name"),
        ({"form": "event", "value": "x", "where": [f"a = left.{'n' * 65}"]}, "where", "needs a name"),
        ({"form": "call", "from": "friend"}, "from", "USER@HOST"),
        ({"form": "call", "from": "<sip:friend@example.org>"}, "from", "USER@HOST"),
        ({"form": "call", "from": "sip:"}, "from", "USER@HOST"),
        ({"form": "event", "value": "x", "where": ["size"]}, "where", "no condition"),
        ({"form": "event", "value": "x", "where": ["a = 1"] * 9}, "where", "at most 8"),
        ({"form": "event", "value": "x", "where": ["a = [1]"]}, "where", "neither a number"),
        ({"form": "mail", "subject": "x" * 257}, "subject", "256"),
        ({"form": "mail", "subject": "x" * 250}, "form", "longer than 200"),
        ({"form": "mail", "every": 0}, "every", "whole number"),
        ({"form": "mail", "colour": 1}, "colour", "not known"),
    ],
)
def test_options_that_do_not_fit_are_named(keys: dict[str, Any], key: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        wish(keys)
    assert raised.value.key == key and problem in raised.value.problem

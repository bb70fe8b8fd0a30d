"""The mail proxy on a virtual clock: no message twice, none missed, and every bad server ends with a reason (A6)."""

from base64 import b64encode
from collections.abc import Mapping
from ipaddress import ip_address
from random import Random

import pytest

from locum.apps.mail.proxy import AT_ONCE, EACH, FOLDING, LAST, LONGEST_AGAIN, Mail
from locum.apps.mail.session import MAX_LOOKED, PATIENCE
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import AppSession, SettingError, Tell
from locum.roles.app_network import Abort, Data
from locum.wire.control import Flow
from tests.apps.mail.world import ACCOUNT, Server, World


def test_message_is_told_with_sender_subject_and_size() -> None:
    world = World(Server())
    assert world.connections[0].port == 993 and world.encrypted and world.server.idling
    assert world.told == []
    world.server.arrive(sender="Bob <bob@example.org>", subject="Lunch", padding=100)
    world.says(b"* 1 EXISTS\r\n")
    (tell,) = world.told
    assert tell.kind == "message_available"
    assert tell.detail == {
        "sender": "bob@example.org",
        "name": "Bob",
        "subject": "Lunch",
        "size": len(world.server.mails[1]),
        "uid": 1,
    }
    assert world.server.idling and world.kept["next"] == 2
    result = world.mail.end(now=world.now)
    assert result == {"validity": 9, "next": 2, "result": {"messages": 1, "last": [dict(tell.detail)]}}


def test_old_messages_are_not_told() -> None:
    server = Server()
    server.arrive(subject="old")
    world = World(server)
    world.arrive(subject="new")
    assert world.subjects == ["new"]


def test_no_message_twice_or_missed_over_breaks() -> None:
    """Messages come while it waits, while the connection is away, and in the middle of a look."""
    world, sent = World(Server()), []
    for number in range(30):
        if number % 3 == 1:
            world.breaks()
        if number % 5 == 2:
            world.start()  # another process, with what was kept
        world.arrive(subject=f"m{number}")
        sent.append(f"m{number}")
        world.advance(LONGEST_AGAIN)
    assert world.subjects == sent


def test_no_message_twice_or_missed_over_sleeps() -> None:
    world, sent = World(Server()), []
    for sleep in range(5):
        for part in ("asleep", "awake"):
            world.arrive(subject=f"{part} {sleep}")
            sent.append(f"{part} {sleep}")
            if part == "asleep":
                state = world.mail.end(now=world.now)
                world.server.idling, world.connection = "", None
        world.kept = state
        world.start()
        assert world.mail.end(now=world.now)["result"] == {
            "messages": 1,
            "last": [dict(world.told[-1].detail)],
        }
    assert world.subjects == sent


def test_message_that_comes_during_a_look_is_found() -> None:
    world = World(Server())
    answer = world.server.answer

    def slow(line: str) -> bytes:
        said = answer(line)
        if "BODY.PEEK" in line and len(world.server.mails) == 1:
            said = world.server.arrive(subject="second") + said
        return said

    world.server.answer = slow  # type: ignore[method-assign]
    world.arrive(subject="first")
    assert world.subjects == ["first", "second"] and world.server.idling


def test_idle_is_renewed_within_29_minutes() -> None:
    world = World(Server(), renew=1740)
    world.advance(1739)
    assert world.server.commands.count("IDLE") == 1
    world.advance(1741)
    assert world.server.commands.count("IDLE") == 3 and world.told == []
    with pytest.raises(SettingError, match="renew"):
        Mail.settings({**ACCOUNT, "renew": 1741})


def test_connection_is_tried_again_after_longer_and_longer() -> None:
    world = World(Server())
    world.reachable = False
    world.breaks()
    world.advance(3600)
    tries = len(world.connections)
    assert 12 < tries < 30
    assert [tell.kind for tell in world.told] == ["watch_interrupted"]
    assert world.told[0].detail == {"reason": "connection refused"}
    world.reachable = True
    world.advance(LONGEST_AGAIN)
    world.arrive(subject="back")
    assert world.subjects == ["back"] and world.notes.count("waits for messages") == 2


def test_new_numbers_of_a_mailbox_begin_a_new_watch() -> None:
    world = World(Server(next_uid=50))
    world.server.validity, world.server.next_uid = 10, 3
    world.breaks()
    world.advance(10)
    assert world.told == [] and "anew" in world.notes and world.kept["validity"] == 10
    world.arrive(subject="after")
    assert world.subjects == ["after"]


def test_filter_passes_over_other_messages() -> None:
    world = World(Server(), sender="boss@", subject=["Urgent"], most_size=5000)
    world.arrive(sender="boss@example.org", subject="hello")
    world.arrive(sender="spam@example.org", subject="urgent")
    world.arrive(sender="Boss@Example.org", subject="Re: urgent")
    assert world.subjects == ["Re: urgent"] and world.kept["next"] == 4


def test_flood_is_folded_into_few_events() -> None:
    """At once and one by one: events are bounded, and the counts are right."""
    world = World(Server())
    for number in range(300):
        world.server.arrive(subject=f"m{number}")
    world.says(b"* 300 EXISTS\r\n")
    assert len(world.subjects) == AT_ONCE and len(world.told) == AT_ONCE + 1
    assert world.told[-1].detail == {"messages": 50 - AT_ONCE, "unread": 0}  # those of the first look
    world.advance(FOLDING)
    assert world.told[-1].detail == {"messages": 250, "unread": 0}
    for number in range(600):
        world.arrive(subject=f"n{number}")
        world.advance(0.5)
    world.advance(2 * FOLDING)
    folded = [tell.detail["messages"] for tell in world.told if "messages" in tell.detail]
    assert len(world.subjects) + sum(int(str(count)) for count in folded) == 900
    assert len(world.told) < AT_ONCE + 400 / EACH + 400 / FOLDING + 3
    last = world.mail.end(now=world.now)["result"]
    assert isinstance(last, dict) and last["messages"] == 900 and len(last["last"]) == LAST


def test_headers_of_a_huge_flood_are_not_read() -> None:
    world = World(Server())
    for number in range(MAX_LOOKED + 700):
        world.server.arrive(subject=f"m{number}")
    world.says(b"* %d EXISTS\r\n" % len(world.server.mails))
    asked = [command for command in world.server.commands if "BODY.PEEK" in command]
    assert len(asked) == 10 and world.kept["next"] == MAX_LOOKED + 701
    world.advance(FOLDING)
    counts = [tell.detail for tell in world.told if "unread" in tell.detail]
    assert sum(int(str(detail["unread"])) for detail in counts) == 700
    world.advance(10 * FOLDING)
    world.arrive(subject="after")
    assert world.subjects[-1] == "after"


def test_counts_of_folded_messages_outlive_a_process() -> None:
    world = World(Server())
    for number in range(50):
        world.arrive(subject=f"m{number}")
    world.start()
    world.advance(2 * FOLDING)
    folded = sum(int(str(tell.detail["messages"])) for tell in world.told if "messages" in tell.detail)
    assert len(world.subjects) + folded == 50
    result = world.mail.end(now=world.now)["result"]
    assert isinstance(result, dict) and result["messages"] == 50


def test_password_goes_over_tls_only() -> None:
    secret = b64encode(b"\0ann\0s3cret word").decode()
    world = World(Server(capable="IMAP4rev1 STARTTLS IDLE AUTH=PLAIN"), tls="starttls")
    assert world.connections[0].port == 143 and not world.connections[0].tls
    assert world.server.commands.index("STARTTLS") < world.server.commands.index(f"SECRET {secret}")
    assert world.encrypted and world.server.idling
    assert "s3cret" not in world.notes and secret not in world.notes


def test_login_is_used_where_there_is_no_plain() -> None:
    world = World(Server(capable="IMAP4rev1 IDLE"), password='a"b\\c', tls="none")
    assert 'LOGIN "ann" "a\\"b\\\\c"' in world.server.commands and world.server.idling


def test_preauthenticated_connection_needs_no_password() -> None:
    world = World(Server(greeting="PREAUTH hello ann"))
    assert world.server.idling and not any("AUTH" in command for command in world.server.commands)


@pytest.mark.parametrize(
    "server, table, reason",
    [
        (
            Server(refuses={"SECRET": "NO [AUTHENTICATIONFAILED] wrong"}),
            {},
            "the server refuses user and password (AUTHENTICATIONFAILED: wrong)",
        ),
        (Server(refuses={"AUTHENTICATE": "BAD no"}), {}, "the server refuses user and password (no)"),
        (
            Server(refuses={"EXAMINE": "NO [NONEXISTENT] gone"}),
            {"mailbox": "x"},
            "the mailbox x cannot be opened (NONEXISTENT: gone)",
        ),
        (Server(capable="IMAP4rev1 AUTH=PLAIN"), {}, "the server has no IDLE (RFC 2177)"),
        (Server(), {"tls": "starttls"}, "the server has no STARTTLS"),
        (
            Server(capable="STARTTLS", refuses={"STARTTLS": "NO not now"}),
            {"tls": "starttls"},
            "the server refuses STARTTLS (not now)",
        ),
        (
            Server(greeting="PREAUTH hello"),
            {"tls": "starttls"},
            "the server has no STARTTLS: it greets with PREAUTH",
        ),
        (Server(capable="LOGINDISABLED"), {"tls": "none"}, "the server takes no password without TLS"),
        (
            Server(capable="IDLE"),
            {"password": "p\u00e4ss"},
            "the server takes user and password in ASCII only",
        ),
        (
            Server(validity=0),
            {},
            "the server does not number its messages (UIDVALIDITY, UIDNEXT)",
        ),
    ],
)
def test_vain_watch_ends_with_its_reason(server: Server, table: Mapping[str, JSON], reason: str) -> None:
    world = World(server, **table)
    assert world.told == [Tell("watch_ended", None, {"reason": reason})]
    assert world.mail.deadline() is None and isinstance(world.effects[-4], Abort)
    result = world.mail.end(now=world.now)["result"]
    assert isinstance(result, dict) and result["failed"] == reason and len(world.connections) == 1


def test_bytes_behind_starttls_end_the_watch() -> None:
    """They could be another's, and would count as the server's (RFC 9051 section 11.3)."""
    server = Server(capable="STARTTLS")
    answer = server.answer
    server.answer = lambda line: answer(line) + (b"* 1 EX" if "STARTTLS" in line else b"")  # type: ignore[method-assign]
    world = World(server, tls="starttls")
    assert world.told[0].detail == {"reason": "bytes came in clear behind STARTTLS"} and not world.encrypted


@pytest.mark.parametrize(
    "said, reason",
    [
        (b"* BYE shutting down\r\n", "the server says goodbye: shutting down"),
        (b"HTTP/1.1 400 Bad Request\r\n", "not IMAP"),
        (b"L99 OK done\r\n", "not given"),
        (b"+ more\r\n", "no more"),
        (b"x" * 70000, "more than"),
        (b"* 3 FETCH (X {99999999}\r\n", "not asked for"),
        (b"", "has ended the connection"),
    ],
)
def test_bad_server_is_left_and_tried_again(said: bytes, reason: str) -> None:
    world = World(Server())
    world.says(said)
    assert reason in world.notes and world.connection is None
    world.server.idling = ""
    world.advance(10)
    world.arrive(subject="after")
    assert world.subjects == ["after"] and len(world.connections) == 2


@pytest.mark.parametrize("code", ["UNAVAILABLE", "INUSE", "LIMIT"])
def test_server_that_is_busy_is_tried_again(code: str) -> None:
    """RFC 5530 section 3."""
    world = World(Server(refuses={"SECRET": f"NO [{code}] later"}))
    world.server.refuses = {}
    world.advance(10)
    assert len(world.connections) == 2 and world.server.idling


def test_silent_server_is_left_after_a_minute() -> None:
    world = World(Server())
    world.server.answer = lambda line: b""  # type: ignore[method-assign]
    world.says(world.server.arrive())
    world.advance(PATIENCE + 1)
    assert "did not answer for 60 seconds (DONE)" in world.notes


def test_server_that_ends_idle_is_left() -> None:
    world = World(Server())
    world.says(f"{world.server.idling} OK enough\r\n".encode())
    assert "has ended IDLE" in world.notes


def test_deleted_messages_are_passed_over() -> None:
    world = World(Server())
    world.arrive(subject="one")
    world.server.mails.clear()
    world.says(b"* 1 EXPUNGE\r\n")
    world.arrive(subject="two")
    assert world.subjects == ["one", "two"]


def test_news_of_an_earlier_connection_are_passed_over() -> None:
    world = World(Server())
    old = world.connection
    assert old is not None
    world.breaks()
    assert world.mail.happened(Data(old, b"* 5 EXISTS\r\n"), now=world.now) == []


def test_attended_session_is_read_and_never_spoken_in() -> None:
    settings = Mail.settings({"attended": True})
    here, there = ip_address("10.9.0.5"), ip_address("192.0.2.1")
    assert Mail.wants(settings, Flow(6, here, 40000, there, 143))
    assert not Mail.wants(settings, Flow(6, here, 40000, there, 993))
    one = Mail(settings, Random(1))
    assert one.begin([AppSession(4, Flow(6, here, 40000, there, 143))], {}, now=0.0) == []
    assert one.received(4, b"EN 5 EXISTS\r\n* OK Still here\r\n* 24 EX", now=1.0) == []
    assert one.received(4, b"ISTS\r\n", now=2.0) == [Tell("message_available", 4, {"messages": 24})]
    assert one.received(4, b"* 24 EXISTS\r\n* 3 EXPUNGE\r\n", now=3.0) == []
    assert one.received(4, b"x" * 9000 + b"\r\n* 24 EXISTS\r\n", now=4.0) == [
        Tell("message_available", 4, {"messages": 24})
    ]
    assert one.received(9, b"* 99 EXISTS\r\n", now=5.0) == []
    assert one.closed(4, 104, now=6.0) == [Tell("session_ended", 4, {"error": 104})]
    assert one.closed(4, 104, now=6.0) == [] and one.deadline() is None


@pytest.mark.parametrize(
    "table, key",
    [
        ({}, "host"),
        ({"host": "a"}, "user"),
        ({"host": "a", "user": "b"}, "password"),
        ({**ACCOUNT, "host": "a" * 254}, "host"),
        ({**ACCOUNT, "host": 3}, "host"),
        ({**ACCOUNT, "user": ""}, "user"),
        ({**ACCOUNT, "user": "a\r\nb"}, "user"),
        ({**ACCOUNT, "password": "s3cret\x00"}, "password"),
        ({**ACCOUNT, "mailbox": "a\r\nL1 LOGOUT"}, "mailbox"),
        ({**ACCOUNT, "mailbox": "\u00e4"}, "mailbox"),
        ({**ACCOUNT, "port": 0}, "port"),
        ({**ACCOUNT, "port": True}, "port"),
        ({**ACCOUNT, "tls": "ssl"}, "tls"),
        ({**ACCOUNT, "renew": 9}, "renew"),
        ({**ACCOUNT, "sender": [1]}, "sender"),
        ({**ACCOUNT, "subject": ["x"] * 33}, "subject"),
        ({**ACCOUNT, "least_size": -1}, "least_size"),
        ({**ACCOUNT, "most_size": "1M"}, "most_size"),
        ({**ACCOUNT, "folder": "x"}, "folder"),
        ({"attended": True, "host": "a"}, "host"),
        ({"attended": 1}, "attended"),
        ({"attended": True, "ports": [0]}, "ports"),
        ({"attended": True, "ports": []}, "ports"),
    ],
)
def test_wrong_settings_name_their_key(table: Mapping[str, JSON], key: str) -> None:
    with pytest.raises(SettingError) as caught:
        Mail.settings(table)
    assert caught.value.key == key and "s3cret" not in str(caught.value)

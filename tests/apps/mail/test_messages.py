"""Headers of messages, decoded and bounded, and the filter (A6)."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.apps.mail.messages import MAX_SHOWN, Filter, Message


def message(headers: bytes, size: int = 1000) -> Message:
    return Message.read(7, size, headers)


@pytest.mark.parametrize(
    "headers, sender, name, subject",
    [
        (b"From: Ann <ann@example.org>\r\nSubject: Hello\r\n\r\n", "ann@example.org", "Ann", "Hello"),
        (b"SUBJECT: a\r\n b\r\nfrom: x@example.org\r\n", "x@example.org", "", "a b"),
        (
            b"From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\nSubject: =?utf-8?b?R3LDvMOfZQ==?=\r\n\r\n",
            "j@example.org",
            "J\u00fcrgen",
            "Gr\u00fc\u00dfe",
        ),
        (b"Subject: =?no-such-charset?q?x?=\r\n\r\n", "", "", "=?no-such-charset?q?x?="),
        (b"Subject: =?utf-8?b?x?=\r\n\r\n", "", "", "=?utf-8?b?x?="),
        (b"Subject: a\x00\x1b[2Jb\r\n\r\n", "", "", "a\ufffd\ufffd[2Jb"),
        (b"Subject: =?\x80?q?x?=\r\n\r\n", "", "", "=?\ufffd?q?x?="),
        (b"From: " + b"(" * 3000 + b"\r\n\r\n", "", "(" * MAX_SHOWN, ""),
        (b"", "", "", ""),
        (b"no header at all", "", "", ""),
    ],
)
def test_headers_are_decoded(headers: bytes, sender: str, name: str, subject: str) -> None:
    found = message(headers)
    assert (found.sender, found.name, found.subject) == (sender, name, subject)


def test_long_texts_are_cut_off() -> None:
    found = message(b"From: <" + b"a" * 3000 + b"@example.org>\r\nSubject: " + b"b " * 3000 + b"\r\n")
    assert len(found.sender) == MAX_SHOWN and len(found.subject) == MAX_SHOWN


CONFINED = """
import os, sys
from locum.apps.mail.messages import Message
os.chroot("/proc/self/fdinfo")
subjects = [b"=?utf-8?b?w7w=?=", b"=?iso-2022-jp?b?GyRCJCIbKEI=?=", b"=?windows-1252?q?=80?=", b"=?none?q?x?=", b"\\xff"]
found = [Message.read(1, 2, b"Subject: " + subject).subject for subject in subjects]
sys.exit(found[:4] != ["\u00fc", "\u3042", "\u20ac", "=?none?q?x?="])
"""


def test_headers_are_decoded_in_a_process_without_files() -> None:
    """As a proxy's process is (`locum.apps.host.confine`)."""
    done = subprocess.run([sys.executable, "-c", CONFINED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@given(st.binary(max_size=300))
def test_any_headers_are_taken(headers: bytes) -> None:
    found = message(b"From: " + headers)
    assert all(text.isprintable() and len(text) <= MAX_SHOWN for text in (found.sender, found.subject))


HEADERS = b"From: Ann Lee <Ann@Example.org>\r\nSubject: [urgent] Pump\r\n\r\n"


@pytest.mark.parametrize(
    "wanted, taken",
    [
        (Filter(), True),
        (Filter(senders=("ann@example.org",)), True),
        (Filter(senders=("lee",)), True),
        (Filter(senders=("bob", "@example.org")), True),
        (Filter(senders=("bob",)), False),
        (Filter(subjects=("[urgent]",)), True),
        (Filter(subjects=("later",)), False),
        (Filter(senders=("ann",), subjects=("later",)), False),
        (Filter(least_size=1000, most_size=1000), True),
        (Filter(least_size=1001), False),
        (Filter(most_size=999), False),
    ],
)
def test_filter_asks_for_all_of_its_parts(wanted: Filter, taken: bool) -> None:
    assert wanted.takes(message(HEADERS)) is taken

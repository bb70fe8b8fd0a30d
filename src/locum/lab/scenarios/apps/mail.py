"""A device sleeps five times while its stand-in watches its mailbox at a stock server (A6, C12)."""

import contextlib
import shutil
from functools import partial
from typing import Any

from locum.lab.configuration import HOME_ADDRESS4, Plan, Table
from locum.lab.network.topology import figure_5
from locum.lab.processes import wait_until
from locum.lab.programs.peers.dovecot import PORT, USER, Dovecot, Fetchmail
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.sleep.fig06 import handovers
from locum.lab.steps.waking import judge_wakes
from locum.lab.world import Lab

BOSS, OTHER = "The Boss <boss@example.org>", "news@example.net"
TRUST = "trust.pem"


def watching(name: str, password: str, **settings: str) -> Table:
    """An order that watches the mailbox at the correspondent."""
    account: Table = {
        "host": str(figure_5((), 1).address4("cn")),
        "port": PORT,
        "tls": "starttls",
        "user": USER,
    }
    return {"kind": "mail", "name": name, "settings": {**account, "password_file": password, **settings}}


class AppMail(Scenario):
    """Messages come while it sleeps, while the server is away, and while it is awake; one of two senders counts."""

    name = "app-mail"
    title = "a stand-in waits for messages at a stock IMAP server, over STARTTLS, in five sleeps"
    plan = Plan(
        tables={
            "mn": {
                "mobile_node": {
                    "app": [watching("mail", "key:mailbox", sender="boss@"), watching("wrong", "key:other")]
                }
            },
            "mnps": {"mnps": {"app_trust": TRUST}},
        }
    )
    exhaustive = True
    sleeps = 5
    logged_in = 0

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.server = Dovecot(lab, lab.configuration.key("mailbox").read_text().strip())
        with contextlib.closing(self.server):
            self.server.start()
            shutil.copy(self.server.certificate, lab.configuration.folder / TRUST)
            self.sent: list[str] = []
            self.server.deliver(BOSS, "before")
            for number in range(self.sleeps):
                self._sleep(lab, number)
            self.unseen = self.server.unseen

    def _sleep(self, lab: Lab, number: int) -> None:
        lab.close_lid("an1")
        wait_until("the login", lambda: len(self.server.logins) > self.logged_in, 20.0)
        if number == 0:  # the first look at the mailbox is over: from here on messages count
            wait_until(
                "IDLE", lambda: "waits for messages" in lab.command("mnps", "app", "log", "mail"), 20.0
            )
            self.shown = lab.command("mnps", "app", "show", "mail")
        self._deliver(lab, f"asleep {number}")
        if number == 0:
            self.server.halt()  # says BYE
            self.server.deliver(BOSS, "server away")
            self.sent.append("server away")
            self.server.run()
        self._arrive(lab)
        wait_until("the end of the other watch", lambda: len(self._told(lab, "watch_ended")) > number, 60.0)
        self.logged_in = len(self.server.logins)
        lab.open_lid("an1")
        self._deliver(lab, f"awake {number}", told=number + 1 < self.sleeps)

    def _deliver(self, lab: Lab, subject: str, *, told: bool = True) -> None:
        lab.timeline.mark("delivered", subject=subject)
        self.server.deliver(OTHER, f"not {subject}")
        self.server.deliver(BOSS, subject)
        if told:
            self.sent.append(subject)

    def _arrive(self, lab: Lab) -> None:
        wait_until(f"the event for {self.sent[-1]}", lambda: self.sent[-1] in self._subjects(lab), 60.0)

    @staticmethod
    def _told(lab: Lab, kind: str) -> list[dict[str, Any]]:
        """Details of events of this kind."""
        told = [event.detail for event in lab.timeline.of("mnps") if event.kind == "app-event"]
        return [tell["detail"] for tell in told if tell["event"] == kind]

    def _subjects(self, lab: Lab) -> list[str]:
        return [detail["subject"] for detail in self._told(lab, "message_available")]

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.equal("messages_told_once_and_in_order", self._subjects(lab) == self.sent, True)
        ended = self._told(lab, "watch_ended")
        checks.equal("wrong_passwords_end_the_watch", len(ended), self.sleeps)
        checks.holds("reason_names_the_password", "refuses user and password" in str(ended))
        results = [event.detail for event in lab.timeline.of("mn") if event.kind == "app-result"]
        counts = [result["result"]["messages"] for result in results if result["app"] == "mail"]
        checks.equal("messages_in_results", sum(counts), len(self.sent))
        checks.holds(
            "logins_from_home_address", all(str(HOME_ADDRESS4) in line for line in self.server.logins)
        )
        checks.holds("logins_over_tls", all("TLS" in line for line in self.server.logins))
        checks.equal("messages_marked_as_seen", self.server.delivered - self.unseen, 0)
        password = lab.configuration.key("mailbox").read_text().strip()
        checks.equal("passwords_shown", self.shown.count(password), 0)
        checks.equal("wakes_by_messages_that_count", len(self._subjects(lab)), len(self.sent))
        checks.at_least("messages_without_a_wake", self.server.delivered - len(self.sent), self.sleeps)
        checks.equal("handovers", handovers(lab), self.sleeps)
        judge_wakes(lab, checks, ("message_available",), most=len(self.sent))


class AppMailBrief(AppMail):
    """The same in two sleeps."""

    name = "app-mail-brief"
    title = "a stand-in waits for messages at a stock IMAP server, over STARTTLS, in two sleeps"
    exhaustive = False
    sleeps = 2


class AppMailAttended(Scenario):
    """A mail program of the device sleeps in IDLE without TLS; its connection tells the stand-in of messages."""

    name = "app-mail-attended"
    title = (
        "a stand-in reads along in the connection of a stock mail program, which then fetches its messages"
    )
    plan = Plan(tables={"mn": {"mobile_node": {"app": [{"kind": "mail", "settings": {"attended": True}}]}}})
    sleeps = 5

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        password = lab.configuration.key("mailbox").read_text().strip()
        self.server = Dovecot(lab, password, plain=True)
        with contextlib.closing(self.server):
            self.server.start()
            self.fetchmail = Fetchmail(lab, password)
            self.fetchmail.start()
            wait_until("fetchmail to wait", lambda: self.fetchmail.waits, 20.0)
            self.sent: list[str] = []
            for number in range(self.sleeps):
                lab.close_lid("an1")
                self._deliver(f"asleep {number}")
                wait_until("the event", partial(self._told, lab, number + 1), 20.0)
                lab.open_lid("an1")
                self._fetched()
                self._deliver(f"awake {number}")
                self._fetched()

    def _deliver(self, subject: str) -> None:
        self.server.deliver(BOSS, subject)
        self.sent.append(subject)

    def _fetched(self) -> None:
        wait_until("fetchmail to have it", lambda: self.sent[-1] in self.fetchmail.subjects, 40.0)
        wait_until("fetchmail to wait again", lambda: self.fetchmail.waits, 20.0)

    @staticmethod
    def _told(lab: Lab, least: int) -> bool:
        told = [event.detail for event in lab.timeline.of("mnps") if event.kind == "app-event"]
        return len([tell for tell in told if tell["event"] == "message_available"]) >= least

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.equal("messages_once_and_in_order", self.fetchmail.subjects == self.sent, True)
        checks.equal("logins", len(self.server.logins), 1)
        checks.equal("handovers", handovers(lab), self.sleeps)
        judge_wakes(lab, checks, ("message_available",), most=self.sleeps)

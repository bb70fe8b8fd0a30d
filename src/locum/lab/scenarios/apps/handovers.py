"""Responsibility changes hands ten times in the middle of each job: correspondents see what they see without that (C12)."""

import re
from collections import Counter
from functools import partial

from locum.lab.captures import pcap
from locum.lab.configuration import Plan
from locum.lab.jobs.attended import Messages, Own, Sheet
from locum.lab.jobs.job import Job
from locum.lab.jobs.ordered import Films, Strays
from locum.lab.processes import Program, wait_until
from locum.lab.programs import services
from locum.lab.programs.mqtt import CLIENT, PORT
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.sleep.fig06 import handovers
from locum.lab.steps.resets import no_resets
from locum.lab.steps.story import web
from locum.lab.steps.waking import judge_wakes
from locum.lab.world import Lab

KINDS: tuple[type[Job], ...] = (Messages, Sheet, Own, Films, Strays)
"""Those of which other scenarios have fewer sleeps."""
SLEEPS = 5
RATE = 200_000
"""Bytes a second that nginx sends in one connection: no download ends before the last sleep."""
PATIENCE = 60.0  # seconds
CONTROL = "control"
"""The subscriber beside the broker, and curl beside nginx."""


class AppHandovers(Scenario):
    """A stock program of each kind goes through five sleeps, and another one beside its server through none."""

    name = "app-handovers"
    title = "proxies take over and give back five times, and no correspondent's log shows it"
    exhaustive = True
    opaque = "80-7001"
    plan = Plan(tables={"mn": {"mobile_node": {"app": [table for kind in KINDS for table in kind.tables()]}}})
    film, page = 2_400_000, 4_000_000

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.server, digests = web(lab, [("film", self.film), ("page", self.page)], str(RATE))
        self.messages, self.films = Messages(), Films(self.server, digests["film"])
        self.strays = Strays()
        self.jobs: list[Job] = [
            self.messages,
            Sheet(split=False),
            self.films,
            self.strays,
            Own(self.server, "page", digests["page"]),
        ]
        for job in self.jobs:
            job.begin(lab)
        self._control(lab)
        for number in range(SLEEPS):
            lab.close_lid("an1")
            for job in self.jobs:
                job.asleep(lab)
            self._run(lab)
            for job in self.jobs:
                job.work(lab, number)
            last = number == SLEEPS - 1
            for job in self.jobs[:-1]:  # curl's answer comes to an end awake
                if last or job is not self.films:
                    wait_until(f"{job.name} to settle", partial(job.settled, lab), PATIENCE)
                else:
                    self.films.order.wait_for_size("film.part", (number + 1) * self.film // (SLEEPS + 1))
            lab.open_lid("an1")
        for job in self.jobs:
            job.awake(lab)
        self.curl.wait(PATIENCE)

    def _control(self, lab: Lab) -> None:
        """The same programs, beside the servers and without sleeps."""
        here = "127.0.0.1"
        command = [
            "mosquitto_sub",
            "-h",
            here,
            "-k",
            str(Messages.keep_alive),
            "-i",
            CONTROL,
            "-q",
            "1",
            "-t",
            "news",
        ]
        self.subscriber: Program = lab.processes.start("cn", CONTROL, command)
        wait_until("the other subscription", lambda: f"SUBACK to {CONTROL}" in self.messages.mqtt.log)
        target = lab.output / CONTROL
        self.curl = services.download(lab.processes, "cn", f"http://{here}/page", target, "curl-control")

    def _run(self, lab: Lab) -> None:
        def run() -> bool:
            states = [app["state"] for app in lab.ask("mnps", "app list")]
            return bool(states) and states == ["running"] * len(self.jobs)

        wait_until("the proxies to run", run, PATIENCE)

    def judge(self, lab: Lab, checks: Checks) -> None:
        for job in self.jobs:
            job.judge(lab, checks)
        checks.equal("handovers", handovers(lab), SLEEPS)
        checks.holds("broker_log_as_of_the_control", self._said_of(CLIENT) == self._said_of(CONTROL))
        rows = [self._facts(row) for row in self.server.requests() if " /page " in str(row["request"])]
        checks.equal("nginx_rows_of_the_page", len(rows), 2)
        checks.holds("nginx_row_as_of_the_control", len(set(rows)) == 1)
        self._judge_film(checks)
        checks.at_least("strays_of_all_sleeps", len(self.strays.logged(lab)), SLEEPS, "packets")
        ports = {PORT, Sheet.port}
        segments = pcap.segments(lab.captures.files["cn"])
        attended = [one for one in segments if ports & {one.source_port, one.destination_port}]
        no_resets(checks, "attended_resets", attended)
        judge_wakes(lab, checks, ("delivered", "decoded"), most=3)

    def _said_of(self, client: str) -> Counter[str]:
        """Lines of the broker about this client, without times, ports, message numbers and pings."""
        found: Counter[str] = Counter()
        for line in self.messages.mqtt.log.splitlines():
            if re.search(rf"\b{client}\b", line) and "PING" not in line:
                text = re.sub(r"^\d+: |from \S+:\d+|m\d+|Mid: \d+", "", line)
                found[text.replace(client, "CLIENT")] += 1
        return found

    @staticmethod
    def _facts(row: dict[str, object]) -> tuple[str, ...]:
        return tuple(str(row[name]) for name in ("request", "status", "sent", "completion"))

    def _judge_film(self, checks: Checks) -> None:
        """A sleep ends each connection of an ordered download, and the next one goes on behind what is stored."""
        rows = [row for row in self.server.requests() if " /film " in str(row["request"])]
        statuses = [str(row["status"]) for row in rows]
        checks.at_most("film_requests", len(rows), SLEEPS)
        checks.at_least("film_requests_by_range", statuses.count("206"), 1)
        checks.fact("film_bytes_sent", sum(int(str(row["sent"])) for row in rows), "bytes")

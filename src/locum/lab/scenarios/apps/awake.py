"""Orders that run while their device is awake: a download, and a web site of which the device serves a part (A4, A5, R7)."""

from collections.abc import Mapping
from typing import ClassVar

from locum.lab.configuration import HOME_ADDRESS4, Plan, Table
from locum.lab.network.topology import figure_5
from locum.lab.processes import wait_until
from locum.lab.programs.services import WebServer, sha256
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.steps.ordered import Ordered
from locum.lab.steps.stand_ins import Registering, registering
from locum.lab.steps.story import web
from locum.lab.world import Lab

FILM = 6_000_000
RATE = 1_500_000
"""Bytes of the film, and bytes a second that the server sends of it."""
BID = 5
"""Of the device: its own rules lead to it."""
FRIEND = str(figure_5((), 1).address4("cn") + 100)
"""Another address of the correspondent's host, whose requests the device wants to have."""


def _tables(stand_in: Registering) -> Mapping[str, Table]:
    tables = dict(registering(stand_in))
    device = tables["mn"]["mobile_node"]
    assert isinstance(device, dict)
    return {**tables, "mn": {"mobile_node": {**device, "bid": BID}}}


class AppAwake(Scenario):
    """A download begins and ends without a sleep, another outlasts one; requests of one peer reach the device while it is awake."""

    name = "app-awake"
    title = (
        "orders run at the stand-in while the device is awake, for packets of their own connections and ports"
    )
    opaque = "80"
    stand_in: ClassVar[Registering] = Registering("mnps", bid=1)
    plan: ClassVar[Plan] = Plan(default_coa=False, tables=_tables(stand_in))

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.film, self.digests = web(lab, [("film", FILM), ("page", 1000)], str(RATE))
        self._download(lab)
        self._serve(lab)

    def _download(self, lab: Lab) -> None:
        """At once, while the device's own curl asks the same server; then over a sleep."""
        url = f"http://{figure_5((), 1).address4('cn')}"
        self.said = lab.command("mn", "order", "download", f"{url}/film")
        film = Ordered(lab, "film")
        film.wait_for_size("film.part", RATE // 2)
        self.rules = [str(rule["owner"]) for rule in lab.flow_rules() if rule["owner"] != "configuration"]
        page = ["curl", "-s", "-m", "20", "-w", "%{http_code} %{local_ip}", "-o", "/dev/null", f"{url}/page"]
        self.own = lab.processes.run("mn", page).stdout
        lab.close_lid("an1")
        lab.open_lid("an1")
        film.wait_for("delivered")
        wait_until(
            "the device to know", lambda: lab.ask("mn", "order show", name="film")["state"] == "done", 60
        )
        lab.command("mn", "order", "fetch", "film", "-o", str(lab.output))
        self.digest = sha256(lab.output / "film")
        wait_until("the rules of the download to be gone", lambda: not self._led(lab), 30)

    def _led(self, lab: Lab) -> int:
        """Rules at the home agent for the stand-in."""
        return sum(rule["owner"] == "at-mnps" for rule in lab.flow_rules())

    def _serve(self, lab: Lab) -> None:
        server = WebServer(lab.processes, "mn", lab.output / "own", addresses=(str(HOME_ADDRESS4),))
        server.start()
        (server.root / "index.html").write_text("from the device")
        content = lab.output / "content"
        content.mkdir()
        (content / "index.html").write_text("from the stand-in")
        lab.processes.run("cn", ["ip", "address", "add", f"{FRIEND}/32", "dev", "lo"])
        self.answers = {"before": self._pages(lab)}
        lab.command("mn", "order", "publish", "site", str(content), "--when", "always")
        site = Ordered(lab, "site")
        site.wait_for("published")
        wait_until("the stand-in to have the port", lambda: self._led(lab) > 0, 30)
        self.answers["always"] = self._pages(lab)
        rule = ["--protocol", "tcp", "--source", FRIEND, "--destination-port", "80"]
        lab.command("mn", "flow", "add", "--priority", "10", "--to", "mn", *rule)
        self.answers["split"] = self._pages(lab)
        (content / "index.html").write_text("news from the stand-in")
        lab.command("mn", "order", "publish", "site", str(content))
        site.wait_for("published", 2)
        self.answers["updated"] = self._pages(lab)
        lab.close_lid("an1")
        self.answers["asleep"] = self._pages(lab)
        lab.open_lid("an1")
        self.answers["awake"] = self._pages(lab)
        lab.command("mn", "order", "cancel", "site")
        self.answers["cancelled"] = self._pages(lab)
        self.left = self._led(lab)

    def _pages(self, lab: Lab) -> tuple[str, str]:
        """The page as the correspondent gets it, and as the friend does."""
        url = f"http://{HOME_ADDRESS4}/"
        sources = (str(lab.topology.address4("cn")), FRIEND)
        got = [
            lab.processes.run("cn", ["curl", "-s", "-m", "20", "--interface", source, url]).stdout
            for source in sources
        ]
        return got[0], got[1]

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.holds("begins_at_once", "it begins now" in self.said)
        checks.equal("download_digest", self.digest, self.digests["film"])
        requests = [row for row in self.film.requests() if " /film " in str(row["request"])]
        checks.equal("film_requests", len(requests), 1)
        checks.holds("from_the_home_address", all(row["address"] == str(HOME_ADDRESS4) for row in requests))
        checks.equal("rules_of_the_stand_in", ", ".join(self.rules), "at-mnps")
        checks.equal("own_curl", self.own, f"200 {HOME_ADDRESS4}")
        device, old, new = "from the device", "from the stand-in", "news from the stand-in"
        for place, pages in {
            "before": (device, device),
            "always": (old, old),
            "split": (old, device),
            "updated": (new, device),
            "asleep": (new, new),
            "awake": (new, device),
            "cancelled": (device, device),
        }.items():
            checks.equal(f"served_{place}", " / ".join(self.answers[place]), " / ".join(pages))
        checks.equal("rules_left", self.left, 0)

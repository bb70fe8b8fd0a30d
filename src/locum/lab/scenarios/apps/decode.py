"""A sleeping device's downloads are unpacked, those of stock packers and a bomb (A9)."""

import json
import wave
from pathlib import Path

from locum.lab.configuration import Plan
from locum.lab.errors import LabError
from locum.lab.network.topology import figure_5
from locum.lab.programs import services
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.steps.ordered import Ordered
from locum.lab.steps.story import web
from locum.lab.steps.waking import judge_wakes
from locum.lab.world import Lab

ARCHIVES = {
    "a.tar.zst": "tar -cf - -C {folder} film text | zstd -q",
    "b.tar.xz": "tar -cJf - -C {folder} film text",
    "c.tar.gz": "tar -czf - -C {folder} film text",
    "d.zip": "cd {folder} && zip -q - film text",
    "e.tar": "tar -cf - -C {folder} film text",
    "text.gz": "gzip -c {folder}/text",
}
BOMB = "zeros.zst"
SONG = "song.flac"
MEMBERS = ("film", "text")


class AppDecode(Scenario):
    """One order of eight files, two at a time."""

    name = "app-decode"
    title = "archives and audio arrive and are unpacked while their device sleeps; a bomb is not"
    plan = Plan(
        tables={
            "mn": {
                "mobile_node": {
                    "app": [
                        {
                            "kind": "download",
                            "name": "files",
                            "settings": {
                                "url": [
                                    f"http://{figure_5((), 1).address4('cn')}/{name}"
                                    for name in (*ARCHIVES, SONG, BOMB)
                                ],
                                "decode": {"max_size": 100_000_000, "audio": True},
                            },
                        }
                    ]
                }
            }
        }
    )

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        server, _ = web(lab, [])
        folder = lab.output / "packed"
        folder.mkdir()
        services.make_file(folder / "film", 3_000_000)
        (folder / "text").write_text("".join(f"line {number}\n" for number in range(100_000)))
        self.wanted = {name: services.sha256(folder / name) for name in MEMBERS}
        for name, command in ARCHIVES.items():
            self._pack(lab, server.root / name, command.format(folder=folder))
        encoder = "flac -s -c --force-raw-format --endian=little --sign=signed --channels=2 --bps=16 --sample-rate=44100"
        self._pack(lab, server.root / SONG, f"{encoder} {folder}/film")
        self._pack(lab, server.root / BOMB, "head -c 300000000 /dev/zero | zstd -q -19")
        lab.close_lid("an1")
        self.files = Ordered(lab, "files")
        self.files.wait_for("decode_failed")
        self.files.wait_for("decoded", len(ARCHIVES) + 1)
        self.contents = {name: self._unpacked(name) for name in ARCHIVES}
        (song,) = [path for path in self.files.file("x").parent.glob(f"{SONG}.1.*")]
        with wave.open(str(song)) as samples:
            self.song = samples.readframes(samples.getnframes())
        self.film = (folder / "film").read_bytes()
        self.left = sorted(
            path.name for path in self.files.file("x").parent.iterdir() if "zeros" in path.name
        )
        lab.open_lid("an1")

    @staticmethod
    def _pack(lab: Lab, target: Path, command: str) -> None:
        with target.open("wb") as file:
            done = lab.processes.run("cn", ["sh", "-c", f"({command}) > {target}"])
        if done.returncode or not target.stat().st_size:
            raise LabError(f"{file.name}: {done.stderr.strip()}")

    def _unpacked(self, name: str) -> dict[str, str]:
        """Digests of the members of an archive by their paths."""
        rows = [json.loads(line) for line in self.files.file(f"{name}.contents").read_text().splitlines()]
        return {row["path"]: self.files.sha256(row["file"]) for row in rows}

    def judge(self, lab: Lab, checks: Checks) -> None:
        for name in ARCHIVES:
            wanted = {"text": self.wanted["text"]} if name == "text.gz" else self.wanted
            checks.holds(f"contents_of_{name}", self.contents[name] == wanted)
        checks.holds("song_has_its_samples", self.song == self.film)
        (failed,) = self.files.events("decode_failed")
        checks.equal("bomb", failed["name"], BOMB)
        checks.holds("bomb_has_a_reason", "more than" in failed["reason"])
        checks.holds("nothing_of_the_bomb_but_itself", self.left == [BOMB])
        results = [event.detail["result"] for event in lab.timeline.of("mn") if event.kind == "app-result"]
        checks.holds("order_done", [result.get("done") for result in results] == [True])
        checks.holds("files_to_fetch", [len(result["files"]) for result in results] == [8 + 7 + 12])
        judge_wakes(lab, checks, ("delivered", "decoded", "decode_failed"))
        checks.equal("restarts", len([e for e in lab.timeline.of("mnps") if e.kind == "app-failed"]), 0)

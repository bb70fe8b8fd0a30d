"""`locum demo`: Fig. 6 shown live in a terminal, with the facts and the message diagram at the end; then a second act, in
which a proxy keeps an MQTT client connected, and the right message wakes its device."""

import shutil
import sys
import time
from pathlib import Path

import click
from rich.console import Console

from locum.cli.lab import ready
from locum.lab.errors import Interrupted, LabError
from locum.lab.report.report import Report, cleared
from locum.lab.scenario import perform
from locum.lab.scenarios.paging.demo import PageDemo
from locum.lab.scenarios.sleep.fig06 import SIZE, Fig06
from locum.lab.screen import Screen
from locum.lab.timeline import Event
from locum.node.exits import Exit

SECOND_ACT = {
    "lab-stands": "the lab stands again; mosquitto_sub on the mobile node subscribes, with a keep-alive of 5 seconds",
    "lid-closes": "the lid closes: `locum sleep`, after `locum wake-on` for packets with the word alert",
    "asleep": "asleep: a proxy at the stand-in sends MQTT pings on the same connection",
    "published": "somebody publishes: {text}",
    "sent-to-sleeper": "the correspondent sends a datagram: {text}",
    "still-asleep": "the device sleeps on",
    "paged": "paged: the stand-in has told the home agent, for this one alone",
    "awake": "awake: the connection is back in the same mosquitto_sub",
    "arrived": "mosquitto_sub has: {text}",
}


@click.command()
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-output"),
    show_default=True,
    help="Captures, events, diagram and report go here; files of an earlier demo are replaced.",
)
def demo(output: Path) -> None:
    """Show a device that falls asleep during a download without interrupting it."""
    console = Console()
    ready(console)
    if not cleared(output):
        console.out(f"locum: {output} exists and is not from a demo; give another --output", highlight=False)
        sys.exit(Exit.FAILED)
    console.out("Building the network of Fig. 5 in namespaces and starting the daemons ...", highlight=False)
    screen = Screen(console, SIZE)
    scenario = Fig06(on_download=screen.follow)
    try:
        with screen.live():
            report = perform(scenario, output, listener=screen.happened, watch=screen.watch)
    except LabError as problem:
        console.out(f"locum: {problem}", highlight=False)
        sys.exit(Exit.FAILED)
    except Interrupted as reason:
        shutil.rmtree(output, ignore_errors=True)
        console.out(
            f"locum: {reason}: stopped; everything that the demo had made is removed", highlight=False
        )
        sys.exit(Exit.INTERRUPTED)
    report.write(output / "report.json")
    _show(console, report, output)
    second = _second_act(console, output / "mqtt-act")
    sys.exit(0 if report.ok and second else Exit.FAILED)


def _second_act(console: Console, output: Path) -> bool:
    """Play the MQTT story; True if all its checks hold."""
    console.out(
        "\nSecond act: an MQTT client sleeps three times as long as its keep-alive, until the right message comes ...",
        highlight=False,
    )
    begin = time.time()

    def happened(event: Event) -> None:
        if (words := SECOND_ACT.get(event.kind)) is not None:
            text = words.format(**event.detail)
            console.out(f"{event.time - begin:6.1f} s  {text}", highlight=False)

    try:
        report = perform(PageDemo(), output, listener=happened)
    except LabError as problem:
        console.out(f"locum: {problem}", highlight=False)
        return False
    except Interrupted as reason:
        shutil.rmtree(output, ignore_errors=True)
        console.out(f"locum: {reason}: the second act is stopped and removed", highlight=False)
        sys.exit(Exit.INTERRUPTED)
    report.write(output / "report.json")
    report.print(console)
    return report.ok


def _show(console: Console, report: Report, output: Path) -> None:
    diagram = report.ladder["text"].read_text()
    if console.width >= max(len(line) for line in diagram.splitlines()):
        console.print(diagram, highlight=False, markup=False)
    report.print(console)
    console.out("\nlook yourself:", highlight=False)
    console.out(f"  messages  {output}/ladder.html (and ladder.txt)", highlight=False)
    console.out(
        f"  packets   {output}/pcap/*.pcap, one a node: tshark -r {output}/pcap/mn.pcap", highlight=False
    )
    console.out(f"  events    {output}/events.jsonl, facts in {output}/report.json", highlight=False)

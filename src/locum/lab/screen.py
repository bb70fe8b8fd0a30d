"""The live view of a running lab: registrations, receivers, and recent events.

It looks from outside, as the person at the terminal could: files, process states, interfaces, control sockets.
Without a terminal it prints a line when something happens, and one now and then while nothing does.
"""

import contextlib
import threading
import time
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from locum.lab.errors import LabError
from locum.lab.processes import is_frozen, state_of
from locum.lab.steps.story import Download
from locum.lab.timeline import Event
from locum.lab.world import Lab
from locum.node.control.client import NodeUnreachable

WORDS = {
    "lab-stands": "the lab stands: eleven nodes, six daemons, every packet is captured",
    "download-starts": "curl on the mobile node starts to download from nginx at the correspondent",
    "lid-closes": "the lid closes: `locum sleep`",
    "asleep": "asleep: the stand-in owns the connection, curl is frozen",
    "radio-cut": "the radio is off: the link is down",
    "radio-restored": "the radio is on again",
    "lid-opens": "the lid opens: `locum wake`",
    "awake": "awake: the connection is back in the same curl",
    "download-ended": "curl has ended; captures and kernel counters are read and measured",
}


class Screen:
    """Given to `perform` as its listener and its watcher."""

    def __init__(self, console: Console, size: int) -> None:
        self.console = console
        self.size = size
        self.lab: Lab | None = None
        self.download: Download | None = None
        self.begin = time.time()
        self.said: list[tuple[float, str]] = []
        self.lid_open = True
        self.radio_up = True
        self._held = 0
        self._asked = 0.0
        self._ended = threading.Event()

    # Messages -------------------------------------------------------------------------------------------------------

    def watch(self, lab: Lab) -> None:
        """The lab is built."""
        self.lab = lab

    def follow(self, download: Download) -> None:
        """curl runs."""
        self.download = download

    def happened(self, event: Event) -> None:
        """A mark of the lab."""
        if event.kind in ("lid-closes", "lid-opens"):
            self.lid_open = event.kind == "lid-opens"
        if event.kind in ("radio-cut", "radio-restored"):
            self.radio_up = event.kind == "radio-restored"
        words = WORDS.get(event.kind)
        if words is not None:
            self.said.append((event.time - self.begin, words))
            if not self.console.is_terminal:
                self.console.out(f"{event.time - self.begin:6.1f} s  {words}", highlight=False)

    # Observations ---------------------------------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """Bytes that the stand-in has received for the sleeper, by `locum session list` there."""
        if self.lab is not None and time.monotonic() - self._asked > 0.2:
            self._asked = time.monotonic()
            with contextlib.suppress(NodeUnreachable, LabError):
                self._held = sum(int(row.get("total", 0)) for row in self.lab.sessions("mnps"))
        return self._held

    @property
    def process(self) -> str:
        """curl as the kernel has it: its pid and whether it can run."""
        if self.download is None:
            return "not started"
        pid = self.download.program.pid
        state = state_of(pid)
        if not state or state == "Z" or not self.download.program.running:
            return f"pid {pid}: ended"
        return f"pid {pid}: frozen, state {state}" if is_frozen(pid) else f"pid {pid}: running, state {state}"

    # How it looks ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Show until the block ends."""
        if self.console.is_terminal:
            with Live(get_renderable=self.render, console=self.console, refresh_per_second=8, transient=True):
                yield
            self.console.print(self.render())
            return
        teller = threading.Thread(target=self._tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            self._ended.set()
            teller.join()

    def _tell(self) -> None:
        while not self._ended.wait(2.0):
            if self.download is not None and self.download.program.running:
                self.console.out(
                    f"{time.time() - self.begin:6.1f} s  curl has {self.download.received / 1e6:5.1f} MB "
                    f"({self.process}), the stand-in holds {self.held / 1e6:5.1f} MB",
                    highlight=False,
                )

    def render(self) -> RenderableType:
        story = Text()
        for at, words in self.said[-9:]:
            story.append(f"{at:6.1f} s  ", style="dim").append(words + "\n")
        return Group(
            Panel(Group(self._map(), self._bars()), title="Fig. 6", title_align="left", border_style="blue"),
            story,
        )

    def _map(self) -> Text:
        radio = ("~~~~ radio ~~~~", "green") if self.radio_up else ("     off       ", "red")
        at_stand_in = not self.lid_open
        device = ("mobile node 504 asleep", "yellow") if at_stand_in else ("mobile node 504", "green")
        stand_in = ("stand-in 504'' (MNPS)", "green" if at_stand_in else "dim")
        return Text.assemble(
            "correspondent 542 ── router 546 ── router 520 ─┬─ router 536 ── home agent 532\n",
            "     nginx                                     ├─ access node 505 ", radio, " ", device, "\n",
            "                                               └─ access node 505'' ──────── ", stand_in,
        )  # fmt: skip

    def _bars(self) -> Table:
        received = self.download.received if self.download else 0
        table = Table.grid(padding=(0, 2))
        for name, value, style, remark in (
            ("curl has written", received, "green", self.process),
            ("the stand-in holds", self.held, "yellow", "data for the sleeping device"),
        ):
            bar = ProgressBar(total=self.size, completed=value, width=34, complete_style=style)
            table.add_row(name, bar, f"{value / 1e6:6.1f} MB", Text(remark, style="dim"))
        return table

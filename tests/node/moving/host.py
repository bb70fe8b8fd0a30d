"""A private system bus with logind and NetworkManager as python-dbusmock plays them."""

import asyncio
import os
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from dbus_fast import Variant

from locum.node.moving.bus import SystemBus

MOCK = "org.freedesktop.DBus.Mock"
LOGIND, MANAGER, LOGIND_PATH = (
    "org.freedesktop.login1",
    "org.freedesktop.login1.Manager",
    "/org/freedesktop/login1",
)
NETWORK, NETWORK_PATH = "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager"
_CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>"""


class Host:
    """Processes of one test; $DBUS_SYSTEM_BUS_ADDRESS has to be `address` meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / "bus"
        self.address = f"unix:path={self._path}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start_bus(self) -> None:
        configuration = self._folder / "bus.conf"
        configuration.write_text(_CONFIGURATION.format(path=self._path))
        self._path.unlink(missing_ok=True)
        self._start("bus", "dbus-daemon", f"--config-file={configuration}", "--nofork", "--nopidfile")
        until(self._path.exists)

    def start(self, template: str) -> None:
        """Play a service. The system's interpreter has python-dbusmock."""
        service = {"logind": LOGIND, "networkmanager": NETWORK}[template]
        self._start(template, "/usr/bin/python3", "-m", "dbusmock", "--template", template)

        def there() -> bool:
            return bool(self._use(lambda bus: bus.has(service)))

        until(there)

    def stop(self, name: str) -> None:
        process = self._processes.pop(name)
        process.terminate()
        process.wait(10)

    def stop_all(self) -> None:
        for name in reversed(list(self._processes)):
            self.stop(name)

    def prepare(self, *, sleep: bool | None = None, shutdown: bool | None = None) -> None:
        """Let logind send a signal, and have its property for it."""
        member, flag = ("PrepareForSleep", sleep) if shutdown is None else ("PrepareForShutdown", shutdown)
        name = member.replace("Prepare", "Preparing")
        self._mock(LOGIND, LOGIND_PATH, "UpdateProperties", "sa{sv}", [MANAGER, {name: Variant("b", flag)}])
        self._mock(LOGIND, LOGIND_PATH, "EmitSignal", "sssav", [MANAGER, member, "b", [Variant("b", flag)]])

    def delay(self, seconds: float) -> None:
        value = {"InhibitDelayMaxUSec": Variant("t", int(seconds * 1e6))}
        self._mock(LOGIND, LOGIND_PATH, "AddProperties", "sa{sv}", [MANAGER, value])

    def connectivity(self, number: int) -> None:
        self._mock(NETWORK, NETWORK_PATH, "SetConnectivity", "u", [number])

    def locks(self) -> list[Any]:
        """The locks of logind: what, who, why, mode, and whose."""
        found: list[Any] = self._use(
            lambda bus: bus.call(LOGIND, LOGIND_PATH, f"{MANAGER}.ListInhibitors")
        ).body[0]
        return found

    def _mock(self, service: str, path: str, method: str, signature: str, body: list[Any]) -> None:
        self._use(lambda bus: bus.call(service, path, f"{MOCK}.{method}", signature, body))

    def _use(self, use: Callable[[SystemBus], Awaitable[Any]]) -> Any:
        async def used() -> Any:
            bus = await SystemBus.open()
            try:
                return await use(bus)
            finally:
                await bus.close()

        return asyncio.run(used())

    def _start(self, name: str, *command: str) -> None:
        environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": self.address}
        log = (self._folder / f"{name}.log").open("ab")
        self._processes[name] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)

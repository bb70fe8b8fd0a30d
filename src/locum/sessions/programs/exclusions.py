"""Programs whose connections are left alone: by name, user, unit or port. Above all those that get a device online.

A frozen resolver, network manager or VPN would keep the device from ever reaching its stand-in again. Read only (/proc).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache

from locum.sessions.programs.process import executable, program_name, units, users
from locum.wire.control import Flow

_COMM = 15  # bytes of a program's name that the kernel keeps

RESOLVERS = (
    "systemd-resolved",
    "dnsmasq",
    "unbound",
    "named",
    "stubby",
    "dnscrypt-proxy",
    "nscd",
    "avahi-daemon",
)
NETWORK = (
    "NetworkManager", "nm-*", "systemd-networkd", "networkd-dispatcher", "ModemManager", "wpa_supplicant", "iwd",
    "dhclient", "dhcpcd", "udhcpc", "connmand", "pppd", "bluetoothd",
)  # fmt: skip
DESKTOP = (
    "gnome-shell", "gnome-session-*", "kwin_wayland", "kwin_x11", "plasmashell", "Xorg", "Xwayland", "sway", "labwc",
    "weston", "cinnamon", "mutter", "xfwm4", "marco", "gdm*", "sddm*", "lightdm*",
)  # fmt: skip
TUNNELS = (
    "openvpn", "charon*", "pluto", "openconnect", "vpnc", "wireguard-go", "wg-quick", "tailscaled", "zerotier-one",
    "nebula", "xl2tpd", "mullvad-daemon",
)  # fmt: skip
LOGINS = (
    "sssd*", "nslcd", "winbindd", "rsyslogd", "syslog-ng",
)  # fmt: skip
FILES = (
    "mount.*", "umount.*", "rpc.*", "automount", "autofs", "sshfs", "gvfsd*", "davfs*", "iscsid", "nbd-client", "usbip*",
)  # fmt: skip
PORTALS = ("gnome-shell-portal-helper", "captive-browser", "nm-connectivity*")
SYSTEM = (
    "systemd",
    "systemd-*",
    "init",
    "dbus-daemon",
    "dbus-broker*",
    "polkitd",
    "chronyd",
    "ntpd",
    "locum",
)
DEFAULT_PROGRAMS = (*RESOLVERS, *NETWORK, *DESKTOP, *TUNNELS, *LOGINS, *FILES, *PORTALS, *SYSTEM)


@dataclass(frozen=True, slots=True)
class Exclusions:
    """`programs` and `units` are names or patterns (`*`, `?`), `users` user ids, `ports` those of either end."""

    programs: tuple[str, ...] = DEFAULT_PROGRAMS
    users: frozenset[int] = frozenset()
    units: tuple[str, ...] = ()
    ports: frozenset[int] = frozenset()

    def judge(self) -> "Callable[[Flow, Iterable[int]], str | None]":
        """A function that gives the reason for leaving a connection of these processes alone."""
        of_process = cache(self._of_process)

        def reason(flow: Flow, pids: Iterable[int]) -> str | None:
            for port in (flow.local_port, flow.peer_port):
                if port in self.ports:
                    return f"port {port} is excluded"
            return next((why for pid in pids if (why := of_process(pid)) is not None), None)

        return reason

    def excludes(self, name: str, file: str) -> bool:
        """True if a program is excluded, by its kernel name (15 bytes) or by that of its file."""
        return any(
            fnmatchcase(name, pattern) or fnmatchcase(file, pattern) or name == pattern[:_COMM]
            for pattern in self.programs
        )

    def _of_process(self, pid: int) -> str | None:
        name, file = program_name(pid), executable(pid)
        if self.excludes(name, file):
            return f"program {file if self.excludes(file[:_COMM], file) else name} is excluded"
        for user in users(pid) if self.users else ():
            if user in self.users:
                return f"user {user} is excluded"
        for unit in units(pid) if self.units else ():
            names = (unit, unit.rpartition(".")[0])  # also without .service or .scope
            if any(fnmatchcase(name, pattern) for name in names for pattern in self.units):
                return f"unit {unit} is excluded"
        return None


THE_DEFAULT = Exclusions()
NOTHING_EXCLUDED = Exclusions(programs=())

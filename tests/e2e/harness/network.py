# SPDX-License-Identifier: MIT
"""A private network for one test: a bridge, a tap for each machine, and the test itself as an outside client."""

import atexit
import ctypes
import os
import shutil
import subprocess
import sys

from . import paths

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def become_network_admin() -> None:
    """Starts this program again with the rights to make networks, if it lacks them: in a user namespace of its
    own where the machine allows that, by sudo otherwise. Call it first thing, before any thread."""
    if os.geteuid() == 0:
        _leave_files_to(os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID"))
        return
    namespace = ["unshare", "--map-root-user", "--net"]
    probe = namespace + ["sh", "-c", "ip tuntap add dev t0 mode tap"]
    if subprocess.run(probe, capture_output=True).returncode == 0:
        os.execvp(namespace[0], namespace + sys.orig_argv)
    if not shutil.which("sudo"):
        sys.exit("test networks need root, or user namespaces and an open /dev/net/tun: run this as root")
    os.execvp("sudo", ["sudo", "--preserve-env=HOME,XDG_CACHE_HOME,PATH"] + sys.orig_argv)


def _leave_files_to(user: str | None, group: str | None) -> None:
    """What this program makes as root in a user's own tree becomes theirs when it ends."""
    if user and os.stat(paths.ROOT).st_uid == int(user) != 0:
        atexit.register(subprocess.run, ["find", paths.ROOT, "-xdev", "-user", "root", "-exec",
                                         "chown", "-h", f"{user}:{group}", "{}", "+"])


def _call(function: str, *arguments: int) -> None:
    if getattr(_libc, function)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{function}: {os.strerror(error)}; making test networks needs root")


class Network:
    """A context in which this thread, the threads and the machines it starts live in a network namespace of their
    own. The namespace has no name and vanishes with its last user, so nothing is left behind however a test ends.

    The test stands on the bridge as `client` (IPv4) and `client6`; give the machines other addresses of the
    same subnets. `rate_mbit` limits every link towards a machine; `mtu` is every link's."""

    def __init__(self, taps: list[str], subnet: str = "10.77.0", subnet6: str = "fd77:5f::",
                 rate_mbit: float | None = None, mtu: int = 1500):
        self.taps = taps
        self.client = f"{subnet}.1"
        self.client6 = f"{subnet6}1"
        self._prefixes = (f"{self.client}/24", f"{self.client6}/64")
        self._rate_mbit = rate_mbit
        self._mtu = mtu
        self._outer: int | None = None

    def __enter__(self) -> "Network":
        self._outer = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        _call("unshare", CLONE_NEWNET)
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        _call("setns", self._outer, CLONE_NEWNET)
        os.close(self._outer)

    def _build(self) -> None:
        _run("ip link set lo up")
        # No multicast snooping: without a querier it would lose IPv6 neighbour discovery.
        _run("ip link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
        for prefix in self._prefixes:
            _run(f"ip addr add {prefix} dev br0" + (" nodad" if ":" in prefix else ""))
        _run(f"ip link set br0 mtu {self._mtu} up")
        for tap in self.taps:
            _run(f"ip tuntap add dev {tap} mode tap")
            _run(f"ip link set {tap} mtu {self._mtu} up")
            self.restore(tap)
            if self._rate_mbit:
                self.limit(tap, self._rate_mbit)

    def limit(self, tap: str, rate_mbit: float | None) -> None:
        """Limits the link towards a machine (None: no limit), keeping about 50 ms of queue."""
        subprocess.run(f"tc qdisc del dev {tap} root".split(), capture_output=True)
        if rate_mbit:
            burst = max(16 * 1024, int(rate_mbit * 1e6 / 8 / 250))
            _run(f"tc qdisc add dev {tap} root tbf rate {int(rate_mbit * 1e6)}bit burst {burst} latency 50ms")

    def cut(self, tap: str) -> None:
        """Pulls a machine's cable at the switch; the machine itself sees no change of its carrier.

        Taking the tap down would be simpler, but the emulators treat writing to a tap that is down as fatal."""
        _run(f"ip link set {tap} nomaster")

    def restore(self, tap: str) -> None:
        """Plugs a machine's cable in."""
        _run(f"ip link set {tap} master br0")


def _run(command: str) -> None:
    result = subprocess.run(command.split(), capture_output=True, text=True)
    if result.returncode != 0:
        raise OSError(f"'{command}' failed: {result.stderr.strip()}")

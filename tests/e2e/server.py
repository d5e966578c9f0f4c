# SPDX-License-Identifier: MIT
"""A Debian server on a volume, the clients that use it from outside, and its moves with disk and memory."""

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path

from harness import clients, moves, paths
from harness.machine import Disk
from harness.pair import Group, GuestSpec, Host
from harness.store import skiff_store

NAME = "web"
STORE = "local"
VOLUME = f"{STORE}/{NAME}"
ADDRESS = "10.77.0.50"
MEMORY = 512
HOST_MEMORY = 2560  # so that a guest comes back to memory that no guest had: QEMU is slow to write to the other
WORD_S = 0.2  # within so much of it the source says that a move has ended
NEAR_S = 5.0  # clients get on this near to the blackout, on both sides of it


def guest(**options) -> GuestSpec:
    network = f"ip={ADDRESS}::10.77.0.1:255.255.255.0:debian:eth0:off"
    return GuestSpec(NAME, paths.debian("vmlinuz"), f"root=LABEL=skiff-root console=ttyS0,115200 net.ifnames=0 {network}",
                     MEMORY, modules=[paths.debian("initrd")], disks=[VOLUME], **options)


def datastore(image: Path, root: Path | None = None, mib: int = 3072) -> Disk:
    """A disk with a datastore, which holds the server's volume if `root` says what is to be on it."""
    image.parent.mkdir(parents=True, exist_ok=True)
    image.unlink(missing_ok=True)
    skiff_store("create", image, STORE, f"{mib}M")
    if root:
        skiff_store("import", image, NAME, root)
    return Disk(image)


def group(folder: Path, machine: str, **options) -> Group:
    """Two hosts that share nothing but the network; the server is on alpha."""
    disks = {"alpha": [datastore(folder / "alpha-data.img", paths.debian("root.img"))],
             "bravo": [datastore(folder / "bravo-data.img")]}
    settings = {"ram_mib": HOST_MEMORY, "nic": "virtio-net-pci"} | options
    return Group(folder, ["alpha", "bravo"], machine, migrate={"verify": "on"}, disks=disks,
                 guests={"alpha": [guest()]}, **settings)


def start(host: Host, timeout: float = 240) -> None:
    host.ok(f"start {NAME}")
    clients.wait_ssh(ADDRESS, timeout)
    clients.Pgbench.prepare(ADDRESS)


@dataclass
class Use:
    """The clients of one server: an ssh session and an iperf3 connection that stream, a database connection that
    commits, and pgbench."""

    ssh: clients.SshStream = field(default_factory=lambda: clients.SshStream(ADDRESS))
    stream: clients.Iperf = field(default_factory=lambda: clients.Iperf(ADDRESS))
    commits: clients.Committer = field(default_factory=lambda: clients.Committer(ADDRESS))
    load: clients.Pgbench = field(default_factory=lambda: clients.Pgbench(ADDRESS))
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> "Use":
        self._resets = clients.reset_connections()
        try:
            for client in self._clients():
                self._stack.enter_context(client)
            self.wait(20)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    def _clients(self) -> tuple[clients.Client, ...]:
        return self.ssh, self.stream, self.commits, self.load

    def wait(self, count: int, timeout: float = 60) -> None:
        """Waits until every client got on: `count` lines of the session, a tenth as many commits."""
        self.ssh.wait_lines(count, timeout)
        self.commits.wait_lines(max(1, count // 10), timeout)

    def check(self) -> None:
        for client in self._clients():
            client.check_alive()
        self.ssh.check_order()
        assert self.resets() == 0, f"{self.resets()} TCP connections were reset"
        assert not self.load.failed(), self.load.failed()

    def resets(self) -> int:
        return clients.reset_connections() - self._resets


@dataclass
class ServerMove:
    job: dict
    handover_gap_ms: float  # the silence of the ssh session when the server changed hosts
    lines_before: int  # of the session, from the start of the move to the hand-over
    gap_ms: float  # the longest silence of the session in the whole move
    silent: tuple[float, float]  # when that was, wall
    bytes_near: tuple[int, int]  # lines of the session within NEAR_S before and after it
    commits_near: tuple[int, int]


def move(source: Host, target: Host, use: Use, timeout: float = 600, tell=lambda line: None) -> ServerMove:
    """Moves the server with its disk while it is used, and lets its clients go on for a while afterwards."""
    begin, position = time.monotonic(), source.machine.serial.position
    use.wait(20)
    job = moves.watch_move(source, NAME, target, timeout, tell, use.ssh.check_alive, options="--disk")
    assert job["phase"] == "done", f"the move of {NAME} ended as {job}"
    use.wait(100)
    use.check()
    ended = next(line.wall for line in source.machine.serial.lines(position) if moves.ENDED_LINE.search(line.text))
    handover = ended - (job["ended_ns"] - job["running_ns"]) / 1e9
    stamps = [wall for wall, _ in use.ssh.lines if wall >= begin]
    silences = list(zip(stamps, stamps[1:]))
    silent = max(silences, key=lambda pair: pair[1] - pair[0])
    then = max(b - a for a, b in silences if a <= handover + WORD_S and b >= handover - WORD_S)

    def near(client) -> tuple[int, int]:
        return client.seen_between(silent[0] - NEAR_S, silent[0]), client.seen_between(silent[1], silent[1] + NEAR_S)

    deadline = time.monotonic() + NEAR_S
    while not (min(near(use.commits)) and use.stream.carried(silent[1])) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert use.stream.carried(silent[1]), "the iperf3 connection stands still"
    return ServerMove(job, then * 1000, sum(wall < handover for wall in stamps), (silent[1] - silent[0]) * 1000, silent, near(use.ssh), near(use.commits))


def check_move(result: ServerMove) -> None:
    assert result.job["digest"] == "match" and result.job["disk_digest"] == "match", result.job
    assert min(result.bytes_near) > 0 and min(result.commits_near) > 0, result


def damage(use: Use) -> list[str]:
    """What is wrong with the database: commits that were acknowledged and are lost, and what its own checks find."""
    lost = use.commits.lost()
    return ([f"{len(lost)} acknowledged commits are lost, the first is {lost[0]}"] if lost else []) + \
        clients.database_errors(ADDRESS)

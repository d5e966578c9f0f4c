# SPDX-License-Identifier: MIT
"""Real clients of a guest, outside of its hosts: an ssh session, a TCP stream, a database under load.

Each runs in the network namespace of the thread that starts it, keeps what it saw with wall-clock stamps
(time.monotonic() seconds), and ends with its context."""

import re
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from . import paths

SSH_OPTIONS = ["-o", "LogLevel=ERROR", "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
               "-o", "UserKnownHostsFile=/dev/null", "-o", "ServerAliveInterval=15"]
DATABASE = "postgres"


def ssh_command(address: str, *command: str, connect_timeout: int = 30) -> list[str]:
    return ["ssh", *SSH_OPTIONS, "-o", f"ConnectTimeout={connect_timeout}", "-i", str(_key()), f"root@{address}", *command]


def _key() -> Path:
    """The guest's key, where only its reader may read it: ssh refuses one that belongs to somebody else."""
    key = paths.BUILD / "e2e" / "debian-key"
    key.parent.mkdir(parents=True, exist_ok=True)
    content = paths.debian("key").read_bytes()
    if not key.exists() or key.read_bytes() != content:
        key.touch(0o600)
        key.write_bytes(content)
    return key


def ssh(address: str, command: str, timeout: float = 60) -> str:
    """Runs one command in the guest; returns what it printed. timeout is wall seconds."""
    result = subprocess.run(ssh_command(address, command), capture_output=True, text=True, timeout=timeout)
    assert result.returncode == 0, f"ssh {address} '{command}' ended with {result.returncode}: {result.stderr}"
    return result.stdout


def wait_ssh(address: str, timeout: float) -> None:
    """Waits until the guest lets us in and says that it has started everything."""
    deadline = time.monotonic() + timeout
    last = ""
    while time.monotonic() < deadline:
        tried = subprocess.run(ssh_command(address, "systemctl is-system-running --wait", connect_timeout=20),
                               capture_output=True, text=True)
        last = (tried.stdout + tried.stderr).strip()
        if last == "running":
            return
        assert "denied" not in last, f"{address}: {last}"
        assert last != "degraded", f"{address}: a service failed: {ssh(address, 'systemctl --failed --no-legend')}"
        time.sleep(0.5)
    raise AssertionError(f"{address}: no ssh within {timeout:g} s; the last try said '{last}'")


def reset_connections() -> int:
    """TCP connections of this namespace that were reset while they were established (RFC 1213, tcpEstabResets)."""
    names, values = [line.split()[1:] for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()
                     if line.startswith("Tcp:")]
    return int(dict(zip(names, values))["EstabResets"])


class Client:
    """A process whose output lines are kept with the time of their arrival."""

    name = "client"
    errors_among_lines = False

    def __init__(self, command: list[str]):
        self._command = command
        self._errors = tempfile.TemporaryFile("w+")
        self.lines: list[tuple[float, str]] = []

    def __enter__(self):
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *self._command], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, bufsize=1,
                                        stderr=subprocess.STDOUT if self.errors_among_lines else self._errors)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.rstrip("\n")))

    def __exit__(self, *_) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
        self._reader.join()
        self._errors.close()

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read().strip()

    def check_alive(self) -> None:
        assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}: {self.errors()}"

    def wait_lines(self, count: int, timeout: float) -> None:
        """Waits for `count` lines from now on."""
        wanted, deadline = len(self.lines) + count, time.monotonic() + timeout
        while len(self.lines) < wanted:
            self.check_alive()
            assert time.monotonic() < deadline, f"{self.name}: no {count} lines within {timeout:g} s"
            time.sleep(0.02)

    def longest_gap_ms(self, since: float = 0.0) -> float:
        stamps = [wall for wall, _ in self.lines if wall >= since]
        return max((b - a for a, b in zip(stamps, stamps[1:])), default=0.0) * 1000

    def seen_between(self, begin: float, end: float) -> int:
        return sum(begin <= wall <= end for wall, _ in self.lines)


class SshStream(Client):
    """One ssh session that says a number every 20 ms."""

    name = "the ssh session"

    def __init__(self, address: str):
        count = "$| = 1; while (1) { print ++$i, qq(\\n); select undef, undef, undef, 0.02 }"
        super().__init__(ssh_command(address, f"perl -e '{count}'"))

    def check_order(self) -> None:
        numbers = [int(text) for _, text in self.lines]
        assert numbers == list(range(1, len(numbers) + 1)), "the ssh session lost or repeated lines"


class Iperf(Client):
    """One TCP connection to the guest's iperf3 at a steady rate, with a line a second."""

    name = "iperf3"
    FOR_S = 86400  # longer than anybody uses it

    def __init__(self, address: str, mbit: int = 1):
        super().__init__(["iperf3", "--client", address, "--time", str(self.FOR_S), "--bitrate", f"{mbit}M", "--length", "4K",
                          "--forceflush"])

    def carried(self, since: float) -> bool:
        """Whether bytes got through after this moment."""
        return any(wall >= since + 1 and re.search(r" [1-9][\d.]* [KMG]?Bytes ", text) for wall, text in self.lines)


class Committer(Client):
    """Commits one row after the other through one connection of psql, and keeps outside what was acknowledged."""

    name = "psql"
    TABLE = "acknowledged"

    def __init__(self, address: str):
        super().__init__(["psql", "--no-psqlrc", "-h", address, "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-qAt", DATABASE])
        self.address = address

    def __enter__(self):
        query(self.address, f"CREATE TABLE IF NOT EXISTS {self.TABLE} (id bigint PRIMARY KEY, text text)")
        super().__enter__()
        self._stop = False
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._writer.start()
        return self

    def _write(self) -> None:
        """Asks for the next commit when the last one is acknowledged."""
        try:
            while not self._stop:
                number = len(self.lines) + 1
                self.process.stdin.write(f"INSERT INTO {self.TABLE} VALUES ({number}, repeat('{number} ', 20)) RETURNING id;\n")
                self.process.stdin.flush()
                while len(self.lines) < number and self.process.poll() is None and not self._stop:
                    time.sleep(0.005)
        except (BrokenPipeError, ValueError):
            pass  # psql has ended; check_alive says why

    def __exit__(self, *exception) -> None:
        self._stop = True
        self._writer.join()
        super().__exit__(*exception)

    def acknowledged(self) -> list[int]:
        return [int(text) for _, text in self.lines]

    def lost(self) -> list[int]:
        """Commits that were acknowledged and are not there."""
        acknowledged = self.acknowledged()
        there = {int(i) for i in query(self.address, f"SELECT id FROM {self.TABLE}").split()}
        return [i for i in acknowledged if i not in there]


def query(address: str, sql: str, timeout: float = 120) -> str:
    result = subprocess.run(["psql", "--no-psqlrc", "-h", address, "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-qAt",
                             "-c", sql, DATABASE], capture_output=True, text=True, timeout=timeout)
    assert result.returncode == 0, f"'{sql}' failed: {result.stderr.strip()}"
    return result.stdout


class Pgbench(Client):
    """pgbench's own mix of reads and writes, a line of progress a second."""

    name = "pgbench"
    errors_among_lines = True

    def __init__(self, address: str, clients: int = 2):
        super().__init__([str(paths.debian("pgbench")), "-h", address, "-U", "postgres", "-c", str(clients), "-j", "1",
                          "-T", "86400", "-P", "1", "--no-vacuum", DATABASE])

    def failed(self) -> list[str]:
        """What pgbench says of transactions that failed."""
        return [text for _, text in self.lines if "error" in text or re.search(r" [1-9]\d* failed", text)]

    @staticmethod
    def prepare(address: str, scale: int = 1) -> None:
        subprocess.run([str(paths.debian("pgbench")), "-h", address, "-U", "postgres", "-i", "-q", "-s", str(scale), DATABASE],
                       check=True, capture_output=True, timeout=300)


def database_errors(address: str) -> list[str]:
    """What PostgreSQL's own checks find: page checksums and the structure of every index and table; pgbench's sums."""
    found = []
    query(address, "CREATE EXTENSION IF NOT EXISTS amcheck")
    broken = query(address, "SELECT c.relname, v.msg FROM pg_class c, LATERAL verify_heapam(c.oid) v WHERE c.relkind = 'r'", 600)
    found += [line for line in broken.splitlines() if line]
    query(address, "SELECT bt_index_check(c.oid, true) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
                   "JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'btree' AND c.relpersistence = 'p'", 600)
    failures = query(address, "SELECT sum(checksum_failures) FROM pg_stat_database").strip()
    if failures != "0":
        found.append(f"{failures} pages with a wrong checksum")
    if query(address, "SELECT to_regclass('pgbench_accounts') IS NOT NULL").strip() == "t":
        sums = query(address, "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),"
                              " (SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)")
        if len(set(sums.strip().split("|"))) != 1:
            found.append(f"pgbench's balances differ: {sums.strip()}")
    return found

# SPDX-License-Identifier: MIT
"""Hosts that run Skiff and can move guests to one another: their configuration, start, crash and console."""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import esp, paths
from .console import SkiffConsole
from .kinds import AMD, INTEL, KINDS
from .machine import Disk, Machine, QemuMachine, side_by_side
from .network import Network
from .serial import SerialTimeout

ADDRESS = "10.77.0.{}"
ADDRESS6 = "fd77:5f::{}"
NUMBERS = {"alpha": 11, "bravo": 12, "charlie": 13}


@dataclass
class GuestSpec:
    """A guest's section in host.cfg, and the files it needs on the ESP."""

    name: str
    kernel: Path
    cmdline: str = ""
    memory: int = 128
    vcpus: int = 1
    modules: list[Path] = field(default_factory=list)
    dirty: str = "auto"
    cpu: str = "host"
    clock: str = "tsc"
    autostart: bool = False
    uuid: str | None = None
    disks: list[str] = field(default_factory=list)
    mac: str | None = None
    vlan: int | None = None

    def section(self) -> str:
        lines = [f"[guest {self.name}]", f"memory = {self.memory}", f"vcpus = {self.vcpus}",
                 f"kernel = \\skiff\\{self.kernel.name}"]
        lines += [f"module = \\skiff\\{module.name}" for module in self.modules]
        if self.cmdline:
            lines.append(f"cmdline = {self.cmdline}")
        lines += [f"{key} = {value}" for key in ("uuid", "mac", "vlan") if (value := getattr(self, key))]
        lines += [f"disk = {disk}" for disk in self.disks]
        lines += [f"dirty = {self.dirty}", f"cpu = {self.cpu}", f"clock = {self.clock}",
                  f"autostart = {'yes' if self.autostart else 'no'}"]
        return "\n".join(lines) + "\n"


def linux(name: str, kind: str = "cloud", mode: str = "idle", memory: int = 128, extra: str = "",
          self_tests: bool = False, **options) -> GuestSpec:
    """Debian's unmodified kernel with the test initramfs; mode is the agent's (tests/guests/linux).

    Its cryptography tests itself unless told not to, which is more than half of what a boot has to do."""
    quick = "" if self_tests else " cryptomgr.notests"
    cmdline = f"console=ttyS0,115200{quick} skiff.mode={mode} {extra}".strip()
    kernel = paths.BUILD / "e2e" / f"vmlinuz-{kind}"
    if not kernel.exists():
        kernel.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another worker's
            kernel.symlink_to(paths.kernel(kind))
    return GuestSpec(name, kernel, cmdline, memory, modules=[paths.initrd(kind)], **options)


def bare(name: str, program: str, memory: int = 64, **options) -> GuestSpec:
    """One of the bare test kernels of tests/guests/bare."""
    return GuestSpec(name, paths.GUESTS / "bare" / program, memory=memory, **options)


@dataclass
class Host:
    name: str
    machine: Machine
    console: SkiffConsole | None = None

    @property
    def address(self) -> str:
        return ADDRESS.format(NUMBERS[self.name])

    @property
    def address6(self) -> str:
        return ADDRESS6.format(NUMBERS[self.name])

    def boot(self) -> "Host":
        self.power_on()
        self.console.wait_prompt(timeout=180)
        return self

    def power_on(self) -> None:
        self.machine.start()
        self.console = SkiffConsole(self.machine.serial)

    def guest(self, name: str) -> dict:
        for guest in self.console.json("list"):
            if guest["name"] == name:
                return guest
        return {"name": name, "state": "absent"}

    def wait_guest(self, name: str, state: str, timeout: float) -> dict:
        """Asks until the guest is in that state; timeout is wall seconds."""
        deadline = time.monotonic() + timeout
        while (guest := self.guest(name))["state"] != state:
            assert time.monotonic() < deadline, (
                f"{self.name}: guest {name} is {guest} after {timeout:g} s, wanted {state}; "
                f"the serial line ended with\n{self.machine.serial.tail()}")
            time.sleep(0.3)
        return guest

    def ok(self, line: str, timeout: float = 60) -> list[dict]:
        """A command that must not answer with an error."""
        objects = self.console.json(line, timeout)
        errors = [o["error"] for o in objects if "error" in o]
        assert not errors, f"{self.name}: '{line}' failed: {errors}"
        return objects

    def refused(self, line: str, timeout: float = 60) -> str:
        """A command that must answer with an error; returns its sentence."""
        objects = self.console.json(line, timeout)
        errors = [o["error"] for o in objects if "error" in o]
        assert errors, f"{self.name}: '{line}' should have failed but said {objects}"
        return errors[0]

    def job(self, job_id: int | None = None) -> dict:
        jobs = self.ok("jobs" if job_id is None else f"jobs {job_id}")
        assert jobs, f"{self.name}: no jobs"
        return jobs[-1]


def host_cfg(name: str, hosts: list[str], guests: list[GuestSpec], migrate: dict | None = None,
             host: dict | None = None, mtu: int = 1500) -> str:
    """The text of \\skiff\\host.cfg for one host of a group."""
    text = f"[host]\nname = {name}\n"
    text += "".join(f"{key} = {value}\n" for key, value in (host or {}).items())
    text += f"\n[net]\naddress = {ADDRESS.format(NUMBERS[name])}/24\naddress6 = {ADDRESS6.format(NUMBERS[name])}/64\n"
    text += f"mtu = {mtu}\n" if mtu != 1500 else ""
    text += "\n[migrate]\n" + "".join(f"{key} = {value}\n" for key, value in (migrate or {}).items())
    for peer in hosts:
        if peer != name:
            text += f"\n[peer {peer}]\naddress = {ADDRESS.format(NUMBERS[peer])}\n"
    return text + "".join("\n" + guest.section() for guest in guests)


class Group:
    """Some hosts on one private network. Use as a context; the machines and the network end with it.

    `machines` gives single hosts another kind of machine than `machine`."""

    def __init__(self, folder: Path, names: list[str], machine: str = INTEL, ram_mib: int = 512,
                 migrate: dict | None = None, guests: dict[str, list[GuestSpec]] | None = None,
                 machines: dict[str, str] | None = None, models: dict[str, str] | None = None,
                 efi: Path = paths.SKIFF_EFI, texts: dict[str, str] | None = None, cpus: int = 1,
                 without: dict[str, list[str]] | None = None, nic: str | None = None, mtu: int = 1500,
                 disks: dict[str, list[Disk]] | None = None):
        self.folder = folder
        self.names = names
        self.kinds = {name: (machines or {}).get(name, machine) for name in names}
        self.ram_mib = ram_mib
        self.cpus = cpus
        self.migrate = migrate
        self.guests = guests or {}
        self.models = models or {}
        self.efi = efi
        self.texts = texts or {}
        self.without = without or {}
        self.nic = nic
        self.mtu = mtu
        self.disks = disks or {}
        self.network = Network([f"tap-{name}" for name in names], mtu=mtu)
        self.hosts: dict[str, Host] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Group":
        try:
            self._stack.enter_context(self.network)
            for name in self.names:
                self.hosts[name] = self._host(name)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    def _host(self, name: str) -> Host:
        disk = self.folder / f"{name}.img"
        guests = self.guests.get(name, [])
        # Every host's disk has every guest's files, of which a host loads those that its own configuration names;
        # `without` names those that a disk is to lack.
        files = {path.name: path for group in self.guests.values() for guest in group
                 for path in (guest.kernel, *guest.modules) if path.name not in self.without.get(name, ())}
        text = self.texts.get(name) or host_cfg(name, self.names, guests, self.migrate, mtu=self.mtu)
        esp.build_skiff(disk, text, files, self.efi)
        kind, options = KINDS[self.kinds[name]]
        options = options | ({"model": self.models[name]} if name in self.models else {})
        options |= {"nic": self.nic} if self.nic else {}
        # On QEMU guests keep off the first of several CPUs (README, limits).
        count = self.cpus + 1 if self.kinds[name] == AMD and self.cpus > 1 else self.cpus
        machine = kind(name, self.folder, disk=disk, ram_mib=self.ram_mib, count=count, tap=f"tap-{name}",
                       disks=self.disks.get(name, []), mac=f"52:54:00:5f:00:{NUMBERS[name]:02x}", **options)
        self._stack.callback(machine.kill)
        return Host(name, machine)

    def boot(self) -> "Group":
        """Powers all hosts on and waits for their prompts."""
        for host in self.hosts.values():
            host.power_on()
        for host in self.hosts.values():
            host.console.wait_prompt(timeout=240)
        return self

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    @property
    def crowded(self) -> bool:
        """Whether the emulators have more busy threads than this computer has cores for them: QEMU's one for each CPU,
        Bochs' one."""
        if side_by_side():
            return True
        threads = sum(1 if kind == INTEL else self.cpus for kind in self.kinds.values())
        return threads > len(os.sched_getaffinity(0))

    def runners(self, guest: str) -> list[str]:
        """Names of the hosts that say they run this guest."""
        return [host.name for host in self.hosts.values()
                if host.machine.running and host.guest(guest)["state"] == "running"]


# The guest's kernel may say something in the middle of a line.
BEAT = re.compile(r"^(?:.*\r)?(?P<guest>[\w-]+)\| HB (?P<fields>\d+(?: \d+){5})(?:\[ *\d+\.\d+\] .*)?$")


@dataclass(frozen=True)
class Beat:
    """A heartbeat of the Linux guest's agent as it came out of a host's serial line."""

    host: str
    wall: float  # time.monotonic() seconds of arrival
    seq: int
    mono_ns: int
    tsc: int
    written: int
    checked: int
    errors: int


def beats(host: Host, guest: str, start: int = 0) -> list[Beat]:
    """The guest's heartbeats that a host has shown since position start (its console follows the guest)."""
    found = []
    for line in host.machine.serial.lines(start):
        match = BEAT.match(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line.text))
        if match and match["guest"] == guest:
            numbers = match["fields"].split()
            if len(numbers) == 6 and all(n.isdigit() for n in numbers):
                found.append(Beat(host.name, line.wall, *map(int, numbers)))
    return found


def wait_beats(host: Host, guest: str, count: int, timeout: float, start: int | None = None) -> list[Beat]:
    """Waits until a host has shown `count` heartbeats of a guest from now on."""
    begin = host.machine.serial.position if start is None else start
    try:
        return host.machine.serial.wait(
            lambda: (b if len(b := beats(host, guest, begin)) >= count else None), timeout,
            f"{count} heartbeats of {guest}")
    except SerialTimeout as silence:
        raise SerialTimeout(f"{silence}\n{_where_it_stands(host, guest)}") from None


def _where_it_stands(host: Host, guest: str) -> str:
    """Of a guest that is silent: what its host says of it, and where the machine's CPUs are, twice."""
    found = []
    for second in range(2):
        time.sleep(second)
        for line in (f"info {guest}", f"stats {guest}", "stats"):
            try:
                found.append(f"{line}:\n{host.console.command(line, 20)}")
            except AssertionError as silence:
                found.append(f"{line}: {str(silence).splitlines()[0]}")
        if isinstance(host.machine, QemuMachine) and host.machine.running:
            state = host.machine.monitor("info registers -a")
            found += re.findall(r"CPU#\d+|RIP=.*|IDT=.*|RSP=.*", state.replace("\r", ""))
    return "\n".join(found)

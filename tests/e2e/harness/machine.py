# SPDX-License-Identifier: MIT
"""Emulated computers: Bochs for Intel VT-x, QEMU for AMD SVM or with KVM, behind one interface."""

import abc
import json
import os
import re
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import esp, paths
from .serial import Serial


@dataclass
class Disk:
    """A disk besides the one that the machine boots from.

    `device` is QEMU's, with its options; "ide-hd,bus=ahci.0" brings the AHCI controller. Bochs has ATA alone.
    `errors` is the text of a blkdebug configuration: which of QEMU's accesses to the image fail."""

    image: Path
    device: str = "virtio-blk-pci"
    errors: str = ""

    def make(self, mib: int) -> "Disk":
        """An image full of zeros, none of which take room."""
        self.image.parent.mkdir(parents=True, exist_ok=True)
        self.image.unlink(missing_ok=True)
        with open(self.image, "wb") as image:
            image.truncate(mib << 20)
        return self


@dataclass
class Machine(abc.ABC):
    """One emulated computer. Its files (configuration, transcripts, logs) go to `folder`, named after it.

    The emulator belongs to the network namespace of the caller (see network.Network), and dies with the
    test program, however that ends."""

    name: str
    folder: Path
    disk: Path | None = None
    count: int = 1
    ram_mib: int = 512
    tap: str | None = None
    mac: str = "52:54:00:5f:00:01"
    core: int | None = None
    disks: list[Disk] = field(default_factory=list)
    serial: Serial | None = field(default=None, init=False)
    _process: subprocess.Popen | None = field(default=None, init=False)
    _log: object = field(default=None, init=False)

    @abc.abstractmethod
    def _command(self, port: int) -> list[str]:
        """The emulator's command line, with its COM1 as a TCP server on 127.0.0.1:port that waits for its client."""

    @abc.abstractmethod
    def _exit_is_power_off(self, code: int) -> bool:
        """Whether the emulator's exit status (and log) means that the machine switched itself off."""

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def transcript(self) -> Path:
        return self.folder / f"{self.name}.serial"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> "Machine":
        """Powers the machine on; returns when its serial line is connected."""
        assert not self.running, f"{self.name} is running already"
        self.folder.mkdir(parents=True, exist_ok=True)
        for image in [self.disk, *(disk.image for disk in self.disks)]:
            Path(f"{image}.lock").unlink(missing_ok=True)
        port = _free_port()
        pin = ["taskset", "-c", str(self.core)] if self.core is not None else []
        self._log = open(self.folder / f"{self.name}.out", "w")
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *pin, *self._command(port)],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT)
        self.serial = Serial(self.name, self._connect(port), self.transcript)
        return self

    def _connect(self, port: int) -> socket.socket:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.running:
            try:
                connection = socket.create_connection(("127.0.0.1", port), timeout=5)
            except OSError:
                time.sleep(0.05)
                continue
            connection.settimeout(None)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        self.kill()
        raise AssertionError(f"{self.name}: the emulator did not start: {self._last_words()}")

    def _last_words(self) -> str:
        words = ""
        for path in (self.folder / f"{self.name}.out", self.log):
            if path.exists():
                words += "".join(f"\n    | {line}" for line in path.read_text(errors="replace").splitlines()[-8:])
        return words or "no output"

    def kill(self) -> None:
        """Pulls the plug."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self.serial is not None:
            self.serial.close()
        if self._log is not None:
            self._log.close()

    def wait_power_off(self, timeout: float) -> None:
        """Waits until the machine has switched itself off, which is the only good way for it to end."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.name} did not power off within {timeout:g} s; its serial line ended with\n"
                f"{self.serial.tail()}") from None
        self.kill()
        assert self._exit_is_power_off(code), (
            f"{self.name}: the emulator ended with status {code}: {self._last_words()}")

    def __enter__(self) -> "Machine":
        return self.start()

    def __exit__(self, *_) -> None:
        self.kill()


def side_by_side() -> bool:
    """Whether other tests run on this computer at the same time."""
    return "PYTEST_XDIST_WORKER" in os.environ


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class BochsMachine(Machine):
    """Bochs 3.0, an Intel PC with VT-x. `ips` instructions are one emulated second."""

    model: str = "corei7_skylake_x"
    ips: int = 100_000_000
    sync: str = "slowdown"
    log_action: str = os.environ.get("SKIFF_BOCHS_LOG", "ignore")  # "report" shows failed VM-entry checks by name

    def _command(self, port: int) -> list[str]:
        configuration = self.folder / f"{self.name}.bochsrc"
        configuration.write_text("\n".join(self._options(port)) + "\n")
        # Beside other tests: a machine on Bochs has a clock of its own, which waits for it; those on QEMU have not.
        nice = ["nice", "-n", "5"] if side_by_side() else []
        return nice + [str(paths.bochs()), "-q", "-unlock", "-f", str(configuration)]

    def _options(self, port: int) -> list[str]:
        options = [
            "config_interface: textconfig",
            "display_library: nogui",
            f"romimage: file={paths.OVMF}",
            f"vgaromimage: file={paths.VGABIOS}",
            f"cpu: model={self.model}, count={self.count}, ips={self.ips}, reset_on_triple_fault=0",
            f"memory: guest={self.ram_mib}, host={self.ram_mib}",
            f"clock: sync={self.sync}, time0=utc",
            f"com1: enabled=1, mode=socket-server, dev=127.0.0.1:{port}",
            "boot: disk",
            f"log: {self.log}",
            "panic: action=fatal",
            # Bochs logs every EPT violation as an error, which costs most of its speed, and its once-a-second
            # speed report (info) can deadlock with a line being logged: both only for debugging.
            f"error: action={self.log_action}",
            f"info: action={self.log_action}",
            "debug: action=ignore",
            "mouse: enabled=0",
        ]
        slots = ""
        if self.tap:
            slots = ", slot1=e1000"
            options.append(f"e1000: enabled=1, mac={self.mac}, ethmod=tuntap, "
                           f"ethdev=/dev/net/tun:{self.tap}, script=none")
        options.append(f"pci: enabled=1, chipset=i440fx{slots}")
        places = ("ata0-master", "ata0-slave", "ata1-master", "ata1-slave")
        images = ([self.disk] if self.disk else []) + [disk.image for disk in self.disks]
        for place, image in zip(places, images, strict=False):
            options.append(f"{place}: type=disk, mode=flat, path={image}, "
                           f"cylinders={esp.cylinders(image)}, heads=16, spt=63")
        if len(images) > 2:
            options.append("ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15")
        return options

    def _exit_is_power_off(self, code: int) -> bool:
        panics = re.findall(r">>PANIC<< (.*)", self.log.read_text(errors="replace"))
        return code == 1 and panics == ["ACPI control: soft power off"]


@dataclass
class QemuMachine(Machine):
    """A PC of QEMU's: with its own CPU emulation (TCG) an AMD one with SVM and nested paging, with KVM of nested
    virtualization one with the CPU of this computer.

    `kernel` (with `initrd` and `append`) boots that directly instead of the firmware and the disk."""

    model: str = "EPYC"
    accelerator: str = "tcg"
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    reboots: bool = True
    more: tuple[str, ...] = ()  # options of QEMU's
    nic: str = "e1000"  # a QEMU device name
    qemu: str = os.environ.get("SKIFF_QEMU", "qemu-system-x86_64")

    def _command(self, port: int) -> list[str]:
        command = [
            self.qemu, "-nodefaults", "-machine", "pc", "-accel", self.accelerator, "-cpu", self.model,
            "-smp", str(self.count), "-m", str(self.ram_mib), "-display", "none", "-vga", "std",
            "-serial", f"tcp:127.0.0.1:{port},server=on,wait=on,nodelay=on",
            "-qmp", f"unix:{self._qmp_path},server=on,wait=off", "-D", str(self.log),
        ]
        command += self.more
        if not self.reboots:
            command += ["-no-reboot"]
        if self.kernel:
            command += ["-kernel", str(self.kernel), "-append", self.append]
            command += ["-initrd", str(self.initrd)] if self.initrd else []
        else:
            command += ["-bios", str(paths.OVMF)]
        if self.disk:
            # Firmware reads it three times as fast as an IDE disk. In the last slot, so that others come first.
            command += ["-drive", f"file={self.disk},format=raw,if=none,id=boot",
                        "-device", "virtio-blk-pci,drive=boot,serial=boot,addr=0x1f"]
        for index, disk in enumerate(self.disks):
            command += self._disk_options(index, disk)
        if self.tap:
            command += ["-netdev", f"tap,id=net0,ifname={self.tap},script=no,downscript=no",
                        "-device", f"{self.nic},netdev=net0,id=nic0,mac={self.mac},romfile="]
        return command

    def _disk_options(self, index: int, disk: Disk) -> list[str]:
        # What the machine flushes need not outlive this computer, only the machine: a flush of a gigabyte that the
        # test has just made would take as long as a failing disk.
        driver = "driver=file,cache.no-flush=on"
        if disk.errors:
            config = self.folder / f"{self.name}.disk{index}.errors"
            config.write_text(disk.errors)
            driver = f"driver=blkdebug,config={config},image.driver=file"
        name = "image.filename" if disk.errors else "filename"
        options = ["-blockdev", f"{driver},{name}={disk.image},node-name=disk{index},discard=unmap"]
        if disk.device.endswith("bus=ahci.0"):
            options += ["-device", "ahci,id=ahci"]
        return options + ["-device", f"{disk.device},drive=disk{index}"]

    @property
    def _qmp_path(self) -> Path:
        return self.folder / f"{self.name}.qmp"

    def _control(self, command: str, **arguments):
        """One command of QEMU's monitor protocol; returns its answer."""
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self._qmp_path))
            stream = control.makefile("rw")
            stream.readline()
            for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                stream.write(json.dumps(request) + "\n")
                stream.flush()
                while "return" not in (answer := json.loads(stream.readline())):
                    assert "error" not in answer, answer
            return answer["return"]

    def press_power_button(self) -> None:
        """Sends the ACPI power-button event."""
        self._control("system_powerdown")

    def set_link(self, up: bool) -> None:
        """Pulls the cable out of the NIC, which sees it, or plugs it in again."""
        self._control("set_link", name="nic0", up=up)

    def monitor(self, line: str) -> str:
        """One line of QEMU's human monitor; returns what it says."""
        return self._control("human-monitor-command", **{"command-line": line})

    def _exit_is_power_off(self, code: int) -> bool:
        return code == 0


def qemu_has_device(device: str) -> bool:
    """Whether the QEMU that runs the machines can emulate this device."""
    options = subprocess.run([QemuMachine.qemu, "-machine", "none", "-device", f"{device},help"],
                             capture_output=True, text=True, check=True)
    return f"{device} options" in options.stdout

# SPDX-License-Identifier: MIT
"""What an idle host with an idle guest costs: CPU time of the emulator's process, beside that of a Debian kernel with KVM
and QEMU which runs the same guest on the same emulated machine."""

import os
import subprocess
import time
from pathlib import Path

from harness import paths, report
from harness.machine import QemuMachine
from harness.pair import Group, linux, wait_beats

GUEST_MIB, HOST_MIB = 256, 1024
SECONDS = 30


def cpu_ms(pid: int) -> float:
    """User and system time of all threads (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def idle_cpu_ms(machine: QemuMachine) -> float:
    before = cpu_ms(machine.pid)
    time.sleep(SECONDS)
    return cpu_ms(machine.pid) - before


def skiff(folder: Path) -> float:
    with Group(folder, ["alpha"], "qemu-amd", ram_mib=HOST_MIB, guests={"alpha": [linux("idle", memory=GUEST_MIB)]}) as group:
        alpha = group.boot()["alpha"]
        alpha.ok("follow idle on")
        alpha.ok("start idle")
        wait_beats(alpha, "idle", 5, 120)
        return idle_cpu_ms(alpha.machine)


def make_initrd() -> None:
    """That of Linux as a hypervisor."""
    subprocess.run(["make", "-s", "-C", paths.ROOT / "tests/guests", f"OUT={paths.GUESTS}", paths.GUESTS / "initrd-kvm.img"],
                   check=True)


def kvm(folder: Path) -> float:
    """Debian's QEMU below /kvm of the initramfs prints its guest's serial line on its own."""
    make_initrd()
    with QemuMachine("linux", folder, kernel=paths.kernel("kvm"), initrd=paths.GUESTS / "initrd-kvm.img", ram_mib=HOST_MIB,
                     append=f"console=ttyS0,115200 quiet skiff.mode=kvm skiff.memory={GUEST_MIB}") as machine:
        machine.serial.expect(r"(?s)(HB \d+ .*?){5}", 300)
        return idle_cpu_ms(machine)


def run(folder: Path, progress: report.Progress) -> dict[str, float]:
    progress.say("idle: a host with an idle guest, for half a minute")
    figures = {f"idle_cpu_ms_in_{SECONDS}_s": skiff(folder)}
    progress.say("idle: Linux, KVM and QEMU with the same guest")
    return figures | {f"idle_kvm_cpu_ms_in_{SECONDS}_s": kvm(folder)}

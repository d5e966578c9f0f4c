# SPDX-License-Identifier: MIT
"""How much of a link Skiff uses, for a plain transfer and for a guest's pages, beside two Linux machines: the same
emulated NIC, one CPU each, the same core of this computer for each, one after the other in one run."""

import re
import statistics
from pathlib import Path

from harness import moves, paths, report
from harness.machine import QemuMachine
from harness.network import Network
from harness.pair import Group, bare, wait_beats

MIB = 1 << 20
TRANSFER_MIB = 256
RUNS = 3
VIRTIO = "virtio_ring,virtio,virtio_pci_legacy_dev,virtio_pci_modern_dev,virtio_pci,failover,net_failover,virtio_net"
# QEMU's device: the modules that Linux needs for it, in their order.
NICS = {"virtio-net-pci": VIRTIO, "e1000": "e1000"}
AIMS = {"share": 0.9, "move_share": 0.8}


def linux_rate(folder: Path, nic: str) -> float:
    """Bytes a second of one TCP connection between two Debian kernels; the median of the runs after the first."""
    addresses = {"receive": "10.77.0.11", "send": "10.77.0.12"}
    with Network(["tap-receive", "tap-send"]):
        machines = []
        try:
            for core, (mode, address) in enumerate(addresses.items()):
                machine = QemuMachine(
                    f"linux-{mode}", folder, kernel=paths.kernel("generic"), initrd=paths.initrd("generic"),
                    tap=f"tap-{mode}", mac=f"52:54:00:5f:00:{core + 1:02x}", nic=nic, core=core,
                    append=f"console=ttyS0,115200 net.ifnames=0 skiff.mode={mode} skiff.modules={NICS[nic]} "
                           f"skiff.address={address} skiff.peer={addresses['receive']} skiff.mib={TRANSFER_MIB}")
                machines.append(machine.start())
                machine.serial.expect("STREAM-READY" if mode == "receive" else "STREAM-END", 240)
            sent = re.findall(r"STREAM-SENT (\d+) bytes (\d+) ns", machines[-1].serial.text())
        finally:
            for machine in machines:
                machine.kill()
    return statistics.median(int(size) * 1e9 / int(ns) for size, ns in sent[1:])


def skiff_rates(folder: Path, nic: str) -> tuple[float, float]:
    """Bytes a second of a plain transfer between two hosts, and of a guest's pages before its blackout.

    The guest is paused: it would want a share of the one CPU."""
    guest = bare("beat", "beat.multiboot", memory=320)
    guest.cmdline = f"pages={256 * 256} rate=1 period=200"
    with Group(folder, ["alpha", "bravo"], "qemu-amd", ram_mib=768, nic=nic, guests={"alpha": [guest]}) as hosts:
        for core, host in enumerate(hosts.hosts.values()):
            host.machine.core = core
        hosts.boot()
        alpha, bravo = hosts["alpha"], hosts["bravo"]
        plain = [alpha.ok(f"net-test bravo {TRANSFER_MIB}", 240)[0]["rate_bytes_s"] for _ in range(RUNS + 1)]
        alpha.ok("follow beat on")
        alpha.ok("start beat")
        wait_beats(alpha, "beat", 3, 120)
        alpha.ok("pause beat")
        pages = []
        for crossing in range(RUNS + 1):
            source, target = (alpha, bravo) if crossing % 2 == 0 else (bravo, alpha)
            job = moves.wait_job(source, moves.start_move(source, "beat", target), 240)
            assert job["phase"] == "done", job
            pages.append(job["rate_bytes_s"])
    return statistics.median(plain[1:]), statistics.median(pages[1:])


def run(folder: Path, progress: report.Progress) -> dict[str, float]:
    figures = {}
    for nic in NICS:
        name = nic.removesuffix("-pci").replace("-", "_")
        progress.say(f"{nic}: two Linux machines")
        native = linux_rate(folder, nic)
        progress.say(f"{nic}: two hosts")
        plain, pages = skiff_rates(folder, nic)
        figures |= {
            f"link_{name}_linux_mib_s": round(native / MIB, 1),
            f"link_{name}_mib_s": round(plain / MIB, 1),
            f"link_{name}_share": round(plain / native, 3),
            f"link_{name}_move_mib_s": round(pages / MIB, 1),
            f"link_{name}_move_share": round(pages / native, 3),
        }
        progress.say(", ".join(f"{key} {value}" for key, value in figures.items() if name in key))
    return figures


def missed(figures: dict[str, float]) -> list[str]:
    lines = []
    for key, value in figures.items():
        aim = AIMS["move_share" if key.endswith("_move_share") else "share"] if key.endswith("share") else None
        if aim and value < aim:
            lines.append(f"{key} is {value}, aim {aim}")
    return lines

# SPDX-License-Identifier: MIT
"""What a guest's virtio disk and network card carry, beside those of the same guest under Linux, KVM and QEMU on the same
emulated machine; and what a disk adds to a move."""

import re
import socket
import statistics
import subprocess
import threading
from pathlib import Path

import idle
import server
from harness import moves, paths, report
from harness.machine import Disk, QemuMachine
from harness.network import Network
from harness.pair import Group, GuestSpec, linux
from harness.store import skiff_store
from harness.traffic import Echo, wait_ping

MIB = 1 << 20
GUEST_MIB, HOST_MIB = 256, 1024
SECONDS = 5
STREAM_MIB = 128
STREAM_PORT = 7071  # tests/guests/linux/agent/stream.c
ADDRESS = "10.77.0.21"
VOLUME_MIB = 128
MOVES = 6
DISK = re.compile(r"DISK-BENCH depth (\d+) reads (\d+) ns (\d+)")
STREAM = re.compile(r"STREAM-SENT (\d+) bytes (\d+) ns")
AIMS = {"net_ratio": 1.5, "blk_qd1_ratio": 1.5, "blk_qd32_ratio": 1.5}
MOST = {"net_exits_ratio": 1.0, "disk_blackout_ratio": 1.2}


class Receiver:
    """Outside: takes connections one after the other and throws away what comes in."""

    def __init__(self, address: str):
        self._listener = socket.create_server((address, STREAM_PORT))

    def __enter__(self) -> "Receiver":
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _run(self) -> None:
        buffer = bytearray(MIB)
        try:
            while True:
                with self._listener.accept()[0] as connection:
                    while connection.recv_into(buffer):
                        pass
        except OSError:
            pass  # closed: the context has ended


def skiff(folder: Path) -> dict[str, float]:
    image = server.datastore(folder / "store.img", mib=512)
    # KVM's guests go by its clock: with the PM timer ours would exit for each look at the time.
    guest = linux("io", mode="io-bench", memory=GUEST_MIB, disks=[f"{server.STORE}/io"], clock="kvm",
                  extra=f"quiet skiff.seconds={SECONDS} skiff.address={ADDRESS} skiff.peer=10.77.0.1 skiff.mib={STREAM_MIB}")
    with Group(folder, ["alpha"], "qemu-amd", ram_mib=HOST_MIB, nic="virtio-net-pci", guests={"alpha": [guest]},
               disks={"alpha": [image]}) as group, Receiver(group.network.client):
        alpha = group.boot()["alpha"]
        alpha.ok(f"volume create {server.STORE}/io {VOLUME_MIB}M")
        start = alpha.machine.serial.position
        alpha.ok("follow io on")
        alpha.ok("start io")

        def exits() -> int:
            return sum(row["exits"] for row in alpha.ok("stats io") if row["kind"] == "vcpu")

        serial = alpha.machine.serial
        serial.expect("DISK-BENCH-END", 240, start)
        before = exits()
        with alpha.console.guest("io"):
            serial.send("go\n")
            serial.expect("STREAM-END", 240, start)
        return figures_of(serial.text(start), exits() - before)


def figures_of(text: str, stream_exits: int) -> dict[str, float]:
    """What the guest (skiff.mode=io-bench) has measured itself, and its exits while it sent."""
    rates = {int(depth): int(reads) * 1e9 / int(ns) for depth, reads, ns in DISK.findall(text)}
    sent = [(int(size), int(ns)) for size, ns in STREAM.findall(text)]
    return {
        "blk_qd1_s": rates[1],
        "blk_qd32_s": rates[32],
        "net_mib_s": statistics.median(size / MIB * 1e9 / ns for size, ns in sent[1:]),
        "net_exits_mib": stream_exits / (sum(size for size, _ in sent) / MIB),
    }


def kvm(folder: Path) -> dict[str, float]:
    idle.make_initrd()
    exits_file = folder / "linux.exits"
    disk = Disk(folder / "kvm.img").make(VOLUME_MIB)

    def exits() -> int:
        return int(re.findall(r"EXITS (\d+)\s", exits_file.read_text())[-1])

    with Network(["tap-linux"]) as network, Receiver(network.client):
        append = (f"console=ttyS0,115200 quiet net.ifnames=0 skiff.mode=kvm skiff.memory={GUEST_MIB} skiff.bench={SECONDS} "
                  f"skiff.guest={ADDRESS} skiff.peer={network.client} skiff.mib={STREAM_MIB}")
        with QemuMachine("linux", folder, kernel=paths.kernel("kvm"), initrd=paths.GUESTS / "initrd-kvm.img", ram_mib=HOST_MIB,
                         tap="tap-linux", nic="virtio-net-pci", disks=[disk], append=append,
                         more=("-serial", f"file:{exits_file}")) as machine:
            serial = machine.serial
            serial.expect("DISK-BENCH-END", 400)
            before = exits()
            serial.send("go\n")
            serial.expect("STREAM-END", 400)
            serial.expect("reboot: Power down", 60)  # the guest's: its exits up to there have been told
            return figures_of(serial.text(), exits() - before)


def moved_guest(name: str, number: int, **options) -> GuestSpec:
    return linux(name, memory=128, extra=f"quiet skiff.address=10.77.0.{number}", **options)


def disk_moves(folder: Path) -> dict[str, float]:
    """Moves to and fro of an idle guest without and with a volume that is full of what no zero and no hole shortens."""
    blob = folder / "blob.img"
    subprocess.run(["dd", "if=/dev/urandom", f"of={blob}", "bs=1M", f"count={VOLUME_MIB}", "status=none"], check=True)
    disks = {name: [server.datastore(folder / f"{name}-store.img", mib=512)] for name in ("alpha", "bravo")}
    skiff_store("import", disks["alpha"][0].image, "with", blob)
    guests = [moved_guest("without", 21), moved_guest("with", 22, disks=[f"{server.STORE}/with"])]
    jobs, gaps = {"with": [], "without": []}, []
    with Group(folder, ["alpha", "bravo"], "qemu-amd", ram_mib=HOST_MIB, nic="virtio-net-pci", guests={"alpha": guests},
               disks=disks) as group:
        group.boot()
        link = statistics.median(group["alpha"].ok("net-test bravo 128", 240)[0]["rate_bytes_s"] for _ in range(3))
        for number, name in ((21, "without"), (22, "with")):
            group["alpha"].ok(f"start {name}")
            wait_ping(f"10.77.0.{number}", 120)
            with Echo(f"10.77.0.{number}") as echo:
                for i in range(MOVES):
                    source, target = (group["alpha"], group["bravo"]) if i % 2 == 0 else (group["bravo"], group["alpha"])
                    job = moves.wait_job(source, moves.start_move(source, name, target, "--disk" if name == "with" else ""), 240)
                    assert job["phase"] == "done", job
                    jobs[name].append(job)
                echo.check()
                if name == "with":
                    gaps.append(echo.longest_gap_ms())

    def blackout(name: str) -> float:
        return statistics.median(job["measured_blackout_us"] / 1000 for job in jobs[name])

    rate = statistics.median(job["bytes_wire"] * 1e9 / (job["running_ns"] - job["started_ns"]) for job in jobs["with"])
    return {
        "disk_move_mib_s": round(rate / MIB, 1),
        "disk_move_share": round(rate / link, 3),
        "disk_blackout_ms": round(blackout("with"), 1),
        "no_disk_blackout_ms": round(blackout("without"), 1),
        "disk_blackout_ratio": round(blackout("with") / blackout("without"), 2),
        "disk_client_max_gap_ms": round(max(gaps), 1),
    }


def run(folder: Path, progress: report.Progress) -> dict[str, float]:
    """virtio_blk_*_s are reads of 4 KiB a second, one and 32 at a time; virtio_net_* what one connection sends outside;
    *_ratio Skiff's figure over KVM's. disk_move_* are of a guest with a full volume of 128 MiB: its share of what a plain
    transfer between the hosts carries, its blackout beside that of a guest without, and the longest silence of a client."""
    progress.say("virtio: a guest's disk and network on Skiff")
    ours = skiff(folder)
    progress.say("virtio: the same under Linux, KVM and QEMU")
    theirs = kvm(folder)
    figures = {f"virtio_{key}": round(value, 1) for key, value in ours.items()}
    figures |= {f"virtio_kvm_{key}": round(value, 1) for key, value in theirs.items()}
    for name, key in (("blk_qd1", "blk_qd1_s"), ("blk_qd32", "blk_qd32_s"), ("net", "net_mib_s"), ("net_exits", "net_exits_mib")):
        figures[f"virtio_{name}_ratio"] = round(ours[key] / theirs[key], 2)
    progress.say("virtio: moves with and without a disk")
    return figures | disk_moves(folder)


def missed(figures: dict[str, float]) -> list[str]:
    lines = [f"virtio_{key} is {figures[f'virtio_{key}']}, aim {aim}" for key, aim in AIMS.items()
             if figures[f"virtio_{key}"] < aim]
    return lines + [f"{key} is {value}, aim at most {most}" for name, most in MOST.items()
                    for key, value in figures.items() if key.endswith(name) and value > most]

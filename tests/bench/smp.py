# SPDX-License-Identifier: MIT
"""What several CPUs bring: the work of two busy vCPUs on two CPUs against that of one, and what many guests cost."""

import re
from pathlib import Path

from harness import report
from harness.pair import Group, bare, linux, wait_beats

SECONDS = 6
COUNTS = (1, 8, 32)
AIM_RATIO = 1.7


def work_ratio(alpha) -> float:
    """The agent's `spin`: rounds done by two CPUs over those done by one, in the same guest time."""
    serial = alpha.machine.serial
    alpha.ok("follow spin on")
    start = serial.position
    alpha.ok("start spin")
    serial.expect("AGENT-SPIN-END", 120, start)
    work = {int(cpus): int(done) for cpus, done in
            re.findall(r"AGENT-SPIN cpus (\d+) seconds \d+ work (\d+)", serial.text(start))}
    return work[2] / work[1]


def guest_overhead(alpha) -> dict[int, float]:
    """Host memory beyond guest RAM, a guest, in KiB, with that many guests of 64 MiB running."""
    start, costs, running = alpha.ok("host")[0]["host_bytes"], {}, 0
    for count in COUNTS:
        for i in range(running, count):
            alpha.ok(f"start small{i}")
        running = count
        costs[count] = (alpha.ok("host")[0]["host_bytes"] - start) / count / 1024
    return costs


def run(folder: Path, progress: report.Progress) -> dict:
    progress.say("two busy vCPUs, then many guests (qemu-amd)")
    spin = linux("spin", mode="spin", vcpus=2, extra=f"skiff.seconds={SECONDS}")
    with Group(folder, ["alpha"], "qemu-amd", cpus=2, guests={"alpha": [spin]}) as group:
        # work of two vCPUs on two CPUs over the work of one; the emulator's threads are not pinned
        figures = {"smp_work_ratio": round(work_ratio(group.boot()["alpha"]), 2)}
    small = [bare(f"small{i}", "beat.multiboot") for i in range(max(COUNTS))]
    with Group(folder, ["alpha"], "qemu-amd", ram_mib=3072, guests={"alpha": small}) as group:
        alpha = group.boot()["alpha"]
        for count, kib in guest_overhead(alpha).items():
            # page tables, device models, vCPU and its stack, dirty bitmap, for each of `count` guests
            figures[f"guest_overhead_{count}_kib"] = round(kib, 1)
        alpha.ok(f"follow small{max(COUNTS) - 1} on")
        wait_beats(alpha, f"small{max(COUNTS) - 1}", 3, 60)
    return figures


def missed(figures: dict) -> list[str]:
    ratio = figures["smp_work_ratio"]
    return [] if ratio >= AIM_RATIO else [f"smp_work_ratio is {ratio}, aim {AIM_RATIO}"]

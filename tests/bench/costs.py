# SPDX-License-Identifier: MIT
"""What exits cost a guest, what a move of an idle one costs, and what the host itself takes, on either machine."""

import re
from pathlib import Path

from harness import esp, moves, paths, report
from harness.machine import BochsMachine, QemuMachine
from harness.pair import Group, linux, wait_beats

GUEST_MIB = 256
# On Bochs, whose ticks are the same in every run.
AIMS = {"exit_cpuid_ticks": 400, "exit_uart_read_ticks": 600, "first_touch_page_ratio": 1.05,
        "host_memory_mib": 16, "efi_bytes": 1048576}
APPEND = "console=ttyS0,115200 skiff.mode=bench"


def bench_lines(text: str) -> dict[str, int]:
    return {key: int(value) for key, value in re.findall(r"BENCH (\w+) (\d+)", text)}


def bare_machine(folder: Path, machine: str) -> BochsMachine | QemuMachine:
    """The same kernel, initramfs and RAM size on the bare emulated machine."""
    kernel, initrd = paths.kernel("cloud"), paths.initrd("cloud")
    if machine == "qemu-amd":
        return QemuMachine("native", folder, kernel=kernel, initrd=initrd, append=APPEND, ram_mib=GUEST_MIB)
    disk = esp.build_native_linux(folder / "native.img", kernel, initrd, APPEND)
    return BochsMachine("native", folder, disk=disk, ram_mib=GUEST_MIB, sync="none")


def native(folder: Path, machine: str) -> dict[str, int]:
    with bare_machine(folder, machine) as bare:
        bare.serial.expect("BENCH-END", 400)
        return bench_lines(bare.serial.text())


def guest_costs(alpha) -> dict[str, int]:
    """Exit costs and first touch inside a guest; the agent prints medians (tests/guests/linux/agent/bench.c)."""
    serial = alpha.machine.serial
    alpha.ok("follow bench on")
    start = serial.position
    alpha.ok("start bench")
    serial.expect("BENCH-END", 400, start)
    return bench_lines(serial.text(start))


def idle_move(group: Group) -> dict[str, float]:
    """A move of an idle Debian guest, without verification, and what its parts cost the source."""
    alpha, bravo = group["alpha"], group["bravo"]
    alpha.ok("follow idle on")
    alpha.ok("start idle")
    wait_beats(alpha, "idle", 3, 300, 0)
    job = moves.move(alpha, "idle", bravo).job
    return {
        # the source's stop to the guest's first entry on the destination, by the hosts' clock exchange
        "idle_move_blackout_ms": round(job["measured_blackout_us"] / 1000, 1),
        # everything written to the migration connection
        "idle_move_bytes": job["bytes_wire"],
        # CPU time of the source's sending and network threads for each page sent in pre-copy: copy, zero test,
        # checksum, TCP and the network card. What they wait and what pages of zeros cost is not in it.
        "send_page_ticks": job["send_page_ticks"],
        # starting the log, for each page of guest RAM
        "dirty_enable_page_ticks": round(job["enable_ticks"] / (GUEST_MIB * 256), 3),
        # collecting and re-arming, for each dirty page found
        "dirty_collect_page_ticks": round(job["collect_ticks"] / max(1, job["collect_pages"]), 1),
    }


def host_figures(bravo) -> dict[str, float]:
    """Of the host that runs the guest by then."""
    host = bravo.ok("host")[0]
    return {
        # all host memory in use that is not guest RAM: image, guests' files excluded, heap, stacks, tables
        "host_memory_mib": round(host["host_bytes"] / (1 << 20), 2),
        "efi_bytes": paths.SKIFF_EFI.stat().st_size,
        # first instruction of the EFI application to the prompt
        "entry_to_prompt_ms": round(host["prompt_ns"] / 1e6, 1),
    }


def in_time(figures: dict[str, float], tsc_hz: int) -> dict[str, float]:
    """Where the TSC counts time, not instructions, nanoseconds say more than its ticks."""
    return {key.replace("_ticks", "_ns"): round(value * 1e9 / tsc_hz, 1) if key.endswith("_ticks") else value
            for key, value in figures.items()}


def run(folder: Path, progress: report.Progress, machine: str) -> dict:
    progress.say(f"{machine}: native figures, Debian's kernel on the bare machine")
    bare = native(folder, machine)
    guests = [linux("bench", mode="bench", memory=GUEST_MIB), linux("idle", memory=GUEST_MIB)]
    progress.say(f"{machine}: booting two hosts")
    with Group(folder, ["alpha", "bravo"], machine, guests={"alpha": guests}) as group:
        group.boot()
        progress.say("exit costs in a guest")
        costs = guest_costs(group["alpha"])
        group["alpha"].wait_guest("bench", "off", 60)
        progress.say("an idle guest moves")
        figures = idle_move(group)
        figures |= host_figures(group["bravo"])
        tsc_hz = group["alpha"].ok("host")[0]["tsc_hz"]
    figures |= {key: costs[key] for key in ("exit_cpuid_ticks", "exit_uart_read_ticks")}
    figures["first_touch_page_ratio"] = round(costs["first_touch_page_ticks"] / bare["first_touch_page_ticks"], 4)
    figures["first_touch_page_ticks"] = costs["first_touch_page_ticks"]
    figures["native_first_touch_page_ticks"] = bare["first_touch_page_ticks"]
    return figures if machine == "bochs-intel" else in_time(figures, tsc_hz)


def run_intel(folder: Path, progress: report.Progress) -> dict:
    return run(folder, progress, "bochs-intel")


def run_amd(folder: Path, progress: report.Progress) -> dict:
    return run(folder, progress, "qemu-amd")


def missed(figures: dict) -> list[str]:
    return [f"{key} is {figures[key]}, aim {aim}" for key, aim in AIMS.items() if figures.get(key, 0) > aim]

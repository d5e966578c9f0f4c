# SPDX-License-Identifier: MIT
"""`make bench`: what Skiff costs its guests and its moves, as build/bench/report.json and a table.

Keys are MACHINE.figure_unit. On bochs-intel a tick is one instruction of the emulated CPU (Skylake-X, one CPU),
so ticks are the same in every run whatever else the computer does; milliseconds are the hosts' emulated clock."""

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

from harness import esp, moves, network, paths, report  # noqa: E402
from harness.machine import BochsMachine  # noqa: E402
from harness.pair import Group, linux, wait_beats  # noqa: E402

GUEST_MIB = 256
AIMS = {"exit_cpuid_ticks": 400, "exit_uart_read_ticks": 600, "first_touch_page_ratio": 1.05,
        "host_memory_mib": 16, "efi_bytes": 1048576}


def bench_lines(text: str) -> dict[str, int]:
    return {key: int(value) for key, value in re.findall(r"BENCH (\w+) (\d+)", text)}


def native(folder: Path) -> dict[str, int]:
    """The same kernel, initramfs and RAM size on the bare emulated machine."""
    disk = esp.build_native_linux(folder / "native.img", paths.kernel("cloud"), paths.initrd("cloud"),
                                  "console=ttyS0,115200 skiff.mode=bench")
    with BochsMachine("native", folder, disk=disk, ram_mib=GUEST_MIB, sync="none") as machine:
        machine.serial.expect("BENCH-END", 400)
        return bench_lines(machine.serial.text())


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


def run(folder: Path, progress: report.Progress) -> dict:
    progress.say("native figures: Debian's kernel on the bare machine")
    bare = native(folder)
    guests = [linux("bench", mode="bench", memory=GUEST_MIB), linux("idle", memory=GUEST_MIB)]
    progress.say("booting two hosts")
    with Group(folder, ["alpha", "bravo"], guests={"alpha": guests}) as group:
        group.boot()
        progress.say("exit costs in a guest")
        costs = guest_costs(group["alpha"])
        group["alpha"].wait_guest("bench", "off", 60)
        progress.say("an idle guest moves")
        figures = idle_move(group)
        figures |= host_figures(group["bravo"])
    figures |= {key: costs[key] for key in ("exit_cpuid_ticks", "exit_uart_read_ticks")}
    figures["first_touch_page_ratio"] = round(costs["first_touch_page_ticks"] / bare["first_touch_page_ticks"], 4)
    figures["first_touch_page_ticks"] = costs["first_touch_page_ticks"]
    figures["native_first_touch_page_ticks"] = bare["first_touch_page_ticks"]
    return figures


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    network.become_network_admin()
    folder = paths.BUILD / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    figures = run(folder, report.Progress())
    report.write(folder / "report.json", {f"bochs-intel.{key}": value for key, value in sorted(figures.items())})
    print(report.table(figures))
    missed = [f"{key} is {figures[key]}, aim {aim}" for key, aim in AIMS.items() if figures[key] > aim]
    print("\n".join(f"  above its aim: {line}" for line in missed) or "  every figure with an aim reaches it")
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: MIT
"""`make bench`: what Skiff costs its guests and its moves, as build/bench/report.json and a table; --part runs one part
and leaves what the report holds of the others.

Keys are MACHINE.figure_unit, each explained where it is measured. On bochs-intel a tick is one instruction of the
emulated CPU (Skylake-X, one CPU), so ticks are the same in every run whatever else the computer does; milliseconds are
the hosts' emulated clock. On qemu-amd all times are real ones, of two emulators that share this computer's cores."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

import costs  # noqa: E402
import dirty  # noqa: E402
import idle  # noqa: E402
import link  # noqa: E402
import smp  # noqa: E402
import virtio  # noqa: E402
from harness import network, paths, report  # noqa: E402


def nothing_missed(_: dict) -> list[str]:
    return []


# The machine, what measures, and what says which aims were missed.
PARTS = {
    "intel": ("bochs-intel", costs.run_intel, costs.missed),
    "amd": ("qemu-amd", costs.run_amd, nothing_missed),
    "link": ("qemu-amd", link.run, link.missed),
    "smp": ("qemu-amd", smp.run, smp.missed),
    "dirty": ("qemu-amd", dirty.run, nothing_missed),
    "idle": ("qemu-amd", idle.run, nothing_missed),
    "virtio": ("qemu-amd", virtio.run, virtio.missed),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one (several: again)")
    arguments = parser.parse_args()
    network.become_network_admin()
    progress = report.Progress()
    file = paths.BUILD / "bench" / "report.json"
    short = []
    for part in arguments.part or PARTS:
        machine, run, missed = PARTS[part]
        folder = file.parent / part
        folder.mkdir(parents=True, exist_ok=True)
        figures = run(folder, progress)
        content = report.read(file) | {f"{machine}.{key}": value for key, value in figures.items()}
        report.write(file, dict(sorted(content.items())))
        short += [f"{machine}.{line}" for line in missed(figures)]
    print(report.table(report.read(file)))
    print("\n".join(f"  misses its aim: {line}" for line in short) or "  every figure with an aim reaches it")
    return 0


if __name__ == "__main__":
    sys.exit(main())

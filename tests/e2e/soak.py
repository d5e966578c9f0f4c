# SPDX-License-Identifier: MIT
"""`make soak`: the long counts, as build/soak/report.json: twenty crossings with PML, twenty with write-protection."""

import argparse
import statistics
import sys
from pathlib import Path

import crossings
from harness import network, paths, report
from harness.pair import Group

MODELS = {"pml": "corei7_skylake_x", "wp": "corei7_haswell_4770"}


def soak(folder: Path, tracking: str, count: int, progress: report.Progress) -> dict:
    model = MODELS[tracking]
    group = Group(folder / tracking, ["alpha", "bravo"], models={"alpha": model, "bravo": model},
                  migrate={"verify": "on"}, guests={"alpha": [crossings.busy_guest()]})
    with group:
        progress.say(f"{tracking}: booting two {model} hosts")
        group.boot()
        crossings.start_busy(group)
        results = crossings.cross(group, count, tracking, tell=progress.say)
        end = group["alpha"] if count % 2 == 0 else group["bravo"]
        crossings.check_guest_inside(end)
    blackouts = [result.job["measured_blackout_us"] / 1000 for result in results]
    return {
        f"{tracking}.crossings": len(results),
        f"{tracking}.guest_errors": results[-1].after[-1].errors,
        f"{tracking}.digests_equal": sum(result.job["digest"] == "match" for result in results),
        f"{tracking}.blackout_ms_median": round(statistics.median(blackouts), 1),
        f"{tracking}.blackout_ms_max": round(max(blackouts), 1),
        f"{tracking}.client_gap_ms_max": round(max(result.gap_ms for result in results), 1),
        f"{tracking}.bytes_wire_median": int(statistics.median(r.job["bytes_wire"] for r in results)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    arguments = parser.parse_args()
    network.become_network_admin()
    progress = report.Progress()
    folder = paths.BUILD / "soak"
    content = {"clocks": "blackout_ms and client_gap_ms: the hosts' emulated clock"}
    for tracking in MODELS:
        (folder / tracking).mkdir(parents=True, exist_ok=True)
        content |= soak(folder, tracking, arguments.count, progress)
        report.write(folder / "report.json", content)
    print(report.table(content))
    return 0


if __name__ == "__main__":
    sys.exit(main())

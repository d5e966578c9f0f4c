# SPDX-License-Identifier: MIT
"""What a pair of hosts must show whatever tracks the dirty pages: a busy Linux guest crosses and crosses back."""

import re

from harness import moves
from harness.pair import linux, wait_beats

MEMORY = 128
HEARTBEAT_MS = 20


def busy_guest(name: str = "busy", dirty: str = "auto"):
    """Writes and checks half of its memory at 200 pages a second, registers live, a heartbeat every 20 ms."""
    return linux(name, mode="work", memory=MEMORY, dirty=dirty,
                 extra=f"skiff.rate=200 skiff.fraction=0.5 skiff.heartbeat_ms={HEARTBEAT_MS}")


def start_busy(group, name: str = "busy") -> None:
    alpha = group["alpha"]
    alpha.ok(f"follow {name} on")
    alpha.ok(f"start {name}")
    wait_beats(alpha, name, 20, 300, 0)


def check_move(result: moves.Move, tracking: str) -> None:
    moves.check_beats(result)
    job = result.job
    assert job["dirty_tracking"] == tracking, job
    assert job["digest"] == "match", job
    assert job["pages_zero"] > 0 and job["pages_sent"] > 0 and job["round"] >= 2, job
    assert len(result.before) >= 20, f"only {len(result.before)} heartbeats during pre-copy"
    blackout = job["measured_blackout_us"] / 1000
    # 20 %, and what the outside view cannot resolve: two heartbeat periods, and a sample of the clock every 0.1 s
    # of wall time while two emulators on loaded cores run faster and slower than that.
    tolerance = 0.2 * blackout + 2 * HEARTBEAT_MS + 100
    assert abs(result.gap_ms - blackout) <= tolerance, (
        f"outside saw a gap of {result.gap_ms:.0f} ms (emulated), the hosts a blackout of {blackout:.0f} ms")


def cross(group, times: int, tracking: str, name: str = "busy", tell=None) -> list[moves.Move]:
    results = []
    for crossing in range(times):
        names = ("alpha", "bravo") if crossing % 2 == 0 else ("bravo", "alpha")
        source, target = group[names[0]], group[names[1]]
        result = moves.move(source, name, target)
        check_move(result, tracking)
        assert group.runners(name) == [target.name]
        results.append(result)
        if tell:
            tell(f"crossing {crossing + 1} of {times}: blackout {result.job['measured_blackout_us'] / 1000:.0f} ms, "
                 f"{result.job['round']} rounds, {result.job['bytes_wire'] / 1e6:.1f} MB")
    return results


def check_guest_inside(host, name: str = "busy") -> None:
    """All pages hold what was written, and the kernel has no complaint about clocks, APICs or stalls."""
    stats = moves.guest_command(host, name, "verify", r"AGENT-STATS \{.*\}", 240)
    assert re.search(r'"errors": 0\b', stats), stats
    warnings = moves.guest_command(host, name, "dmesg", r"DMESG-END \d+", 120)
    for word in ("stall", "APIC error", "unstable", "lockup", "spurious", "clocksource", "hung"):
        assert word not in warnings, warnings

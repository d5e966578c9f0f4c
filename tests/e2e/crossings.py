# SPDX-License-Identifier: MIT
"""What a pair of hosts must show whatever tracks the dirty pages: a busy Linux guest crosses and crosses back."""

import json
import re

from harness import moves
from harness.pair import linux, wait_beats

MEMORY = 128
VCPUS = 2
HEARTBEAT_MS = 20
WAIT_MS = 100


def busy_guest(name: str = "busy", vcpus: int = VCPUS, memory: int = MEMORY, rate: int = 200, fraction: float = 0.5,
               **options):
    """Writes and checks a fraction of its memory at `rate` pages a second, registers live, a heartbeat every 20 ms;
    its other CPUs work as well, by timers and wakes that are counted."""
    return linux(name, mode="work", memory=memory, vcpus=vcpus, **options,
                 extra=f"skiff.rate={rate} skiff.fraction={fraction} skiff.heartbeat_ms={HEARTBEAT_MS}")


def start_busy(group, name: str = "busy") -> None:
    alpha = group["alpha"]
    alpha.ok(f"follow {name} on")
    alpha.ok(f"start {name}")
    wait_beats(alpha, name, 20, 300, 0)


def check_move(result: moves.Move, tracking: str, crowded: bool) -> None:
    moves.check_beats(result)
    job = result.job
    assert tracking in (None, job["dirty_tracking"]), job
    assert job["digest"] == "match", job
    assert job["pages_zero"] > 0 and job["pages_sent"] > 0 and job["round"] >= 1, job
    assert len(result.before) >= 20, f"only {len(result.before)} heartbeats during pre-copy"
    check_gap(result, crowded)
    check_clock(result)
    if not crowded:  # what is predicted goes by rates, and these by who has a core at the time
        check_prediction(result)


def check_gap(result: moves.Move, crowded: bool) -> None:
    """The longest silence of the whole move, as seen outside, is the blackout: to 20 %, two heartbeat periods, which
    is what the beats can tell, and what an emulator that waits for a core of this computer adds to that."""
    gap, blackout = result.longest_gap_ms, result.job["measured_blackout_us"] / 1000
    tolerance = 0.2 * blackout + 2 * HEARTBEAT_MS
    assert gap >= blackout - tolerance and (crowded or gap <= blackout + tolerance + WAIT_MS), (
        f"outside saw a gap of {gap:.0f} ms (emulated), the hosts a blackout of {blackout:.0f} ms")


def check_clock(result: moves.Move) -> None:
    """The guest's clock went on while the guest stood still. The first heartbeat here may have begun there."""
    blackout = result.job["measured_blackout_us"] / 1000
    passed = (result.after[1].mono_ns - result.before[-1].mono_ns) / 1e6
    assert passed >= 0.95 * blackout, f"{passed:.1f} ms for the guest over a blackout of {blackout:.1f} ms"


def check_prediction(result: moves.Move) -> None:
    """Within a factor of two, 10 ms, and what the emulated clocks of the two hosts disagree by about the
    stretch from the stop to COMMIT, which both have measured."""
    job = result.job
    predicted, measured = job["predicted_blackout_us"] / 1000, job["measured_blackout_us"] / 1000
    source, target = (sum(j[f"blackout_{part}_us"] for part in ("stop", "pages", "state", "ready", "verify")) / 1000
                      for j in (job, result.incoming))
    slack = 10 + abs(source - target)
    assert predicted / 2 - slack <= measured <= predicted * 2 + slack, (
        f"predicted {predicted:.1f} ms, measured {measured:.1f} ms, by the two clocks {source:.1f} and {target:.1f} ms "
        f"to COMMIT: {job}")


def cross(group, tracking: str, tell, name: str = "busy") -> None:
    """Four moves, to and fro."""
    for source, target in [("alpha", "bravo"), ("bravo", "alpha")] * 2:
        result = moves.move(group[source], name, group[target])
        check_move(result, tracking, group.crowded)
        assert group.runners(name) == [target]
        left = [row for row in group[source].console.json(f"stats {name}") if row.get("kind") == "vcpu"]
        assert not left, f"vCPUs are left on {source}: {left}"
        tell(f"{source} to {target}: blackout {result.job['measured_blackout_us'] / 1000:.0f} ms, predicted "
             f"{result.job['predicted_blackout_us'] / 1000:.0f} ms, longest gap outside "
             f"{result.longest_gap_ms:.0f} ms, {result.job['round']} rounds, {result.job['bytes_wire'] / 1e6:.1f} MB")


VENDORS = {
    "names": ["alpha", "bravo"],
    "machines": {"alpha": "bochs-intel", "bravo": "qemu-amd"},
    "migrate": {"verify": "on"},
}


def roaming_guest(name: str, **options):
    """The busy guest on the level both vendors have, and beside it a 32-bit program that uses SYSENTER."""
    return linux(name, mode="work", memory=MEMORY, vcpus=VCPUS, cpu="x86-64-v3", **options,
                 extra="skiff.rate=100 skiff.check=500 skiff.fraction=0.3 skiff.heartbeat_ms=50 skiff.agent32=yes")


def start_roaming(host, name: str) -> None:
    host.ok(f"follow {name} on")
    start = host.machine.serial.position
    host.ok(f"start {name}")
    host.machine.serial.expect("AGENT32-READY sysenter", 400, start)
    wait_beats(host, name, 20, 300, start)


def roam(group, name: str, way: list[str], tell=None) -> list[moves.Move]:
    """One move after the other along the way, each watched from outside."""
    results = []
    for source, target in zip(way, way[1:]):
        result = moves.move(group[source], name, group[target], timeout=400)
        moves.check_beats(result)
        assert result.job["digest"] == "match", result.job
        assert group.runners(name) == [target]
        start = group[target].machine.serial.position
        group[target].machine.serial.expect(r"AGENT32 rounds \d+", 120, start)
        assert "AGENT-ERROR" not in group[target].machine.serial.text(), "the guest saw an error"
        results.append(result)
        if tell:
            tell(f"{name}: {source} to {target}, blackout {result.job['measured_blackout_us'] / 1000:.0f} ms, "
                 f"{result.job['round']} rounds")
    return results


def check_guest_inside(host, name: str = "busy", expected: str = "") -> dict:
    """All pages hold what was written, and the kernel has no complaint about clocks, APICs or stalls; lines with
    a match for `expected` aside. Returns the guest's own figures."""
    said = moves.guest_command(host, name, "verify", r"AGENT-STATS \{.*\}", 240)
    stats = json.loads(said[said.index("{", said.rindex("AGENT-STATS")) :])
    assert stats["errors"] == 0, said
    warnings = moves.guest_command(host, name, "dmesg", r"DMESG-END \d+", 120)
    if expected:
        warnings = "\n".join(line for line in warnings.splitlines() if not re.search(expected, line))
    for word in ("stall", "APIC error", "unstable", "lockup", "spurious", "clocksource", "hung"):
        assert word not in warnings, warnings
    return stats

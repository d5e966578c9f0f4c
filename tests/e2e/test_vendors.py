# SPDX-License-Identifier: MIT
"""Moves between vendors: an unmodified Linux guest on a CPU level, from Intel (Bochs) to AMD (QEMU) and back."""

import crossings
from harness import moves
from harness.pair import bare, wait_beats

ONLY = "bochs-intel"  # and its neighbour
GROUP = crossings.VENDORS | {
    "guests": {
        "alpha": [crossings.roaming_guest("roamer"), bare("intel", "beat.multiboot"),
                  bare("v4", "beat.multiboot", cpu="x86-64-v4")],
        "bravo": [crossings.roaming_guest("sailor", clock="kvm")],
    },
}


def test_a_guest_that_sees_its_hosts_cpu_stays_with_its_vendor(group):
    alpha, bravo = group["alpha"], group["bravo"]
    for name, wanted in (("intel", "CPU vendor"), ("v4", "avx512")):
        alpha.ok(f"follow {name} on")
        alpha.ok(f"start {name}")
        job = moves.wait_job(alpha, moves.start_move(alpha, name, bravo), 60)
        assert job["phase"] == "failed" and job["pages_sent"] == 0, job
        assert wanted in job["result"], job
        assert wait_beats(alpha, name, 3, 30)[-1].errors == 0
        alpha.ok(f"destroy {name}")


def test_linux_crosses_to_the_other_vendor_and_comes_back(group, progress):
    crossings.start_roaming(group["alpha"], "roamer")
    crossings.roam(group, "roamer", ["alpha", "bravo", "alpha"], tell=progress.say)
    crossings.check_guest_inside(group["alpha"], "roamer")
    group["alpha"].ok("destroy roamer")


def test_a_guest_from_amd_that_goes_by_kvms_clock(group, progress):
    """To a CPU that scales the TSC, where it must not notice, and home."""
    crossings.start_roaming(group["bravo"], "sailor")
    crossings.roam(group, "sailor", ["bravo", "alpha", "bravo"], tell=progress.say)
    # Linux watches its TSC by that clock, and says so when a blackout has kept it from looking for a second.
    crossings.check_guest_inside(group["bravo"], "sailor", expected="Long readout interval")

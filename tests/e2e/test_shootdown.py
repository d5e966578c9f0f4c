# SPDX-License-Identifier: MIT
"""Collecting dirty pages must throw out what CPUs still know of them; where it does not, verification tells. QEMU's
TCG hides missing flushes. Bochs keeps translations while a guest runs, and drops all of them at each exit: this guest
has a CPU to itself and hardly ever exits."""

import re

from harness import moves
from harness.pair import bare

MACHINE = ONLY = "bochs-intel"
TRIES = 5
GUEST = bare("trail", "trail.multiboot")
GUEST.cmdline = "hold=15000"
GROUP = {
    "names": ["alpha", "bravo"],
    "cpus": 2,
    "migrate": {"verify": "strict", "blackout_target_ms": 1},
    "guests": {"alpha": [GUEST]},
}


def test_verification_tells_that_tlbs_were_not_shot_down(group):
    """Whether a page's last writes fall between its copy and the CPU's next exit is chance, four times in five;
    strict, so that the guest is none the worse for it."""
    alpha, bravo = group["alpha"], group["bravo"]
    alpha.ok("follow trail on")
    alpha.ok("start trail")
    alpha.machine.serial.expect("TRAIL-READY", 60)
    for _ in range(TRIES):
        alpha.ok("fault no-shootdown")
        job = moves.wait_job(alpha, moves.start_move(alpha, "trail", bravo), 120)
        if job["phase"] == "failed":
            break
        bravo.ok("migrate trail alpha", 120)
    assert job["phase"] == "failed" and job["digest"] == "differ", job
    assert re.search(r"page at 0x[0-9a-f]+ differs", job["result"]), job["result"]
    assert group.runners("trail") == ["alpha"]


def test_with_the_shootdown_nothing_differs(group):
    alpha, bravo = group["alpha"], group["bravo"]
    for source, target in ((alpha, bravo), (bravo, alpha)) * 2:
        job = moves.wait_job(source, moves.start_move(source, "trail", target), 120)
        assert job["phase"] == "done" and job["digest"] == "match" and job["round"] > 1, job

# SPDX-License-Identifier: MIT
"""Moves of running guests with two vCPUs between hosts with two CPUs; on Bochs they are Skylake-X with PML."""

import re

import pytest

import crossings
from harness import moves
from harness.pair import bare, linux, wait_beats

QUIET = ["bochs-intel"]
GROUP = {
    "names": ["alpha", "bravo"],
    "cpus": 2,
    "migrate": {"verify": "on", "max_rounds": 2, "blackout_target_ms": 2},
    "guests": {"alpha": [
        crossings.busy_guest(),
        linux("wild", mode="work", memory=crossings.MEMORY, vcpus=2, extra="maxcpus=1 skiff.rate=0 skiff.fraction=0.25"),
        bare("beat", "beat.multiboot"),
    ]},
}


def test_a_busy_guest_crosses_four_times(group, tracking, progress):
    crossings.start_busy(group)
    crossings.cross(group, tracking, progress.say)
    crossings.check_guest_inside(group["alpha"])


def test_an_aborted_move_leaves_everything_as_it_was_and_the_next_one_succeeds(group, tracking):
    alpha, bravo = group["alpha"], group["bravo"]
    start = alpha.machine.serial.position
    job = moves.start_move(alpha, "busy", bravo)
    alpha.machine.serial.wait(lambda: alpha.job(job)["phase"] == "precopy", 60, "pre-copy")
    alpha.ok(f"job-abort {job}")
    assert moves.wait_job(alpha, job, 60)["phase"] == "aborted"
    assert group.runners("busy") == ["alpha"]
    assert bravo.guest("busy")["state"] in ("absent", "off", "moved")
    assert wait_beats(alpha, "busy", 10, 30, start)[-1].errors == 0
    crossings.check_move(moves.move(alpha, "busy", bravo), tracking, group.crowded)
    crossings.check_guest_inside(bravo)
    bravo.ok("destroy busy")


def test_without_a_rate_limit_the_round_limit_ends_precopy_and_the_prediction_holds(group):
    """The guest's second vCPU waits for its SIPI, which the guest sends on the destination."""
    alpha, bravo = group["alpha"], group["bravo"]
    alpha.ok("follow wild on")
    alpha.ok("start wild")
    wait_beats(alpha, "wild", 10, 300, 0)
    result = moves.move(alpha, "wild", bravo, timeout=400)
    moves.check_beats(result)
    job = result.job
    assert job["stop_reason"] == "rounds", job
    if not group.crowded:
        crossings.check_prediction(result)
    assert job["digest"] == "match"
    moves.guest_command(bravo, "wild", "start-cpu", r"AGENT-CPUS 2\b")
    crossings.check_guest_inside(bravo, "wild")
    bravo.ok("destroy wild")


@pytest.mark.parametrize("fault, named", [
    ("flip-page", r"page"),
    ("change-register", r"\br(bx|ax|cx|dx|si|di|bp|8|9|1[0-5])\b"),
])
def test_verify_reports_exactly_what_differs(group, fault, named):
    alpha, bravo = group["alpha"], group["bravo"]
    if alpha.guest("beat")["state"] != "running":
        alpha.ok("follow beat on")
        alpha.ok("start beat")
        wait_beats(alpha, "beat", 5, 60)
    alpha.ok(f"fault {fault}")
    job = moves.wait_job(alpha, moves.start_move(alpha, "beat", bravo), 120)
    assert job["phase"] == "failed" and job["digest"] == "differ", job
    assert re.search(named, job["result"]), job["result"]
    assert group.runners("beat") == ["alpha"]
    assert wait_beats(alpha, "beat", 5, 30)[-1].errors == 0

# SPDX-License-Identifier: MIT
"""Moves of running guests between two Skylake-X hosts (PML)."""

import re

import pytest

import crossings
from harness import moves
from harness.pair import bare, linux, wait_beats

GROUP = {
    "names": ["alpha", "bravo"],
    "migrate": {"verify": "on", "max_rounds": 2},
    "guests": {"alpha": [
        crossings.busy_guest(),
        linux("wild", mode="work", memory=crossings.MEMORY, extra="skiff.rate=0 skiff.fraction=0.25"),
        bare("timers", "timers.multiboot", ),
        bare("irqstate", "irqstate.multiboot"),
        bare("beat", "beat.multiboot"),
    ]},
}
GROUP["guests"]["alpha"][2].cmdline = "seconds=40"
GROUP["guests"]["alpha"][3].cmdline = "rounds=200000"


def test_a_busy_guest_crosses_four_times(group, progress):
    crossings.start_busy(group)
    crossings.cross(group, 4, "pml", tell=progress.say)
    crossings.check_guest_inside(group["alpha"])


def test_an_aborted_move_leaves_everything_as_it_was_and_the_next_one_succeeds(group):
    alpha, bravo = group["alpha"], group["bravo"]
    start = alpha.machine.serial.position
    job = moves.start_move(alpha, "busy", bravo)
    alpha.machine.serial.wait(lambda: alpha.job(job)["phase"] == "precopy", 60, "pre-copy")
    alpha.ok(f"job-abort {job}")
    assert moves.wait_job(alpha, job, 60)["phase"] == "aborted"
    assert group.runners("busy") == ["alpha"]
    assert bravo.guest("busy")["state"] in ("absent", "off", "moved")
    assert wait_beats(alpha, "busy", 10, 30, start)[-1].errors == 0
    crossings.check_move(moves.move(alpha, "busy", bravo), "pml")
    crossings.check_guest_inside(bravo)
    bravo.ok("destroy busy")


def test_without_a_rate_limit_the_round_limit_ends_precopy_and_the_prediction_holds(group):
    alpha, bravo = group["alpha"], group["bravo"]
    alpha.ok("follow wild on")
    alpha.ok("start wild")
    wait_beats(alpha, "wild", 10, 300, 0)
    result = moves.move(alpha, "wild", bravo, timeout=400)
    moves.check_beats(result)
    job = result.job
    assert job["stop_reason"] == "rounds", job
    assert 0.5 <= job["predicted_blackout_us"] / job["measured_blackout_us"] <= 2, job
    assert job["digest"] == "match"
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


def test_timers_neither_stall_nor_storm_across_a_move(group):
    """PIT, RTC and local APIC timer against the PM timer, second by second, with a move in between."""
    alpha, bravo = group["alpha"], group["bravo"]
    for host in (alpha, bravo):
        host.ok("follow timers on")
    alpha.ok("start timers")
    job = moves.wait_job(alpha, moves.start_move(alpha, "timers", bravo), 120)
    assert job["phase"] == "done" and job["digest"] == "match", job
    bravo.wait_guest("timers", "off", 120)
    said = alpha.machine.serial.text() + bravo.machine.serial.text()
    assert "FAIL" not in said.split("timers|", 1)[1], said[-3000:]


def test_interrupt_state_survives(group):
    alpha, bravo = group["alpha"], group["bravo"]
    for host in (alpha, bravo):
        host.ok("follow irqstate on")
    alpha.ok("start irqstate")
    job = moves.wait_job(alpha, moves.start_move(alpha, "irqstate", bravo), 120)
    assert job["phase"] == "done" and job["digest"] == "match", job
    bravo.ok("destroy irqstate")

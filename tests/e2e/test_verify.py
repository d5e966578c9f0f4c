# SPDX-License-Identifier: MIT
"""Verification, in both its strengths: alpha reads all memory in the blackout (strict), bravo audits afterwards (on)."""

import re

import pytest

import crossings
from harness import moves
from harness.pair import host_cfg, wait_beats

NAMES = ["alpha", "bravo"]
QUIET = ["bochs-intel"]
GUESTS = [crossings.busy_guest()]
GROUP = {
    "names": NAMES,
    "cpus": 2,
    "guests": {"alpha": GUESTS},
    "texts": {"alpha": host_cfg("alpha", NAMES, GUESTS, {"verify": "strict"}),
              "bravo": host_cfg("bravo", NAMES, [], {"verify": "on"})},
}


@pytest.fixture(scope="module")
def busy(group):
    crossings.start_busy(group)
    return group


@pytest.mark.parametrize("fault, named", [
    ("flip-page", r"page at 0x[0-9a-f]+ differs$"),
    ("change-register", r"vcpu 0: rbx is "),
    ("lose-page", r"page at 0x[0-9a-f]+ differs$"),
])
def test_strict_reports_exactly_what_differs_before_the_hand_over(busy, fault, named):
    alpha, bravo = busy["alpha"], busy["bravo"]
    alpha.ok(f"fault {fault}")
    job = moves.wait_job(alpha, moves.start_move(alpha, "busy", bravo), 120)
    assert job["phase"] == "failed" and job["digest"] == "differ", job
    assert re.search(named, job["result"]), job["result"]
    assert busy.runners("busy") == ["alpha"]
    assert wait_beats(alpha, "busy", 5, 30)[-1].errors == 0


def test_the_blackout_of_a_strict_move_holds_its_verification(busy):
    crossings.check_move(moves.move(busy["alpha"], "busy", busy["bravo"]), None, busy.crowded)
    assert busy.runners("busy") == ["bravo"]


def test_the_audit_reports_a_write_that_the_dirty_log_missed(busy):
    alpha, bravo = busy["alpha"], busy["bravo"]
    bravo.ok("fault lose-page")
    start = bravo.machine.serial.position
    job = moves.wait_job(bravo, moves.start_move(bravo, "busy", alpha), 120)
    assert job["phase"] == "done" and job["digest"] == "differ", job
    assert re.search(r"the dirty log missed writes: page at 0x[0-9a-f]+ differs$", job["result"]), job["result"]
    assert bravo.console.wait_log(r"migrate: guest busy runs on alpha, but its memory there is stale", 10, start)
    assert busy.runners("busy") == ["alpha"]
    assert bravo.guest("busy")["state"] == "moved"

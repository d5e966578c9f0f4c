# SPDX-License-Identifier: MIT
"""CPU levels between two Intel models: Skylake-X has what Haswell lacks, and both have x86-64-v3."""

import crossings
from harness import moves
from harness.pair import bare, wait_beats

ONLY = "bochs-intel"
GROUP = {
    "names": ["alpha", "bravo"],
    "migrate": {"verify": "on"},
    "models": {"alpha": "corei7_skylake_x", "bravo": "corei7_haswell_4770"},
    "guests": {"alpha": [
        crossings.busy_guest("level", cpu="x86-64-v3"),
        bare("beat", "beat.multiboot"),
        bare("beat-v2", "beat.multiboot", cpu="x86-64-v2"),
        bare("beat-v4", "beat.multiboot", cpu="x86-64-v4"),
    ], "bravo": [bare("too-much", "beat.multiboot", cpu="x86-64-v4")]},
}


def start(host, name):
    host.ok(f"follow {name} on")
    host.ok(f"start {name}")
    wait_beats(host, name, 3, 60, 0)


def test_what_the_destination_lacks_of_a_level_is_named_before_the_first_page(group):
    alpha, bravo = group["alpha"], group["bravo"]
    start(alpha, "beat-v4")
    job = moves.wait_job(alpha, moves.start_move(alpha, "beat-v4", bravo), 60)
    assert job["phase"] == "failed" and job["pages_sent"] == 0, job
    assert "avx512" in job["result"], job
    assert group.runners("beat-v4") == ["alpha"]
    assert wait_beats(alpha, "beat-v4", 3, 30)[-1].errors == 0
    alpha.ok("destroy beat-v4")


def test_every_component_of_the_xsave_state_that_the_destination_lacks_is_named(group):
    """By the check and by the move, on both hosts, before the first page."""
    alpha, bravo = group["alpha"], group["bravo"]
    start(alpha, "beat")
    [answer] = alpha.console.json("migrate beat bravo --check", 60)
    for name in ("CPU feature avx512f:", "XSAVE component opmask (XCR0 bit 5):",
                 "XSAVE component ZMM_Hi256 (XCR0 bit 6):", "XSAVE component Hi16_ZMM (XCR0 bit 7):"):
        assert any(reason.startswith(name) for reason in answer["reasons"]), (name, answer)
    begin = alpha.machine.serial.position
    job = moves.wait_job(alpha, moves.start_move(alpha, "beat", bravo), 60)
    assert job["phase"] == "failed" and job["pages_sent"] == job["pages_zero"] == 0, job
    assert answer["reasons"][0] in job["result"], (answer, job)
    said = [line.message for line in alpha.console.log(begin)]
    for reason in answer["reasons"]:
        assert f"bravo refuses guest beat: {reason}" in said, (reason, said)
    assert bravo.guest("beat")["state"] == "absent"
    assert wait_beats(alpha, "beat", 5, 60)[-1].errors == 0
    alpha.ok("destroy beat")


def test_a_host_that_lacks_some_of_a_level_does_not_start_the_guest(group):
    error = group["bravo"].refused("start too-much")
    assert "avx512f" in error and "x86-64-v4" in error, error


def test_a_level_both_have_crosses(group):
    alpha, bravo = group["alpha"], group["bravo"]
    start(alpha, "beat-v2")
    for source, target in ((alpha, bravo), (bravo, alpha)):
        job = moves.wait_job(source, moves.start_move(source, "beat-v2", target), 60)
        assert job["phase"] == "done" and job["digest"] == "match", job
    alpha.ok("destroy beat-v2")


def test_linux_on_a_level_crosses_and_comes_back(group, progress):
    alpha, bravo = group["alpha"], group["bravo"]
    crossings.start_busy(group, "level")
    for source, target, tracking in ((alpha, bravo, "pml"), (bravo, alpha, "wp")):
        result = moves.move(source, "level", target)
        moves.check_beats(result)
        assert result.job["digest"] == "match" and result.job["dirty_tracking"] == tracking, result.job
        assert group.runners("level") == [target.name]
    crossings.check_guest_inside(alpha, "level")

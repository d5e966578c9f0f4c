# SPDX-License-Identifier: MIT
"""A guest that was shown AVX-512 is refused by a host whose CPU lacks it: by name, before the first page."""

from harness import moves
from harness.pair import bare, wait_beats

ONLY = "bochs-intel"
GROUP = {
    "names": ["alpha", "bravo"],
    "ram_mib": 256,
    "models": {"alpha": "corei7_skylake_x", "bravo": "corei7_haswell_4770"},
    "guests": {"alpha": [bare("beat", "beat.multiboot")]},
}


def test_a_component_that_the_destination_lacks_is_named_before_the_first_page(group):
    alpha, bravo = group["alpha"], group["bravo"]
    alpha.ok("follow beat on")
    alpha.ok("start beat")
    wait_beats(alpha, "beat", 3, 60)
    [answer] = alpha.console.json("migrate beat bravo --check", 60)
    for name in ("CPU feature avx512f:", "XSAVE component opmask (XCR0 bit 5):",
                 "XSAVE component ZMM_Hi256 (XCR0 bit 6):", "XSAVE component Hi16_ZMM (XCR0 bit 7):"):
        assert any(reason.startswith(name) for reason in answer["reasons"]), (name, answer)
    start = alpha.machine.serial.position
    job = moves.wait_job(alpha, moves.start_move(alpha, "beat", bravo), 60)
    assert job["phase"] == "failed" and job["pages_sent"] == job["pages_zero"] == 0, job
    assert answer["reasons"][0] in job["result"], (answer, job)
    said = [line.message for line in alpha.console.log(start)]
    for reason in answer["reasons"]:
        assert f"bravo refuses guest beat: {reason}" in said, (reason, said)
    assert bravo.guest("beat")["state"] == "absent"
    assert wait_beats(alpha, "beat", 5, 60)[-1].errors == 0

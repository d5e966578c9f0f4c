# SPDX-License-Identifier: MIT
"""Guests from a host with a fast TSC (QEMU, AMD) on one with a slow TSC that cannot scale it (Bochs, Haswell)."""

import crossings

ONLY = "bochs-intel"  # and its neighbour
GROUP = crossings.VENDORS | {
    "models": {"alpha": "corei7_haswell_4770"},
    "guests": {"bravo": [crossings.roaming_guest("steady"), crossings.roaming_guest("drifter", clock="kvm")]},
}
# What Linux says of a TSC whose rate has changed, and it is right; it goes by KVM's clock meanwhile.
DRIFT = r"clocksource: |clocksource'|TSC .*unstable"


def tsc(host, name: str) -> str:
    return host.ok(f"info {name}")[0]["tsc"]


def test_a_tsc_of_constant_rate_is_trapped(group, progress):
    alpha, bravo = group["alpha"], group["bravo"]
    start = bravo.machine.serial.position
    crossings.start_roaming(bravo, "steady")
    assert "clock tsc" in bravo.machine.serial.text(start)
    crossings.roam(group, "steady", ["bravo", "alpha"], tell=progress.say)
    assert tsc(alpha, "steady") == "trapped"
    crossings.roam(group, "steady", ["alpha", "bravo"], tell=progress.say)
    assert tsc(bravo, "steady") == "direct"
    crossings.check_guest_inside(bravo, "steady")
    bravo.ok("destroy steady")


def test_a_guest_that_goes_by_kvms_clock_is_not(group, progress):
    alpha, bravo = group["alpha"], group["bravo"]
    start = bravo.machine.serial.position
    crossings.start_roaming(bravo, "drifter")
    assert "clock kvm-clock" in bravo.machine.serial.text(start)
    crossings.roam(group, "drifter", ["bravo", "alpha"], tell=progress.say)
    assert tsc(alpha, "drifter") == "foreign"
    crossings.check_guest_inside(alpha, "drifter", expected=DRIFT)
    crossings.roam(group, "drifter", ["alpha", "bravo"], tell=progress.say)
    crossings.check_guest_inside(bravo, "drifter", expected=DRIFT)

# SPDX-License-Identifier: MIT
"""Guests with more vCPUs than their hosts have CPUs, up to sixteen, move with all of them."""

import pytest

from harness import moves
from harness.pair import Group, linux, wait_beats

QUIET = ["qemu-amd"]
FOUR = linux("four", mode="work", memory=128, vcpus=4, extra="skiff.fraction=0.25")
SIXTEEN = linux("sixteen", mode="work", memory=256, vcpus=16, extra="skiff.rate=50 skiff.fraction=0.1")


STEAL_MAX_S = 2  # a round of all vCPUs takes a tenth of that, where the computer below gives its CPUs to the machines


def vcpus_that_ran(host, guest: str) -> int:
    """How many did, none of which may have waited for a CPU longer than the others can have kept it."""
    rows = [row for row in host.ok(f"stats {guest}") if row["kind"] == "vcpu"]
    assert rows, f"no vCPUs on {host.name}: {host.guest(guest)}"
    for row in rows:
        assert row["steal_max_ns"] < STEAL_MAX_S * 1e9, row
    return sum(row["exits"] > 0 for row in rows)


@pytest.mark.parametrize("guest, cpus", [(FOUR, 2), (SIXTEEN, 1)], ids=["four", "sixteen"])
def test_a_guest_with_more_vcpus_than_the_host_has_cpus_moves(folder, guest, cpus):
    with Group(folder / guest.name, ["alpha", "bravo"], "qemu-amd", cpus=cpus, ram_mib=768, migrate={"verify": "on"},
               guests={"alpha": [guest]}) as group:
        alpha, bravo = group.boot()["alpha"], group["bravo"]
        idle = [row["cpu"] for row in alpha.ok("stats") if row["kind"] == "thread" and row["name"] == "idle"]
        assert sorted(idle) == list(range(alpha.machine.count))
        alpha.ok(f"follow {guest.name} on")
        start = alpha.machine.serial.position
        alpha.ok(f"start {guest.name}")
        alpha.machine.serial.expect(rf"AGENT-READY .* cpus {guest.vcpus}\b", 300, start)
        wait_beats(alpha, guest.name, 5, 60, start)
        assert vcpus_that_ran(alpha, guest.name) == guest.vcpus
        result = moves.move(alpha, guest.name, bravo)
        moves.check_beats(result)
        assert result.job["digest"] == "match"
        assert vcpus_that_ran(bravo, guest.name) == guest.vcpus
        warnings = moves.guest_command(bravo, guest.name, "dmesg", r"DMESG-END \d+", 120)
        for word in ("stall", "APIC error", "unstable", "lockup", "hung"):
            assert word not in warnings, warnings

# SPDX-License-Identifier: MIT
"""Large and many: a guest of 5 GiB moves between two hosts of 8 GiB, and one host runs 32 guests."""

import re

import pytest

from harness import moves, paths
from harness.pair import Group, bare, linux, wait_beats

HOST_MIB, GUEST_MIB, FREE_MIB = 8192, 5120, 20480
MANY = [f"small{i}" for i in range(32)]


def free_mib() -> int:
    with open("/proc/meminfo") as meminfo:
        return int(re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read())[1]) // 1024


@pytest.fixture
def folder():
    path = paths.BUILD / "e2e" / "test_sizes"
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.skipif(free_mib() < FREE_MIB, reason=f"two hosts of {HOST_MIB} MiB want {FREE_MIB} MiB of free memory")
def test_a_guest_with_ram_above_4_gib_moves(folder):
    big = linux("big", mode="work", memory=GUEST_MIB, vcpus=2,
                extra="skiff.rate=500 skiff.fraction=0.1 skiff.heartbeat_ms=50")
    with Group(folder, ["alpha", "bravo"], "qemu-amd", ram_mib=HOST_MIB, cpus=2, migrate={"verify": "on"},
               guests={"alpha": [big]}) as group:
        alpha, bravo = group.boot()["alpha"], group["bravo"]
        assert alpha.ok("host")[0]["memory_bytes"] > 7 << 30
        alpha.ok("follow big on")
        alpha.ok("start big", timeout=120)
        wait_beats(alpha, "big", 10, 300, 0)
        result = moves.move(alpha, "big", bravo, timeout=400)
        moves.check_beats(result)
        assert result.job["digest"] == "match", result.job
        stats = moves.guest_command(bravo, "big", "stats", r"AGENT-STATS \{.*\}", 60)
        assert re.search(r'"errors": 0\b', stats), stats


def test_as_many_guests_as_a_configuration_can_name_run_at_once(folder):
    guests = [bare(name, "beat.multiboot") for name in MANY]
    with Group(folder, ["alpha"], "qemu-amd", ram_mib=3072, guests={"alpha": guests}) as group:
        alpha = group.boot()["alpha"]
        before = alpha.ok("host")[0]
        for name in MANY:
            alpha.ok(f"start {name}")
        states = {guest["name"]: guest["state"] for guest in alpha.ok("list")}
        assert [states[name] for name in MANY] == ["running"] * len(MANY)
        alpha.ok(f"follow {MANY[-1]} on")
        wait_beats(alpha, MANY[-1], 3, 60)
        after = alpha.ok("host")[0]
        each = (after["host_bytes"] - before["host_bytes"]) / len(MANY)
        assert each < 1 << 20, f"a guest costs the host {each / 1024:.0f} KiB beyond its RAM"
        for name in MANY:
            alpha.ok(f"destroy {name}")
        assert alpha.ok("host")[0]["guest_bytes"] == before["guest_bytes"]

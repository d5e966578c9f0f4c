# SPDX-License-Identifier: MIT
"""A guest moves with its disk between hosts that share nothing, and writes to it all the time."""

import pytest

import writer
from harness import moves
from harness.pair import Group, wait_beats
from writer import verify

MIB = 1 << 20


@pytest.fixture(scope="module")
def hosts(folder):
    names = ["alpha", "bravo"]
    with Group(folder, names, "qemu-amd", migrate={"verify": "on"}, guests={"alpha": [writer.guest()]},
               disks=writer.datastores(folder, names, volume_mib=96)) as group:
        group.boot()
        group["alpha"].ok("follow web on")
        group["alpha"].ok("start web")
        wait_beats(group["alpha"], "web", 5, 90)
        yield group


def test_disks_do_not_move_by_accident(hosts):
    assert "--disk" in hosts["alpha"].refused("migrate web bravo")
    assert hosts["alpha"].ok("migrate web bravo --disk --check")[0]["possible"]
    assert hosts["bravo"].ok("volumes") == []


def test_there_and_back_while_it_writes(hosts):
    source, target = hosts["alpha"], hosts["bravo"]
    for _ in range(4):
        result = moves.move(source, "web", target, options="--disk")
        moves.check_beats(result)
        job = result.job
        assert job["disk_digest"] == "match" and job["digest"] == "match", job
        assert job["disk_blocks_equal"] > 0 and 0 < job["disk_bytes_wire"] < 90 * MIB, job
        found = verify(target)
        assert found["errors"] == 0 and found["writes"] > 0, found
        assert source.ok("volumes") == [] and target.ok("volumes")[0]["used_by"] == "guest web"
        source, target = target, source
    assert hosts.runners("web") == ["alpha"]


def test_a_link_that_is_cut_while_the_disk_is_copied(hosts):
    """The guest goes on where it was, the part of a copy is deleted, and the next move succeeds."""
    alpha, bravo = hosts["alpha"], hosts["bravo"]
    start, there = (host.machine.serial.position for host in (alpha, bravo))
    alpha.ok("fault stall-at-disk")
    job = moves.start_move(alpha, "web", bravo, "--disk")
    alpha.console.wait_log("stalled at disk", 30, start)
    assert [row["name"] for row in bravo.ok("volumes")] == ["fast/web"]
    hosts.network.cut("tap-bravo")
    alpha.ok("fault none")
    ended = moves.wait_job(alpha, job, 120)
    assert ended["phase"] == "failed" and "bravo" in ended["result"], ended
    assert verify(alpha)["errors"] == 0
    bravo.console.wait_log("the copy here is discarded", 60, there)
    assert bravo.ok("volumes") == []
    hosts.network.restore("tap-bravo")
    moves.check_beats(moves.move(alpha, "web", bravo, options="--disk"))
    assert verify(bravo)["errors"] == 0
    assert bravo.ok("datastore check fast")

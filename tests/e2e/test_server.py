# SPDX-License-Identifier: MIT
"""A real Debian server, used from outside all the time, moves between hosts that share nothing."""

import pytest

import server
from harness import clients

ONLY = "qemu-amd"
QUIET = [ONLY]


@pytest.fixture(scope="module")
def hosts(folder):
    with server.group(folder, ONLY) as group:
        yield group.boot()


@pytest.fixture(scope="module")
def web(hosts):
    server.start(hosts["alpha"])


@pytest.fixture(scope="module")
def use(web):
    with server.Use() as use:
        yield use


def test_it_is_a_whole_distribution(web):
    assert clients.ssh(server.ADDRESS, "systemctl is-system-running").strip() == "running"
    assert "ext4" in clients.ssh(server.ADDRESS, "findmnt -n -o FSTYPE,SOURCE /")


def test_it_moves_with_its_disk_four_times_and_nobody_notices(hosts, use, progress):
    ways = [("alpha", "bravo"), ("bravo", "alpha")] * 2
    for source, target in ways:
        result = server.move(hosts[source], hosts[target], use, tell=progress.say)
        progress.say(f"{source} to {target}: silent for {result.gap_ms:.0f} ms, "
                     f"blackout {result.job['measured_blackout_us'] / 1000:.0f} ms")
        server.check_move(result)
        assert hosts.runners(server.NAME) == [target]
        volumes = {row["name"] for row in hosts[source].ok("volumes")}
        assert server.VOLUME not in volumes, "the source keeps a stale disk"
    assert server.damage(use) == []
    use.check()

# SPDX-License-Identifier: MIT
"""The hosts' network cards, each in two hosts on a network of jumbo frames."""

import subprocess

import pytest

from frames import send_malformed
from harness import moves
from harness.machine import qemu_has_device
from harness.pair import Group, bare, wait_beats
from harness.traffic import wait_ping

# QEMU's device: the driver, and the interrupt it is to get.
NICS = {
    "virtio-net-pci": ("virtio-net", "MSI-X"),
    "e1000e": ("e1000e", "MSI-X"),
    "igb": ("igb", "MSI-X"),
    "e1000": ("e1000", "INTx"),
}
MTU = 9000


@pytest.fixture(scope="module", params=NICS)
def hosts(request, folder):
    if not qemu_has_device(request.param):
        pytest.skip(f"this QEMU has no {request.param}: version 8 or later has (SKIFF_QEMU names another one)")
    beat = bare("beat", "beat.multiboot")
    beat.cmdline = "pages=1024 rate=500 period=50"
    with Group(folder / request.param, ["alpha", "bravo"], "qemu-amd", nic=request.param, mtu=MTU,
               guests={"alpha": [beat]}) as group:
        yield group.boot()


def ping(target: str, *options: str) -> None:
    result = subprocess.run(["ping", "-c", "4", "-i", "0.2", "-W", "5", *options, target], capture_output=True, text=True)
    assert " 0% packet loss" in result.stdout, f"{result.stdout}{result.stderr}"


def test_the_host_tells_its_card(hosts):
    alpha = hosts["alpha"]
    alpha.machine.serial.wait(lambda: alpha.ok("host")[0]["link"], 20, "a link: it is negotiated after the boot")
    host = alpha.ok("host")[0]
    driver, interrupt = NICS[hosts.nic]
    assert (host["nic"], host["interrupt"], host["mtu"]) == (driver, interrupt, MTU), host
    assert "tx-checksum" in host["offloads"]


@pytest.mark.parametrize("size", ["56", "8000", "20000"])
def test_ping(hosts, size):
    """In one frame, in one jumbo frame, and in fragments."""
    ping(hosts["alpha"].address, "-s", size)
    ping(hosts["alpha"].address6, "-s", size)


def test_a_lost_link_is_told_and_comes_back(hosts):
    alpha = hosts["alpha"]
    for up in (False, True):
        alpha.machine.set_link(up)
        alpha.machine.serial.wait(lambda: alpha.ok("host")[0]["link"] == up, 20, f"link up: {up}")
    assert [line["text"] for line in alpha.ok("log") if line["text"].startswith("link")][-2:] == ["link down", "link up"]
    ping(alpha.address)


def test_the_link_to_a_peer_carries_a_transfer(hosts):
    alpha, bravo = hosts["alpha"], hosts["bravo"]
    before = bravo.ok("stats")[0]
    result = alpha.ok("net-test bravo 32")[0]
    after = bravo.ok("stats")[0]
    assert result["bytes"] == 32 << 20
    assert after["rx_bytes"] - before["rx_bytes"] >= result["bytes"]
    assert "nobody" in alpha.refused("net-test nobody") and "MIB" in alpha.refused("net-test bravo 0")


def test_a_guest_moves_there_and_back(hosts):
    alpha, bravo = hosts["alpha"], hosts["bravo"]
    alpha.ok("follow beat on")
    alpha.ok("start beat")
    wait_beats(alpha, "beat", 5, 60)
    for source, target in ((alpha, bravo), (bravo, alpha)):
        target.ok("follow beat on")
        start = target.machine.serial.position
        job = moves.wait_job(source, moves.start_move(source, "beat", target), 60)
        assert job["phase"] == "done", job
        assert wait_beats(target, "beat", 5, 30, start)[-1].errors == 0
        assert hosts.runners("beat") == [target.name]
    alpha.ok("destroy beat")


def test_malformed_frames_do_no_harm(hosts):
    """At the end: half-open connections keep others out for a while."""
    alpha = hosts["alpha"]
    wait_ping(alpha.address, 20)
    send_malformed("br0", alpha.machine.mac, alpha.address, alpha.address6, 10_000, seed=2)
    wait_ping(alpha.address, 20)  # the last of the flood is before it in the queues
    ping(alpha.address)
    assert alpha.ok("stats")[0]["rx_frames"] > 5000

# SPDX-License-Identifier: MIT
"""Guests on the network: reached from outside and from each other, kept apart where they are to be, and followed by
their connections when they move: the announcement is what others would stay silent without."""

import subprocess
import time

import pytest

from harness import moves
from harness.pair import linux
from harness.traffic import RARP, Echo, Wire, ping, tagged_arp, wait_ping

MACHINE = ONLY = "qemu-amd"  # the other machine's moves have a guest with a card as well
ONE, TWO, TAGGED = "10.77.0.21", "10.77.0.22", "10.78.0.21"
MAC = "52:54:00:5f:01:01"
FOREIGN = "02:00:00:00:00:99"
VLAN = 7
MOVES, ANNOUNCEMENTS = 4, 7

GROUP = {
    "names": ["alpha", "bravo"],
    "nic": "virtio-net-pci",
    "guests": {"alpha": [
        linux("one", mode="shell", extra=f"skiff.address={ONE}", mac=MAC),
        linux("two", mode="shell", extra=f"skiff.address={TWO}"),
        linux("tagged", mode="shell", extra=f"skiff.address={TAGGED}", vlan=VLAN),
    ]},
}


@pytest.fixture(scope="module")
def running(group):
    for name in ("one", "two", "tagged"):
        group["alpha"].ok(f"start {name}")
    for address in (ONE, TWO):
        wait_ping(address, 90)
    return group


def run(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True)


def guest_ping(host, guest: str, target: str) -> str:
    """What the guest's ping says in the end."""
    return moves.guest_command(host, guest, f"ping -c 3 -W 1 {target}", r"packets? transmitted.*packet loss")


def card(host, guest: str) -> dict:
    return next(o for o in host.ok(f"stats {guest}") if o["kind"] == "guest-network")


def test_a_guest_is_reached_from_outside(running):
    ping(ONE)
    ping(ONE, "-s", "20000")
    assert " 0% packet loss" in guest_ping(running["alpha"], "two", running["alpha"].address)
    info = running["alpha"].ok("info one")[0]
    assert (info["network"], info["mac"]) == (True, MAC), info


def test_two_guests_talk_without_the_wire(running):
    with Wire("tap-alpha") as wire:
        assert " 0% packet loss" in guest_ping(running["alpha"], "two", ONE)
        time.sleep(0.3)
    assert not [f for _, f in wire.frames if MAC.replace(":", "") == f[6:12].hex() and f[12:14] == b"\x08\x00"]


def test_a_vlan_is_tagged_outside_and_apart_from_the_others(running):
    alpha = running["alpha"]
    answer = tagged_arp("tap-alpha", VLAN, TAGGED, 60)
    assert answer[6:12].hex(":") == alpha.ok("info tagged")[0]["mac"]
    assert answer[12:16] == bytes([0x81, 0, 0, VLAN])
    moves.guest_command(alpha, "tagged", "ip addr add 10.77.0.29/24 dev eth0; echo DONE=$?", r"DONE=0")
    assert "100% packet loss" in guest_ping(alpha, "tagged", ONE)
    assert "100% packet loss" in guest_ping(alpha, "one", "10.77.0.29")


def test_a_guest_cannot_send_with_anothers_address(running):
    alpha = running["alpha"]
    with Wire("tap-alpha") as wire:
        moves.guest_command(alpha, "two", f"ip link set eth0 down; ip link set eth0 address {FOREIGN}; "
                                          "ip link set eth0 up; echo DONE=$?", r"DONE=0")
        assert "100% packet loss" in guest_ping(alpha, "two", "10.77.0.1")
    assert not wire.sent_by(FOREIGN)
    assert card(alpha, "two")["wrong_source"] > 0
    mac = alpha.ok("info two")[0]["mac"]
    moves.guest_command(alpha, "two", f"ip link set eth0 down; ip link set eth0 address {mac}; ip link set eth0 up; "
                                      "echo DONE=$?", r"DONE=0")
    wait_ping(TWO, 20)


def test_a_connection_outlives_every_move(running, progress):
    """The guest is announced where it is now, several times and at once, and nothing is reset."""
    hosts = [running["alpha"], running["bravo"]]
    with Echo(ONE) as echo, Wire("br0") as wire:
        echo.check()
        for i in range(MOVES):
            source, target = hosts[i % 2], hosts[(i + 1) % 2]
            begin = time.monotonic()
            job = moves.wait_job(source, moves.start_move(source, "one", target), 60)
            assert job["phase"] == "done", job
            echo.check()
            wire.wait(lambda: len(wire.sent_by(MAC, RARP, begin)) >= ANNOUNCEMENTS, 10, "every announcement")
            wire.wait(lambda: wire.gratuitous(MAC, begin) == {"ARP", "ND"}, 5, "the guest's own announcements")
            announced = wire.sent_by(MAC, RARP, begin)
            gap, blackout = echo.longest_gap_ms(announced[0] - 1), job["measured_blackout_us"] / 1000
            progress.say(f"move {i + 1}: silence {gap:.0f} ms, blackout {blackout:.0f} ms, {len(announced)} announcements")
            assert 1.9 < announced[-1] - announced[0]
            assert gap < blackout + 3000, f"a silence of {gap:.0f} ms with a blackout of {blackout:.0f} ms"
    assert running.runners("one") == ["alpha"]


def test_frames_that_reach_the_old_host_follow_the_guest(running):
    """A switch that does not learn from the announcement goes on sending to the old host."""
    alpha, bravo = running["alpha"], running["bravo"]
    ping(ONE)
    run("bridge link set dev tap-bravo learning off")
    start = alpha.machine.serial.position
    try:
        with Echo(ONE) as echo:
            echo.check()
            job = moves.wait_job(alpha, moves.start_move(alpha, "one", bravo), 60)
            assert job["phase"] == "done", job
            ping(ONE, count=10)
            echo.check()
    finally:
        run("bridge link set dev tap-bravo learning on")
    ping(ONE)  # the last that goes by the old host: its answer is learned from
    alpha.console.wait_log(r"guest one: \d+ frames that came here were passed on", 20, start)
    ping(ONE)

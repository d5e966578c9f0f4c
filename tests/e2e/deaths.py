# SPDX-License-Identifier: MIT
"""Hosts that die in the middle of a disk move: one of the two ends at a named point (kernel/migrate/fault.h), comes
back, and then one of them has the guest with all it had flushed, and the other has nothing."""

import time
from pathlib import Path

import writer
from harness import moves
from harness.pair import Group, Host, beats, wait_beats
from harness.store import skiff_store
from writer import NAME, STORE

POINTS = ("accept", "disk", "precopy", "stop", "offer", "ready", "record", "commit", "running", "release")
VICTIMS = ("source", "destination")
UUID = "8c0f3d2e-51b7-4a66-9d5e-2f7a1c4b6e90"


def group(folder: Path, autostart: bool = False) -> Group:
    """Two hosts with a datastore each, and both know a guest that writes to its disk all the time; alpha has the disk.

    It has KVM's clock: on a busy emulated host Linux may not find out how fast its TSC goes and then takes the PM timer,
    which wraps within the seconds for which a guest stands still when its destination dies."""
    names = ["alpha", "bravo"]
    guest = writer.guest(memory=96, autostart=autostart, uuid=UUID, clock="kvm")
    return Group(folder, names, "qemu-amd", migrate={"verify": "on"}, guests={name: [guest] for name in names},
                 disks=writer.datastores(folder, names, volume_mib=32))


def start(hosts: Group) -> None:
    for host in hosts.hosts.values():
        host.ok(f"follow {NAME} on")
    if not hosts.guests["alpha"][0].autostart:
        hosts["alpha"].ok(f"start {NAME}")
    wait_beats(hosts["alpha"], NAME, 5, 90)


def volumes(host: Host) -> list[str]:
    return [row["name"] for row in host.ok("volumes")]


def one_copy(hosts: Group, timeout: float = 60) -> tuple[Host, dict]:
    """Waits until one host has the guest, running or to be started, and the other has neither it nor its disk."""
    wanted = ("running",) if hosts.guests["alpha"][0].autostart else ("running", "off")
    deadline = time.monotonic() + timeout
    while True:
        found = {name: (host.guest(NAME), volumes(host)) for name, host in hosts.hosts.items()}
        assert [guest["state"] for guest, _ in found.values()] != ["running", "running"], "two runners"
        for name, (guest, disks) in found.items():
            (other, others), = (found[n] for n in found if n != name)
            # One that would like to start it is in doubt while its peer has it.
            if guest["state"] in wanted and disks and not others and other["state"] in ("moved", "off", "in-doubt"):
                return hosts[name], guest
        assert time.monotonic() < deadline, f"no one host has it all: {found}"
        time.sleep(0.3)


def goes_to_target(victim: str, point: str) -> bool:
    """Whether the hand-over was on record where it counts: then the guest belongs to the destination."""
    return point in ("record", "running", "release") or (point == "commit" and victim == "source")


def stall_and_kill(source: Host, target: Host, victim: str, point: str) -> tuple[int, int]:
    """Ends the victim when it has come to the point of a move. Returns the job, and the guest's writes that were flushed
    by then, as its heartbeats told."""
    dies = source if victim == "source" else target
    before, there = (host.machine.serial.position for host in (source, target))
    wait_beats(source, NAME, 3, 60)
    dies.ok(f"fault stall-at-{point}")
    job = moves.start_move(source, NAME, target, "--disk")
    dies.console.wait_log(f"stalled at {point}", 90, before if dies is source else there)
    if victim == "destination" and goes_to_target(victim, point):
        wait_beats(target, NAME, 5, 60, there)  # it runs there already, and flushes
    dies.machine.kill()
    return job, max(beat.written for beat in beats(source, NAME, before) + beats(target, NAME, there))


def check_disk(host: Host, guest: dict, restarted: bool, flushed: int) -> None:
    """Every flushed write is there: a guest that ran on knows all it has written, one that starts again looks."""
    if guest["state"] == "off":
        host.ok(f"start {NAME}")
    if restarted:
        found = writer.found(host)
    else:
        found = writer.verify(host)
    assert found["errors"] == 0 and found["writes"] >= flushed > 0, (found, flushed)


def die(hosts: Group, victim: str, point: str) -> None:
    """Whichever host runs the guest moves it; afterwards it runs again."""
    name, = hosts.runners(NAME)
    source, target = (hosts["alpha"], hosts["bravo"]) if name == "alpha" else (hosts["bravo"], hosts["alpha"])
    for host in (source, target):
        host.ok("fault none")
    job, flushed = stall_and_kill(source, target, victim, point)
    dies = source if victim == "source" else target
    skiff_store("check", hosts.disks[dies.name][0].image)
    dies.boot()
    dies.ok(f"follow {NAME} on")
    if dies is target:
        moves.wait_job(source, job, 90)
    owner, guest = one_copy(hosts)
    assert owner is (target if goes_to_target(victim, point) else source), f"{owner.name} has it"
    check_disk(owner, guest, owner is dies, flushed)
    wait_beats(owner, NAME, 3, 60)
    assert hosts.runners(NAME) == [owner.name]
    for host in hosts.hosts.values():
        assert host.ok(f"datastore check {STORE}")

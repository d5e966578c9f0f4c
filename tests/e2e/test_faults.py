# SPDX-License-Identifier: MIT
"""Hosts, links and streams that fail at every step of a move: never two runners, one wherever that can be known."""

import random
import re
import socket
import time

import pytest

import crossings
from harness import moves
from harness.pair import bare, linux, wait_beats

UUID = "5d1f3f5e-3c1b-4c80-9a7e-0c5b7f1e2a31"
# Three hosts and many reboots: on the machine whose hosts boot in four seconds. What moves there is the same code.
MACHINE = "qemu-amd"
GROUP = {
    "names": ["alpha", "bravo", "charlie"],
    "cpus": 2,
    "ram_mib": 384,
    "guests": {"alpha": [
        bare("beat", "beat.multiboot", uuid=UUID, autostart=True, vcpus=2),  # the second one waits for SIPI
        bare("large", "beat.multiboot", memory=192),
        bare("rootless", "beat.pvh"),
        linux("walker", mode="work", memory=96, vcpus=2, extra="skiff.rate=100 skiff.fraction=0.2"),
    ], "bravo": [bare("filler", "beat.multiboot", memory=256)]},
    "without": {"charlie": ["beat.pvh"]},
}
GROUP["guests"]["alpha"][0].cmdline = "pages=4096 rate=500 period=50"


def clear(host) -> None:
    """The host neither runs nor holds the guest."""
    if host.guest("beat")["state"] == "in-doubt":
        host.ok("resolve beat drop")
    if host.guest("beat")["state"] in ("running", "crashed"):
        host.ok("destroy beat")


def settle(host) -> None:
    """The guest runs here. A host that has just booted asks its peers before it starts it."""
    for _ in range(40):
        state = host.guest("beat")["state"]
        if state == "running":
            return
        if state in ("off", "moved", "crashed"):
            host.console.json("start beat")
        time.sleep(0.5)
    host.ok("resolve beat keep")
    assert host.guest("beat")["state"] == "running"


@pytest.fixture
def beat(group):
    """Whatever the test before did: three hosts up, and the guest running on alpha."""
    for host in group.hosts.values():
        if not host.machine.running:
            host.boot()
        group.network.restore(f"tap-{host.name}")
        group.network.limit(f"tap-{host.name}", None)
        host.ok("fault none")
    alpha, bravo, charlie = (group[name] for name in ("alpha", "bravo", "charlie"))
    for host in (bravo, charlie):
        clear(host)
    settle(alpha)
    for host in group.hosts.values():
        host.ok("follow beat on")
    wait_beats(alpha, "beat", 5, 60)
    return alpha, bravo, charlie


def wait_phase(host, job: int, phase: str, timeout: float = 90) -> None:
    deadline = time.monotonic() + timeout
    while (now := host.job(job))["phase"] != phase:
        assert now["phase"] not in moves.ENDED, f"the move ended before {phase}: {now}"
        assert time.monotonic() < deadline, f"{phase} not reached: {now}"
        time.sleep(0.1)


def still_beats(host, errors: int = 0) -> None:
    assert wait_beats(host, "beat", 10, 60)[-1].errors == errors


def next_move_succeeds(group, source, target) -> None:
    result = moves.move(source, "beat", target)
    moves.check_beats(result)
    assert group.runners("beat") == [target.name]


def test_three_hops(group, beat):
    alpha, bravo, charlie = beat
    for source, target in ((alpha, bravo), (bravo, charlie), (charlie, alpha)):
        next_move_succeeds(group, source, target)


def test_two_busy_vcpus_of_linux_hop_three_times(group, beat):
    alpha, bravo, charlie = beat
    alpha.ok("follow walker on")
    alpha.ok("start walker")
    wait_beats(alpha, "walker", 3, 300)
    for source, target in ((alpha, bravo), (bravo, charlie), (charlie, alpha)):
        moves.check_beats(moves.move(source, "walker", target))
        assert group.runners("walker") == [target.name]
    crossings.check_guest_inside(alpha, "walker")
    alpha.ok("destroy walker")


def test_link_cut_in_the_middle_of_precopy(group, beat):
    alpha, bravo, _ = beat
    alpha.ok("fault stall-at-precopy")
    job = moves.start_move(alpha, "beat", bravo)
    wait_phase(alpha, job, "precopy")
    group.network.cut("tap-bravo")
    alpha.ok("fault none")
    ended = moves.wait_job(alpha, job, 120)
    assert ended["phase"] == "failed" and "bravo" in ended["result"], ended
    group.network.restore("tap-bravo")
    still_beats(alpha)
    assert group.runners("beat") == ["alpha"]
    next_move_succeeds(group, alpha, bravo)


@pytest.mark.parametrize("point", ["precopy", "offer", "ready"])
def test_destination_dies_before_commit(group, beat, point):
    alpha, bravo, _ = beat
    bravo.ok(f"fault stall-at-{point}")
    job = moves.start_move(alpha, "beat", bravo)
    bravo.console.wait_log(f"stalled at {point}", 120)
    bravo.machine.kill()
    ended = moves.wait_job(alpha, job, 120)
    if point == "ready":  # READY may have been sent: then COMMIT was too, and nobody can know
        assert ended["phase"] in ("failed", "in-doubt"), ended
    else:
        assert ended["phase"] == "failed", ended
    if ended["phase"] == "in-doubt":
        resolve_in_doubt(group, alpha, bravo)
    still_beats(alpha)
    bravo.boot()
    bravo.ok("follow beat on")
    next_move_succeeds(group, alpha, bravo)


def resolve_in_doubt(group, alpha, bravo) -> None:
    guest = alpha.guest("beat")
    assert guest["state"] == "in-doubt" and "resolve" in guest["why"], guest
    assert group.runners("beat") == []
    alpha.ok("resolve beat keep")
    assert alpha.guest("beat")["state"] == "running"


def test_destination_dies_just_after_commit(group, beat):
    """Nobody can know whether it ran there: the guest stays in doubt, also when bravo is back, until someone says."""
    alpha, bravo, _ = beat
    bravo.ok("fault stall-at-commit")
    job = moves.start_move(alpha, "beat", bravo)
    bravo.console.wait_log("stalled at commit", 120)
    bravo.machine.kill()
    assert moves.wait_job(alpha, job, 120)["phase"] == "in-doubt"
    bravo.boot()
    bravo.ok("follow beat on")
    alpha.console.wait_log("boot", 60)
    resolve_in_doubt(group, alpha, bravo)
    still_beats(alpha)
    next_move_succeeds(group, alpha, bravo)


def test_source_dies_during_precopy(group, beat):
    alpha, bravo, _ = beat
    alpha.ok("fault stall-at-precopy")
    job = moves.start_move(alpha, "beat", bravo)
    wait_phase(alpha, job, "precopy")
    alpha.machine.kill()
    deadline = time.monotonic() + 60
    while bravo.guest("beat")["state"] not in ("absent", "off"):
        assert time.monotonic() < deadline, bravo.guest("beat")
        time.sleep(0.5)
    alpha.boot()
    alpha.wait_guest("beat", "running", 60)
    assert group.runners("beat") == ["alpha"]


def test_source_dies_after_ready(group, beat):
    """bravo holds a ready copy and alpha forgot all: neither runs it by itself; bravo's operator decides."""
    alpha, bravo, _ = beat
    alpha.ok("fault stall-at-ready")
    moves.start_move(alpha, "beat", bravo)
    alpha.console.wait_log("stalled at ready", 120)
    alpha.machine.kill()
    bravo.wait_guest("beat", "in-doubt", 60)
    alpha.boot()
    guest = alpha.wait_guest("beat", "in-doubt", 60)
    assert "bravo" in guest["why"], guest
    assert group.runners("beat") == []
    assert "resolve" in bravo.guest("beat")["why"]
    bravo.ok("resolve beat keep")
    assert bravo.guest("beat")["state"] == "running"
    bravo.ok("follow beat on")
    still_beats(bravo)
    assert group.runners("beat") == ["bravo"]


def test_source_dies_after_commit(group, beat):
    alpha, bravo, _ = beat
    alpha.ok("fault stall-at-commit")
    moves.start_move(alpha, "beat", bravo)
    alpha.console.wait_log("stalled at commit", 120)
    alpha.machine.kill()
    bravo.wait_guest("beat", "running", 60)
    still_beats(bravo)
    alpha.boot()
    # It has asked its peers before it says so: from then on it knows, and keeps its hands off.
    alpha.console.wait_log(r"guest beat: in doubt, not started: .*bravo", 60)
    guest = alpha.wait_guest("beat", "in-doubt", 10)
    assert "bravo" in guest["why"], guest
    assert group.runners("beat") == ["bravo"]


def test_link_lost_after_commit_is_settled_by_asking_again(group, beat):
    alpha, bravo, _ = beat
    bravo.ok("fault drop-link-at-running")
    job = moves.start_move(alpha, "beat", bravo)
    moves.wait_job(alpha, job, 120)
    alpha.wait_guest("beat", "moved", 90)
    assert group.runners("beat") == ["bravo"]
    still_beats(bravo)


def test_a_destination_without_memory_refuses_before_the_first_page(group, beat):
    alpha, bravo, _ = beat
    bravo.ok("start filler")
    alpha.ok("start large")
    assert "MiB" in alpha.refused("migrate large bravo --check")
    job = moves.wait_job(alpha, moves.start_move(alpha, "large", bravo), 60)
    assert job["phase"] == "failed" and "MiB" in job["result"] and job["pages_sent"] == 0, job
    assert alpha.guest("large")["state"] == "running"
    alpha.ok("destroy large")
    bravo.ok("destroy filler")
    still_beats(alpha)


def test_a_destination_without_the_kernels_file_takes_the_guest_and_warns(group, beat):
    alpha, _, charlie = beat
    alpha.ok("start rootless")
    warning = r"it cannot be rebooted on charlie, which has no \\skiff\\beat\.pvh"
    [answer] = alpha.ok("migrate rootless charlie --check")
    assert answer["possible"] and re.fullmatch(warning, "|".join(answer["notes"])), answer
    start = alpha.machine.serial.position
    job = moves.wait_job(alpha, moves.start_move(alpha, "rootless", charlie), 60)
    assert job["phase"] == "done", job
    alpha.console.wait_log(warning, 10, start)
    assert "no such file" in charlie.refused("reboot rootless")
    assert charlie.guest("rootless")["state"] == "running"
    charlie.ok("destroy rootless")


def large_pages(host, guest: str) -> tuple[int, int]:
    info = host.ok(f"info {guest}")[0]
    return info["large_pages"], info["split_pages"]


def test_an_aborted_move_leaves_large_pages_large(group, beat):
    """They are split where the guest writes while its writes are watched, and merged back when nobody does."""
    alpha, bravo, _ = beat
    assert large_pages(alpha, "beat") == (32, 0)
    group.network.limit("tap-bravo", 20)  # 16 MiB take a while
    job = moves.start_move(alpha, "beat", bravo)
    wait_phase(alpha, job, "precopy")
    deadline = time.monotonic() + 30
    while (during := large_pages(alpha, "beat"))[1] < 4:  # it writes to 8 of them at least
        assert time.monotonic() < deadline, during
        time.sleep(0.2)
    assert sum(during) == 32
    alpha.ok(f"job-abort {job}")
    group.network.limit("tap-bravo", None)
    assert moves.wait_job(alpha, job, 60)["phase"] == "aborted"
    assert large_pages(alpha, "beat") == (32, 0)
    still_beats(alpha)


def send_bytes(host, data: bytes) -> None:
    with socket.create_connection((host.address, 7070), timeout=20) as connection:
        connection.settimeout(20)
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        except OSError:
            pass


def test_forged_streams_do_no_harm(group, beat):
    alpha, bravo, _ = beat
    dice = random.Random(7)
    for _ in range(60):
        send_bytes(bravo, b"SKIFFMOV" + dice.randbytes(dice.choice([0, 8, 119, 120, 400, 4000])))
        send_bytes(bravo, dice.randbytes(dice.randrange(2000)))
    assert bravo.ok("host")
    next_move_succeeds(group, alpha, bravo)


def test_a_host_rebooted_with_autostart_starts_its_guest(group, beat):
    alpha, _, _ = beat
    alpha.machine.kill()
    alpha.boot()
    alpha.wait_guest("beat", "running", 60)
    assert group.runners("beat") == ["alpha"]

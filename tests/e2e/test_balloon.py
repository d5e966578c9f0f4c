# SPDX-License-Identifier: MIT
"""Free page hints: what a guest has used and does not use any more is not sent, and verification holds."""

import pytest

from harness import moves
from harness.pair import linux

MACHINE = "qemu-amd"
PAGES = 100 * 256  # of a file that was written and removed
DRIVERS = "virtio_ring,virtio,virtio_pci_legacy_dev,virtio_pci_modern_dev,virtio_pci"


def guest(name: str, number: int, drivers: str):
    return linux(name, mode="shell", memory=256, extra=f"skiff.address=10.77.0.{number} skiff.modules={drivers}")


GROUP = {
    "names": ["alpha", "bravo"],
    "ram_mib": 1024,
    "migrate": {"verify": "strict", "hints_ms": 10000},
    "guests": {"alpha": [guest("hinting", 31, f"{DRIVERS},virtio_balloon"), guest("silent", 32, DRIVERS)]},
}


def use_and_free(host, name: str) -> None:
    command = f"dd if=/dev/urandom of=/big bs=4k count={PAGES} && rm /big && echo FR''EED"
    moves.guest_command(host, name, command, "FREED", 120)


def move(source, name: str, target) -> dict:
    job = moves.wait_job(source, moves.start_move(source, name, target), 120)
    assert job["phase"] == "done" and job["digest"] == "match", job
    moves.guest_command(target, name, "echo AL''IVE", "ALIVE")
    return job


@pytest.fixture(scope="module")
def jobs(group):
    """The figures of each guest's move there."""
    alpha, bravo = group["alpha"], group["bravo"]
    found = {}
    for name in ("hinting", "silent"):
        alpha.ok(f"start {name}")
        moves.guest_command(alpha, name, "", "# ", 90)
        use_and_free(alpha, name)
        found[name] = move(alpha, name, bravo)
        print({key: found[name][key] for key in ("pages_sent", "pages_zero", "pages_free", "bytes_wire", "started_ns", "ended_ns")})
    return found


def test_free_pages_are_not_sent(jobs):
    assert jobs["silent"]["pages_free"] == 0 and jobs["silent"]["pages_sent"] > PAGES
    assert jobs["hinting"]["pages_free"] > PAGES
    assert jobs["hinting"]["pages_sent"] < jobs["silent"]["pages_sent"] - PAGES * 2 // 3


def test_a_guest_is_asked_again_on_its_way_back(group, jobs):
    use_and_free(group["bravo"], "hinting")
    assert move(group["bravo"], "hinting", group["alpha"])["pages_free"] > PAGES

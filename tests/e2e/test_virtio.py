# SPDX-License-Identifier: MIT
"""The guest's virtio devices, as Debian finds them: a system on its disk, a source of entropy, a balloon."""

import re
import shutil
import subprocess

import pytest

from harness import paths
from harness.debian import debian, shell, start
from harness.machine import Disk
from harness.pair import Group

MACHINE = "qemu-amd"


@pytest.fixture(scope="module")
def hosts(folder, machine):
    image = folder / "debian.img"
    shutil.copy(paths.debian("root.img"), image)  # sparse, as the original is
    with Group(folder, ["alpha"], machine, ram_mib=1024, guests={"alpha": [debian(["virtio0"])]},
               disks={"alpha": [Disk(image)]}) as group:
        start(group.boot()["alpha"])
        yield group


def test_the_drivers_run(hosts):
    states = dict(state.split(": ") for state in hosts["alpha"].ok("info debian")[0]["virtio"])
    assert {"virtio-blk 0", "virtio-rng 0", "virtio-balloon 0"} <= states.keys()
    assert set(states.values()) == {"running"}, states


def test_entropy_is_the_hosts(hosts):
    shell(hosts["alpha"], "test $(cat /sys/class/misc/hw_random/rng_current) = virtio_rng.0")
    assert shell(hosts["alpha"], "head -c 100000 /dev/hwrng | gzip | wc -c").strip() > "100000"


def test_the_disk_is_known_by_its_name(hosts):
    uuid = hosts["alpha"].ok("info debian")[0]["uuid"]
    name = shell(hosts["alpha"], "ls /dev/disk/by-id").strip()
    assert name == f"virtio-{uuid[:8]}-disk0"


def test_what_was_synced_is_in_the_image(hosts):
    alpha = hosts["alpha"]
    shell(alpha, "dmesg -n 1")  # its lines would be among ours
    written = shell(alpha, "head -c 20000000 /dev/urandom >/root/proof; sync; sha256sum </root/proof", 120)
    # Read again from the disk, not from memory; discards are among what the disk is asked for.
    again = shell(alpha, "fstrim /; echo 3 >/proc/sys/vm/drop_caches; sha256sum </root/proof", 120)
    assert written == again
    assert "error" not in shell(alpha, "dmesg | grep -i 'vda\\|ext4\\|virtio'").lower()
    alpha.ok("shutdown debian")
    alpha.wait_guest("debian", "off", 120)
    image = hosts.disks["alpha"][0].image
    proof = subprocess.run(["/sbin/debugfs", "-R", "cat /root/proof", image], capture_output=True, check=True).stdout
    digest = subprocess.run(["sha256sum"], input=proof, capture_output=True, check=True).stdout
    assert re.match(r"[0-9a-f]{64}", digest.decode())[0] == re.match(r"[0-9a-f]{64}", written)[0]
    subprocess.run(["/sbin/e2fsck", "-fn", image], check=True, stdout=subprocess.DEVNULL)

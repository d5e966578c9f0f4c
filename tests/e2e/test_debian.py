# SPDX-License-Identifier: MIT
"""A Debian guest's virtio devices, as it finds them, on volumes and on a disk of the host's: what it has synced is
there and outlives the host, and a full datastore is an I/O error."""

import re
import subprocess

import pytest

from harness import debian, paths
from harness.machine import Disk
from harness.pair import Group
from harness.store import skiff_store

MACHINE = ONLY = "qemu-amd"
ROOT, FULL, WHOLE = "main/root", "tiny/big", "virtio2"  # two volumes and a disk of the host's: vda, vdb, vdc


def digest(text: str) -> str:
    return re.search(r"[0-9a-f]{64}", text)[0]


@pytest.fixture(scope="module")
def hosts(folder, machine):
    main, tiny, whole = (folder / f"{name}.img" for name in ("main", "tiny", "whole"))
    main.unlink(missing_ok=True)
    tiny.unlink(missing_ok=True)
    skiff_store("create", main, "main", "8G")
    skiff_store("import", main, "root", paths.debian("root.img"))
    skiff_store("create", tiny, "tiny", "64M")
    skiff_store("volume", tiny, "create", "big", "1G")
    disks = [Disk(main), Disk(tiny), Disk(whole).make(256)]
    subprocess.run(["/sbin/mkfs.ext4", "-qF", whole], check=True)
    with Group(folder, ["alpha"], machine, ram_mib=1024, guests={"alpha": [debian.debian([ROOT, FULL, WHOLE])]},
               disks={"alpha": disks}) as group:
        debian.start(group.boot()["alpha"])
        yield group


@pytest.fixture
def alpha(hosts):
    return hosts["alpha"]


def test_the_drivers_run(alpha):
    states = dict(state.split(": ") for state in alpha.ok("info debian")[0]["virtio"])
    assert {"virtio-blk 0", "virtio-blk 1", "virtio-blk 2", "virtio-rng 0", "virtio-balloon 0"} <= states.keys()
    assert set(states.values()) == {"running"}, states


def test_entropy_is_the_hosts(alpha):
    debian.shell(alpha, "test $(cat /sys/class/misc/hw_random/rng_current) = virtio_rng.0")
    assert debian.shell(alpha, "head -c 100000 /dev/hwrng | gzip | wc -c").strip() > "100000"


def test_disks_are_known_by_their_names(alpha):
    uuid = alpha.ok("info debian")[0]["uuid"]
    names = debian.shell(alpha, "ls /dev/disk/by-id").split()
    assert names == [f"virtio-{uuid[:8]}-disk{i}" for i in range(3)]


def test_what_was_synced_is_in_the_image(alpha, hosts):
    debian.shell(alpha, "dmesg -n 1; mount -o discard /dev/vdc /mnt")  # its lines would be among ours
    written = debian.shell(alpha, "head -c 20000000 /dev/urandom >/mnt/proof; sync; sha256sum </mnt/proof", 120)
    # Read again from the disk, not from memory; discards are among what the disk is asked for.
    again = debian.shell(alpha, "fstrim /mnt; echo 3 >/proc/sys/vm/drop_caches; sha256sum </mnt/proof; umount /mnt", 120)
    assert written == again
    assert "error" not in debian.shell(alpha, "dmesg | grep -i 'vd[ac]\\|ext4\\|virtio'").lower()
    image = hosts.disks["alpha"][2].image
    proof = subprocess.run(["/sbin/debugfs", "-R", "cat /proof", image], capture_output=True, check=True).stdout
    found = subprocess.run(["sha256sum"], input=proof, capture_output=True, check=True).stdout.decode()
    assert digest(found) == digest(written)
    subprocess.run(["/sbin/e2fsck", "-fn", image], check=True, stdout=subprocess.DEVNULL)


def test_a_volume_in_use_is_safe(alpha):
    users = {row["name"]: row["used_by"] for row in alpha.ok("volumes")}
    assert users == {ROOT: "guest debian", FULL: "guest debian"}
    for line in (f"volume delete {ROOT}", f"volume resize {ROOT} 1G"):
        assert "is used by guest debian" in alpha.refused(line)


def test_a_full_datastore_is_an_error_of_the_guests_disk(alpha):
    debian.shell(alpha, "head -c 20M /dev/urandom >/dev/shm/data; dd if=/dev/shm/data of=/dev/vdb bs=1M oflag=direct")
    status, said = debian.attempt(alpha, "dd if=/dev/zero of=/dev/vdb bs=1M seek=20 count=100 oflag=direct", 120)
    assert status != 0 and ("Input/output error" in said or "No space left" in said), said
    assert any("datastore tiny is full" in line["text"] for line in alpha.ok("log 200"))
    debian.shell(alpha, "echo 3 >/proc/sys/vm/drop_caches; cmp -n 20971520 /dev/shm/data /dev/vdb")
    debian.shell(alpha, "blkdiscard /dev/vdb; dd if=/dev/shm/data of=/dev/vdb bs=1M seek=500 oflag=direct conv=fsync")
    debian.shell(alpha, "dd if=/dev/vdb bs=1M skip=500 count=20 iflag=direct | cmp - /dev/shm/data")
    debian.shell(alpha, "sha256sum </dev/shm/data >/root/data.sha256")


def test_what_was_synced_outlives_the_host(alpha):
    written = debian.shell(alpha, "head -c 10M /dev/urandom >/root/proof; sync; sha256sum </root/proof", 120)
    alpha.machine.kill()
    alpha.boot()
    alpha.ok("datastore check main")
    debian.start(alpha)
    found = debian.shell(alpha, "sha256sum </root/proof", 120)
    assert digest(found) == digest(written)
    debian.shell(alpha, "dd if=/dev/vdb bs=1M skip=500 count=20 | sha256sum -c /root/data.sha256", 120)
    assert "error" not in debian.shell(alpha, "dmesg | grep -i 'ext4\\|vda'").lower()


def test_it_shuts_down(alpha):
    alpha.ok("shutdown debian")
    alpha.wait_guest("debian", "off", 120)

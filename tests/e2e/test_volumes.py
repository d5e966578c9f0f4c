# SPDX-License-Identifier: MIT
"""A Debian guest on volumes: what it has synced outlives the host, and a full datastore is an I/O error."""

import re

import pytest

from harness import debian, paths
from harness.machine import Disk
from harness.pair import Group
from harness.store import skiff_store

MACHINE = ONLY = "qemu-amd"


@pytest.fixture(scope="module")
def hosts(folder, machine):
    main, tiny = folder / "main.img", folder / "tiny.img"
    main.unlink(missing_ok=True)
    tiny.unlink(missing_ok=True)
    skiff_store("create", main, "main", "8G")
    skiff_store("import", main, "root", paths.debian("root.img"))
    skiff_store("create", tiny, "tiny", "64M")
    skiff_store("volume", tiny, "create", "big", "1G")
    with Group(folder, ["alpha"], machine, ram_mib=1024, guests={"alpha": [debian.debian(["main/root", "tiny/big"])]},
               disks={"alpha": [Disk(main), Disk(tiny)]}) as group:
        debian.start(group.boot()["alpha"])
        yield group


@pytest.fixture
def alpha(hosts):
    return hosts["alpha"]


def test_a_volume_in_use_is_safe(alpha):
    users = {row["name"]: row["used_by"] for row in alpha.ok("volumes")}
    assert users == {"main/root": "guest debian", "tiny/big": "guest debian"}
    for line in ("volume delete main/root", "volume resize main/root 1G"):
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
    assert re.search(r"[0-9a-f]{64}", found)[0] == re.search(r"[0-9a-f]{64}", written)[0]
    debian.shell(alpha, "dd if=/dev/vdb bs=1M skip=500 count=20 | sha256sum -c /root/data.sha256", 120)
    assert "error" not in debian.shell(alpha, "dmesg | grep -i 'ext4\\|vda'").lower()

# SPDX-License-Identifier: MIT
"""What a guest gets when its host's disk is full, cannot be read, written or flushed: an I/O error, which the log and
`info` name, and nothing that it was told is safe is lost."""

import random
import re

import pytest

from harness import moves
from harness.machine import Disk
from harness.pair import Group, linux
from harness.store import skiff_store

MIB = 1 << 20
DRIVERS = "virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk"
BAD = 1000  # the sector of the guest's disk that cannot be read, or written
# The guest's disks, in order.
DAMAGED, SMALL, RAW, STUCK = "damaged/web", "small/web", "virtio2", "stuck/web"


def fails(iotype: str, sector: int | None = None) -> str:
    """A blkdebug configuration: QEMU fails these, with EIO."""
    where = f'sector = "{sector}"\n' if sector is not None else ""
    return f'[inject-error]\nevent = "none"\niotype = "{iotype}"\n{where}errno = "5"\n'


def damaged(folder, raw) -> Disk:
    """A datastore with an image on a volume, one of whose sectors cannot be read from the host's disk."""
    disk = Disk(folder / "damaged.img")
    disk.image.unlink(missing_ok=True)
    skiff_store("create", disk.image, "damaged", "64M")
    skiff_store("import", disk.image, "web", raw)
    with open(raw, "rb") as image:
        image.seek(BAD * 512)
        at = disk.image.read_bytes().find(image.read(512))
    assert at > 0 and at % 512 == 0
    disk.errors = fails("read", at // 512)
    return disk


def store(folder, name: str, mib: int, errors: str = "") -> Disk:
    disk = Disk(folder / f"{name}.img", errors=errors)
    disk.image.unlink(missing_ok=True)
    skiff_store("create", disk.image, name, f"{mib}M")
    skiff_store("volume", disk.image, "create", "web", "256M")
    return disk


@pytest.fixture(scope="module")
def alpha(folder):
    raw = folder / "raw.img"
    raw.write_bytes(random.Random(4).randbytes(4 * MIB))
    disks = [damaged(folder, raw), store(folder, "small", 32),
             Disk(folder / "raw-disk.img", errors=fails("write", BAD)).make(32),
             store(folder, "stuck", 64, fails("flush"))]
    guest = linux("web", mode="shell", disks=[DAMAGED, SMALL, RAW, STUCK])
    with Group(folder, ["alpha"], "qemu-amd", guests={"alpha": [guest]}, disks={"alpha": disks}) as group:
        alpha = group.boot()["alpha"]
        start(alpha)
        yield alpha


def start(alpha) -> None:
    alpha.ok("start web")
    with alpha.console.guest("web") as position:
        alpha.machine.serial.expect("# ", 90, position)
    status, said = run(alpha, f"for m in {DRIVERS}; do insmod /drivers/$m.ko; done; dmesg -n 1")
    assert status == 0, said


def run(alpha, command: str, timeout: float = 60) -> tuple[int, str]:
    """A command's exit status in the guest, and what it said."""
    said = moves.guest_command(alpha, "web", f"{command}; echo STATUS=$?", r"STATUS=\d+", timeout)
    return int(re.search(r"STATUS=(\d+)", said)[1]), said


def ok(alpha, command: str) -> None:
    status, said = run(alpha, command)
    assert status == 0, said


def fails_with_io_error(alpha, command: str) -> None:
    status, said = run(alpha, command)
    assert status == 1 and ("Input/output error" in said or "I/O error" in said), said


def trouble(alpha, disk: int) -> str:
    """What `info` says of the guest's disk."""
    return next(line for line in alpha.ok("info web")[0]["virtio"] if line.startswith(f"virtio-blk {disk}: "))


def logged(alpha, pattern: str) -> bool:
    return any(re.search(pattern, line["text"]) for line in alpha.ok("log 200"))


def test_a_sector_that_cannot_be_read(alpha):
    ok(alpha, "dd if=/dev/vda of=/before bs=4096 count=125 iflag=direct")
    fails_with_io_error(alpha, "dd if=/dev/vda of=/dev/null bs=4096 skip=125 count=1 iflag=direct")
    assert logged(alpha, rf"disk {DAMAGED}: read of 8 sectors at {BAD} failed: the disk says so")
    assert re.search(rf"I/O error \d+: read of 8 sectors at {BAD}: the disk says so", trouble(alpha, 0))
    ok(alpha, "dd if=/dev/vda of=/dev/null bs=4096 skip=126 iflag=direct")  # all that lies behind it
    ok(alpha, "dd if=/before of=/dev/vda bs=4096 oflag=direct conv=fsync")  # and it can be written


def test_a_full_datastore(alpha):
    ok(alpha, "dd if=/dev/urandom of=/data bs=1M count=8; dd if=/data of=/dev/vdb bs=1M oflag=direct conv=fsync")
    fails_with_io_error(alpha, "dd if=/dev/zero of=/dev/vdb bs=1M seek=8 count=64 oflag=direct")
    assert logged(alpha, f"datastore small is full: writes to {SMALL} fail until there is room")
    assert logged(alpha, rf"disk {SMALL}: write of \d+ sectors at \d+ failed: no room left in its datastore")
    assert "no room left in its datastore" in trouble(alpha, 1)
    ok(alpha, "dd if=/dev/vdb of=/back bs=1M count=8 iflag=direct; cmp /data /back")
    ok(alpha, "dd if=/data of=/dev/vdb bs=1M oflag=direct conv=fsync")  # where there is room already


def test_a_sector_that_cannot_be_written(alpha):
    ok(alpha, "dd if=/data of=/dev/vdc bs=4096 count=125 oflag=direct conv=fsync")
    fails_with_io_error(alpha, "dd if=/data of=/dev/vdc bs=4096 seek=125 count=1 oflag=direct")
    assert logged(alpha, rf"disk {RAW}: write of 8 sectors at {BAD} failed: the disk says so")
    assert re.search(rf"I/O error \d+: write of 8 sectors at {BAD}: the disk says so", trouble(alpha, 2))
    ok(alpha, "dd if=/data of=/dev/vdc bs=4096 seek=126 skip=126 count=100 oflag=direct conv=fsync")
    ok(alpha, "dd if=/dev/vdc of=/back bs=4096 count=125 iflag=direct; head -c 512000 /data | cmp - /back")


def test_a_disk_that_does_not_flush(alpha):
    """From then on its datastore takes nothing, so that nothing is promised; what was written is read."""
    ok(alpha, "dd if=/data of=/dev/vdd bs=1M count=1 oflag=direct")
    fails_with_io_error(alpha, "dd if=/data of=/dev/vdd bs=1M seek=1 skip=1 count=1 oflag=direct conv=fsync")
    assert logged(alpha, r"datastore stuck: virtio\d (does not flush|failed to write or flush its metadata); "
                         "nothing is written there any more"), alpha.ok("log 30")
    assert logged(alpha, rf"disk {STUCK}: flush failed: the disk says so")
    fails_with_io_error(alpha, "dd if=/data of=/dev/vdd bs=1M seek=2 count=1 oflag=direct")
    assert "I/O error" in trouble(alpha, 3)
    ok(alpha, "dd if=/dev/vdd of=/back bs=1M count=1 iflag=direct; head -c 1048576 /data | cmp - /back")
    row, = (row for row in alpha.ok("datastores") if row["name"] == "stuck")
    assert not row["usable"], row


def test_all_is_well_on_disks_that_work_again(alpha):
    status, digest = run(alpha, "md5sum /data")
    digest = re.search(r"[0-9a-f]{32}", digest)[0]
    alpha.machine.kill()
    for disk in alpha.machine.disks:
        disk.errors = ""
    alpha.boot()
    for name in ("damaged", "small", "stuck"):
        assert alpha.ok(f"datastore check {name}")
    start(alpha)
    ok(alpha, f"dd if=/dev/vdb bs=1M count=8 iflag=direct | md5sum | grep {digest}")
    ok(alpha, "dd if=/dev/vda of=/dev/null bs=1M iflag=direct")
    ok(alpha, "dd if=/dev/urandom of=/dev/vdd bs=1M count=4 oflag=direct conv=fsync")
    assert {trouble(alpha, disk).split(": ")[1] for disk in range(4)} == {"running"}

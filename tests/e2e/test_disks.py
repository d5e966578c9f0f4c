# SPDX-License-Identifier: MIT
"""The host's disks: what Skiff writes is in the image, and what the disk refuses comes back as an error."""

import struct

import pytest

from harness.machine import Disk
from harness.pair import Group

MIB = 1 << 20
# QEMU's device: the driver, and the interrupt it is to get.
DISKS = {
    "virtio-blk-pci,serial=one": ("virtio", "MSI-X"),
    "nvme,serial=two": ("nvme", "MSI-X"),
    "ide-hd,serial=three,bus=ahci.0": ("ahci", "MSI"),
    "ide-hd,serial=four,bus=ide.1": ("ata", "pin"),
}
SIZE = 63 * MIB  # whole cylinders, as Bochs wants it
# QEMU fails reads of sector 8192, and every flush.
ERRORS = """
[inject-error]
event = "none"
iotype = "read"
sector = "8192"
errno = "5"
[inject-error]
event = "none"
iotype = "flush"
errno = "5"
"""
GOLDEN = 0x9E3779B97F4A7C15


def pattern(seed: int, first: int, sectors: int) -> bytes:
    """What disk-test writes: every word tells where it is."""
    words = ((((first * 64 + i + 1) * GOLDEN) & (1 << 64) - 1) ^ seed for i in range(sectors * 64))
    return struct.pack(f"<{sectors * 64}Q", *words)


@pytest.fixture(scope="module")
def hosts(folder):
    disks = [Disk(folder / f"{i}.img", device).make(SIZE // MIB) for i, device in enumerate(DISKS)]
    with Group(folder, ["alpha"], "qemu-amd", disks={"alpha": disks}) as group:
        yield group.boot()


@pytest.fixture(scope="module")
def failing(folder):
    disks = [Disk(folder / f"bad{i}.img", device, ERRORS).make(SIZE // MIB) for i, device in enumerate(DISKS)]
    with Group(folder / "failing", ["alpha"], "qemu-amd", disks={"alpha": disks}) as group:
        yield group.boot()


def row_of(host, driver: str) -> dict:
    """What the console says of the disk with that driver that the host did not boot from."""
    row, = [row for row in host.ok("disks") if row["driver"] == driver and row["serial"] != "boot"]
    return row


@pytest.fixture(params=range(len(DISKS)), ids=[driver for driver, _ in DISKS.values()])
def disk(request, hosts):
    """The image and what the console says of it."""
    driver, interrupt = list(DISKS.values())[request.param]
    return hosts.disks["alpha"][request.param].image, row_of(hosts["alpha"], driver), interrupt


def test_the_disk_is_found(hosts, disk):
    _, row, interrupt = disk
    assert row["size_bytes"] == SIZE and row["used_by"] == "" and not row["read_only"], row
    assert row["serial"], row
    found = [line["text"] for line in hosts["alpha"].ok("log 200") if line["area"] == row["name"]]
    assert any(f"interrupt by {interrupt}" in text for text in found), found


def test_what_is_written_is_in_the_image(hosts, disk):
    image, row, _ = disk
    result = hosts["alpha"].ok(f"disk-test {row['name']} 8 --write --force", timeout=120)[0]
    assert result["size_bytes"] == 8 * MIB and result["written"]
    with open(image, "rb") as content:
        assert content.read(8 * MIB) == pattern(result["seed"], 0, 8 * MIB // 512)
        assert content.read(MIB) == bytes(MIB)


def test_what_is_in_the_image_is_not_written_over(hosts, disk):
    image, row, _ = disk
    with open(image, "r+b") as content:
        content.write(bytes(SIZE))
        content.seek(512)
        content.write(b"EFI PART")
    assert "GUID partition table" in hosts["alpha"].refused(f"disk-test {row['name']} 1 --write")
    assert hosts["alpha"].ok(f"disk-test {row['name']} 1")[0]["size_bytes"] == MIB
    with open(image, "rb") as content:
        assert content.read(512) == bytes(512)
        assert content.read(8) == b"EFI PART"


@pytest.mark.parametrize("driver", [driver for driver, _ in DISKS.values()])
def test_errors_come_back(failing, driver):
    """Of a read and of a flush, with what the disk said in the log; what comes after them works."""
    alpha = failing["alpha"]
    name = row_of(alpha, driver)["name"]
    for line, sector in ((f"disk-test {name} 8", "8192"), (f"disk-test {name} 2 --write --force", "0")):
        error = alpha.refused(line)
        assert f"sector {sector} failed" in error and "the log" in error, error
        said = [line["text"] for line in alpha.ok("log 10") if line["area"] == name][-1]
        assert ("flush" if sector == "0" else "read") in said and "failed" in said, said
        assert alpha.ok(f"disk-test {name} 3")[0]["size_bytes"] == 3 * MIB


def test_an_ata_disk_on_an_intel_host(folder):
    disk = Disk(folder / "bochs.img").make(SIZE // MIB)
    with Group(folder / "intel", ["alpha"], "bochs-intel", disks={"alpha": [disk]}) as group:
        alpha = group.boot()["alpha"]
        row = alpha.ok("disks")[-1]
        assert row["driver"] == "ata" and row["size_bytes"] == SIZE, row
        result = alpha.ok(f"disk-test {row['name']} 4 --write", timeout=120)[0]
    with open(disk.image, "rb") as content:
        assert content.read(4 * MIB) == pattern(result["seed"], 0, 4 * MIB // 512)
        assert content.read(MIB) == bytes(MIB)

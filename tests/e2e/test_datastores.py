# SPDX-License-Identifier: MIT
"""Datastores: made at the console or with skiff-store, and what is in them outlives the host."""

import pytest

from harness.machine import Disk
from harness.pair import Group
from harness.store import skiff_store

MIB = 1 << 20


@pytest.fixture(scope="module")
def images(folder):
    """The image that is imported, a disk with a datastore that holds it, a blank disk and one that is not."""
    raw, prepared = folder / "raw.img", folder / "prepared.img"
    raw.unlink(missing_ok=True)
    prepared.unlink(missing_ok=True)
    with open(raw, "wb") as image:
        image.write(b"begin" * 1000)
        image.seek(30 * MIB + 123)
        image.write(b"end" * 100_000)
        image.truncate(40 * MIB)
    skiff_store("create", prepared, "made-outside", "128M")
    skiff_store("import", prepared, "root", raw)
    full = Disk(folder / "full.img").make(64)
    with open(full.image, "r+b") as image:
        image.seek(1080)
        image.write(b"\x53\xef")  # ext4's
    return {"raw": raw, "prepared": Disk(prepared), "blank": Disk(folder / "blank.img").make(256), "full": full}


@pytest.fixture(scope="module")
def alpha(folder, images):
    disks = [images["prepared"], images["blank"], images["full"]]
    with Group(folder, ["alpha"], "qemu-amd", disks={"alpha": disks}) as group:
        yield group.boot()["alpha"]


@pytest.fixture(scope="module")
def names(alpha):
    """The host's names of the disks, by what they are here."""
    rows = [row["name"] for row in alpha.ok("disks") if row["driver"] == "virtio"]
    return dict(zip(("prepared", "blank", "full"), rows))


def volumes(host, store: str = "") -> dict:
    return {row["name"]: row["size_bytes"] for row in host.ok(f"volumes {store}")}


def test_a_datastore_made_outside_is_there(alpha, names, images):
    store, = [row for row in alpha.ok("datastores") if row["name"] == "made-outside"]
    assert store["usable"] and store["disk"] == names["prepared"], store
    assert volumes(alpha, "made-outside") == {"made-outside/root": 40 * MIB}
    root, = alpha.ok("volumes made-outside")
    assert root["allocated_bytes"] < MIB, root  # holes stayed holes
    alpha.ok("datastore check made-outside")


def test_only_a_blank_disk_is_formatted(alpha, names):
    assert "there is something on" in alpha.refused(f"datastore format {names['full']} new")
    assert "is used by" in alpha.refused(f"datastore format {names['prepared']} new")
    alpha.ok(f"datastore format {names['blank']} main")
    assert "is used by" in alpha.refused(f"datastore format {names['blank']} again")
    store, = [row for row in alpha.ok("datastores") if row["name"] == "main"]
    assert store["usable"] and 245 * MIB < store["size_bytes"] == store["free_bytes"], store


def test_volumes_outlive_a_reset(alpha):
    alpha.ok("volume create main/web 20G")
    alpha.ok("volume create main/db 64M")
    alpha.ok("volume create main/old 1T")
    alpha.ok("volume resize main/db 100M")
    alpha.ok("volume delete main/old")
    wanted = {"main/web": 20 << 30, "main/db": 100 * MIB}
    assert volumes(alpha, "main") == wanted
    start = alpha.machine.serial.position
    alpha.machine.monitor("system_reset")
    alpha.console.wait_prompt(timeout=180, start=start)
    assert volumes(alpha, "main") == wanted
    alpha.ok("datastore check main")


@pytest.mark.parametrize("line, wanted", [
    ("volume create main/web", "a size like 20G"),
    ("volume create main/web 5X", '"5X"'),
    ("volume create main/web 1G", "there is a volume main/web already"),
    ("volume create mian/new 1G", "there is no datastore mian"),
    ("volume create main 1G", "STORE/NAME"),
    ("volume delete main/wep", "there is no volume wep in datastore main"),
    ("volume dilate main/web 1G", "create|delete|resize"),
    ("volumes mian", "did you mean main?"),
    ("datastore check mian", "did you mean main?"),
    ("datastore format main main", "there is no disk"),
])
def test_wrong_input_gets_one_helpful_line(alpha, line, wanted):
    error = alpha.refused(line)
    assert wanted in error and "\n" not in error


def test_what_the_host_leaves_is_read_outside(alpha, images, folder):
    alpha.ok("volume create made-outside/second 8M")
    alpha.machine.kill()
    back = folder / "back.img"
    back.unlink(missing_ok=True)
    assert "second" in skiff_store("list", images["prepared"].image)
    skiff_store("check", images["blank"].image)
    skiff_store("export", images["prepared"].image, "root", back)
    assert back.read_bytes() == images["raw"].read_bytes()
    assert back.stat().st_blocks * 512 < 4 * MIB

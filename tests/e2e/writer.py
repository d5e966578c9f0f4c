# SPDX-License-Identifier: MIT
"""A guest that writes to its disk all the time and knows what has to be there (tests/guests/linux/agent/disk.c)."""

import json
import re
from pathlib import Path

from harness import moves
from harness.machine import Disk
from harness.pair import GuestSpec, Host, linux
from harness.store import skiff_store

NAME, STORE = "web", "fast"
VOLUME = f"{STORE}/{NAME}"
FOUND = r"DISK-READY (\{.*\})"  # what it says when it starts, of what is on its disk
VERIFIED = r"DISK-VERIFIED (\{.*\})"


def guest(**options) -> GuestSpec:
    return linux(NAME, mode="disk", extra="skiff.rate=400", disks=[VOLUME], **options)


def datastores(folder: Path, names: list[str], volume_mib: int) -> dict[str, list[Disk]]:
    """A datastore for each host; the first one's holds the guest's volume."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        image = folder / f"{name}-store.img"
        image.unlink(missing_ok=True)
        skiff_store("create", image, STORE, f"{volume_mib * 2}M")
    skiff_store("volume", folder / f"{names[0]}-store.img", "create", NAME, f"{volume_mib}M")
    return {name: [Disk(folder / f"{name}-store.img")] for name in names}


def verify(host: Host) -> dict:
    """Lets the guest read its whole disk: all that it was told is written has to be there."""
    return json.loads(re.search(VERIFIED, moves.guest_command(host, NAME, "verify", VERIFIED))[1])


def found(host: Host) -> dict:
    """What a guest that has started since its host was booted has found on its disk."""
    return json.loads(host.machine.serial.expect(FOUND, 90)[1])

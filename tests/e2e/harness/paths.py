# SPDX-License-Identifier: MIT
"""Where the set-up step and the build put what the tests use."""

import json
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
BUILD = ROOT / "build"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skiff"

SKIFF_EFI = BUILD / "skiff.efi"
GUESTS = BUILD / "guests"
OVMF = Path("/usr/share/ovmf/OVMF.fd")
VGABIOS = Path("/usr/share/vgabios/vgabios-stdvga.bin")


def locked_version(name: str) -> str:
    """The version of a third-party part that tests/setup/third-party.lock names."""
    for line in (ROOT / "tests/setup/third-party.lock").read_text().splitlines():
        fields = line.split()
        if fields and fields[0] == name:
            return fields[1]
    raise KeyError(f"tests/setup/third-party.lock has no entry '{name}'")


def bochs() -> Path:
    return CACHE / f"bochs-{locked_version('bochs')}" / "bochs"


def kernel(kind: str) -> Path:
    """Debian's unmodified bzImage; kind is 'cloud' or 'generic'."""
    return CACHE / "kernel" / kind / "vmlinuz"


def kernel_package(kind: str) -> dict:
    """The Debian package that kernel(kind) came from: package, version, sha256, vmlinuz_sha256."""
    return json.loads((CACHE / "kernel" / kind / "package.json").read_text())


def initrd(kind: str) -> Path:
    """The Linux guest's initramfs with the modules of kernel(kind)."""
    return GUESTS / f"initrd-{kind}.img"

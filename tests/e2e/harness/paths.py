# SPDX-License-Identifier: MIT
"""Where the set-up step and the build put what the tests use."""

import json
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
BUILD = ROOT / "build"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skiff"

SKIFF_EFI = BUILD / "skiff.efi"
SKIFF_STORE = BUILD / "skiff-store"
GUESTS = BUILD / "guests"
OVMF = Path("/usr/share/ovmf/OVMF.fd")
VGABIOS = Path("/usr/share/vgabios/vgabios-stdvga.bin")


def bochs() -> Path:
    path = BUILD / "bochs"
    assert path.exists(), f"{path} is missing: run make setup"
    return path


def kernel(kind: str) -> Path:
    """Debian's unmodified bzImage; kind is 'cloud' or 'generic'."""
    return CACHE / "kernel" / kind / "vmlinuz"


def kernel_package(kind: str) -> dict:
    """The Debian package that kernel(kind) came from: package, version, sha256, vmlinuz_sha256."""
    return json.loads((CACHE / "kernel" / kind / "package.json").read_text())


def initrd(kind: str) -> Path:
    """The Linux guest's initramfs with the modules of kernel(kind)."""
    return GUESTS / f"initrd-{kind}.img"


def debian(name: str) -> Path:
    """A part of the Debian guest (tests/setup/debian.sh): root.img, vmlinuz, initrd, key, pgbench, packages.txt."""
    path = BUILD / "debian" / name
    assert path.exists(), f"{path} is missing: run make setup"
    return path

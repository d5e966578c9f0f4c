# SPDX-License-Identifier: MIT
"""Builds disk images with one FAT file system that UEFI firmware boots from; mtools does it without root."""

import os
import subprocess
import tempfile
from pathlib import Path

from . import paths

CYLINDER = 16 * 63 * 512
MIB = 1 << 20


def cylinders(image: Path) -> int:
    """The disk's size in the geometry (16 heads, 63 sectors) that Bochs wants to be told."""
    return image.stat().st_size // CYLINDER


def _format(image: Path, content_bytes: int) -> None:
    # 33 MiB is the least that mkfs takes for FAT32; the rest is room for FATs, clusters and what tests add.
    count = -(-max(64 * MIB, content_bytes * 9 // 8 + 8 * MIB) // CYLINDER)
    image.parent.mkdir(parents=True, exist_ok=True)
    image.unlink(missing_ok=True)
    with open(image, "wb") as disk:
        disk.truncate(count * CYLINDER)
    subprocess.run(["mformat", "-i", image, "-F", "-h", "16", "-s", "63", "-t", str(count), "::"], check=True)


def add(image: Path, files: dict[str, Path | str | bytes]) -> None:
    """Copies files into an image, over what is there; a value is a path, or the file's content itself."""
    made: set[str] = set()
    for name in files:
        parents = Path(name).parts[:-1]
        for depth in range(len(parents)):
            folder = "/".join(parents[: depth + 1])
            if folder not in made:
                made.add(folder)
                subprocess.run(["mmd", "-D", "s", "-i", image, f"::{folder}"], stderr=subprocess.DEVNULL)
    for name, source in files.items():
        if isinstance(source, Path):
            subprocess.run(["mcopy", "-D", "o", "-i", image, source, f"::{name}"], check=True)
            continue
        with tempfile.NamedTemporaryFile() as content:
            content.write(source.encode() if isinstance(source, str) else source)
            content.flush()
            subprocess.run(["mcopy", "-D", "o", "-i", image, content.name, f"::{name}"], check=True)


def build(image: Path, files: dict[str, Path | str | bytes]) -> Path:
    """Makes an image that holds exactly these files."""
    size = sum(os.path.getsize(f) if isinstance(f, Path) else len(f) for f in files.values())
    _format(image, size)
    add(image, files)
    return image


def build_skiff(image: Path, host_cfg: str, files: dict[str, Path] | None = None,
                efi: Path = paths.SKIFF_EFI) -> Path:
    """An ESP that boots Skiff: \\EFI\\BOOT\\BOOTX64.EFI, \\skiff\\host.cfg, and guest files under \\skiff\\."""
    content: dict[str, Path | str | bytes] = {"EFI/BOOT/BOOTX64.EFI": efi, "skiff/host.cfg": host_cfg}
    content.update({f"skiff/{name}": source for name, source in (files or {}).items()})
    return build(image, content)


def build_native_linux(image: Path, kernel: Path, initrd: Path, command_line: str) -> Path:
    """An ESP on which the firmware's shell starts the same kernel on the bare machine, for native figures."""
    script = f"fs0:\r\nvmlinuz.efi initrd=\\initrd.img {command_line}\r\n"
    return build(image, {"vmlinuz.efi": kernel, "initrd.img": initrd, "startup.nsh": script})

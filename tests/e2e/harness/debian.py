# SPDX-License-Identifier: MIT
"""A Debian system in a guest, used through its serial console."""

import re

from . import paths
from .pair import GuestSpec, Host

PROMPT = r"root@debian:~#"


def debian(disks: list[str], memory: int = 512, **options) -> GuestSpec:
    """The guest "debian": the distribution's kernel and initrd; the first disk holds root.img."""
    return GuestSpec("debian", paths.debian("vmlinuz"), "console=ttyS0,115200 root=/dev/vda rw", memory,
                     modules=[paths.debian("initrd")], disks=disks, **options)


def start(host: Host, timeout: float = 400) -> None:
    """Starts it and waits for root's shell on its console."""
    host.ok("start debian")
    with host.console.guest("debian") as position:
        host.machine.serial.expect(PROMPT, timeout, position)


def attempt(host: Host, command: str, timeout: float = 60) -> tuple[int, str]:
    """Runs a command on the guest's console: its exit status, and what it printed."""
    serial = host.machine.serial
    with host.console.guest("debian") as position:
        serial.send(f"echo BEGIN; {command}; echo END-$?\r")
        serial.expect(r"END-\d+\r?\n", timeout, position)
        text = serial.text(position).replace("\r\n", "\n")
    said, status = re.search(r"BEGIN\n(.*?)\n?END-(\d+)", text, re.DOTALL).groups()
    return int(status), said


def shell(host: Host, command: str, timeout: float = 60) -> str:
    """What a command that must succeed printed."""
    status, text = attempt(host, command, timeout)
    assert status == 0, f"'{command}' ended with {status}: {text}"
    return text

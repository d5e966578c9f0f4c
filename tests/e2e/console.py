# SPDX-License-Identifier: MIT
"""`make console`: boots the demo's two hosts and leaves the user at their serial consoles, one at a time."""

import argparse
import os
import select
import sys
import termios
import tty

from demo import small_group
from harness import kinds, network, paths, report
from harness.pair import Host

SWITCH = b"\x14"  # Ctrl-T
HELP = "Ctrl-T 1: alpha   Ctrl-T 2: bravo   Ctrl-T q: power both off and leave"


class Switcher:
    """Shows one host's serial line on this terminal and types into it; keeps what the others said meanwhile."""

    def __init__(self, hosts: list[Host]):
        self.hosts = hosts
        self.shown = {host.name: 0 for host in hosts}
        self.current = hosts[0]

    def show(self) -> None:
        serial = self.current.machine.serial
        text = serial.text(self.shown[self.current.name])
        self.shown[self.current.name] += len(text)
        os.write(sys.stdout.fileno(), text.encode("latin-1"))

    def choose(self, key: bytes) -> bool:
        """Obeys the key after Ctrl-T. Returns False when the user wants to leave."""
        if key == b"q":
            return False
        if key in (b"1", b"2"):
            self.current = self.hosts[int(key) - 1]
            os.write(sys.stdout.fileno(), f"\r\n--- {self.current.name} ---   {HELP}\r\n".encode())
        elif key == SWITCH:
            self.current.machine.serial.send(SWITCH.decode())
        return True

    def run(self) -> None:
        prefix = False
        while any(host.machine.running for host in self.hosts):
            self.show()
            if not select.select([sys.stdin], [], [], 0.05)[0]:
                continue
            for key in os.read(sys.stdin.fileno(), 256):
                key = bytes([key])
                if prefix:
                    prefix = False
                    if not self.choose(key):
                        return
                elif key == SWITCH:
                    prefix = True
                else:
                    self.current.machine.serial.send(key.decode("latin-1"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", choices=kinds.KINDS, default=kinds.KVM if kinds.has_nested_kvm() else kinds.INTEL)
    arguments = parser.parse_args()
    if not sys.stdin.isatty():
        print("make console wants a terminal to type at; for scripts there is make demo", file=sys.stderr)
        return 2
    network.become_network_admin()
    progress = report.Progress()
    folder = paths.BUILD / "console"
    folder.mkdir(parents=True, exist_ok=True)
    with small_group(folder, arguments.machine) as group:
        progress.say("powering on hosts alpha and bravo; this takes a quarter of a minute")
        group.boot()
        print(f"\n{HELP}\nTry on alpha:  start web,  console web (leave with Ctrl-]),  migrate web bravo --disk\n")
        before = termios.tcgetattr(sys.stdin)
        tty.setraw(sys.stdin)
        try:
            Switcher(list(group.hosts.values())).run()
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())

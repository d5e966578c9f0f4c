# SPDX-License-Identifier: MIT
"""A DHCP server for one client on the tests' own network (RFC 2131): as much of it as gives out an address."""

import contextlib
import ipaddress
import socket
import struct
import threading
from dataclasses import dataclass, field

COOKIE = b"\x63\x82\x53\x63"
DISCOVER, OFFER, REQUEST, ACK = 1, 2, 3, 5
SUBNET, ROUTER, ADDRESS, LEASE, TYPE, SERVER, END = 1, 3, 50, 51, 53, 54, 255


@dataclass
class DhcpServer:
    """Gives `address` to whoever asks on an interface; `requests` has the type of every message that came."""

    interface: str
    server: str
    address: str
    lease_s: int
    requests: list[int] = field(default_factory=list)

    @contextlib.contextmanager
    def serving(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            door.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.interface.encode())
            door.bind(("", 67))
            stop = threading.Event()
            door.settimeout(0.2)
            thread = threading.Thread(target=self._serve, args=(door, stop), daemon=True)
            thread.start()
            try:
                yield self
            finally:
                stop.set()
                thread.join()

    def _serve(self, door: socket.socket, stop: threading.Event) -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                message = door.recv(2048)
                kind = self._options(message)[TYPE][0]
                self.requests.append(kind)
                if kind in (DISCOVER, REQUEST):
                    answer = self._answer(message, OFFER if kind == DISCOVER else ACK)
                    door.sendto(answer, ("255.255.255.255", 68))

    @staticmethod
    def _options(message: bytes) -> dict[int, bytes]:
        options, at = {}, message.index(COOKIE) + 4
        while message[at] != END:
            code, length = message[at], message[at + 1] if message[at] else 0
            options[code] = message[at + 2 : at + 2 + length]
            at += 2 + length if code else 1
        return options

    def _answer(self, message: bytes, kind: int) -> bytes:
        own, given = (ipaddress.IPv4Address(a).packed for a in (self.server, self.address))
        head = struct.pack("!BBBB4sHH4s4s4s4s", 2, 1, 6, 0, message[4:8], 0, 0x8000, bytes(4), given, own, bytes(4))
        options = b"".join(bytes([code, len(value)]) + value for code, value in (
            (TYPE, bytes([kind])), (SERVER, own), (LEASE, struct.pack("!I", self.lease_s)),
            (SUBNET, bytes([255, 255, 255, 0])), (ROUTER, own)))
        return head + message[28:44] + bytes(192) + COOKIE + options + bytes([END])

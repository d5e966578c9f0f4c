# SPDX-License-Identifier: MIT
"""Traffic with a guest, seen from outside: a TCP connection that echoes, and what is on the wire.

Each lives in the network namespace of the thread that starts it, and ends with its context."""

import hashlib
import select
import socket
import struct
import subprocess
import threading
import time

ECHO_PORT = 7072  # tests/guests/linux/agent/stream.c
ETH_P_ALL = 3
ARP, TAG, RARP, IPV6 = 0x0806, 0x8100, 0x8035, 0x86DD
ICMPV6, NEIGHBOUR_ADVERTISEMENT = 58, 136  # RFC 4861
SOL_PACKET, PACKET_AUXDATA, VLAN_VALID = 263, 8, 1 << 4  # linux/if_packet.h


def ping(target: str, *options: str, count: int = 4) -> None:
    """Every ping is answered."""
    result = subprocess.run(["ping", "-c", str(count), "-i", "0.2", "-W", "2", *options, target],
                            capture_output=True, text=True)
    assert " 0% packet loss" in result.stdout, f"{result.stdout}{result.stderr}"


def wait_ping(target: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while subprocess.run(["ping", "-c", "1", "-W", "1", target], capture_output=True).returncode != 0:
        assert time.monotonic() < deadline, f"no answer from {target} within {timeout:g} s"


class _Watched:
    """A socket that a thread of its own watches, from entering to leaving."""

    _socket: socket.socket
    _stop = False

    def __enter__(self):
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop = True
        self._thread.join()
        self._socket.close()


class Echo(_Watched):
    """One TCP connection to the guest's echo: a block every 10 ms, which must come back as it went."""

    BLOCK = 512
    PERIOD = 0.01

    def __init__(self, address: str):
        self._socket = socket.create_connection((address, ECHO_PORT), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stamps: list[float] = []  # of each block that has come back
        self.error: str | None = None

    def _block(self, number: int) -> bytes:
        return hashlib.sha256(str(number).encode()).digest() * (self.BLOCK // 32)

    def _run(self) -> None:
        try:
            self._exchange()
        except OSError as error:
            self.error = f"the connection broke: {error}"

    def _exchange(self) -> None:
        sent, received = 0, b""
        due = time.monotonic()
        while not self._stop:
            if time.monotonic() >= due:
                self._socket.sendall(self._block(sent))
                sent += 1
                due += self.PERIOD
            if not select.select([self._socket], [], [], max(0.0, due - time.monotonic()))[0]:
                continue
            data = self._socket.recv(65536)
            if not data:
                raise OSError("the guest closed it")
            received += data
            while len(received) >= self.BLOCK:
                if received[:self.BLOCK] != self._block(len(self.stamps)):
                    raise OSError(f"block {len(self.stamps)} came back changed")
                self.stamps.append(time.monotonic())
                received = received[self.BLOCK:]

    def longest_gap_ms(self, since: float = 0.0) -> float:
        stamps = [s for s in self.stamps if s >= since]
        return max((b - a for a, b in zip(stamps, stamps[1:])), default=0.0) * 1000

    def check(self, more: int = 20, timeout: float = 10) -> None:
        """Whole so far, and it goes on."""
        wanted, deadline = len(self.stamps) + more, time.monotonic() + timeout
        while self.error is None and len(self.stamps) < wanted:
            assert time.monotonic() < deadline, f"the echo stands still for {timeout:g} s"
            time.sleep(0.02)
        assert self.error is None, self.error


class Wire(_Watched):
    """Every frame on an interface, with the time of its arrival."""

    def __init__(self, interface: str):
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.bind((interface, 0))
        self._socket.settimeout(0.1)
        self._socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self.frames: list[tuple[float, bytes]] = []

    def _run(self) -> None:
        while not self._stop:
            try:
                frame, data, _, _ = self._socket.recvmsg(65536, 64)
            except TimeoutError:
                continue
            self.frames.append((time.monotonic(), self._with_tag(frame[:128], data)))

    @staticmethod
    def _with_tag(frame: bytes, data: list) -> bytes:
        """The kernel takes tags out of frames and tells them apart: here they are back."""
        for _, kind, value in data:
            status, tag = struct.unpack("IxxxxxxxxxxxxHxx", value)
            if kind == PACKET_AUXDATA and status & VLAN_VALID:
                return frame[:12] + struct.pack("!HH", TAG, tag) + frame[12:]
        return frame

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    def sent_by(self, mac: str, ethertype: int | None = None, since: float = 0.0) -> list[float]:
        """When frames of this source came by."""
        return [wall for wall, frame in self._of(mac, since)
                if ethertype is None or frame[12:14] == ethertype.to_bytes(2, "big")]

    def _of(self, mac: str, since: float) -> list[tuple[float, bytes]]:
        source = bytes.fromhex(mac.replace(":", ""))
        return [(wall, frame) for wall, frame in self.frames if wall >= since and frame[6:12] == source]

    def gratuitous(self, mac: str, since: float) -> set[str]:
        """In which protocols a guest's own system told its neighbours, unasked, where its addresses are: "ARP" to
        everybody about itself (RFC 5227 2.3), "ND" by an advertisement to all nodes (RFC 4861 7.2.6)."""
        found = set()
        for _, frame in self._of(mac, since):
            kind = int.from_bytes(frame[12:14], "big")
            if kind == ARP and frame[:6] == b"\xff" * 6 and frame[28:32] == frame[38:42]:
                found.add("ARP")
            elif (kind == IPV6 and frame[20] == ICMPV6 and frame[54] == NEIGHBOUR_ADVERTISEMENT
                  and frame[38:54] == socket.inet_pton(socket.AF_INET6, "ff02::1")):
                found.add("ND")
        return found

    def wait(self, condition, timeout: float, what: str) -> None:
        """Until condition() holds of what has come by."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not seen within {timeout:g} s: {what}"
            time.sleep(0.02)


def tagged_arp(interface: str, vlan: int, address: str, timeout: float) -> bytes:
    """Asks a VLAN for an address until somebody answers there; returns the answer as it was on the wire."""
    source = b"\x02\0\0\0\x78\1"
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + source + socket.inet_aton("10.78.0.1")
    question = b"\xff" * 6 + source + struct.pack("!HHH", TAG, vlan, ARP) + body + bytes(6) + socket.inet_aton(address)
    deadline = time.monotonic() + timeout
    with Wire(interface) as wire:
        while time.monotonic() < deadline:
            wire.send(question.ljust(64, b"\0"))
            time.sleep(0.2)
            for _, frame in wire.frames:
                if frame[:6] == source and frame[16:18] == ARP.to_bytes(2, "big"):
                    return frame
    raise AssertionError(f"nobody in VLAN {vlan} has {address} within {timeout:g} s")

# SPDX-License-Identifier: MIT
"""Malformed network frames, the same ones for the same seed: truncated headers, lengths that lie, broken options,
overlapping fragments, extension-header chains, ARP and neighbour-discovery junk, odd TCP segments."""

import ipaddress
import random
import socket
import struct
import sys
import time

ETH_IP4, ETH_ARP, ETH_IP6, ETH_VLAN = 0x0800, 0x0806, 0x86DD, 0x8100
ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, NO_NEXT, DESTINATION = 0, 43, 44, 51, 59, 60
MAX_FRAME = 1514


def checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Maker:
    """Makes frames for one target. Most carry right checksums, so that what is wrong lies behind that check."""

    def __init__(self, dst_mac: str, dst_ip4: str, dst_ip6: str, seed: int):
        self.r = random.Random(seed)
        self.mac = bytes.fromhex(dst_mac.replace(":", ""))
        self.ip4 = ipaddress.IPv4Address(dst_ip4).packed
        self.ip6 = ipaddress.IPv6Address(dst_ip6).packed
        self.kinds = [getattr(self, name) for name in dir(self) if name.startswith("make_")]

    def frame(self) -> bytes:
        return self.r.choice(self.kinds)()[:MAX_FRAME]

    # Building blocks.

    def junk(self, most: int) -> bytes:
        return self.r.randbytes(self.r.randrange(most + 1))

    def source(self) -> bytes:
        return bytes([0x02]) + self.r.randbytes(5)

    def ethernet(self, kind: int, payload: bytes, to: bytes | None = None) -> bytes:
        return (to or self.mac) + self.source() + struct.pack("!H", kind) + payload

    def neighbour4(self) -> bytes:
        return self.ip4[:3] + bytes([self.r.randrange(100, 255)])

    def neighbour6(self) -> bytes:
        return self.ip6[:8] + self.r.randbytes(8)

    def ip4_packet(self, protocol: int, payload: bytes, options: bytes = b"", offset: int = 0, ident: int | None = None,
                   total: int | None = None, words: int | None = None, version: int = 4) -> bytes:
        options += bytes(-len(options) % 4)
        words = 5 + len(options) // 4 if words is None else words
        total = 20 + len(options) + len(payload) if total is None else total
        head = struct.pack("!BBHHHBBH4s4s", version << 4 | words & 15, 0, total & 0xFFFF,
                           self.r.randrange(65536) if ident is None else ident, offset, 64, protocol, 0,
                           self.neighbour4(), self.ip4) + options
        total_sum = checksum(head)
        if self.r.random() < 0.05:
            total_sum ^= self.r.randrange(1, 65536)
        return head[:10] + struct.pack("!H", total_sum) + head[12:] + payload

    def ip6_packet(self, following: int, payload: bytes, length: int | None = None, source: bytes | None = None,
                   hops: int = 64) -> bytes:
        length = len(payload) if length is None else length
        return struct.pack("!IHBB", 6 << 28, length & 0xFFFF, following, hops) + (
            source or self.neighbour6()) + self.ip6 + payload

    def sum6(self, source: bytes, protocol: int, payload: bytes, at: int) -> bytes:
        pseudo = source + self.ip6 + struct.pack("!II", len(payload), protocol)
        value = checksum(pseudo + payload[:at] + b"\0\0" + payload[at + 2:])
        return payload[:at] + struct.pack("!H", value) + payload[at + 2:]

    def icmp6(self, body: bytes, hops: int = 255) -> bytes:
        source = self.r.choice([self.neighbour6(), bytes.fromhex("fe80000000000000") + self.r.randbytes(8)])
        packet = self.ip6_packet(ICMP6, self.sum6(source, ICMP6, body, 2), source=source, hops=hops)
        return self.ethernet(ETH_IP6, packet)

    # One kind of frame each.

    def make_noise(self) -> bytes:
        kind = self.r.choice([ETH_IP4, ETH_IP6, ETH_ARP, ETH_VLAN, self.r.randrange(65536)])
        return self.ethernet(kind, self.junk(1500))

    def make_runt(self) -> bytes:
        return self.ethernet(self.r.choice([ETH_IP4, ETH_IP6, ETH_ARP]), self.junk(20))

    def make_oversize(self) -> bytes:
        return self.ethernet(self.r.choice([ETH_IP4, ETH_IP6]), self.r.randbytes(1500))

    def make_vlan(self) -> bytes:
        inner = struct.pack("!HH", self.r.randrange(65536), self.r.choice([ETH_IP4, ETH_IP6, ETH_VLAN])) + self.junk(60)
        return self.ethernet(ETH_VLAN, inner[:self.r.randrange(len(inner) + 1)])

    def make_truncated4(self) -> bytes:
        packet = self.ip4_packet(self.r.choice([ICMP, TCP, UDP]), self.r.randbytes(64))
        return self.ethernet(ETH_IP4, packet[:self.r.randrange(len(packet))])

    def make_lengths4(self) -> bytes:
        packet = self.ip4_packet(self.r.choice([ICMP, TCP, UDP, 41, 255]), self.junk(100), total=self.r.choice(
            [0, 1, 19, 20, 21, 60, 1500, 65535, self.r.randrange(65536)]), words=self.r.choice([0, 1, 4, 5, 6, 15]),
            version=self.r.choice([4, 4, 4, 0, 5, 6, 15]))
        return self.ethernet(ETH_IP4, packet)

    def make_options4(self) -> bytes:
        kind = self.r.choice([0, 1, 7, 68, 131, 137, 148, self.r.randrange(256)])
        options = bytes([kind, self.r.choice([0, 1, 2, 3, 4, 39, 40, 255]), self.r.randrange(256)]) + self.junk(36)
        return self.ethernet(ETH_IP4, self.ip4_packet(ICMP, self.echo4(self.junk(40)), options=options[:40]))

    def echo4(self, data: bytes) -> bytes:
        kind = self.r.choice([8, 8, 0, 3, 5, 11, 13, self.r.randrange(256)])
        head = struct.pack("!BBHHH", kind, self.r.randrange(3), 0, 1, 1)
        return head[:2] + struct.pack("!H", checksum(head + data)) + head[4:] + data

    def make_icmp4(self) -> bytes:
        body = self.echo4(self.junk(80))
        return self.ethernet(ETH_IP4, self.ip4_packet(ICMP, body[:self.r.randrange(len(body) + 1)]))

    def make_fragment4(self) -> bytes:
        """Few identifications and sources, so that fragments overlap, leave holes, end twice, and pile up."""
        size = self.r.choice([1, 7, 8, 16, 64, 512, 1480])
        offset = self.r.choice([0, 1, 2, 8, 64, 185, 8000, 8191]) | self.r.choice([0, 0x2000, 0x2000, 0x8000])
        packet = self.ip4_packet(self.r.choice([ICMP, UDP, TCP]), self.r.randbytes(size), offset=offset,
                                 ident=self.r.randrange(4))
        head = packet[:12] + self.ip4[:3] + b"\xfa" + packet[16:20]
        head = head[:10] + b"\0\0" + head[12:]
        return self.ethernet(ETH_IP4, head[:10] + struct.pack("!H", checksum(head)) + head[12:] + packet[20:])

    def make_udp4(self) -> bytes:
        length = self.r.choice([0, 7, 8, 9, 300, 65535, self.r.randrange(65536)])
        port = self.r.choice([67, 68, 53, 7070, self.r.randrange(65536)])
        return self.ethernet(ETH_IP4, self.ip4_packet(UDP, struct.pack("!HHHH", 67, port, length, 0) + self.junk(300)))

    def make_dhcp(self) -> bytes:
        """Answers nobody asked for, with options that run over the end."""
        options = b"\x63\x82\x53\x63" + b"".join(
            bytes([self.r.choice([53, 51, 54, 1, 3, 6, 52, 255, 0]), self.r.choice([0, 1, 4, 255])]) + self.junk(6)
            for _ in range(8))
        body = bytes([2, 1, 6, 0]) + self.r.randbytes(232) + options
        return self.ethernet(ETH_IP4, self.ip4_packet(UDP, struct.pack("!HHHH", 67, 68, 8 + len(body), 0) + body))

    def tcp_segment(self) -> bytes:
        words = self.r.choice([0, 1, 4, 5, 5, 5, 6, 8, 15])
        flags = self.r.choice([0x02, 0x10, 0x12, 0x18, 0x04, 0x01, 0x29, 0x3F, 0x00, self.r.randrange(256)])
        room = max(0, words - 5) * 4
        options = bytes([self.r.choice([0, 1, 2, 3, 4, 5, 8, 254]), self.r.choice([0, 1, 2, 3, 4, 10, 40, 255])])
        options = (options + self.junk(38))[:room].ljust(room, b"\1")
        return struct.pack("!HHIIBBHHH", self.r.choice([1, 1024, self.r.randrange(65536)]),
                           self.r.choice([7070, 7070, self.r.randrange(65536)]), self.r.randrange(1 << 32),
                           self.r.randrange(1 << 32), words << 4, flags, self.r.randrange(65536), 0,
                           self.r.randrange(65536)) + options + self.junk(100)

    def make_tcp4(self) -> bytes:
        segment = self.tcp_segment()
        packet = self.ip4_packet(TCP, segment)
        pseudo = packet[12:20] + struct.pack("!HH", TCP, len(segment))
        value = struct.pack("!H", checksum(pseudo + segment))
        return self.ethernet(ETH_IP4, packet[:36] + value + packet[38:])

    def make_land(self) -> bytes:
        """A segment that claims to come from the target itself."""
        segment = self.tcp_segment()
        packet = self.ip4_packet(TCP, segment)
        packet = packet[:10] + b"\0\0" + self.ip4 + packet[16:]
        packet = packet[:10] + struct.pack("!H", checksum(packet[:20])) + packet[12:]
        pseudo = packet[12:20] + struct.pack("!HH", TCP, len(segment))
        return self.ethernet(ETH_IP4, packet[:36] + struct.pack("!H", checksum(pseudo + segment)) + packet[38:])

    def make_arp(self) -> bytes:
        body = struct.pack("!HHBBH", self.r.choice([1, 1, 0, 6, 65535]), self.r.choice([ETH_IP4, ETH_IP4, 0, 65535]),
                           self.r.choice([6, 6, 0, 255]), self.r.choice([4, 4, 0, 16, 255]),
                           self.r.choice([1, 2, 0, 3, 65535]))
        body += self.source() + self.r.choice([self.neighbour4(), self.ip4, b"\0\0\0\0", b"\xff\xff\xff\xff"])
        body += self.r.randbytes(6) + self.r.choice([self.ip4, self.neighbour4()])
        return self.ethernet(ETH_ARP, body[:self.r.choice([28, 28, 8, 14, 27])], self.r.choice([None, b"\xff" * 6]))

    def make_truncated6(self) -> bytes:
        packet = self.ip6_packet(self.r.choice([ICMP6, TCP, UDP]), self.r.randbytes(64))
        return self.ethernet(ETH_IP6, packet[:self.r.randrange(len(packet))])

    def make_lengths6(self) -> bytes:
        length = self.r.choice([0, 1, 7, 8, 1460, 65535, self.r.randrange(65536)])
        following = self.r.choice([ICMP6, TCP, UDP, NO_NEXT, 255])
        return self.ethernet(ETH_IP6, self.ip6_packet(following, self.junk(100), length))

    def make_extensions6(self) -> bytes:
        """Chains of extension headers with lengths that lie, nest or run out."""
        kinds = [HOP_BY_HOP, ROUTING, DESTINATION, AUTHENTICATION, FRAGMENT, 50, 135, 255]
        chain = [self.r.choice(kinds) for _ in range(self.r.randrange(1, 40))]
        body = b""
        for following in chain[1:] + [self.r.choice([ICMP6, TCP, NO_NEXT])]:
            size = self.r.choice([0, 0, 0, 1, 2, 255])
            body += bytes([following, size]) + self.r.randbytes(6 + 8 * min(size, 2))
        return self.ethernet(ETH_IP6, self.ip6_packet(chain[0], (body + self.junk(40))[:1400]))

    def make_options6(self) -> bytes:
        options = b"".join(bytes([self.r.choice([0, 1, 5, 0xC2, 0xC9, 0x3E, 0x80, self.r.randrange(256)]),
                                  self.r.choice([0, 1, 2, 4, 14, 255])]) + self.junk(6) for _ in range(4))
        options = options[:30].ljust(30, b"\0")
        return self.ethernet(ETH_IP6, self.ip6_packet(self.r.choice([HOP_BY_HOP, DESTINATION]),
                                                      bytes([ICMP6, 3]) + options + self.junk(30)))

    def make_fragment6(self) -> bytes:
        size = self.r.choice([0, 1, 7, 8, 16, 64, 512, 1400])
        offset = self.r.choice([0, 8, 16, 64, 512, 1400, 65528]) & 0xFFF8 | self.r.choice([0, 1, 1])
        following = self.r.choice([ICMP6, UDP, TCP, FRAGMENT, HOP_BY_HOP])
        head = struct.pack("!BBHI", following, 0, offset, self.r.randrange(4))
        return self.ethernet(ETH_IP6, self.ip6_packet(FRAGMENT, head + self.r.randbytes(size),
                                                      source=self.ip6[:8] + b"\0\0\0\0\0\0\0\xfa"))

    def make_tcp6(self) -> bytes:
        source = self.neighbour6()
        segment = self.sum6(source, TCP, self.tcp_segment(), 16)
        return self.ethernet(ETH_IP6, self.ip6_packet(TCP, segment, source=source))

    def make_neighbour6(self) -> bytes:
        """Router and neighbour discovery (133 to 137) and MLD (130 to 132) with broken options."""
        kind = self.r.choice([130, 131, 132, 133, 134, 135, 136, 137])
        fixed = {133: 8, 134: 16, 135: 24, 136: 24, 137: 40}.get(kind, 24)
        body = bytes([kind, self.r.choice([0, 0, 0, 1]), 0, 0]) + self.r.randbytes(fixed - 4)
        if kind in (135, 136):
            body = body[:8] + self.r.choice([self.ip6, self.neighbour6(), self.r.randbytes(16)])
        for _ in range(self.r.randrange(4)):
            option = self.r.choice([1, 2, 3, 4, 5, 24, 25, self.r.randrange(256)])
            body += bytes([option, self.r.choice([0, 1, 1, 2, 4, 255])]) + self.r.randbytes(self.r.choice([6, 6, 30]))
        if kind == 134:  # A lifetime of 0: junk must not make the target talk through routers that don't exist.
            body = body[:6] + b"\0\0" + body[8:]
        body = body[:self.r.choice([len(body), self.r.randrange(4, len(body) + 1)])]
        return self.icmp6(body, self.r.choice([255, 255, 64]))

    def make_icmp6(self) -> bytes:
        kind = self.r.choice([128, 128, 129, 1, 2, 3, 4, self.r.randrange(256)])
        return self.icmp6(bytes([kind, self.r.randrange(4), 0, 0]) + self.junk(120))


def send_malformed(ifname: str, dst_mac: str, dst_ip4: str, dst_ip6: str, count: int, seed: int = 1,
                   per_second: int = 5000) -> int:
    """Sends `count` malformed frames to one machine out of an interface; returns the number of bytes.

    At most per_second frames a second, so that they meet the target and not a full queue before it."""
    maker = Maker(dst_mac, dst_ip4, dst_ip6, seed)
    total = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind((ifname, 0))
        start = time.monotonic()
        for number in range(count):
            frame = maker.frame()
            out.send(frame)
            total += len(frame)
            time.sleep(max(0.0, start + number / per_second - time.monotonic()))
    return total


if __name__ == "__main__":
    if len(sys.argv) not in (6, 7):
        sys.exit("usage: frames.py INTERFACE MAC IPV4 IPV6 COUNT [SEED]")
    send_malformed(*sys.argv[1:5], int(sys.argv[5]), int(sys.argv[6]) if len(sys.argv) > 6 else 1)

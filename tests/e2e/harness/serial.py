# SPDX-License-Identifier: MIT
"""A machine's serial line: read all the time by a thread, kept whole, stamped line by line on arrival."""

import bisect
import re
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path


class SerialTimeout(AssertionError):
    """What was waited for did not come; the message carries the end of the transcript."""


@dataclass(frozen=True)
class Line:
    """One complete line: wall clock of its end (time.monotonic() seconds), its text, and where it ends in the stream."""

    wall: float
    text: str
    end: int


class Serial:
    """A connected serial line. Positions are offsets into everything received so far."""

    def __init__(self, name: str, connection: socket.socket, transcript: Path):
        self.name = name
        self._connection = connection
        self._changed = threading.Condition()
        self._received = bytearray()  # a long run's text is long: it is never copied whole
        self._lines: list[Line] = []
        self._line_start = 0
        self._closed = False
        transcript.parent.mkdir(parents=True, exist_ok=True)
        self.transcript = transcript
        self._file = open(transcript, "w", buffering=1)
        threading.Thread(target=self._read, name=f"serial-{name}", daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                data = self._connection.recv(65536)
            except OSError:
                data = b""
            with self._changed:
                if data:
                    self._take(data)
                else:
                    self._closed = True
                    self._file.close()
                self._changed.notify_all()
            if not data:
                return

    def _take(self, data: bytes) -> None:
        now = time.monotonic()
        stamp = time.strftime("%H:%M:%S", time.localtime()) + f".{int(time.time() * 1000) % 1000:03d}"
        self._received += data
        while (end := self._received.find(b"\n", self._line_start)) >= 0:
            line = self._received[self._line_start : end].decode("latin-1").strip("\r")
            self._lines.append(Line(now, line, end + 1))
            self._file.write(f"{stamp} {line}\n")
            self._line_start = end + 1

    @property
    def position(self) -> int:
        with self._changed:
            return len(self._received)

    @property
    def closed(self) -> bool:
        return self._closed

    def text(self, start: int = 0) -> str:
        with self._changed:
            return self._received[start:].decode("latin-1")

    def lines(self, start: int = 0) -> list[Line]:
        """The complete lines that ended after position start."""
        with self._changed:
            return self._lines[bisect.bisect_right(self._lines, start, key=lambda line: line.end):]

    def tail(self, count: int = 25) -> str:
        return "\n".join("    | " + line for line in self.text(-16384).splitlines()[-count:])

    def send(self, text: str) -> None:
        self._connection.sendall(text.encode("latin-1"))

    def wait(self, condition, timeout: float, what: str):
        """Calls condition(), again after each arrival, until it returns something true, and returns that.

        timeout is wall seconds. Fails early when the line is closed."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not (result := condition()):
                left = deadline - time.monotonic()
                if self._closed or left <= 0:
                    reason = "the line was closed" if self._closed else f"{timeout:g} s passed"
                    raise SerialTimeout(
                        f"{self.name}: {reason} while waiting for {what}; its serial line ended with\n{self.tail()}")
                self._changed.wait(min(left, 0.5))
            return result

    def expect(self, pattern: str, timeout: float, start: int = 0) -> re.Match:
        """Waits for a regular expression in what came after position start.

        Match positions count from start; .end() + start is where to go on."""
        compiled = re.compile(pattern, re.MULTILINE)
        return self.wait(lambda: compiled.search(self.text(start)), timeout, f"/{pattern}/")

    def close(self) -> None:
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._connection.close()

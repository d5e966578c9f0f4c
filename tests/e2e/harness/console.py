# SPDX-License-Identifier: MIT
"""Drives Skiff's serial console the way a person or a script would: one command, then its output up to the prompt."""

import contextlib
import json
import re
from dataclasses import dataclass

from .serial import Line, Serial

PROMPT = "skiff> "
DETACH = "\x1d"
LOG_LINE = re.compile(r"^\[\s*(\d+\.\d{6})\] (error|warn|info|debug) +([^:]+): (.*)$")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class CommandError(AssertionError):
    """A command's output is not what its caller can use."""


@dataclass(frozen=True)
class LogLine:
    """One line of Skiff's log: host seconds since boot, and wall seconds of its arrival (time.monotonic())."""

    host: float
    level: str
    area: str
    message: str
    wall: float


class SkiffConsole:
    def __init__(self, serial: Serial):
        self.serial = serial

    def wait_prompt(self, timeout: float = 120, start: int = 0) -> None:
        """Waits for the first prompt after power-on, or after position start."""
        self.serial.expect(r"^(?:.*\r)?" + PROMPT, timeout, start)

    def command(self, line: str, timeout: float = 30) -> str:
        """Types a command and returns its output without log lines; timeout is wall seconds."""
        start = self.serial.position
        self.serial.send(line + "\r")
        output = self.serial.wait(lambda: self._output(line, start), timeout, f"the end of the command '{line}'")
        return "\n".join(text for text in output[0] if not LOG_LINE.match(text))

    def _output(self, line: str, start: int) -> list[list[str]] | None:
        """The complete output of a command typed at position start, in a list, or None if it is not there yet.

        A log line that arrives while the command is being echoed makes Skiff draw prompt and command again: the
        command's own line is the one that shows all of it and ends. Its prompt may lie before start."""
        text = self.serial.text(max(0, start - len(PROMPT)))
        text = ESCAPES.sub("", text).replace("\r\n", "\n")
        echo = re.search(rf"(?:^|[\n\r]){PROMPT}{re.escape(line)}\s*?\n", text)
        if echo is None:
            return None
        end = re.search(rf"(?:^|[\n\r]){PROMPT}", text[echo.end() :])
        if end is None:
            return None
        return [[part.rsplit("\r", 1)[-1] for part in text[echo.end() :][: end.start()].splitlines()]]

    def json(self, line: str, timeout: float = 30) -> list[dict]:
        """Runs a command with --format json and returns its objects, one for each line of output."""
        output = self.command(f"{line} --format json", timeout)
        objects = []
        for text in output.splitlines():
            if not text.strip():
                continue
            try:
                objects.append(json.loads(text))
            except ValueError:
                raise CommandError(f"{self.serial.name}: '{line} --format json' printed a line that is not JSON: "
                                   f"{text!r}") from None
        return objects

    def log(self, start: int = 0) -> list[LogLine]:
        """The log lines that came after position start."""
        return [found for line in self.serial.lines(start) if (found := _parse_log(line))]

    def wait_log(self, pattern: str, timeout: float, start: int = 0) -> LogLine:
        """Waits for a log line whose 'area: message' has a match for a regular expression."""
        compiled = re.compile(pattern)

        def found():
            return next((entry for entry in self.log(start)
                         if compiled.search(f"{entry.area}: {entry.message}")), None)

        return self.serial.wait(found, timeout, f"a log line with /{pattern}/")

    @contextlib.contextmanager
    def guest(self, name: str, timeout: float = 30):
        """Attaches to a guest's console; inside, use the serial line itself. Detaches with Ctrl-]."""
        start = self.serial.position
        self.serial.send(f"console {name}\r")
        echo = self.serial.expect(rf"console {re.escape(name)}\s*\r?\n", timeout, start)
        yield start + echo.end()
        start = self.serial.position
        self.serial.send(DETACH)
        self.serial.expect(PROMPT, timeout, start)


def _parse_log(line: Line) -> LogLine | None:
    match = LOG_LINE.match(ESCAPES.sub("", line.text).rsplit("\r", 1)[-1])
    if match is None:
        return None
    host, level, area, message = match.groups()
    return LogLine(float(host), level, area, message, line.wall)

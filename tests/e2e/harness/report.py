# SPDX-License-Identifier: MIT
"""What the long runs tell their user: progress lines as they go, and a JSON report at the end."""

import json
import os
import sys
import time
from pathlib import Path


class Progress:
    """Prints what happens, with wall seconds since the start."""

    def __init__(self, stream=sys.stdout):
        self._start = time.monotonic()
        self._stream = stream

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def say(self, message: str) -> None:
        print(f"[{self.seconds:7.1f} s] {message}", file=self._stream, flush=True)


def read(path: Path) -> dict:
    """What an earlier run has written, if any."""
    return json.loads(path.read_text()) if path.exists() else {}


def write(path: Path, content: dict) -> None:
    """Writes a report in one step, so that a reader never sees half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(path.suffix + ".new")
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(unfinished, path)


def table(content: dict) -> str:
    """The same figures for a person: one aligned line each."""
    width = max(map(len, content), default=0)
    return "\n".join(f"  {key:<{width}}  {value}" for key, value in content.items())

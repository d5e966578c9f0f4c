# SPDX-License-Identifier: MIT
"""Moves a guest while watching it from outside, and says what was seen in both clocks, emulated and wall."""

import re
import time
from dataclasses import dataclass

from .console import PROMPT
from .pair import Beat, Host, beats, wait_beats

HINT = re.compile(r"was (committed|offered|precopy)|job \d+ ")
ENDED = ("done", "failed", "aborted", "in-doubt")
ENDED_LINE = re.compile(rf"guest \S+: job (?P<job>\d+) ({'|'.join(ENDED)}): ")
PROGRESS = re.compile(r"job \d+: ")


@dataclass
class Move:
    """One finished move: the source's own figures, the destination's, and the outside view."""

    job: dict
    incoming: dict
    before: list[Beat]   # heartbeats that came out of the source during the move
    after: list[Beat]    # the first ones that came out of the destination
    gap_wall_ms: float   # the silence seen outside between the last line there and the first line here
    gap_ms: float        # the same in the destination's (emulated) clock
    longest_gap_wall_ms: float  # the longest silence between any two lines of the whole move
    longest_gap_ms: float       # the same in the destination's clock


class ClockMap:
    """Turns wall time into a host's own (emulated) clock, from samples of both taken all along.

    An emulator under load runs slower than the wall clock, and not evenly: one ratio would not do."""

    def __init__(self, host: Host):
        self._host = host
        self._samples: list[tuple[float, float]] = []

    def sample(self) -> None:
        """One sample: the wall stamp is that of the answer's line, whose 30 bytes take 3 ms to send."""
        start = self._host.machine.serial.position
        emulated = uptime_s(self._host)
        line = next(line for line in self._host.machine.serial.lines(start) if '"uptime_ns"' in line.text)
        self._samples.append((line.wall, emulated + 0.003))

    def emulated(self, wall: float) -> float:
        pairs = list(zip(self._samples, self._samples[1:]))
        (w0, e0), (w1, e1) = next((p for p in pairs if wall <= p[1][0]), pairs[-1])
        return e0 + (wall - w0) * (e1 - e0) / (w1 - w0)


def uptime_s(host: Host) -> float:
    return host.ok("uptime")[0]["uptime_ns"] / 1e9


def longest_gap(stamps: list[float]) -> float:
    return max((b - a for a, b in zip(stamps, stamps[1:])), default=0.0)


def start_move(source: Host, guest: str, target: Host, options: str = "") -> int:
    return source.ok(f"migrate {guest} {target.name} {options} --detach")[0]["job"]


def wait_job(source: Host, job_id: int, timeout: float) -> dict:
    """Waits until a job has ended; timeout is wall seconds.

    A question is asked only every two seconds, and at once when the host's log speaks of an end: the answer takes
    the serial line for 0.1 s."""
    serial = source.machine.serial
    begin = time.monotonic()
    while (job := source.job(job_id))["phase"] not in ENDED:
        assert time.monotonic() < begin + timeout, f"job {job_id} is still {job} after {timeout:g} s"
        asked, start = time.monotonic(), serial.position
        while time.monotonic() < asked + 2 and not HINT.search(serial.text(start)):
            time.sleep(0.1)
    return job


def watch_move(source: Host, guest: str, target: Host, timeout: float, tell, meanwhile,
               options: str = "") -> dict:
    """Runs `migrate` in the foreground, which prints a line of progress a second and lets heartbeats through, where
    a question would hold the serial line. Returns the job."""
    serial = source.machine.serial
    start, told = serial.position, 0
    serial.send(f"migrate {guest} {target.name} {options}\r")
    deadline = time.monotonic() + timeout
    while not (end := ENDED_LINE.search(serial.text(start))):
        assert time.monotonic() < deadline, f"the move has not ended after {timeout:g} s:\n{serial.tail()}"
        meanwhile()
        lines = [line.text for line in serial.lines(start) if PROGRESS.match(line.text)]
        for line in lines[told:]:
            tell(line)
        told = len(lines)
        time.sleep(0.1)
    serial.expect(PROMPT, 30, start + end.end())
    return source.job(int(end["job"]))


def move(source: Host, guest: str, target: Host, timeout: float = 240, tell=lambda line: None,
         options: str = "") -> Move:
    """Moves a guest whose heartbeats show on both consoles (`follow`), and waits for it to beat on the target."""
    source.ok(f"follow {guest} on")
    target.ok(f"follow {guest} on")
    wait_beats(source, guest, 3, 60)
    starts = {h.name: h.machine.serial.position for h in (source, target)}
    clock = ClockMap(target)
    clock.sample()
    job = watch_move(source, guest, target, timeout, tell, clock.sample, options)
    assert job["phase"] == "done", f"the move of {guest} ended as {job}"
    after = wait_beats(target, guest, 20, 60, starts[target.name])
    clock.sample()
    # The source ends the line under way when it lets go of the guest, and the target shows it whole.
    before = [b for b in beats(source, guest, starts[source.name]) if b.seq < after[0].seq]
    assert before, "no heartbeat during pre-copy: the guest was not running"
    last, first = before[-1].wall, after[0].wall
    walls = [b.wall for b in before + after]
    said = target.machine.serial.expect(rf"guest {guest}: job (\d+) done: {guest} runs here", 60, starts[target.name])
    return Move(job, target.job(int(said[1])), before, after, (first - last) * 1000,
                (clock.emulated(first) - clock.emulated(last)) * 1000, longest_gap(walls) * 1000,
                longest_gap([clock.emulated(wall) for wall in walls]) * 1000)


def check_beats(result: Move) -> None:
    """The guest lost no heartbeat, saw no error, and neither of its clocks went back."""
    all_beats = result.before + result.after
    for earlier, later in zip(all_beats, all_beats[1:]):
        assert later.seq == earlier.seq + 1, f"heartbeat lost between {earlier} and {later}"
        assert later.mono_ns > earlier.mono_ns, f"monotonic clock went back between {earlier} and {later}"
        assert later.tsc > earlier.tsc, f"TSC went back between {earlier} and {later}"
    assert all_beats[-1].errors == 0, f"the guest counted errors: {all_beats[-1]}"


def guest_command(host: Host, guest: str, line: str, until: str, timeout: float = 60) -> str:
    """Types a line at the guest's console; returns what the guest said up to a match of `until`."""
    serial = host.machine.serial
    with host.console.guest(guest) as start:
        serial.send(line + "\n")
        found = serial.expect(until, timeout, start)
        return serial.text(start)[: found.end()]

# SPDX-License-Identifier: MIT
"""Guests that hold delicate states cross with each: of interrupts, with registers of their own, and of a virtio
device in the middle of its set-up (hold.c and negotiate.c of tests/guests/bare)."""

import re

from harness import moves

STATES = {
    "hold": ["interrupts", "halted", "periodic", "events"],
    # Half-chosen features, a half-made queue, a masked vector, all masked, the pin's level.
    "negotiate": ["features", "queue", "masked", "function", "level"],
}


def cross_with_held_states(group, name: str = "hold") -> dict[str, str]:
    """Moves the guest once in each state, to and fro, and lets it check; returns what it said, by state."""
    states = STATES[name]
    for host in group.hosts.values():
        host.ok(f"follow {name} on")
    source, target = group["alpha"], group["bravo"]
    start = source.machine.serial.position
    source.ok(f"start {name}")
    source.machine.serial.expect(rf"{name}\| HOLD {states[0]}", 60, start)
    said = {}
    for state, following in zip(states, [*states[1:], "-END"]):
        job = moves.wait_job(source, moves.start_move(source, name, target), 120)
        assert job["phase"] == "done" and job["digest"] != "differ", job
        said[state] = moves.guest_command(
            target, name, "", rf"HELD {state} failures=\d+\s+HOLD ?{following}", 60)
        assert f"HELD {state} failures=0" in said[state], said[state]
        if state == "halted":
            # It slept through the blackout, its timer expired in it, and there was one wake for it all the same.
            longest = int(re.search(r"longest_us=(\d+)", said[state])[1])
            assert longest >= 0.8 * job["measured_blackout_us"], (longest, job)
        source, target = target, source
    source.wait_guest(name, "off", 30)
    return said

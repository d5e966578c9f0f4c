# SPDX-License-Identifier: MIT
"""The dirty log of a guest of 5 GiB: what starting it and collecting from it cost, by how much is dirty."""

from pathlib import Path

from harness import moves, report
from harness.pair import Group, bare, wait_beats

HOST_MIB, GUEST_MIB = 8192, 5120
COUNTS = (0, 1000, 100_000)
RATE = 40_000  # pages a second: all of them are written anew while the first round looks at 5 GiB


def move(group: Group, guest, pages: int) -> dict:
    """The only collection of a move of one round, of a guest that rewrites so many pages or stands still."""
    alpha, bravo = group["alpha"], group["bravo"]
    alpha.ok(f"follow {guest.name} on")
    alpha.ok(f"start {guest.name}", timeout=120)
    wait_beats(alpha, guest.name, 3, 120)
    if not pages:
        alpha.ok(f"pause {guest.name}")
    job = moves.wait_job(alpha, moves.start_move(alpha, guest.name, bravo), 240)
    assert job["phase"] == "done", job
    bravo.ok(f"destroy {guest.name}")
    return job


def run(folder: Path, progress: report.Progress) -> dict[str, float]:
    guests = {n: bare(f"dirty{n}", "beat.multiboot", memory=GUEST_MIB) for n in COUNTS}
    for pages, guest in guests.items():
        guest.cmdline = f"pages={max(1, pages)} rate={RATE if pages else 1} period=200"
    figures = {}
    with Group(folder, ["alpha", "bravo"], "qemu-amd", ram_mib=HOST_MIB, cpus=2, migrate={"max_rounds": 1},
               guests={"alpha": list(guests.values())}) as group:
        progress.say(f"dirty log: booting two hosts of {HOST_MIB} MiB")
        group.boot()
        per_us = group["alpha"].ok("host")[0]["tsc_hz"] / 1e6
        for pages, guest in guests.items():
            job = move(group, guest, pages)
            progress.say(f"{pages} pages: {job['collect_pages']} found dirty, {job['round']} rounds")
            # starting the log, whatever the guest's size
            figures[f"dirty_enable_{pages}_us"] = round(job["enable_ticks"] / per_us, 1)
            # how many pages the collections of the move found, and what these took together
            figures[f"dirty_collected_{pages}_pages"] = job["collect_pages"]
            figures[f"dirty_collect_{pages}_us"] = round(job["collect_ticks"] / per_us, 1)
    return figures

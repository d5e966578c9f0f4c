# SPDX-License-Identifier: MIT
"""`make soak`: the long counts, as build/soak/report.json. Its parts, of which --part runs one and leaves what the
report holds of the others: crossings with PML and with write-protection on VT-x, between Intel and AMD, a hundred on
AMD, a thousand there of a guest that does little beside its timers, of guests with 1, 2 and 4 vCPUs on both machines,
of a Debian server with its disk, and disk moves one of whose hosts dies."""

import argparse
import itertools
import statistics
import sys
from pathlib import Path

import crossings
import deaths
import server as debian
import writer
from harness import moves, network, paths, report
from harness.pair import Group

COUNT, AMD_COUNT, PING_PONG_COUNT, MATRIX_COUNT, DEATHS_COUNT = 20, 100, 1000, 4, 2
VCPUS = (1, 2, 4)
CLOCKS = "*_wall_ms*: wall clock; other *_ms: the hosts' emulated clock"


def to_and_fro(group: Group, name: str, count: int, tell) -> list[moves.Move]:
    """Moves of a busy guest. What a long run on a computer that does other things as well can't promise, how well
    the blackout is predicted, is not asked of it."""
    results = []
    for i in range(count):
        source, target = (group[host] for host in (("alpha", "bravo") if i % 2 == 0 else ("bravo", "alpha")))
        result = moves.move(source, name, target)
        moves.check_beats(result)
        assert result.job["digest"] == "match", result.job
        assert group.runners(name) == [target.name]
        results.append(result)
        tell(f"{name}: move {i + 1} of {count}, blackout {result.job['measured_blackout_us'] / 1000:.0f} ms, "
             f"{result.job['round']} rounds")
    return results


def figures(part: str, results: list[moves.Move], stats: dict) -> dict:
    """stats are the guest's own, after it has checked all its pages: timers and wakes are those that its further CPUs
    were owed and got; one that was lost counts among its errors."""
    blackouts = [result.job["measured_blackout_us"] / 1000 for result in results]
    return {
        f"{part}.crossings": len(results),
        f"{part}.digests_equal": sum(result.job["digest"] == "match" for result in results),
        f"{part}.guest_errors": stats["errors"],
        f"{part}.guest_timers": stats["timers"],
        f"{part}.guest_wakes": stats["wakes"],
        f"{part}.blackout_ms_median": round(statistics.median(blackouts), 1),
        f"{part}.blackout_ms_max": round(max(blackouts), 1),
        f"{part}.client_gap_ms_max": round(max(result.gap_ms for result in results), 1),
        f"{part}.bytes_wire_median": int(statistics.median(r.job["bytes_wire"] for r in results)),
    }


def busy(part: str, folder: Path, progress: report.Progress, count: int, vcpus: tuple[int, ...] = (crossings.VCPUS,),
         cpus: int = 2, load: dict | None = None, **options) -> dict:
    """Moves a busy guest for each number of vCPUs between the same two hosts; `load` as busy_guest() takes it."""
    content = {}
    guests = [crossings.busy_guest(f"busy{n}", vcpus=n, **(load or {})) for n in vcpus]
    with Group(folder, ["alpha", "bravo"], cpus=cpus, ram_mib=768, migrate={"verify": "on"}, guests={"alpha": guests},
               **options) as group:
        progress.say(f"{part}: booting two hosts")
        group.boot()
        for n, guest in zip(vcpus, guests):
            crossings.start_busy(group, guest.name)
            results = to_and_fro(group, guest.name, count, progress.say)
            end = group["alpha"] if count % 2 == 0 else group["bravo"]
            stats = crossings.check_guest_inside(end, guest.name)
            content |= figures(part if len(vcpus) == 1 else f"{part}.vcpus{n}", results, stats)
            end.ok(f"destroy {guest.name}")
    return content


def vendors(part: str, folder: Path, progress: report.Progress, count: int) -> dict:
    with Group(folder, **crossings.VENDORS, guests={"alpha": [crossings.roaming_guest("roamer")]}) as group:
        progress.say(f"{part}: booting an Intel and an AMD host")
        group.boot()
        crossings.start_roaming(group["alpha"], "roamer")
        way = [("alpha", "bravo")[i % 2] for i in range(count + 1)]
        results = crossings.roam(group, "roamer", way, tell=progress.say)
        return figures(part, results, crossings.check_guest_inside(group[way[-1]], "roamer"))


def server(part: str, folder: Path, progress: report.Progress, count: int, machine: str) -> dict:
    """Moves of a server with its disk, with connections that last all the time."""
    # A host that takes the server in again has memory for it that no guest had (see HOST_MEMORY).
    with debian.group(folder, machine, ram_mib=debian.MEMORY * (count // 2 + 3)) as group:
        progress.say(f"{part}: booting two hosts and a Debian server")
        group.boot()
        debian.start(group["alpha"])
        with debian.Use() as use:
            results = []
            for i in range(count):
                source, target = (("alpha", "bravo") if i % 2 == 0 else ("bravo", "alpha"))
                results.append(debian.move(group[source], group[target], use))
                debian.check_move(results[-1])
                progress.say(f"move {i + 1} of {count}: blackout {results[-1].job['measured_blackout_us'] / 1000:.0f} ms, "
                             f"silent for {results[-1].gap_ms:.0f} ms")
            errors = debian.damage(use)
            blackouts = [result.job["measured_blackout_us"] / 1000 for result in results]
            return {
                f"{part}.crossings": len(results),
                f"{part}.disk_digests_equal": sum(result.job["disk_digest"] == "match" for result in results),
                f"{part}.tcp_resets": use.resets(),
                f"{part}.db_errors": len(errors),
                f"{part}.commits_acknowledged": len(use.commits.acknowledged()),
                f"{part}.blackout_ms_median": round(statistics.median(blackouts), 1),
                f"{part}.blackout_ms_max": round(max(blackouts), 1),
                f"{part}.client_gap_wall_ms_max": round(max(result.gap_ms for result in results), 1),
            }


def dying(part: str, folder: Path, progress: report.Progress, count: int) -> dict:
    """Each host of a disk move dies at each point, `count` times; every other time the guest starts by itself."""
    cases = list(itertools.product(deaths.VICTIMS, deaths.POINTS))
    done = writes = errors = 0
    for i in range(count):
        with deaths.group(folder, autostart=i % 2 == 0) as group:
            progress.say(f"{part}: booting two hosts")
            deaths.start(group.boot())
            for victim, point in cases:
                deaths.die(group, victim, point)
                done += 1
                progress.say(f"death {done} of {count * len(cases)}: the {victim} at {point}")
            end, = group.runners(writer.NAME)
            found = writer.verify(group[end])
            writes, errors = writes + found["writes"], errors + found["errors"]
    return {f"{part}.deaths": done, f"{part}.guest_errors": errors, f"{part}.guest_writes": writes}


def skylake_or_haswell(model: str) -> dict:
    return {"models": {"alpha": model, "bravo": model}}


PARTS = {
    "pml": (busy, COUNT, skylake_or_haswell("corei7_skylake_x")),
    "wp": (busy, COUNT, skylake_or_haswell("corei7_haswell_4770")),
    "vendors": (vendors, COUNT, {}),
    # With one CPU a host: QEMU's threads have a core each.
    "amd": (busy, AMD_COUNT, {"machine": "qemu-amd", "cpus": 1}),
    "ping-pong": (busy, PING_PONG_COUNT,
                  {"machine": "qemu-amd", "cpus": 1, "load": {"memory": 96, "rate": 20, "fraction": 0.1}}),
    "bochs-intel": (busy, MATRIX_COUNT, {"vcpus": VCPUS}),
    "qemu-amd": (busy, MATRIX_COUNT, {"vcpus": VCPUS, "machine": "qemu-amd"}),
    "server": (server, COUNT, {"machine": "qemu-amd"}),
    "deaths": (dying, DEATHS_COUNT, {}),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one (several: again)")
    parser.add_argument("--count", type=int, help="crossings, in place of each part's own number")
    arguments = parser.parse_args()
    network.become_network_admin()
    progress = report.Progress()
    file = paths.BUILD / "soak" / "report.json"
    for part in arguments.part or PARTS:
        run, count, options = PARTS[part]
        folder = file.parent / part
        folder.mkdir(parents=True, exist_ok=True)
        found = run(part, folder, progress, arguments.count or count, **options)
        others = {key: value for key, value in report.read(file).items() if not key.startswith(f"{part}.")}
        report.write(file, others | found | {"clocks": CLOCKS})
    print(report.table(report.read(file)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

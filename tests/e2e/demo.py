# SPDX-License-Identifier: MIT
"""`make demo`: two hosts boot, a guest runs, and moves from one to the other while it works.

On the AMD machine that is a Debian server with its disk, used from outside by ssh and a database's clients; on the Intel
machine a small Linux guest that works on its memory and a small disk, and answers on the network."""

import argparse
import os
import re
import sys
from pathlib import Path

import server
from harness import clients, kinds, moves, network, paths, report
from harness.pair import Group, GuestSpec, Host, linux, wait_beats
from harness.traffic import Echo, wait_ping

GUEST_MIB = 128
HEARTBEAT_MS = 20
ADDRESS = "10.77.0.21"
VOLUME_MIB = 48


def small_guest() -> GuestSpec:
    return linux("web", mode="work", memory=GUEST_MIB, disks=[server.VOLUME],
                 extra=f"skiff.rate=200 skiff.fraction=0.5 skiff.disk_rate=50 skiff.heartbeat_ms={HEARTBEAT_MS} "
                       f"skiff.address={ADDRESS} quiet loglevel=4")


def small_group(folder: Path, machine: str) -> Group:
    """Two hosts with a datastore each, and the small guest on alpha."""
    folder.mkdir(parents=True, exist_ok=True)
    blank = folder / "blank.img"
    blank.touch()
    os.truncate(blank, VOLUME_MIB << 20)
    disks = {"alpha": [server.datastore(folder / "alpha-data.img", blank, mib=160)],
             "bravo": [server.datastore(folder / "bravo-data.img", mib=160)]}
    return Group(folder, ["alpha", "bravo"], machine, guests={"alpha": [small_guest()]}, migrate={"verify": "on"}, disks=disks)


def begin(group: Group, job: dict, machine: str, kernel: str, ram_mib: int) -> dict:
    """What every report starts with."""
    return {
        "machine": machine,
        "backend": group["alpha"].ok("host")[0]["backend"],
        "dirty_tracking": job["dirty_tracking"],
        "guest_kernel": kernel,
        "guest_ram_mib": ram_mib,
        "result": job["phase"],
        "total_ms": round((job["running_ns"] - job["started_ns"]) / 1e6),
        "blackout_ms": round(job["measured_blackout_us"] / 1000, 1),
        "predicted_blackout_ms": round(job["predicted_blackout_us"] / 1000, 1),
    }


def carried(job: dict) -> dict:
    """What went over the wire, and whether it is the same on both sides."""
    return {
        "rounds": job["round"],
        "pages_sent": job["pages_sent"],
        "pages_zero": job["pages_zero"],
        "pages_touched": job["pages_touched"],
        "bytes_wire": job["bytes_wire"],
        "disk_bytes_wire": job["disk_bytes_wire"],
        "digest_match": job["digest"] == "match",
        "disk_digest_match": job["disk_digest"] == "match",
    }


def figures(group: Group, result: moves.Move, echo: Echo, machine: str, dmesg: list[str]) -> dict:
    package = paths.kernel_package("cloud")
    job = result.job

    def parts(which: str) -> str:
        names = ("stop", "pages", "state", "ready", "verify", "commit")
        return ", ".join(f"{name} {job[f'{which}_{name}_us'] / 1000:.1f}" for name in names)

    return begin(group, job, machine, f"{package['package']} {package['version']}", GUEST_MIB) | {
        "client_gap_ms": round(result.gap_ms, 1),
        "client_gap_wall_ms": round(result.gap_wall_ms, 1),
        "client_longest_gap_ms": round(result.longest_gap_ms, 1),
        "client_longest_gap_wall_ms": round(result.longest_gap_wall_ms, 1),
        "client_max_gap_ms": round(echo.longest_gap_ms(), 1),
        "clocks": "*_wall_ms and client_max_gap_ms (the TCP connection's longest silence): wall clock; other times: "
                  "emulated, client_*gap_ms by the destination's clock",
        "blackout_parts_ms": parts("blackout"),
        "predicted_parts_ms": parts("predicted"),
        "audit_ms": round((job["ended_ns"] - job["running_ns"]) / 1e6),
        **carried(job),
        "tcp_resets": int(echo.error is not None),
        "guest_errors": result.after[-1].errors,
        "guest_heartbeats_during_precopy": len(result.before),
        "guest_kernel_warnings": dmesg,
    }


def kernel_warnings(group: Group, host: str) -> list[str]:
    text = moves.guest_command(group[host], "web", "dmesg", r"DMESG-END \d+")
    body = text.split("DMESG-BEGIN", 1)[-1].split("DMESG-END")[0]
    return [line.strip() for line in body.splitlines()[1:] if line.strip()]


def boot(group: Group, progress: report.Progress) -> tuple[Host, Host]:
    progress.say("powering on hosts alpha and bravo")
    group.boot()
    for host in group.hosts.values():
        info = host.ok("host")[0]
        progress.say(f"{host.name}: prompt after {info['uptime_ns'] / 1e9:.1f} s, {info['cpu']}, "
                     f"backend {info['backend']}, address {host.address}")
    return group["alpha"], group["bravo"]


def run_small(machine: str, folder: Path, progress: report.Progress) -> dict:
    with small_group(folder, machine) as group:
        alpha, bravo = boot(group, progress)
        progress.say(f"starting guest web on alpha: Debian's kernel, {GUEST_MIB} MiB, a disk of {VOLUME_MIB} MiB")
        alpha.ok("follow web on")
        alpha.ok("start web")
        wait_beats(alpha, "web", 10, 300, 0)
        wait_ping(ADDRESS, 60)
        progress.say("the guest writes and checks half of its memory and its disk, sends heartbeats, and answers on a "
                     "TCP connection; moving it to bravo with its disk while it works")
        with Echo(ADDRESS) as echo:
            echo.check()
            result = moves.move(alpha, "web", bravo, tell=lambda line: progress.say(f"  {line}"), options="--disk")
            moves.check_beats(result)
            progress.say(f"the guest runs on {' and '.join(group.runners('web'))}; asking it to check all its pages "
                         "and all its disk")
            stats = moves.guest_command(bravo, "web", "verify", r"AGENT-STATS \{.*\}", 180)
            assert re.search(r'DISK-VERIFIED \{.*"errors": 0\b', stats), stats
            assert re.search(r'AGENT-STATS \{.*"errors": 0\b', stats), stats
            echo.check()
            return figures(group, result, echo, machine, kernel_warnings(group, "bravo"))


def server_figures(group: Group, result: server.ServerMove, use: server.Use, machine: str, errors: list[str]) -> dict:
    job = result.job
    kernel = clients.ssh(server.ADDRESS, "uname -r").strip()
    return begin(group, job, machine, f"{kernel} of {paths.debian('packages.txt').resolve().parent.name}", server.MEMORY) | {
        "client_gap_ms": round(result.handover_gap_ms, 1),
        "client_max_gap_ms": round(result.gap_ms, 1),
        "clocks": "client_*_ms: wall clock, the ssh session's silence at the hand-over, and its longest of the whole move; "
                  "others: the hosts', which is the wall clock on QEMU",
        **carried(job),
        "guest_heartbeats_during_precopy": result.lines_before,
        "tcp_resets": use.resets(),
        "ssh_lines_within_5_s": "%d before, %d after" % result.bytes_near,
        "commits_within_5_s": "%d before, %d after" % result.commits_near,
        "commits_acknowledged": len(use.commits.acknowledged()),
        "db_errors": len(errors),
        "guest_errors": len(errors),
    }


def run_server(machine: str, folder: Path, progress: report.Progress) -> dict:
    with server.group(folder, machine) as group:
        alpha, bravo = boot(group, progress)
        progress.say(f"starting guest {server.NAME} on alpha: a Debian server with its disk, {server.MEMORY} MiB; "
                     "it takes a minute to come up on an emulated machine")
        server.start(alpha)
        progress.say("outside, an ssh session and an iperf3 connection stream, a database connection commits, and pgbench loads the database")
        with server.Use() as use:
            progress.say(f"moving {server.NAME} to bravo with its disk; the hosts share nothing but the network")
            result = server.move(alpha, bravo, use, tell=lambda line: progress.say(f"  {line}"))
            progress.say(f"the server runs on {' and '.join(group.runners(server.NAME))}; checking the database")
            errors = server.damage(use)
            for error in errors:
                progress.say(f"damage: {error}")
            use.check()
            return server_figures(group, result, use, machine, errors)


def last_words(content: dict) -> str:
    memory, disk = ("is" if content[f"{part}_match"] else "IS NOT" for part in ("digest", "disk_digest"))
    resets, errors = content["tcp_resets"], content["guest_errors"]
    found = f"{errors} things are wrong with the database" if "db_errors" in content else f"the guest counted {errors} errors"
    return (f"The guest moved from alpha to bravo, with its disk, while it was used. It stood still for "
            f"{content['blackout_ms']:.0f} ms; its memory {memory}\n  and its disk {disk} the same on both sides. "
            f"{resets} connections were reset, {found}.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", choices=kinds.KINDS, default=kinds.fast())
    arguments = parser.parse_args()
    network.become_network_admin()
    progress = report.Progress()
    folder = paths.BUILD / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        run = run_small if arguments.machine == kinds.INTEL else run_server
        content = run(arguments.machine, folder, progress)
    except AssertionError as failure:
        progress.say(f"the demo failed: {failure}")
        progress.say(f"serial transcripts and emulator logs are in {folder}")
        return 1
    report.write(folder / "report.json", content)
    progress.say("done")
    print(report.table(content))
    print(f"\n  {last_words(content)}\n  Report: {folder / 'report.json'}")
    good = content["digest_match"] and content["disk_digest_match"] and content["tcp_resets"] == 0
    return 0 if good and content["guest_errors"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())

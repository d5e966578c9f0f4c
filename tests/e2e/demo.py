# SPDX-License-Identifier: MIT
"""`make demo`: two hosts boot, a Linux guest works on its memory, and moves from one to the other while it works."""

import argparse
import re
import sys
from pathlib import Path

from harness import moves, network, paths, report
from harness.pair import Group, linux, wait_beats

GUEST_MIB = 128
HEARTBEAT_MS = 20


def demo_guest():
    return linux("web", mode="work", memory=GUEST_MIB,
                 extra=f"skiff.rate=200 skiff.fraction=0.5 skiff.heartbeat_ms={HEARTBEAT_MS} quiet loglevel=4")


def tell_job(progress):
    def tell(job: dict) -> None:
        progress.say(f"  {job['phase']:<9} round {job['round']:>2}  {job['bytes_wire'] / 1e6:7.1f} MB sent  "
                     f"{job['rate_bytes_s'] / 1e6:5.1f} MB/s  dirtying {job['dirty_rate_pages_s']} pages/s  "
                     f"predicted blackout {job['predicted_blackout_us'] / 1000:.0f} ms")
    return tell


def figures(group: Group, result: moves.Move, machine: str, dmesg: list[str]) -> dict:
    package = paths.kernel_package("cloud")
    job = result.job
    return {
        "machine": machine,
        "backend": group["alpha"].ok("host")[0]["backend"],
        "dirty_tracking": job["dirty_tracking"],
        "guest_kernel": f"{package['package']} {package['version']}",
        "guest_ram_mib": GUEST_MIB,
        "result": job["phase"],
        "total_ms": round((job["ended_ns"] - job["started_ns"]) / 1e6),
        "blackout_ms": round(job["measured_blackout_us"] / 1000, 1),
        "predicted_blackout_ms": round(job["predicted_blackout_us"] / 1000, 1),
        "client_gap_ms": round(result.gap_ms, 1),
        "client_gap_wall_ms": round(result.gap_wall_ms, 1),
        "client_longest_other_gap_wall_ms": round(result.other_gap_wall_ms, 1),
        "clocks": "*_wall_ms: wall clock; other times: emulated, client_gap_ms by the destination's clock",
        "rounds": job["round"],
        "pages_sent": job["pages_sent"],
        "pages_zero": job["pages_zero"],
        "pages_touched": job["pages_touched"],
        "bytes_wire": job["bytes_wire"],
        "digest_match": job["digest"] == "match",
        "guest_errors": result.after[-1].errors,
        "guest_heartbeats_during_precopy": len(result.before),
        "guest_kernel_warnings": dmesg,
    }


def kernel_warnings(group: Group, host: str) -> list[str]:
    text = moves.guest_command(group[host], "web", "dmesg", r"DMESG-END \d+")
    body = text.split("DMESG-BEGIN", 1)[-1].split("DMESG-END")[0]
    return [line.strip() for line in body.splitlines()[1:] if line.strip()]


def run(machine: str, folder: Path, progress: report.Progress) -> dict:
    guest = demo_guest()
    group = Group(folder, ["alpha", "bravo"], machine, guests={"alpha": [guest]},
                  migrate={"verify": "on"})
    with group:
        progress.say("powering on hosts alpha and bravo")
        group.boot()
        for host in group.hosts.values():
            info = host.ok("host")[0]
            progress.say(f"{host.name}: prompt after {info['uptime_ns'] / 1e9:.1f} s, {info['cpu']}, "
                         f"backend {info['backend']}, address {host.address}")
        alpha, bravo = group["alpha"], group["bravo"]
        progress.say(f"starting guest web on alpha: Debian's kernel, {GUEST_MIB} MiB")
        alpha.ok("follow web on")
        alpha.ok("start web")
        wait_beats(alpha, "web", 10, 300, 0)
        progress.say("the guest writes and checks half of its memory and sends heartbeats; "
                     "moving it to bravo while it works")
        result = moves.move(alpha, "web", bravo, tell=tell_job(progress))
        moves.check_beats(result)
        progress.say(f"the guest runs on {' and '.join(group.runners('web'))}; asking it to check all its pages")
        stats = moves.guest_command(bravo, "web", "verify", r"AGENT-STATS \{.*\}", 180)
        assert re.search(r'"errors": 0\b', stats), stats
        return figures(group, result, machine, kernel_warnings(group, "bravo"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", default="bochs-intel")
    arguments = parser.parse_args()
    network.become_network_admin()
    progress = report.Progress()
    folder = paths.BUILD / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        content = run(arguments.machine, folder, progress)
    except AssertionError as failure:
        progress.say(f"the demo failed: {failure}")
        progress.say(f"serial transcripts and emulator logs are in {folder}")
        return 1
    report.write(folder / "report.json", content)
    gap, blackout = content["client_gap_ms"], content["blackout_ms"]
    progress.say("done")
    print(report.table(content))
    print(f"\n  The guest moved from alpha to bravo while it worked. It stood still for {blackout:.0f} ms "
          f"({gap:.0f} ms seen from outside),\n  its memory {'is' if content['digest_match'] else 'IS NOT'} "
          f"the same on both sides, and it counted {content['guest_errors']} errors.\n"
          f"  Report: {folder / 'report.json'}")
    return 0 if content["digest_match"] and content["guest_errors"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())

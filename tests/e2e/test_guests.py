# SPDX-License-Identifier: MIT
"""What a guest sees: Debian's unmodified kernels, and bare kernels that look closer."""

import hashlib
import json
import re
import time

import pytest

from harness import moves, paths
from harness.pair import bare, beats, linux, wait_beats

BARE = ["hello", "modes", "badmsr", "irqstate", "timers"]
GROUP = {
    "names": ["alpha"],
    "cpus": 2,
    "guests": {"alpha": [
        linux("cloud", mode="work", memory=128, vcpus=2, extra="skiff.rate=200 skiff.fraction=0.25", self_tests=True),
        linux("generic", "generic", mode="idle", memory=256, vcpus=2),
        bare("triple", "triple.multiboot"),
        *[bare(f"{name}-mb", f"{name}.multiboot") for name in BARE],
        *[bare(f"{name}-pvh", f"{name}.pvh") for name in ("hello", "modes")],
    ]},
}


@pytest.mark.parametrize("kind", ["cloud", "generic"])
def test_the_kernels_are_debians_own(kind):
    package = paths.kernel_package(kind)
    assert package["package"].startswith("linux-image-6.")
    assert hashlib.sha256(paths.kernel(kind).read_bytes()).hexdigest() == package["vmlinuz_sha256"]


def run_bare(alpha, name: str, timeout: float = 60) -> str:
    alpha.ok(f"follow {name} on")
    start = alpha.machine.serial.position
    alpha.ok(f"start {name}")
    alpha.wait_guest(name, "off", timeout)
    return alpha.machine.serial.text(start)


def test_multiboot_and_pvh_kernels_run_and_power_off(group):
    for name, loader in (("hello-mb", "multiboot"), ("hello-pvh", "pvh")):
        output = run_bare(group["alpha"], name)
        assert "SKIFF-BARE hello" in output and loader in output


@pytest.mark.parametrize("name, end", [
    ("modes-mb", "MODES-END"), ("modes-pvh", "MODES-END"), ("badmsr-mb", "BADMSR-END"),
    ("irqstate-mb", "IRQSTATE-END rounds=1000 .* failures=0"),
    ("timers-mb", r"TIMERS-END pit=(\d+) rtc=(\d+) apic=(\d+) wanted pit=\1 rtc=\2 apic=\3"),
])
def test_bare_kernels_find_no_fault(group, machine, name, end):
    if machine == "qemu-amd" and name == "timers-mb":
        pytest.skip("it counts ticks exactly, for which QEMU's time passes too unevenly")
    output = run_bare(group["alpha"], name)
    assert "FAIL" not in output and "stray" not in output and "no-fault" not in output, output
    assert re.search(end, output), output


def test_a_triple_fault_ends_that_guest_with_a_dump_and_nothing_else(group):
    alpha = group["alpha"]
    start = alpha.machine.serial.position
    alpha.ok("start triple")
    guest = alpha.wait_guest("triple", "crashed", 30)
    assert "triple fault" in guest["why"]
    # It may still be on its way out of the serial port.
    for register in ("rip", "cr3", "idtr"):
        alpha.machine.serial.expect(rf"(?i)\b{register}\b", 30, start)
    alpha.ok("destroy triple")
    assert "SKIFF-BARE hello" in run_bare(alpha, "hello-mb")


def test_debians_cloud_kernel_runs(group):
    alpha = group["alpha"]
    alpha.ok("follow cloud on")
    alpha.ok("start cloud")
    seen = wait_beats(alpha, "cloud", 20, 240, 0)
    assert seen[-1].errors == 0
    warnings = moves.guest_command(alpha, "cloud", "dmesg", r"DMESG-END \d+")
    for word in ("stall", "MP-BIOS bug", "APIC error", "unstable", "timer doesn't work", "spurious"):
        assert word not in warnings, warnings


def test_the_guest_keeps_time(group):
    """The guest's clock against the host's over a while: both are the machine's emulated clock."""
    alpha = group["alpha"]

    def sample():
        before = moves.uptime_s(alpha)
        last = wait_beats(alpha, "cloud", 2, 30)[-1]
        return before, moves.uptime_s(alpha), last.mono_ns / 1e9

    first = sample()
    time.sleep(8)
    second = sample()
    guest = second[2] - first[2]
    least, most = second[0] - first[1], second[1] - first[0]
    assert least * 0.999 <= guest <= most * 1.001, f"guest {guest:.3f} s, host {least:.3f} to {most:.3f} s"


def test_pause_and_resume(group):
    alpha = group["alpha"]
    alpha.ok("pause cloud")
    assert alpha.guest("cloud")["state"] == "paused"
    position = alpha.machine.serial.position
    time.sleep(2)
    assert not beats(alpha, "cloud", position)[1:], "a paused guest sent heartbeats"
    alpha.ok("resume cloud")
    assert wait_beats(alpha, "cloud", 5, 30)[-1].errors == 0


def test_linux_reboots_by_itself(group):
    alpha = group["alpha"]
    before = wait_beats(alpha, "cloud", 1, 30)[-1].seq
    moves.guest_command(alpha, "cloud", "reboot", r"SKIFF-GUEST mode work", 240)
    assert wait_beats(alpha, "cloud", 1, 240)[-1].seq < before, "it did not begin anew"


def test_shutdown_by_the_power_button(group):
    alpha = group["alpha"]
    alpha.ok("shutdown cloud")
    alpha.wait_guest("cloud", "off", 90)


def test_the_generic_kernel_boots_and_idles_without_burning_the_cpu(group):
    alpha = group["alpha"]
    alpha.ok("follow generic on")
    alpha.ok("start generic")
    wait_beats(alpha, "generic", 5, 400, 0)
    first = alpha.ok("host")[0]
    wait_beats(alpha, "generic", 5, 60)
    second = alpha.ok("host")[0]
    idle = (second["idle_ns"] - first["idle_ns"]) / (second["uptime_ns"] - first["uptime_ns"])
    assert idle > 0.8, f"the host was idle for only {idle:.0%} of the time with an idle guest"


def test_linux_powers_off_by_itself(group):
    alpha = group["alpha"]
    with alpha.console.guest("generic"):
        alpha.machine.serial.send("quit\n")
    alpha.wait_guest("generic", "off", 90)


def test_destroy_pulls_the_plug(group):
    alpha = group["alpha"]
    alpha.ok("start cloud")
    assert "running" in json.dumps(alpha.ok("info cloud"))
    alpha.ok("destroy cloud")
    assert alpha.guest("cloud")["state"] == "off"

# SPDX-License-Identifier: MIT
"""One host: boot, configuration, console, network."""

import subprocess

import pytest

from frames import send_malformed
from harness.pair import Group, bare, host_cfg

GROUP = {"names": ["alpha"], "guests": {"alpha": [bare("hello", "hello.multiboot")]}}

VERBS = ("list info start shutdown destroy reboot pause resume console migrate jobs job-abort resolve peers host "
         "stats log host-reboot host-poweroff follow help").split()


@pytest.mark.check
def test_a_guest_runs_and_powers_off(group):
    alpha = group["alpha"]
    alpha.ok("follow hello on")
    start = alpha.machine.serial.position
    alpha.ok("start hello")
    alpha.machine.serial.expect(r"hello\| SKIFF-BARE hello", 30, start)
    alpha.wait_guest("hello", "off", 30)


def test_every_verb_has_help(group):
    overview = group["alpha"].console.command("help")
    for verb in VERBS:
        assert verb in overview, f"help does not name {verb}"
        assert verb in group["alpha"].console.command(f"help {verb}")


@pytest.mark.parametrize("line, wanted", [
    ("strat hello", "start"),
    ("start nobody", "nobody"),
    ("start", "NAME"),
    ("migrate hello", "PEER"),
    ("migrate hello zulu", "zulu"),
    ("job-abort 99", "99"),
    ("resolve hello maybe", "keep"),
    ("info", "NAME"),
])
def test_wrong_input_gets_one_helpful_line(group, line, wanted):
    error = group["alpha"].refused(line)
    assert wanted in error and "\n" not in error
    text = group["alpha"].console.command(line).strip()
    assert wanted in text and len(text.splitlines()) == 1, text


def test_json_is_one_object_a_line(group):
    for verb in ("list", "info hello", "jobs", "peers", "host", "stats", "log"):
        objects = group["alpha"].console.json(verb)
        assert all("error" not in o for o in objects), (verb, objects)


def test_line_editing_history_and_completion(group):
    serial = group["alpha"].machine.serial
    start = serial.position
    serial.send("lisz\x7ft\r")
    serial.expect(r"hello", 20, start)
    start = serial.position
    serial.send("\x1b[A\r")
    serial.expect(r"hello", 20, start)
    start = serial.position
    serial.send("info hel\t\r")
    serial.expect(r"uuid", 20, start)


def ping(target: str, *options: str) -> str:
    result = subprocess.run(["ping", *options, target], capture_output=True, text=True)
    assert result.returncode == 0, f"{result.stdout}{result.stderr}"
    return result.stdout


def test_ping_both_families(group):
    alpha = group["alpha"]
    assert " 0% packet loss" in ping(alpha.address, "-c", "5", "-i", "0.2", "-W", "5")
    assert " 0% packet loss" in ping(alpha.address6, "-c", "5", "-i", "0.2", "-W", "5")
    assert " 0% packet loss" in ping(alpha.address, "-c", "3", "-i", "0.2", "-W", "5", "-s", "4000")


def test_ten_thousand_malformed_frames_do_no_harm(group):
    alpha = group["alpha"]
    before = alpha.ok("host")[0]
    send_malformed("br0", alpha.machine.mac, alpha.address, alpha.address6, 10_000, seed=1)
    assert " 0% packet loss" in ping(alpha.address, "-c", "5", "-i", "0.2", "-W", "10")
    after = alpha.ok("host")[0]
    assert after["uptime_ns"] > before["uptime_ns"]
    assert alpha.ok("stats")



@pytest.mark.parametrize("text, wanted", [
    ("[host]\nname = alpha\n\n[guest web]\nmemroy = 128\n", ["line 5", "memroy", "memory"]),
    ("[host]\nname = alpha\n[net]\naddress = 10.77.0.400/24\n", ["line 4", "10.77.0.400"]),
    ("[host]\nname = alpha\n[disks]\nx = 1\n", ["disks"]),
    ("[host]\nname = alpha\n[guest web]\nmemory = lots\nkernel = \\skiff\\x\n", ["line 4", "lots"]),
])
def test_a_wrong_configuration_names_line_and_cure_and_still_boots(folder, text, wanted):
    with Group(folder / "config", ["alpha"], "qemu-amd", texts={"alpha": text}) as hosts:
        alpha = hosts.boot()["alpha"]
        said = alpha.machine.serial.text()
        for word in wanted:
            assert word in said, f"'{word}' is not in what the host said:\n{alpha.machine.serial.tail()}"
        assert alpha.ok("host")


def test_no_virtualization_is_one_sentence(folder):
    text = host_cfg("alpha", ["alpha"], [bare("hello", "hello.multiboot")])
    with Group(folder / "no-vt", ["alpha"], "qemu-amd", texts={"alpha": text}, models={"alpha": "qemu64,-svm"},
               guests={"alpha": [bare("hello", "hello.multiboot")]}) as hosts:
        alpha = hosts.boot()["alpha"]
        error = alpha.refused("start hello")
        assert "AMD-V" in error and len(error.splitlines()) == 1


def test_host_poweroff(group):
    alpha = group["alpha"]
    alpha.machine.serial.send("host-poweroff\r")
    alpha.machine.wait_power_off(60)

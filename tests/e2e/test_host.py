# SPDX-License-Identifier: MIT
"""One host: boot, configuration, console, network."""

import socket
import subprocess
import time

import pytest

from dhcp import DISCOVER, REQUEST, DhcpServer
from frames import send_malformed
from harness import esp, paths
from harness.pair import Group, bare, host_cfg
from harness.traffic import wait_ping

GUESTS = [bare("hello", "hello.multiboot"), bare("beat", "beat.multiboot")]
GROUP = {"names": ["alpha"], "cpus": 2, "guests": {"alpha": GUESTS}}

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
    link_local = alpha.ok("host")[0]["link_local6"].split("/")[0]
    assert " 0% packet loss" in ping(f"{link_local}%br0", "-c", "3", "-i", "0.2", "-W", "5")


def test_ten_thousand_malformed_frames_do_no_harm(group):
    alpha = group["alpha"]

    def received() -> int:
        return next(o for o in alpha.ok("stats") if o["kind"] == "network")["rx_frames"]

    count = received()
    before = alpha.ok("host")[0]
    wait_ping(alpha.address, 20)  # a card's link is negotiated for a while
    send_malformed("br0", alpha.machine.mac, alpha.address, alpha.address6, 10_000, seed=1, per_second=2000)
    wait_ping(alpha.address, 20)  # the last of the flood is before it in the queues
    assert " 0% packet loss" in ping(alpha.address, "-c", "5", "-i", "0.2", "-W", "10")
    wait_ping(alpha.address6, 20)  # its neighbour table was full of others
    assert " 0% packet loss" in ping(alpha.address6, "-c", "5", "-i", "0.2", "-W", "10")
    assert received() - count >= 9_500, "most of the frames never reached the host's network code"
    after = alpha.ok("host")[0]
    assert after["boot_id"] == before["boot_id"] and after["free_bytes"] > before["free_bytes"] - (1 << 20)


def test_an_address_by_dhcp_is_kept_as_long_as_it_is_leased(folder):
    text = "[host]\nname = alpha\n\n[net]\naddress = dhcp\n"
    with Group(folder / "dhcp", ["alpha"], "qemu-amd", texts={"alpha": text}) as hosts:
        with DhcpServer("br0", hosts.network.client, "10.77.0.50", lease_s=20).serving() as server:
            alpha = hosts.boot()["alpha"]
            alpha.console.wait_log(r"address 10\.77\.0\.50/24", 60)
            assert server.requests[:2] == [DISCOVER, REQUEST]
            assert " 0% packet loss" in ping("10.77.0.50", "-c", "3", "-i", "0.2", "-W", "5")
            assert alpha.ok("host")[0]["gateway"].startswith(hosts.network.client)
            deadline = time.monotonic() + 40
            while len(server.requests) < 3:  # renewed at half of the lease
                assert time.monotonic() < deadline, "the lease is not renewed"
                time.sleep(0.2)
            assert server.requests[2:] == [REQUEST]
            assert " 0% packet loss" in ping("10.77.0.50", "-c", "3", "-i", "0.2", "-W", "5")


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


def says_why_no_guest_can_run(hosts, why: str) -> None:
    """One sentence in the log, the same in the answer to who wants to start one, and a console that works."""
    alpha = hosts.boot()["alpha"]
    said = [line.message for line in alpha.console.log() if "no guests can run here" in line.message]
    assert len(said) == 1 and why in said[0], said
    error = alpha.refused("start hello")
    assert why in error and len(error.splitlines()) == 1, error
    assert why in alpha.ok("host")[0]["no_guests_because"]


@pytest.mark.parametrize("kind, model, why", [
    ("qemu-amd", "qemu64,-svm", "has no AMD-V"),
    ("bochs-intel", "corei7_skylake_x, exclude_features=vmx", "has no VT-x"),
])
def test_no_virtualization_is_one_sentence(folder, kind, model, why):
    with Group(folder / "no-vt", ["alpha"], kind, models={"alpha": model}, guests={"alpha": GUESTS}) as hosts:
        says_why_no_guest_can_run(hosts, why)


def test_vtx_locked_off_by_firmware_is_one_sentence(folder):
    with Group(folder / "locked", ["alpha"], "bochs-intel", guests={"alpha": GUESTS},
               efi=paths.GUESTS / "lock_vmx.efi") as hosts:
        esp.add(hosts["alpha"].machine.disk, {"skiff/skiff.efi": paths.SKIFF_EFI})
        says_why_no_guest_can_run(hosts, "VT-x is locked off by firmware: switch \"Intel Virtualization Technology\" on")


def test_peers_can_connect_after_the_malformed_frames(group):
    """The half-open connections that these left in the listener's queue end after 20 s."""
    with socket.create_connection((group["alpha"].address, 7070), timeout=30):
        pass


def test_host_reboot_and_poweroff(group):
    alpha = group["alpha"]
    serial = alpha.machine.serial
    before = alpha.ok("host")[0]
    alpha.ok("start beat")
    for command in ("host-reboot", "host-poweroff"):
        error = alpha.refused(command)
        assert "beat (running)" in error and "--force" in error
    start = serial.position
    serial.send("host-reboot --force\r")
    loading = serial.expect(r"Skiff [\d.]+ loading", 120, start)
    alpha.console.wait_prompt(120, start + loading.end())
    assert alpha.ok("host")[0]["boot_id"] != before["boot_id"]
    alpha.ok("start hello")
    alpha.wait_guest("hello", "off", 30)
    serial.send("host-poweroff\r")
    alpha.machine.wait_power_off(60)

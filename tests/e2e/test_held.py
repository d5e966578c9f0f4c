# SPDX-License-Identifier: MIT
"""Delicate states of interrupts and of a virtio device across moves, on hosts with one CPU."""

from held import cross_with_held_states
from harness.pair import bare


def GROUP(machine: str) -> dict:
    # QEMU 7.2 ends itself when a 32-bit TSS is used whose descriptor VMRUN has loaded as busy, as it is.
    hold = bare("hold", "hold.multiboot", cmdline="task=0" if machine == "qemu-amd" else "")
    guests = [hold, bare("negotiate", "negotiate.multiboot")]
    return {"names": ["alpha", "bravo"], "migrate": {"verify": "on"}, "guests": {"alpha": guests}}


def test_delicate_states_survive_four_moves(group, machine):
    said = cross_with_held_states(group)
    if machine == "bochs-intel":  # QEMU 7.2 knows neither segment limits nor a shadow that VMRUN loads
        assert "limits are enforced" in group["alpha"].machine.serial.text()
        assert "shadow_early=0" in said["events"], said["events"]


def test_a_device_moves_in_the_middle_of_its_set_up(group):
    """Numbers 19 and 20 of what breaks moves: half a negotiation; vectors masked and pending, the pin's level."""
    cross_with_held_states(group, "negotiate")

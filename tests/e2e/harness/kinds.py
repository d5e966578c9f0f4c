# SPDX-License-Identifier: MIT
"""The kinds of machine a host may be, by the name that MACHINE= takes."""

import os
from pathlib import Path

from .machine import BochsMachine, QemuMachine

INTEL, AMD, KVM = "bochs-intel", "qemu-amd", "qemu-kvm"
KINDS = {
    INTEL: (BochsMachine, {}),
    AMD: (QemuMachine, {}),
    KVM: (QemuMachine, {"accelerator": "kvm", "model": "host"}),
}


def has_nested_kvm() -> bool:
    """Whether this computer's CPU can run hosts that run guests. That /dev/kvm exists says less."""
    if not {"vmx", "svm"} & set(Path("/proc/cpuinfo").read_text().split()):
        return False
    nested = [Path(f"/sys/module/{module}/parameters/nested") for module in ("kvm_intel", "kvm_amd")]
    return any(p.exists() and p.read_text().strip() in ("1", "Y") for p in nested) and os.access("/dev/kvm", os.R_OK | os.W_OK)


def usual() -> tuple[str, ...]:
    """The kinds that tests run on when nothing else is asked for."""
    return (KVM,) if has_nested_kvm() else (INTEL, AMD)


def fast() -> str:
    """The kind that a user waits for least."""
    return KVM if has_nested_kvm() else AMD

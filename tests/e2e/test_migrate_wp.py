# SPDX-License-Identifier: MIT
"""The same on CPUs without PML: Haswell hosts, EPT write-protection."""

import crossings

ONLY = "bochs-intel"
QUIET = [ONLY]
GROUP = {
    "names": ["alpha", "bravo"],
    "cpus": 2,
    "migrate": {"verify": "on"},
    "models": {"alpha": "corei7_haswell_4770", "bravo": "corei7_haswell_4770"},
    "guests": {"alpha": [crossings.busy_guest()]},
}


def test_a_busy_guest_crosses_four_times(group, progress):
    crossings.start_busy(group)
    crossings.cross(group, "wp", progress.say)
    crossings.check_guest_inside(group["alpha"])

# SPDX-License-Identifier: MIT
"""The faults that matter most to the hand-over, on the machine that has VT-x; all of test_faults runs there with
`pytest test_faults.py --machine bochs-intel`."""

import test_faults
from test_faults import (beat, test_an_aborted_move_leaves_large_pages_large,  # noqa: F401
                         test_destination_dies_just_after_commit, test_link_cut_in_the_middle_of_precopy,
                         test_source_dies_after_commit, test_two_busy_vcpus_of_linux_hop_three_times)

ONLY = "bochs-intel"
GROUP = test_faults.GROUP | {"cpus": 1}  # three emulators on two cores are slow enough


def test_destination_dies_at_ready(group, beat):  # noqa: F811
    test_faults.test_destination_dies_before_commit(group, beat, "ready")

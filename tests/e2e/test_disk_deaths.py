# SPDX-License-Identifier: MIT
"""Either host of a disk move ends at each of ten points: one complete copy of guest and disk is left, with every
write that was flushed, and the datastores are sound."""

import pytest

import deaths

MACHINE = ONLY = "qemu-amd"


@pytest.fixture(scope="module")
def hosts(folder):
    with deaths.group(folder) as group:
        deaths.start(group.boot())
        yield group


@pytest.mark.parametrize("point", deaths.POINTS)
@pytest.mark.parametrize("victim", deaths.VICTIMS)
def test_a_host_dies(hosts, victim, point):
    deaths.die(hosts, victim, point)

# SPDX-License-Identifier: MIT
"""Shared machines: booting a host costs a quarter of a minute, so tests that do no harm share them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import network, paths, report  # noqa: E402
from harness.pair import Group  # noqa: E402

network.become_network_admin()


def pytest_addoption(parser):
    parser.addoption("--machine", default="bochs-intel", help="bochs-intel, qemu-amd or qemu-kvm")


@pytest.fixture(scope="session")
def machine(request) -> str:
    return request.config.getoption("--machine")


@pytest.fixture(scope="session")
def progress() -> report.Progress:
    return report.Progress(sys.__stdout__)


@pytest.fixture(scope="module")
def folder(request) -> Path:
    """Where a test module's machines keep their disks, transcripts and logs."""
    path = paths.BUILD / "e2e" / request.module.__name__
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="module")
def group(request, folder, machine) -> Group:
    """The booted hosts of a module: its GROUP says which, with what guests (see harness.pair.Group)."""
    with Group(folder, **{"machine": machine, **request.module.GROUP}) as hosts:
        yield hosts.boot()

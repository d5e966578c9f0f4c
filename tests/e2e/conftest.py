# SPDX-License-Identifier: MIT
"""Shared machines: booting a host costs a quarter of a minute, so tests that do no harm share them."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import kinds, network, paths, report  # noqa: E402
from harness.pair import Group  # noqa: E402


def pytest_configure(config):
    """Starts again with the rights that networks need, on the real standard output: pytest holds it by now. Only
    then, for what is printed after a suspension comes out at the end."""
    if os.geteuid() != 0:
        config.pluginmanager.getplugin("capturemanager").suspend_global_capture(in_=True)
    network.become_network_admin()


def pytest_addoption(parser):
    parser.addoption("--machine", choices=kinds.KINDS, help="only this kind of machine (default: each one a module is for)")
    parser.addoption("--one-machine", action="store_true", help="of the kinds a module is for only the first")


def pytest_generate_tests(metafunc):
    """A module's tests run on the usual kinds of machine; on one where its MACHINE says that one is enough; on ONLY
    one where they are about that one."""
    if "machine" in metafunc.fixturenames:
        asked = metafunc.config.getoption("machine")
        only, enough = getattr(metafunc.module, "ONLY", None), getattr(metafunc.module, "MACHINE", None)
        chosen = [only] if only else [asked or enough] if enough else [asked] if asked else kinds.usual()
        chosen = chosen[:1] if metafunc.config.getoption("one_machine") else chosen
        metafunc.parametrize("machine", [kind for kind in chosen if asked in (None, kind)], indirect=True, scope="module")


def _kind(item) -> str:
    """The kind of machine a test is on; few need both of them."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return params.get("machine") or getattr(item.module, "ONLY", kinds.AMD)


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups
def pytest_collection_modifyitems(items):
    """A module whose QUIET names a kind of machine measures time there: its tests want this computer for
    themselves. The others may run two at a time (-n 2 --dist loadgroup), those on Bochs on one side, one module
    after the other on the other side. What is left when Bochs is through is shared, so it is best what waits for
    disks and reboots: the modules run from the last to the first."""
    modules = list(dict.fromkeys(item.module.__name__ for item in items))
    for item in items:
        kind = _kind(item)
        if kind in getattr(item.module, "QUIET", ()):
            item.add_marker(pytest.mark.quiet)
        item.add_marker(pytest.mark.xdist_group(kind if kind == kinds.INTEL else item.module.__name__))
    items.sort(key=lambda item: (_kind(item) != kinds.INTEL, -modules.index(item.module.__name__)))


@pytest.fixture(scope="module")
def machine(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def tracking(machine) -> str | None:
    """How the machine's hosts log dirty pages when the guest's configuration leaves it to them, if that is known."""
    return {kinds.INTEL: "pml", kinds.AMD: "wp"}.get(machine)


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
    options = request.module.GROUP
    options = options(machine) if callable(options) else options
    with Group(folder / machine, **options, machine=machine) as hosts:
        yield hosts.boot()

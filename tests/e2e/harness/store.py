# SPDX-License-Identifier: MIT
"""Datastores on disk images, made and read from outside with skiff-store."""

import subprocess

from . import paths


def skiff_store(*arguments) -> str:
    """Runs it; returns what it printed."""
    result = subprocess.run([paths.SKIFF_STORE, *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout

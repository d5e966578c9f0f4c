# SPDX-License-Identifier: MIT
"""The end-to-end tests' own world: emulated machines, their disks, their network and their consoles."""

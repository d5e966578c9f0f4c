// SPDX-License-Identifier: MIT
// Deliberate host crashes, for tests with a debug build.
#ifndef SKIFF_ARCH_CRASH_TEST_H
#define SKIFF_ARCH_CRASH_TEST_H

// Does not return for a known kind; for others, returns the list of kinds.
const char *arch_crash_test(const char *kind);

#endif

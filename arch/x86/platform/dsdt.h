// SPDX-License-Identifier: MIT
// The guest's DSDT as iasl compiled it (dsdt.asl, acpi.mk).
#ifndef SKIFF_PLATFORM_DSDT_H
#define SKIFF_PLATFORM_DSDT_H

#include "kernel/types.h"

extern const u8 dsdt_aml[];
extern const u32 dsdt_aml_bytes;

#endif

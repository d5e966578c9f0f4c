// SPDX-License-Identifier: MIT
// What power-off and reboot need to know beforehand.
#ifndef SKIFF_ARCH_POWER_H
#define SKIFF_ARCH_POWER_H

struct boot_info;

void power_init(const struct boot_info *bi); // on firmware's page tables still
void power_find_acpi(void);                  // after acpi_init

#endif

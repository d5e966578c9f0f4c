// SPDX-License-Identifier: MIT
// COM1 for the parts that bring the machine up or take it down; everybody else uses cpu.h.
#ifndef SKIFF_ARCH_SERIAL_H
#define SKIFF_ARCH_SERIAL_H

// 115200 8N1, polled. Works before anything else does, boot services included.
void serial_early_init(void);
// Interrupts for both directions, after arch_irq_init's controllers are up.
void serial_irq_init(void);
// Back to polled output for good, with what was queued first: crash, reboot, power-off.
void serial_crash_mode(void);

#endif

// SPDX-License-Identifier: MIT
// The host's local APIC and IOAPICs, for the interrupt and timer code.
#ifndef SKIFF_ARCH_APIC_H
#define SKIFF_ARCH_APIC_H

#include "kernel/types.h"

// Vectors the host uses itself; devices get 0x30 to 0xef. Higher is more urgent.
#define VECTOR_DEVICE_FIRST 0x30
#define VECTOR_DEVICE_LAST  0xef
#define VECTOR_TIMER        0xf0
#define VECTOR_KICK         0xf1
#define VECTOR_STOP         0xf2
#define VECTOR_ERROR        0xfe
#define VECTOR_SPURIOUS     0xff

void lapic_init(void); // on every CPU
u32 lapic_id(void);
void lapic_eoi(void);
void lapic_send(u32 apic_id, u8 vector);
void lapic_send_init(u32 apic_id);
void lapic_send_startup(u32 apic_id, u8 page); // page: number of a 4 KiB page below 1 MiB
void lapic_nmi_others(void);
// The timer counts down from `count` once, undivided; 0 stops it.
void lapic_timer_oneshot(void);
void lapic_timer_start(u32 count);
u32 lapic_timer_left(void);
bool lapic_timer_pending(void); // raised and not yet taken
void lapic_timer_deadline_mode(void);

void ioapic_init(void); // from the MADT, or the one at the well-known address
// For pins 0 to 15 the MADT's ISA overrides win over what the caller says.
int ioapic_route(u32 gsi, u8 vector, u32 apic_id, bool level, bool active_low);

#endif

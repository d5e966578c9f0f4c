// SPDX-License-Identifier: MIT
// Reboot and power-off of the host: firmware first, then ACPI's reset register, then what every PC
// understands.
#include <efi.h>

#include "arch/x86/acpi.h"
#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "arch/x86/power.h"
#include "arch/x86/serial.h"
#include "boot/boot_info.h"
#include "kernel/lib.h"

void firmware_reset(u64 cr3, void *reset_system, u64 type); // power.S

static u64 firmware_cr3;
static const EFI_RUNTIME_SERVICES *runtime; // readable on firmware's tables only
static void *reset_system;
static struct acpi_gas reset_register;
static u8 reset_value;
static bool have_reset_register;

void power_init(const struct boot_info *bi)
{
    // Taken now, while firmware's own tables are in use: its data is not in the host's map.
    runtime = (const EFI_RUNTIME_SERVICES *)bi->runtime_services;
    reset_system = runtime != NULL ? (void *)runtime->ResetSystem : NULL;
    firmware_cr3 = bi->firmware_cr3;
}

void power_find_acpi(void)
{
    have_reset_register = acpi_reset_register(&reset_register, &reset_value);
}

static void by_firmware(EFI_RESET_TYPE type)
{
    if (reset_system == NULL)
        return;
    // Firmware may not know of global pages, SMEP and SMAP: give it what it booted with.
    write_cr4(read_cr4() & ~(CR4_PGE | CR4_SMEP | CR4_SMAP));
    firmware_reset(firmware_cr3, reset_system, type);
}

static void by_acpi(void)
{
    if (!have_reset_register)
        return;
    if (reset_register.space == 1) // I/O ports
        out8((u16)reset_register.address, reset_value);
    else if (reset_register.space == 0) {
        volatile u8 *reg = map_mmio(reset_register.address, 1);
        if (reg != NULL)
            *reg = reset_value;
    }
}

static void wait_a_moment(void)
{
    for (u32 i = 0; i < 100000; i++)
        in8(0x80);
}

static void by_ports(void)
{
    out8(0xcf9, 0x02); // reset control register: system reset, then the edge that starts it
    out8(0xcf9, 0x06);
    wait_a_moment();
    out8(0x64, 0xfe); // keyboard controller: pulse the reset line
    wait_a_moment();
}

static void halt(const char *advice) __attribute__((noreturn));
static void halt(const char *advice)
{
    serial_write(advice, strlen(advice));
    for (;;)
        __asm__ volatile("cli; hlt" : : : "memory");
}

void arch_reboot(void)
{
    irq_disable();
    serial_crash_mode();
    by_firmware(EfiResetCold);
    by_acpi();
    by_ports();
    halt("the firmware does not reset this machine; press its reset button\n");
}

void arch_poweroff(void)
{
    irq_disable();
    serial_crash_mode();
    by_firmware(EfiResetShutdown);
    halt("the firmware does not power this machine off; it is safe to switch it off now\n");
}

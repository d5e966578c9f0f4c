// SPDX-License-Identifier: MIT
// Small facts from firmware tables and protocols: ACPI RSDP, CPUs, entropy.
#include "arch/x86/cpu.h"
#include "boot/efi.h"
#include "kernel/lib.h"

static bool guid_equal(const EFI_GUID *a, const EFI_GUID *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

void boot_find_rsdp(struct boot_info *bi)
{
    static const EFI_GUID acpi20 = {
        0x8868e871, 0xe4f1, 0x11d3, {0xbc, 0x22, 0x00, 0x80, 0xc7, 0x3c, 0x88, 0x81}};
    static const EFI_GUID acpi10 = {
        0xeb9d2d30, 0x2d88, 0x11d3, {0x9a, 0x16, 0x00, 0x90, 0x27, 0x3f, 0xc1, 0x4d}};
    for (u64 i = 0; i < efi_table->NumberOfTableEntries; i++) {
        const EFI_CONFIGURATION_TABLE *t = &efi_table->ConfigurationTable[i];
        if (guid_equal(&t->VendorGuid, &acpi20)) {
            bi->rsdp = (u64)t->VendorTable;
            return;
        }
        if (guid_equal(&t->VendorGuid, &acpi10))
            bi->rsdp = (u64)t->VendorTable;
    }
}

// EFI_MP_SERVICES_PROTOCOL (PI 1.7 vol. 2, 13.4), as far as it is used here.
struct mp_cpu {
    u64 processor_id; // the local APIC's id
    u32 status;       // bit 0 boot CPU, bit 1 enabled, bit 2 healthy
    u32 package, core, thread;
    u32 extended[6];
};
static_assert(sizeof(struct mp_cpu) == 48, "EFI_PROCESSOR_INFORMATION");

struct mp_services {
    EFI_STATUS(EFIAPI *get_number)(struct mp_services *self, UINTN *all, UINTN *enabled);
    EFI_STATUS(EFIAPI *get_info)(struct mp_services *self, UINTN number, struct mp_cpu *info);
};

#define MP_BOOT_CPU BIT(0)
#define MP_USABLE   (BIT(1) | BIT(2))

static void add_cpu(struct boot_info *bi, const struct mp_cpu *info)
{
    if ((info->status & MP_USABLE) != MP_USABLE || bi->cpu_count == BOOT_MAX_CPUS)
        return;
    u32 at = bi->cpu_count++;
    if ((info->status & MP_BOOT_CPU) && at != 0) {
        bi->cpu_apic_id[at] = bi->cpu_apic_id[0];
        at = 0;
    }
    bi->cpu_apic_id[at] = (u32)info->processor_id;
}

// Without the protocol only the CPU that runs this is known: its initial APIC id.
static void add_this_cpu(struct boot_info *bi)
{
    u32 r[4];
    cpuid(1, 0, r);
    bi->cpu_apic_id[0] = r[1] >> 24;
    bi->cpu_count = 1;
}

void boot_find_cpus(struct boot_info *bi)
{
    static EFI_GUID guid = {
        0x3fdda605, 0xa76e, 0x4f46, {0xad, 0x29, 0x12, 0xf4, 0x53, 0x1b, 0x3d, 0x08}};
    struct mp_services *mp;
    UINTN all = 0, enabled = 0;
    if (efi_boot->LocateProtocol(&guid, NULL, (void **)&mp) == EFI_SUCCESS &&
        mp->get_number(mp, &all, &enabled) == EFI_SUCCESS) {
        struct mp_cpu info;
        for (u64 i = 0; i < all; i++) {
            if (mp->get_info(mp, i, &info) == EFI_SUCCESS)
                add_cpu(bi, &info);
        }
    }
    if (bi->cpu_count == 0)
        add_this_cpu(bi);
}

// Stirs a value into the pool: multiply and rotate, so that every input bit reaches every word.
static void stir(u64 pool[4], u64 value)
{
    for (u32 i = 0; i < 4; i++) {
        pool[i] = (pool[i] ^ value) * 0x9e3779b97f4a7c15ull;
        pool[i] ^= pool[i] >> 29;
        value += pool[i] << 17 | pool[i] >> 47;
    }
}

static bool rdrand(u64 *value)
{
    u32 r[4];
    bool ok;
    cpuid(1, 0, r);
    if (!(r[2] & BIT(30)))
        return false;
    __asm__ volatile("rdrand %0" : "=r"(*value), "=@ccc"(ok));
    return ok;
}

// Firmware's generator where there is one, with the CPU's, the clocks and the memory layout on top:
// none of them can make the others worse.
void boot_gather_entropy(struct boot_info *bi)
{
    static EFI_GUID guid = EFI_RNG_PROTOCOL_GUID;
    EFI_RNG_PROTOCOL *rng;
    u64 pool[4] = {0}, value = 0;
    EFI_TIME now = {0};

    if (efi_boot->LocateProtocol(&guid, NULL, (void **)&rng) == EFI_SUCCESS)
        rng->GetRNG(rng, NULL, sizeof(pool), (u8 *)pool);
    for (u32 i = 0; i < 4; i++) {
        if (rdrand(&value))
            stir(pool, value);
    }
    if (efi_table->RuntimeServices->GetTime(&now, NULL) == EFI_SUCCESS) {
        memcpy(&value, &now, sizeof(value));
        stir(pool, value);
    }
    stir(pool, bi->tsc_at_entry);
    stir(pool, bi->image_base ^ (u64)bi);
    stir(pool, rdtsc());
    stir(pool, 0);
    memcpy(bi->entropy, pool, sizeof(pool));
}

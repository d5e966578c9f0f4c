// SPDX-License-Identifier: MIT
// The UEFI application: collects what the kernel needs into boot_info and leaves boot services.
#include <stdarg.h>

#include "arch/x86/cpu.h"
#include "arch/x86/serial.h"
#include "boot/efi.h"
#include "kernel/lib.h"

EFI_HANDLE efi_image;
EFI_SYSTEM_TABLE *efi_table;
EFI_BOOT_SERVICES *efi_boot;

EFI_STATUS efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *table, u64 tsc_at_entry);

void boot_print(const char *fmt, ...)
{
    char line[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line) - 1, fmt, ap);
    va_end(ap);
    strlcpy(line + strlen(line), "\n", 2);
    serial_write(line, strlen(line));
}

u64 boot_alloc(u64 bytes)
{
    EFI_PHYSICAL_ADDRESS pa = 0;
    u64 pages = ALIGN_UP(bytes, PAGE_SIZE) / PAGE_SIZE;
    if (efi_boot->AllocatePages(AllocateAnyPages, EfiLoaderData, pages, &pa) != EFI_SUCCESS)
        return 0;
    memset((void *)pa, 0, pages * PAGE_SIZE);
    return pa;
}

// A page for AP start-up: a start-up IPI can name pages below 1 MiB only (SDM 3A 9.4.4.1).
static void find_low_page(struct boot_info *bi)
{
    EFI_PHYSICAL_ADDRESS pa = 0xff000;
    if (efi_boot->AllocatePages(AllocateMaxAddress, EfiLoaderData, 1, &pa) == EFI_SUCCESS)
        bi->ap_start_page = pa;
    else
        boot_print("boot: no free page below 1 MiB; other CPUs cannot be started");
}

static void find_image(struct boot_info *bi)
{
    static EFI_GUID loaded_image_guid = LOADED_IMAGE_PROTOCOL;
    EFI_LOADED_IMAGE *loaded;
    if (efi_boot->HandleProtocol(efi_image, &loaded_image_guid, (void **)&loaded) == EFI_SUCCESS) {
        bi->image_base = (u64)loaded->ImageBase;
        bi->image_size = loaded->ImageSize;
    }
}

static void gather(struct boot_info *bi)
{
    bi->runtime_services = (u64)efi_table->RuntimeServices;
    find_image(bi);
    find_low_page(bi);
    boot_find_rsdp(bi);
    boot_find_cpus(bi);
    boot_gather_entropy(bi);
    boot_read_files(bi);
}

EFI_STATUS efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *table, u64 tsc_at_entry)
{
    efi_image = image;
    efi_table = table;
    efi_boot = table->BootServices;
    serial_early_init();
    boot_print("\nSkiff " SKIFF_VERSION " loading");
    efi_boot->SetWatchdogTimer(0, 0, 0, NULL);

    struct boot_info *bi = (struct boot_info *)boot_alloc(sizeof(*bi));
    if (bi == NULL) {
        boot_print("boot: wanted %zu bytes for the boot information, the firmware has no memory "
                   "left; give the machine more",
                   sizeof(*bi));
        return EFI_OUT_OF_RESOURCES;
    }
    bi->tsc_at_entry = tsc_at_entry;
    gather(bi);
    if (boot_make_firmware_map(bi) != 0) {
        boot_print("boot: no memory for the first page tables; give the machine more");
        return EFI_OUT_OF_RESOURCES;
    }
    if (boot_leave_services(bi) != 0) {
        boot_print("boot: the firmware refuses to leave its boot services; report this machine");
        return EFI_ABORTED;
    }
    u64 canary;
    memcpy(&canary, bi->entropy, sizeof(canary));
    // A zero byte at the bottom stops string overruns from rewriting the canary.
    boot_enter_kernel(bi, bi->firmware_cr3, canary & ~0xffull);
}

// SPDX-License-Identifier: MIT
// Stands before Skiff at boot and locks VT-x off, as a firmware's setup can (SDM 3C 24.7).
#include <efi.h>
#include <efilib.h>

#define FEATURE_CONTROL 0x3a
#define LOCKED          1 // without VMXON

static void wrmsr(UINT32 index, UINT64 value)
{
    __asm__ volatile("wrmsr" ::"c"(index), "a"((UINT32)value), "d"((UINT32)(value >> 32)));
}

EFI_STATUS efi_main(EFI_HANDLE self, EFI_SYSTEM_TABLE *table)
{
    EFI_LOADED_IMAGE *own;
    EFI_HANDLE skiff;
    EFI_STATUS status;

    InitializeLib(self, table);
    wrmsr(FEATURE_CONTROL, LOCKED);
    status = BS->HandleProtocol(self, &LoadedImageProtocol, (void **)&own);
    if (EFI_ERROR(status))
        return status;
    EFI_DEVICE_PATH *path = FileDevicePath(own->DeviceHandle, L"\\skiff\\skiff.efi");
    status = BS->LoadImage(FALSE, self, path, NULL, 0, &skiff);
    return EFI_ERROR(status) ? status : BS->StartImage(skiff, NULL, NULL);
}

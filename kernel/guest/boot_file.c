// SPDX-License-Identifier: MIT
// The guests' files that the boot stage read from the EFI system partition.
#include "boot/boot_info.h"
#include "kernel/guest/guest.h"
#include "kernel/host.h"
#include "kernel/lib.h"

// FAT knows no case, and the two kinds of slash mean the same.
static bool same_path(const char *a, const char *b)
{
    for (;; a++, b++) {
        char x = *a == '/' ? '\\' : *a, y = *b == '/' ? '\\' : *b;
        if (x >= 'A' && x <= 'Z')
            x += 'a' - 'A';
        if (y >= 'A' && y <= 'Z')
            y += 'a' - 'A';
        if (x != y)
            return false;
        if (!x)
            return true;
    }
}

const struct boot_file *boot_file_find(const char *path)
{
    for (u32 i = 0; i < host_boot->file_count; i++)
        if (same_path(host_boot->files[i].path, path))
            return &host_boot->files[i];
    return NULL;
}

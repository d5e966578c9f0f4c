// SPDX-License-Identifier: MIT
// Reads host.cfg and the guests' files from the volume the image was started from.
#include <stdarg.h>

#include "boot/efi.h"
#include "kernel/config.h"
#include "kernel/lib.h"

#define CONFIG_FILE     "\\skiff\\host.cfg"
#define MAX_CONFIG_SIZE (1 * MIB)

__attribute__((format(printf, 2, 3))) static void complain(struct boot_info *bi, const char *fmt,
                                                           ...)
{
    char text[sizeof(bi->config_error)];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    boot_print("boot: %s", text);
    if (bi->config_error[0] == '\0')
        strlcpy(bi->config_error, text, sizeof(bi->config_error));
}

static EFI_FILE *open_volume(void)
{
    static EFI_GUID image_guid = LOADED_IMAGE_PROTOCOL;
    static EFI_GUID volume_guid = SIMPLE_FILE_SYSTEM_PROTOCOL;
    EFI_LOADED_IMAGE *image;
    EFI_FILE_IO_INTERFACE *volume;
    EFI_FILE *root;
    if (efi_boot->HandleProtocol(efi_image, &image_guid, (void **)&image) != EFI_SUCCESS ||
        efi_boot->HandleProtocol(image->DeviceHandle, &volume_guid, (void **)&volume) !=
            EFI_SUCCESS ||
        volume->OpenVolume(volume, &root) != EFI_SUCCESS)
        return NULL;
    return root;
}

// UEFI wants 16-bit characters and backslashes; a configuration may use either slash.
static EFI_FILE *open_file(EFI_FILE *root, const char *path)
{
    CHAR16 wide[CONFIG_PATH];
    _Static_assert(sizeof(CHAR16) == 2, "gnu-efi's newer versions make it of wchar_t");
    u32 i;
    for (i = 0; path[i] != '\0' && i < CONFIG_PATH - 1; i++)
        wide[i] = path[i] == '/' ? '\\' : (u8)path[i];
    wide[i] = 0;
    EFI_FILE *file;
    if (root->Open(root, &file, wide, EFI_FILE_MODE_READ, 0) != EFI_SUCCESS)
        return NULL;
    return file;
}

static u64 file_size(EFI_FILE *file)
{
    // Setting the position to its maximum moves to the end (UEFI 2.10, 13.5.9).
    UINT64 size = 0;
    if (file->SetPosition(file, ~0ull) != EFI_SUCCESS ||
        file->GetPosition(file, &size) != EFI_SUCCESS)
        return 0;
    file->SetPosition(file, 0);
    return size;
}

static const char *read_all(EFI_FILE *file, u64 size, void *to)
{
    for (u64 done = 0; done < size;) {
        UINTN step = MIN(size - done, 16 * MIB);
        EFI_STATUS status = file->Read(file, &step, (u8 *)to + done);
        if (status != EFI_SUCCESS)
            return "cannot be read from the boot volume";
        if (step == 0)
            return "ends early: the boot volume's file system is damaged";
        done += step;
    }
    return NULL;
}

// Reads a whole file into kept memory and appends a NUL. Returns NULL, or what went wrong.
static const char *load(EFI_FILE *root, const char *path, u64 limit, void **data, u64 *size)
{
    EFI_FILE *file = open_file(root, path);
    if (file == NULL)
        return "is not on the boot volume";
    *size = file_size(file);
    const char *wrong = NULL;
    if (*size > limit)
        wrong = "is too big";
    else if ((*data = (void *)boot_alloc(*size + 1)) == NULL)
        wrong = "does not fit into memory";
    else
        wrong = read_all(file, *size, *data);
    file->Close(file);
    return wrong;
}

static bool have_file(const struct boot_info *bi, const char *path)
{
    for (u32 i = 0; i < bi->file_count; i++) {
        if (strcasecmp(bi->files[i].path, path) == 0)
            return true;
    }
    return false;
}

static void read_guest_file(struct boot_info *bi, EFI_FILE *root, const char *guest,
                            const char *path)
{
    if (path[0] == '\0' || have_file(bi, path))
        return;
    if (bi->file_count == BOOT_MAX_FILES) {
        complain(bi, "guest %s: %s is left out: the host takes %d files at most", guest, path,
                 BOOT_MAX_FILES);
        return;
    }
    void *data;
    u64 size;
    const char *wrong = load(root, path, ~0ull >> 1, &data, &size);
    if (wrong != NULL) {
        complain(bi, "guest %s: %s %s; put it there or correct host.cfg", guest, path, wrong);
        return;
    }
    struct boot_file *f = &bi->files[bi->file_count++];
    strlcpy(f->path, path, sizeof(f->path));
    f->data = data;
    f->size = size;
    boot_print("boot: read %s, %llu KiB", path, (unsigned long long)(size + 1023) / 1024);
}

static void read_guests(struct boot_info *bi, EFI_FILE *root, const struct host_config *config)
{
    for (u32 i = 0; i < config->guest_count; i++) {
        const struct guest_config *g = &config->guests[i];
        read_guest_file(bi, root, g->name, g->kernel);
        for (u32 m = 0; m < g->module_count; m++)
            read_guest_file(bi, root, g->name, g->modules[m]);
    }
}

void boot_read_files(struct boot_info *bi)
{
    EFI_FILE *root = open_volume();
    if (root == NULL) {
        complain(bi, "the boot volume has no file system that the firmware can read; wanted a FAT "
                     "volume with " CONFIG_FILE);
        return;
    }
    void *text;
    const char *wrong = load(root, CONFIG_FILE, MAX_CONFIG_SIZE, &text, &bi->config_size);
    if (wrong != NULL) {
        complain(bi, CONFIG_FILE " %s; README.md shows one to start from", wrong);
        return;
    }
    bi->config = text;
    struct host_config *config = NULL;
    if (efi_boot->AllocatePool(EfiLoaderData, sizeof(*config), (void **)&config) != EFI_SUCCESS) {
        complain(bi, "no memory to read " CONFIG_FILE "; give the machine more");
        return;
    }
    // The kernel parses it again and tells about mistakes; here only the files matter.
    char err[200];
    config_parse(bi->config, config, err, sizeof(err));
    read_guests(bi, root, config);
    efi_boot->FreePool(config);
    root->Close(root);
}

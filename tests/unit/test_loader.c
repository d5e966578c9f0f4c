// SPDX-License-Identifier: MIT
// Kernel images: each type loads to the right places, and malformed ones are refused with a reason.
// sources: kernel/guest/loader.c kernel/guest/linux.c kernel/guest/pvh.c kernel/guest/multiboot.c
// sources: kernel/guest/elf.c kernel/guest/start_state.c
#include "fake_guest.h"
#include "boot/boot_info.h"
#include "kernel/guest/loader.h"
#include "kernel/guest/msr.h"

#define RAM_BYTES (64 * MIB)

static u8 *ram;
static struct boot_file files[4];
static u32 file_count;
static struct vcpu_state started;
static char err[256];
static struct guest *const g = &fake_guest;
static u8 image[256 * 1024];

static bool in_ram(u64 gpa, u64 bytes)
{
    return gpa <= RAM_BYTES && bytes <= RAM_BYTES - gpa;
}
int guest_write(struct guest *guest, u64 gpa, const void *buf, u64 bytes)
{
    (void)guest;
    if (!in_ram(gpa, bytes))
        return E_INVAL;
    if (bytes)
        memcpy(ram + gpa, buf, bytes);
    return 0;
}
int guest_zero(struct guest *guest, u64 gpa, u64 bytes)
{
    (void)guest;
    if (!in_ram(gpa, bytes))
        return E_INVAL;
    memset(ram + gpa, 0, bytes);
    return 0;
}
const struct boot_file *boot_file_find(const char *path)
{
    for (u32 i = 0; i < file_count; i++)
        if (!strcmp(files[i].path, path))
            return &files[i];
    return NULL;
}
int platform_write_acpi(struct guest *guest, u64 *rsdp_gpa)
{
    (void)guest;
    *rsdp_gpa = 0xe0000;
    return 0;
}
int vcpu_load_state(struct vcpu *v, const struct vcpu_state *s)
{
    (void)v;
    started = *s;
    return 0;
}
void platform_vcpu_reset(struct vcpu *v)
{
    (void)v;
}
void msr_reset(struct vcpu *v)
{
    (void)v;
}

static void file(const char *path, const void *data, u64 size)
{
    struct boot_file *f = &files[file_count++];
    strcpy(f->path, path);
    f->data = data;
    f->size = size;
}

static int setup(void **state)
{
    (void)state;
    fake_guest_reset();
    if (!ram)
        ram = malloc(RAM_BYTES);
    memset(ram, 0xcc, RAM_BYTES); // RAM of a guest that is reset is not zero
    memset(image, 0, sizeof(image));
    memset(&started, 0, sizeof(started));
    file_count = 0;
    g->memory.region_count = 1;
    g->memory.region[0].bytes = g->memory.bytes = RAM_BYTES;
    strcpy(g->config.kernel, "k");
    err[0] = 0;
    return 0;
}

// Loads `size` bytes as a file that ends where its memory does, so that ASan sees every overrun.
static int load(u64 size)
{
    u8 *copy = malloc(size ? size : 1);
    memcpy(copy, image, size);
    for (u32 i = 0; i < file_count; i++)
        if (!strcmp(files[i].path, "k"))
            file_count = i;
    file("k", copy, size);
    int e = guest_load_kernel(g, err, sizeof(err));
    free(copy);
    file_count--;
    return e;
}

static void refused(u64 size, const char *with)
{
    assert_int_equal(load(size), E_INVAL);
    if (!strstr(err, with))
        fail_msg("\"%s\" does not say \"%s\"", err, with);
}

static u32 get32(u64 gpa)
{
    u32 v;
    memcpy(&v, ram + gpa, 4);
    return v;
}
static u64 get64(u64 gpa)
{
    u64 v;
    memcpy(&v, ram + gpa, 8);
    return v;
}
static void put(u64 offset, u64 value, unsigned bytes)
{
    memcpy(image + offset, &value, bytes);
}

// ---- Linux -------------------------------------------------------------------------------------

#define LINUX_BYTES (3 * 512 + 5000)

static void make_linux(void)
{
    put(0x1f1, 2, 1); // setup sectors
    put(0x1fe, 0xaa55, 2);
    put(0x202, 0x53726448, 4);
    put(0x206, 0x20f, 2);
    put(0x211, 1, 1);
    put(0x22c, 0x7fffffff, 4);
    put(0x236, 3, 2);
    put(0x238, 2047, 4);
    put(0x258, 0x1000000, 8);
    put(0x260, 0x800000, 4);
    memset(image + 3 * 512, 0x90, 5000);
}

static void test_linux(void **state)
{
    (void)state;
    static u8 initrd[10000];
    make_linux();
    memset(initrd, 0x77, sizeof(initrd));
    strcpy(g->config.cmdline, "console=ttyS0");
    strcpy(g->config.modules[0], "i");
    g->config.module_count = 1;
    file("i", initrd, sizeof(initrd));
    if (load(LINUX_BYTES))
        fail_msg("%s", err);
    assert_int_equal(ram[0x1000000], 0x90);
    assert_int_equal(ram[0x1000000 + 4999], 0x90);
    assert_int_equal(started.rip, 0x1000200);
    assert_int_equal(started.gpr[GPR_RSI], BOOT_PARAMS);
    assert_int_equal(started.efer, 0x500);
    assert_int_equal(get64(BOOT_PARAMS + 0x70), 0xe0000); // RSDP
    assert_int_equal(ram[BOOT_PARAMS + 0x1e8], 3); // E820 entries
    assert_int_equal(get64(BOOT_PARAMS + 0x2d0 + 40), 0x100000);
    assert_int_equal(get64(BOOT_PARAMS + 0x2d0 + 48), RAM_BYTES - MIB);
    assert_int_equal(get32(BOOT_PARAMS + 0x228), BOOT_CMDLINE);
    assert_string_equal((char *)ram + BOOT_CMDLINE, "console=ttyS0");
    u32 at = get32(BOOT_PARAMS + 0x218);
    assert_int_equal(get32(BOOT_PARAMS + 0x21c), sizeof(initrd));
    assert_int_equal(at % PAGE_SIZE, 0);
    assert_in_range(at, RAM_BYTES - sizeof(initrd) - PAGE_SIZE, RAM_BYTES - sizeof(initrd));
    assert_memory_equal(ram + at, initrd, sizeof(initrd));
    assert_int_equal(get32(BOOT_PARAMS + 0x10), 0); // the rest of the zero page is zero
    // Page tables: the last 2 MiB below 4 GiB, through all three levels.
    assert_int_equal(started.cr3, BOOT_PAGES);
    u64 pdpt = get64(BOOT_PAGES) & ~0xfffull, pd = get64(pdpt + 24) & ~0xfffull;
    assert_int_equal(get64(pd + 511 * 8), 0xffe00083);
    // The GDT has 64-bit code where CS says.
    assert_int_equal(get64(started.gdtr_base + started.seg[SEG_CS].selector) >> 53 & 1, 1);
}

static void test_linux_refusals(void **state)
{
    (void)state;
    make_linux();
    put(0x206, 0x20b, 2);
    refused(LINUX_BYTES, "boot protocol 2.11");
    make_linux();
    put(0x236, 0, 2);
    refused(LINUX_BYTES, "64-bit");
    make_linux();
    put(0x211, 0, 1);
    refused(LINUX_BYTES, "bzImage");
    make_linux();
    put(0x238, 3, 4);
    strcpy(g->config.cmdline, "quiet");
    refused(LINUX_BYTES, "command line has 5 bytes");
    make_linux();
    put(0x260, 0xffffffff, 4);
    refused(LINUX_BYTES, "raise memory");
    make_linux();
    put(0x258, ~0ull - 100, 8);
    refused(LINUX_BYTES, "wants memory");
    make_linux();
    put(0x258, 0x2000, 8);
    refused(LINUX_BYTES, "boot tables");
    make_linux();
    put(0x258, 0x90000, 8);
    refused(LINUX_BYTES, "below 1 MiB");
    make_linux();
    put(0x1f1, 0xff, 1);
    refused(LINUX_BYTES, "cut short");
}

static void test_linux_initrd_must_fit(void **state)
{
    (void)state;
    static u8 initrd[41 * 1024 * 1024];
    make_linux();
    strcpy(g->config.modules[0], "i");
    g->config.module_count = 1;
    file("i", initrd, sizeof(initrd));
    refused(LINUX_BYTES, "module i has");
    strcpy(g->config.modules[0], "absent");
    refused(LINUX_BYTES, "module absent is not on");
    g->config.module_count = 2;
    strcpy(g->config.modules[0], "i");
    strcpy(g->config.modules[1], "i");
    refused(LINUX_BYTES, "one module");
}

// ---- ELF ---------------------------------------------------------------------------------------

#define ELF_BYTES 0x3000

static void make_elf64(bool note)
{
    memset(image, 0, sizeof(image));
    memcpy(image, "\177ELF\2\1\1", 7);
    put(18, 62, 2);
    put(24, 0xffffffff80000000ull, 8); // e_entry, virtual
    put(32, 64, 8);
    put(54, 56, 2);
    put(56, 2, 2);
    put(64, 1, 4); // PT_LOAD
    put(72, 0x1000, 8);
    put(80, 0xffffffff80200000ull, 8);
    put(88, 0x200000, 8);
    put(96, 0x1800, 8);
    put(104, 0x4000, 8);
    put(120, note ? 4 : 0, 4); // PT_NOTE
    put(128, 0x2800, 8);
    put(152, 24 + 20, 8);
    put(0x2800, 4, 4); // another owner's note first
    put(0x2804, 4, 4);
    put(0x2808, 18, 4);
    memcpy(image + 0x280c, "GNU", 4);
    put(0x2814, 4, 4);
    put(0x2818, 4, 4);
    put(0x281c, 18, 4);
    memcpy(image + 0x2820, "Xen", 4);
    put(0x2824, 0x200040, 4);
    memset(image + 0x1000, 0x42, 0x1800);
}

static void test_pvh(void **state)
{
    (void)state;
    static u8 module[100] = {9};
    make_elf64(true);
    strcpy(g->config.cmdline, "x=1");
    strcpy(g->config.modules[0], "m");
    g->config.module_count = 1;
    file("m", module, sizeof(module));
    if (load(ELF_BYTES))
        fail_msg("%s", err);
    assert_int_equal(started.rip, 0x200040);
    assert_int_equal(started.cr0 & BIT(31), 0);
    assert_int_equal(ram[0x200000], 0x42);
    assert_int_equal(ram[0x2017ff], 0x42);
    assert_int_equal(ram[0x201800], 0); // bss
    assert_int_equal(ram[0x203fff], 0);
    assert_int_equal(ram[0x204000], 0xcc);
    u64 info = started.gpr[GPR_RBX];
    assert_int_equal(get32(info), 0x336ec578);
    assert_int_equal(get32(info + 4), 1);
    assert_int_equal(get32(info + 12), 1); // modules
    u64 list = get64(info + 16);
    assert_int_equal(ram[get64(list)], 9);
    assert_int_equal(get64(list + 8), 100);
    assert_string_equal((char *)ram + get64(info + 24), "x=1");
    assert_int_equal(get64(info + 32), 0xe0000);
    u64 map = get64(info + 40);
    assert_int_equal(get32(info + 48), 3);
    assert_int_equal(get64(map + 48), 0x100000);
    assert_int_equal(get32(map + 24 + 16), 2); // the BIOS area is reserved
}

static void test_elf_refusals(void **state)
{
    (void)state;
    make_elf64(false);
    refused(ELF_BYTES, "without a PVH note");
    make_elf64(true);
    put(88, RAM_BYTES - 0x2000, 8);
    refused(ELF_BYTES, "raise memory");
    make_elf64(true);
    put(104, ~0ull, 8);
    refused(ELF_BYTES, "wants memory");
    make_elf64(true);
    put(104, 0x100, 8); // memory smaller than the file's part
    refused(ELF_BYTES, "to fit in");
    make_elf64(true);
    put(72, ~0ull - 0x100, 8);
    refused(ELF_BYTES, "cut short");
    make_elf64(true);
    put(96, ~0ull, 8);
    refused(ELF_BYTES, "cut short");
    make_elf64(true);
    put(32, ~0ull - 8, 8); // program headers
    refused(ELF_BYTES, "ELF file without");
    make_elf64(true);
    put(56, 0xffff, 2);
    refused(ELF_BYTES, "ELF file without");
    make_elf64(true);
    put(18, 183, 2); // another CPU's
    refused(ELF_BYTES, "ELF file without");
    make_elf64(true);
    put(64, 6, 4); // nothing to load
    refused(ELF_BYTES, "nothing to load");
    make_elf64(true);
    put(0x2814, ~0u, 4); // a note that runs out of its segment
    refused(ELF_BYTES, "without a PVH note");
}

// ---- Multiboot ---------------------------------------------------------------------------------

static void make_flat(void)
{
    memset(image, 0, sizeof(image));
    put(0x40, 0x1badb002, 4);
    put(0x44, 0x10003, 4);
    put(0x48, (u32)-(0x1badb002 + 0x10003), 4);
    put(0x4c, 0x100040, 4); // header_addr
    put(0x50, 0x100000, 4); // load_addr
    put(0x54, 0x100800, 4); // load_end
    put(0x58, 0x101000, 4); // bss_end
    put(0x5c, 0x100123, 4); // entry
    memset(image + 0x60, 0x42, 0x800);
}

static void test_multiboot_flat(void **state)
{
    (void)state;
    static u8 module[5000] = {7};
    make_flat();
    strcpy(g->config.cmdline, "a b");
    strcpy(g->config.modules[0], "m");
    strcpy(g->config.modules[1], "m");
    g->config.module_count = 2;
    file("m", module, sizeof(module));
    if (load(0x900))
        fail_msg("%s", err);
    assert_int_equal(started.rip, 0x100123);
    assert_int_equal(started.gpr[GPR_RAX], 0x2badb002);
    assert_int_equal(ram[0x1007ff], 0x42);
    assert_int_equal(ram[0x100800], 0);
    assert_int_equal(ram[0x100fff], 0);
    u64 info = started.gpr[GPR_RBX];
    assert_int_equal(get32(info) & 0x24d, 0x24d);
    assert_int_equal(get32(info + 4), 639);
    assert_int_equal(get32(info + 8), RAM_BYTES / 1024 - 1024);
    assert_string_equal((char *)ram + get32(info + 16), "a b");
    assert_int_equal(get32(info + 20), 2);
    u32 list = get32(info + 24);
    assert_int_equal(get32(list + 4) - get32(list), 5000);
    assert_int_equal(ram[get32(list + 16)], 7);
    assert_true(get32(list) != get32(list + 16));
    assert_string_equal((char *)ram + get32(list + 8), "m");
    u32 map = get32(info + 48);
    assert_int_equal(get32(map), 20);
    assert_int_equal(get32(info + 44), 3 * 24);
    assert_string_equal((char *)ram + get32(info + 64), "Skiff");
}

static void test_multiboot_elf32(void **state)
{
    (void)state;
    memcpy(image, "\177ELF\1\1\1", 7);
    put(18, 3, 2);
    put(24, 0x100010, 4);
    put(28, 52, 4);
    put(42, 32, 2);
    put(44, 1, 2);
    put(52, 1, 4);
    put(56, 0x1000, 4);
    put(64, 0x100000, 4);
    put(68, 0x200, 4);
    put(72, 0x300, 4);
    put(0x1000, 0x1badb002, 4);
    put(0x1008, (u32)-0x1badb002, 4);
    if (load(0x1200))
        fail_msg("%s", err);
    assert_int_equal(started.rip, 0x100010);
    assert_int_equal(get32(0x100000), 0x1badb002);
    assert_int_equal(ram[0x1002ff], 0);
    assert_int_equal(ram[0x100300], 0xcc);
}

static void test_multiboot_refusals(void **state)
{
    (void)state;
    make_flat();
    put(0x44, 0x10007, 4);
    put(0x48, (u32)-(0x1badb002 + 0x10007), 4);
    refused(0x900, "video");
    make_flat();
    put(0x44, 0x10083, 4);
    put(0x48, (u32)-(0x1badb002 + 0x10083), 4);
    refused(0x900, "requires 0x83");
    make_flat();
    put(0x4c, 0xfffff, 4); // header before the load address
    refused(0x900, "wants");
    make_flat();
    put(0x4c, 0x101040, 4); // further behind it than in the file
    refused(0x900, "wants");
    make_flat();
    put(0x54, 0x200000, 4);
    refused(0x900, "cut short");
    make_flat();
    put(0x54, 0xfff00, 4);
    refused(0x900, "before it starts");
    make_flat();
    put(0x58, 0x100100, 4);
    refused(0x900, "to fit in");
    make_flat();
    put(0x58, 0xffffffff, 4);
    refused(0x900, "raise memory");
    make_flat();
    put(0x48, 1, 4); // checksum
    refused(0x900, "not a bzImage");
}

// ---- Any ---------------------------------------------------------------------------------------

static void test_no_kernel(void **state)
{
    (void)state;
    assert_int_equal(guest_load_kernel(g, err, sizeof(err)), E_INVAL);
    assert_non_null(strstr(err, "no such file"));
    g->config.kernel[0] = 0;
    assert_int_equal(guest_load_kernel(g, err, sizeof(err)), E_INVAL);
    assert_non_null(strstr(err, "set kernel in [guest g]"));
}

static void test_every_truncation(void **state)
{
    (void)state;
    make_linux();
    for (u64 n = 0; n < LINUX_BYTES; n += n < 0x280 || n > LINUX_BYTES - 16 ? 1 : 127)
        load(n);
    make_elf64(true);
    for (u64 n = 0; n < ELF_BYTES; n += n < 0x100 || n > 0x2800 ? 1 : 127)
        assert_int_equal(load(n) && n >= 0x2828, 0);
    make_flat();
    for (u64 n = 0; n < 0x800; n++)
        assert_int_equal(load(n), E_INVAL);
}

static void test_random_damage(void **state)
{
    (void)state;
    static u8 good[ELF_BYTES];
    srand(11);
    for (int kind = 0; kind < 3; kind++) {
        memset(image, 0, sizeof(image));
        if (kind == 0)
            make_linux();
        else if (kind == 1)
            make_elf64(true);
        else
            make_flat();
        memcpy(good, image, sizeof(good));
        for (int i = 0; i < 4000; i++) {
            memcpy(image, good, sizeof(good));
            for (int k = rand() % 4; k >= 0; k--)
                image[rand() % 0x300] = (u8)rand();
            load((u64)(rand() % ELF_BYTES));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup(name, setup)
        T(test_linux),
        T(test_linux_refusals),
        T(test_linux_initrd_must_fit),
        T(test_pvh),
        T(test_elf_refusals),
        T(test_multiboot_flat),
        T(test_multiboot_elf32),
        T(test_multiboot_refusals),
        T(test_no_kernel),
        T(test_every_truncation),
        T(test_random_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

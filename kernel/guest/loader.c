// SPDX-License-Identifier: MIT
// Loads a guest's kernel, whatever type it is, with modules, ACPI tables and a start state.
#include "kernel/guest/loader.h"

#include "boot/boot_info.h"
#include "kernel/guest/vcpu.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

// Selectors 0x10 to 0x20, as Linux' 64-bit boot protocol asks for its __BOOT_CS and __BOOT_DS; the
// 32-bit protocols get 32-bit code in the same place.
#define GDT_ENTRIES       6
#define DESCRIPTOR_CODE64 0x00af9b000000ffffull
#define DESCRIPTOR_CODE32 0x00cf9b000000ffffull
#define DESCRIPTOR_DATA   0x00cf93000000ffffull
#define DESCRIPTOR_TSS    0x00008b0000000067ull
#define EFER_LMA          BIT(10)
#define COPY_STEP         (64 * KIB) // between two looks at whether others want the CPU

int load_fail(struct load *l, const char *fmt, ...)
{
    char text[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    snprintf(l->err, l->err_size, "kernel %s: %s", l->g->config.kernel, text);
    return E_INVAL;
}

u32 load_memory_map(const struct guest *g, struct memory_range out[MAX_RANGES])
{
    u32 n = 0;
    u64 low = g->memory.region[0].bytes;
    out[n++] = (struct memory_range){0, LOW_RAM_END, RANGE_RAM};
    out[n++] = (struct memory_range){LOW_RAM_END, HIGH_MEMORY - LOW_RAM_END, RANGE_RESERVED};
    out[n++] = (struct memory_range){HIGH_MEMORY, low - HIGH_MEMORY, RANGE_RAM};
    for (u32 i = 1; i < g->memory.region_count; i++) {
        const struct guest_region *r = &g->memory.region[i];
        out[n++] = (struct memory_range){r->gpa, r->bytes, RANGE_RAM};
    }
    return n;
}

int load_check_place(struct load *l, u64 gpa, u64 bytes)
{
    u64 low = l->g->memory.region[0].bytes;
    unsigned long long from = gpa, to = gpa + bytes;
    if (gpa + bytes < gpa || gpa + bytes > low)
        return load_fail(l,
                         "it wants memory from 0x%llx to 0x%llx, the guest has up to 0x%llx; "
                         "raise memory",
                         from, to, (unsigned long long)low);
    bool over_tables = gpa < BOOT_END && gpa + bytes > BOOT_GDT;
    bool over_bios = gpa < HIGH_MEMORY && gpa + bytes > LOW_RAM_END;
    if (over_tables || over_bios)
        return load_fail(l, "it wants to be at 0x%llx to 0x%llx, which holds %s", from, to,
                         over_tables ? "the boot tables" : "the PC's own areas below 1 MiB");
    return 0;
}

// Kernels and modules are large, and the place was checked.
static void load_copy(struct load *l, u64 gpa, const u8 *data, u64 bytes)
{
    for (u64 n, done = 0; done < bytes; done += n) {
        n = MIN(bytes - done, COPY_STEP);
        guest_write(l->g, gpa + done, data + done, n);
        thread_yield_if_needed();
    }
}

int load_segment(struct load *l, u64 gpa, u64 offset, u64 file, u64 memory)
{
    if (offset > l->size || file > l->size - offset)
        return load_fail(l, "cut short: %llu bytes at 0x%llx are wanted, the file has %llu",
                         (unsigned long long)file, (unsigned long long)offset,
                         (unsigned long long)l->size);
    if (memory < file)
        return load_fail(l, "a part of %llu bytes is to fit in %llu", (unsigned long long)file,
                         (unsigned long long)memory);
    int error = load_check_place(l, gpa, memory);
    if (error)
        return error;
    load_copy(l, gpa, l->image + offset, file);
    guest_zero(l->g, gpa + file, memory - file);
    l->kernel_end = MAX(l->kernel_end, gpa + memory);
    return 0;
}

int load_write(struct load *l, u64 gpa, const void *data, u64 bytes)
{
    if (guest_write(l->g, gpa, data, bytes))
        return load_fail(l, "the guest's memory ends below 0x%llx", (unsigned long long)gpa);
    return 0;
}

int load_place_modules(struct load *l, u64 limit)
{
    u64 top = MIN(limit, l->g->memory.region[0].bytes);
    u64 bottom = MAX(l->kernel_end, HIGH_MEMORY);
    for (u32 i = l->module_count; i-- > 0;) {
        struct module *m = &l->modules[i];
        if (top < bottom || m->bytes > top - bottom)
            return load_fail(l,
                             "module %s has %llu bytes, %llu are free behind the kernel; raise "
                             "memory",
                             l->g->config.modules[i], (unsigned long long)m->bytes,
                             (unsigned long long)(top > bottom ? top - bottom : 0));
        top = ALIGN_DOWN(top - m->bytes, PAGE_SIZE);
        if (top < bottom)
            return load_fail(l, "module %s does not fit behind the kernel; raise memory",
                             l->g->config.modules[i]);
        m->gpa = top;
        load_copy(l, top, m->data, m->bytes);
    }
    return 0;
}

void load_write_gdt(struct load *l, struct vcpu_state *s)
{
    u64 code = s->efer & EFER_LMA ? DESCRIPTOR_CODE64 : DESCRIPTOR_CODE32;
    u64 gdt[GDT_ENTRIES] = {0, 0, code, DESCRIPTOR_DATA, DESCRIPTOR_TSS, 0};
    guest_write(l->g, BOOT_GDT, gdt, sizeof(gdt));
    s->gdtr_base = BOOT_GDT;
    s->gdtr_limit = sizeof(gdt) - 1;
}

static int find_files(struct load *l)
{
    const struct guest_config *c = &l->g->config;
    const struct boot_file *f = boot_file_find(c->kernel);
    if (!c->kernel[0])
        return load_fail(l, "none is configured; set kernel in [guest %s]", l->g->name);
    if (!f)
        return load_fail(l, "there is no such file on this host's EFI system partition");
    l->image = f->data;
    l->size = f->size;
    for (u32 i = 0; i < c->module_count; i++) {
        f = boot_file_find(c->modules[i]);
        if (!f)
            return load_fail(l, "module %s is not on this host's EFI system partition",
                             c->modules[i]);
        l->modules[l->module_count++] = (struct module){.data = f->data, .bytes = f->size};
    }
    return 0;
}

int guest_check_files(struct guest *g, char *err, size_t size)
{
    struct load l = {.g = g, .err = err, .err_size = size};
    return find_files(&l);
}

static int load_by_type(struct load *l, struct vcpu_state *s)
{
    u32 entry;
    if (is_linux(l))
        return load_linux(l, s);
    if (is_elf(l) && elf_pvh_entry(l, &entry))
        return load_pvh(l, s);
    if (has_multiboot_header(l))
        return load_multiboot(l, s);
    if (is_elf(l))
        return load_fail(l, "an ELF file without a PVH note or a Multiboot header");
    return load_fail(l, "not a bzImage, an ELF file with a PVH note, or a Multiboot 1 image");
}

static void keep_modelled(const struct vcpu *v, struct vcpu_state *s)
{
    s->misc_enable = v->misc_enable;
    s->tsc_adjust = v->tsc_adjust;
    s->mtrr_def_type = v->mtrr_def_type;
    memcpy(s->mtrr_fixed, v->mtrr_fixed, sizeof(s->mtrr_fixed));
    memcpy(s->mtrr_base, v->mtrr_base, sizeof(s->mtrr_base));
    memcpy(s->mtrr_mask, v->mtrr_mask, sizeof(s->mtrr_mask));
}

static int load_and_start(struct load *l, struct vcpu_state *s)
{
    struct vcpu *v = l->g->vcpu[0];
    int error = find_files(l);
    if (!error && platform_write_acpi(l->g, &l->rsdp))
        error = load_fail(l, "the ACPI tables do not fit below 1 MiB");
    if (!error)
        error = load_by_type(l, s);
    if (error)
        return error;
    load_write_gdt(l, s);
    keep_modelled(v, s);
    if (vcpu_load_state(v, s))
        return load_fail(l, "its start state cannot be entered on this host");
    return 0;
}

int guest_load_kernel(struct guest *g, char *err, size_t size)
{
    struct load l = {.g = g, .err = err, .err_size = size};
    struct vcpu_state *s = kzalloc(sizeof(*s));
    if (!s)
        return load_fail(&l, "no host memory to load it");
    int error = load_and_start(&l, s);
    kfree(s);
    return error;
}

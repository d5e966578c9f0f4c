// SPDX-License-Identifier: MIT
// ELF kernels, 32 and 64 bits: segments into RAM, and the PVH note (System V ABI, chapters 4 and
// 5).
#include "kernel/guest/loader.h"
#include "kernel/lib.h"

#define ELFCLASS32     1
#define ELFCLASS64     2
#define EM_386         3
#define EM_X86_64      62
#define PT_LOAD        1
#define PT_NOTE        4
#define NOTE_PVH_ENTRY 18 // XEN_ELFNOTE_PHYS32_ENTRY

struct elf32_header {
    u8 ident[16];
    u16 type, machine;
    u32 version, entry, phoff, shoff, flags;
    u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
struct elf64_header {
    u8 ident[16];
    u16 type, machine;
    u32 version;
    u64 entry, phoff, shoff;
    u32 flags;
    u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
struct elf32_segment {
    u32 type, offset, vaddr, paddr, filesz, memsz, flags, align;
};
struct elf64_segment {
    u32 type, flags;
    u64 offset, vaddr, paddr, filesz, memsz, align;
};
struct elf_note {
    u32 name_bytes, desc_bytes, type;
};
_Static_assert(sizeof(struct elf32_header) == 52, "ELF");
_Static_assert(sizeof(struct elf64_header) == 64, "ELF");
_Static_assert(sizeof(struct elf32_segment) == 32, "ELF");
_Static_assert(sizeof(struct elf64_segment) == 56, "ELF");

// Both classes in one shape.
struct elf {
    const struct load *l;
    bool wide;
    u16 machine, count;
    u64 entry, table, entry_bytes;
};

bool is_elf(const struct load *l)
{
    static const u8 magic[4] = {0x7f, 'E', 'L', 'F'};
    return l->size >= sizeof(struct elf32_header) && !memcmp(l->image, magic, sizeof(magic));
}

static bool open_32(struct elf *e)
{
    struct elf32_header h;
    memcpy(&h, e->l->image, sizeof(h));
    e->machine = h.machine;
    e->count = h.phnum;
    e->entry = h.entry;
    e->table = h.phoff;
    e->entry_bytes = h.phentsize;
    return h.phentsize >= sizeof(struct elf32_segment);
}

static bool open_64(struct elf *e)
{
    struct elf64_header h;
    if (e->l->size < sizeof(h))
        return false;
    memcpy(&h, e->l->image, sizeof(h));
    e->machine = h.machine;
    e->count = h.phnum;
    e->entry = h.entry;
    e->table = h.phoff;
    e->entry_bytes = h.phentsize;
    return h.phentsize >= sizeof(struct elf64_segment);
}

static bool open_elf(const struct load *l, struct elf *e)
{
    *e = (struct elf){.l = l};
    if (!is_elf(l))
        return false;
    u8 class = l->image[4], data = l->image[5];
    e->wide = class == ELFCLASS64;
    if (data != 1 || (class != ELFCLASS32 && class != ELFCLASS64))
        return false;
    if (!(e->wide ? open_64(e) : open_32(e)))
        return false;
    if (e->machine != EM_386 && e->machine != EM_X86_64)
        return false;
    u64 bytes = e->count * e->entry_bytes; // 16 by 16 bits
    return e->table <= l->size && bytes <= l->size - e->table;
}

static void get_segment(const struct elf *e, u32 i, struct elf64_segment *out)
{
    const u8 *at = e->l->image + e->table + i * e->entry_bytes;
    struct elf32_segment s;
    if (e->wide) {
        memcpy(out, at, sizeof(*out));
        return;
    }
    memcpy(&s, at, sizeof(s));
    *out = (struct elf64_segment){.type = s.type,
                                  .flags = s.flags,
                                  .offset = s.offset,
                                  .vaddr = s.vaddr,
                                  .paddr = s.paddr,
                                  .filesz = s.filesz,
                                  .memsz = s.memsz,
                                  .align = s.align};
}

int elf_load(struct load *l, u64 *entry)
{
    struct elf e;
    struct elf64_segment s;
    u32 loaded = 0;
    if (!open_elf(l, &e))
        return load_fail(l, "its ELF header is malformed, or not for x86");
    for (u32 i = 0; i < e.count; i++) {
        get_segment(&e, i, &s);
        if (s.type != PT_LOAD || !s.memsz)
            continue;
        int error = load_segment(l, s.paddr, s.offset, s.filesz, s.memsz);
        if (error)
            return error;
        loaded++;
    }
    if (!loaded)
        return load_fail(l, "its ELF file has nothing to load");
    *entry = e.entry;
    return 0;
}

// Notes are padded to 4 bytes each in the files that carry this one.
static bool find_note(const u8 *at, u64 bytes, u32 *entry)
{
    struct elf_note n;
    while (bytes >= sizeof(n)) {
        memcpy(&n, at, sizeof(n));
        u64 name = ALIGN_UP((u64)n.name_bytes, 4), desc = ALIGN_UP((u64)n.desc_bytes, 4);
        u64 whole = sizeof(n) + name + desc;
        if (whole > bytes)
            return false;
        bool xen = n.name_bytes == 4 && !memcmp(at + sizeof(n), "Xen", 4);
        if (xen && n.type == NOTE_PVH_ENTRY && n.desc_bytes >= 4) {
            memcpy(entry, at + sizeof(n) + name, sizeof(*entry));
            return true;
        }
        at += whole;
        bytes -= whole;
    }
    return false;
}

bool elf_pvh_entry(const struct load *l, u32 *entry)
{
    struct elf e;
    struct elf64_segment s;
    if (!open_elf(l, &e))
        return false;
    for (u32 i = 0; i < e.count; i++) {
        get_segment(&e, i, &s);
        if (s.type != PT_NOTE || s.offset > l->size || s.filesz > l->size - s.offset)
            continue;
        if (find_note(l->image + s.offset, s.filesz, entry))
            return true;
    }
    return false;
}

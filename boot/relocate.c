// SPDX-License-Identifier: MIT
// Relocates the image to where the firmware put it; runs before anything that holds a pointer.
#include "kernel/types.h"

struct elf_rela { // ELF-64 Object File Format, "Relocation"
    u64 offset;
    u64 info;
    u64 addend;
};
static_assert(sizeof(struct elf_rela) == 24, "Elf64_Rela");

#define R_X86_64_RELATIVE 8

void boot_relocate(u64 base, const struct elf_rela *from, const struct elf_rela *to);

// The stack protector's canary is not set up yet.
__attribute__((no_stack_protector)) void boot_relocate(u64 base, const struct elf_rela *from,
                                                       const struct elf_rela *to)
{
    for (const struct elf_rela *r = from; r < to; r++) {
        if ((u32)r->info == R_X86_64_RELATIVE)
            *(u64 *)(base + r->offset) = base + r->addend;
    }
}

// SPDX-License-Identifier: MIT
// Names for code addresses, from the table the second link pass embeds, and backtraces with them.
#include "arch/x86/cpu.h"
#include "arch/x86/descriptors.h"
#include "arch/x86/image.h"
#include "arch/x86/paging.h"

#define MAX_FRAMES 32

// boot/symbols.awk; offsets from the image's start, ascending.
extern const u32 symbol_count;
extern const u32 symbol_offsets[], symbol_name_offsets[];
extern const char symbol_names[];

const char *symbol_lookup(u64 addr, u64 *offset)
{
    u64 at = addr - (u64)image_start;
    if (addr < (u64)text_start || addr >= (u64)text_end || symbol_count == 0 ||
        at < symbol_offsets[0])
        return "?";
    u32 low = 0, high = symbol_count;
    while (high - low > 1) {
        u32 middle = low + (high - low) / 2;
        if (symbol_offsets[middle] <= at)
            low = middle;
        else
            high = middle;
    }
    *offset = at - symbol_offsets[low];
    return &symbol_names[symbol_name_offsets[low]];
}

static void print_frame(u32 n, u64 rip, u64 lookup)
{
    u64 offset = 0;
    const char *name = symbol_lookup(lookup, &offset);
    // The second number is what addr2line and build/skiff.elf want.
    crash_print("#%-2u %016llx image+%06llx %s+0x%llx", n, (unsigned long long)rip,
                (unsigned long long)(rip - (u64)image_start), name,
                (unsigned long long)(offset + (rip - lookup)));
}

// Follows saved frame pointers; stops at whatever does not look like a frame further up the stack.
void backtrace_print(u64 rbp, u64 rip)
{
    u32 n = 0;
    if (rip != 0)
        print_frame(n++, rip, rip);
    while (n < MAX_FRAMES && rbp % 8 == 0 && paging_is_mapped(rbp) && paging_is_mapped(rbp + 15)) {
        const u64 *frame = (const u64 *)rbp;
        if (frame[1] == 0)
            break;
        // A call at a function's end returns past it: the call itself is one byte earlier.
        print_frame(n++, frame[1], frame[1] - 1);
        if (frame[0] <= rbp)
            break;
        rbp = frame[0];
    }
}

// SPDX-License-Identifier: MIT
// Ends in a triple fault: an undefined instruction with no IDT to go to.
#include "bare.h"

void bare_main(const char *command_line)
{
    const struct __attribute__((packed)) {
        uint16_t limit;
        uint32_t base;
    } none = {0, 0};

    (void)command_line;
    print("SKIFF-BARE triple\n");
    __asm__ volatile("lidt %0; ud2" ::"m"(none));
}

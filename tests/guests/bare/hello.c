// SPDX-License-Identifier: MIT
// The first sign of life: prints what the loader passed, then powers off, or resets with reset=1.
#include "bare.h"

void bare_main(const char *command_line)
{
    uint32_t wanted = 0;

    print("SKIFF-BARE hello loader=%s modules=%u command-line='%s'\n", loader_name(),
          loader_module_count(), command_line);
    if (option(command_line, "reset", &wanted) && wanted)
        reset();
}

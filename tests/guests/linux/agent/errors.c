// SPDX-License-Identifier: MIT
// Counts what went wrong and prints the first cases.
#include <stdarg.h>
#include <stdio.h>

#include "agent.h"

#define PRINTED_ERRORS 20

static uint64_t errors;

void agent_error(const char *format, ...)
{
    va_list arguments;

    if (errors++ >= PRINTED_ERRORS)
        return;
    printf("AGENT-ERROR ");
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

uint64_t agent_errors(void)
{
    return errors;
}

// SPDX-License-Identifier: MIT
// Picks the vendor's virtualization backend at boot.
#include "arch/x86/cpu.h"
#include "kernel/guest/backend.h"
#include "kernel/lib.h"

const struct backend_ops *backend;
char backend_missing[160];

static const struct backend_ops *const known[] = {&vmx_backend, &svm_backend};

int backend_init(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(known) && !backend; i++) {
        if (!known[i]->probe(backend_missing, sizeof backend_missing))
            continue;
        if (known[i]->cpu_enable() < 0) {
            snprintf(backend_missing, sizeof backend_missing,
                     "%s could not be switched on: see the log", known[i]->name);
            continue;
        }
        backend = known[i];
    }
    if (!backend)
        return E_NOSUP;
    backend_missing[0] = 0;
    return 0;
}

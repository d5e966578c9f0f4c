// SPDX-License-Identifier: MIT
// Picks the vendor's virtualization backend at boot.
#include "arch/x86/cpu.h"
#include "kernel/guest/backend.h"
#include "kernel/lib.h"

const struct backend_ops *backend;
char backend_missing[160];

int backend_init(void)
{
    // The CPU's own vendor comes last: what it says is missing is what helps.
    const struct backend_ops *const by_intel[] = {&svm_backend, &vmx_backend};
    const struct backend_ops *const by_amd[] = {&vmx_backend, &svm_backend};
    bool intel = strcmp(host_features.vendor, "GenuineIntel") == 0;
    const struct backend_ops *const *known = intel ? by_intel : by_amd;
    for (size_t i = 0; i < ARRAY_SIZE(by_amd) && !backend; i++) {
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

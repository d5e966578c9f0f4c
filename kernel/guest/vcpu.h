// SPDX-License-Identifier: MIT
// A vCPU's thread and start states; for kernel/guest/ (others use guest.h).
#ifndef SKIFF_GUEST_VCPU_H
#define SKIFF_GUEST_VCPU_H

#include "kernel/guest/guest.h"
#include "kernel/log.h"

// One line in the log under the guest's name.
void guest_log(enum log_level level, const struct guest *g, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

// vcpu.c
int vcpu_create(struct guest *g, u32 index); // with its thread, which parks; 0 or E_NOMEM
void vcpu_destroy(struct vcpu *v);           // after its thread has ended (v->exited)
void vcpu_apply_tsc(struct vcpu *v);         // guest clock and IA32_TSC_ADJUST into the backend

// exits.c. False: the vCPU must not go on, and the guest has been ended.
bool vcpu_handle_exit(struct vcpu *v, const struct vm_exit *x);

// start_state.c. Architectural states a vCPU can begin in; XSAVE is in its initial state.
void state_power_on(struct vcpu_state *s);                 // SDM 3A table 9-1
void state_after_init(struct vcpu_state *s);               // INIT changes a running state to this
void state_startup_ipi(struct vcpu_state *s, u8 vector);   // SDM 3A 8.4.4
void state_flat32(struct vcpu_state *s, u64 entry);        // protected mode, no paging, flat
void state_long(struct vcpu_state *s, u64 entry, u64 cr3); // 64-bit code, flat
// Power-on state of a vCPU that is not the first: waits for its start-up IPI.
int vcpu_reset(struct vcpu *v);

// lifecycle.c. Called in the gate by a vCPU that found reset_wanted or poweroff_wanted.
void guest_start_worker(struct guest *g);

#endif

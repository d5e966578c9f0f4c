// SPDX-License-Identifier: MIT
// A guest and its vCPUs: life cycle, ownership, and what the console and a move may ask of it.
#ifndef SKIFF_GUEST_GUEST_H
#define SKIFF_GUEST_GUEST_H

#include "kernel/config.h"
#include "kernel/guest/backend.h"
#include "kernel/guest/clock.h"
#include "kernel/guest/device.h"
#include "kernel/guest/exit.h"
#include "kernel/guest/memory.h"
#include "kernel/guest/vcpu_state.h"
#include "kernel/thread.h"
#include "kernel/types.h"

#define GUEST_MAX_VCPUS 16

// What the host believes about a configured or received guest.
enum guest_state {
    GUEST_OFF, // configured, not running, no memory held
    GUEST_RUNNING,
    GUEST_PAUSED,   // by the operator
    GUEST_CRASHED,  // ended by a fault; why in guest->why
    GUEST_INCOMING, // being received
    GUEST_FROZEN,   // stopped by a move, before COMMIT was sent
    GUEST_IN_DOUBT, // COMMIT sent and not answered, or READY and not committed: see design rule
                    // 16/17
    GUEST_MOVED,    // runs on another host now (guest->why names it)
    GUEST_GONE,     // not in the table any more; lives until its last reference is put
};
const char *guest_state_name(enum guest_state s);

struct cpuid_entry {
    u32 leaf, sub, flags; // flags bit 0: sub-leaf matters
    u32 eax, ebx, ecx, edx;
};
#define GUEST_MAX_CPUID 64

// The vCPU thread's own, but for kick, in_guest, cpu, parked and exited, which others read, and
// kick and nmi_pending, which they set. While it is parked: whoever holds the guest.
struct vcpu {
    struct guest *guest;
    u32 index;
    u64 gpr[GPR_COUNT]; // live while not in the guest; [GPR_RSP] unused (backend.get_rsp)
    void *backend;
    void *xsave; // area of the vCPU's thread (loaded across exits)
    u64 xcr0, xss;
    volatile bool kick; // leave the guest and look for work
    volatile bool in_guest;
    volatile u32 cpu; // host CPU it is loaded on
    struct thread *thread;
    struct waitq wait;    // HLT, pause
    volatile bool parked; // the thread stands in the pause gate
    u64 left_gate_ns;     // when it did so last, host time
    u8 activity;          // enum vcpu_activity
    bool nmi_pending;
    u8 sipi_vector;
    void *lapic; // arch/x86/platform/lapic.c
    // Software-modelled MSRs (kernel/guest/msr.c)
    u64 misc_enable, tsc_adjust, mtrr_def_type, mtrr_fixed[11], mtrr_base[8], mtrr_mask[8];
    u64 exits[EXIT_KINDS];
    u64 exit_total;
    // The vCPU thread's own (kernel/guest/vcpu.c)
    u64 deadline_tsc;            // host TSC of the guest's next timer
    bool irq_window, nmi_window; // asked of the backend
    volatile bool exited;        // the thread is gone
};

// Its life cycle (state, why, epoch, memory, vcpu, devices, job) changes under `lock`; what a
// device needs is under that device's own. Name, UUID and CPUID are constant once it is built.
struct guest {
    struct guest_config config;
    char name[CONFIG_NAME];
    u8 uuid[16];
    u64 epoch;         // grows by one at every hand-over
    u64 boot_count;    // resets and starts
    volatile u8 state; // enum guest_state
    char why[200];     // reason of CRASHED, IN_DOUBT, MOVED
    struct guest_memory memory;
    struct dirty_log *dirty;
    struct guest_clock clock;
    struct vcpu *vcpu[GUEST_MAX_VCPUS];
    u32 vcpu_count;
    struct device *devices;
    struct guest_disk *disk[CONFIG_MAX_DISKS]; // open while it is built; config.disk_count of them
    void *bus;                                 // kernel/guest/bus.c
    void *platform;                            // arch/x86/platform/platform.c
    // Where the serial console's output goes; set with guest_console_attach, kept over restarts.
    void (*console_sink)(struct guest *g, const char *s, size_t n);
    void *backend; // EPT root and friends
    struct cpuid_entry cpuid[GUEST_MAX_CPUID];
    u32 cpuid_count;
    volatile u32 pause_count; // > 0: vCPUs must park
    struct waitq pause_wait;  // someone waits for all parked
    struct mutex pause_lock;  // pause_count and what hangs on it
    volatile bool stopping;   // teardown: vCPU threads end
    volatile bool worker;     // a thread is on its way to reset it or switch it off
    bool autostart_pending;   // not started yet: peers are asked until they allow it
    u8 cpuid_first[2]
                  [32]; // first entry of leaf n and 0x80000000+n, plus one (kernel/guest/cpuid.c)
    u32 msr_logged[16]; // MSR indices already reported
    u32 msr_logged_count;
    volatile bool reset_wanted, poweroff_wanted;
    char crash[160];
    struct mutex lock; // life-cycle changes: start, destroy, move
    void *job;         // the move it is part of (kernel/migrate)
    u64 started_ns;
    bool from_config; // in host.cfg of this host (else received)
    u32 references;   // atomic; the table has one
    struct guest *next;
};

// The table of guests; all three with guests_lock held, and what they return is valid until it is
// dropped.
extern struct mutex guests_lock;
struct guest *guest_first(void);
struct guest *guest_find(const char *name);
struct guest *guest_find_uuid(const u8 uuid[16]);
// Referenced guests outlive the lock, and the table: one that was removed meanwhile is GUEST_GONE
// and refuses all that may be asked of it. NULL where none is listed; guest_put ends it.
struct guest *guest_get(const char *name);
struct guest *guest_get_uuid(const u8 uuid[16]);
struct guest *guest_hold(struct guest *g); // another one; returns g, which may be NULL
void guest_put(struct guest *g);           // NULL is allowed

// Lists the configured guests (OFF) and starts those with autostart, as design rule 17 allows:
// may_start(uuid) is asked first (kernel/migrate/ownership.c answers from the peers).
void guests_start(const struct host_config *cfg);
// Adds a guest without memory. NULL with a sentence in err.
struct guest *guest_add(const struct guest_config *cfg, char *err, size_t size);
void guest_remove(struct guest *g); // takes it apart; g->lock not held

// Life cycle. All return 0 or an error with one sentence in err. Thread context.
// start asks the peers first (design rule 17) and leaves the guest IN_DOUBT where they do not allow
// it; guest_start_unasked is for the operator's word (resolve) and after the peers were asked.
int guest_start(struct guest *g, char *err, size_t size); // OFF, CRASHED or MOVED -> RUNNING
int guest_start_unasked(struct guest *g, char *err, size_t size); // also IN_DOUBT without memory
int guest_shutdown(struct guest *g, char *err, size_t size);      // ACPI power button
int guest_destroy(struct guest *g, char *err, size_t size);       // hard off, memory freed
int guest_reboot(struct guest *g, char *err, size_t size);        // hard reset
int guest_pause(struct guest *g, char *err, size_t size);         // operator: guest time freezes
int guest_resume(struct guest *g, char *err, size_t size);

// For moves. build: memory, vCPUs and devices as configured, nothing loaded, vCPU threads parked.
int guest_build(struct guest *g, char *err, size_t size);
void guest_teardown(struct guest *g); // stops threads, frees all; the entry stays listed
// Nested stop/continue of all vCPUs: quiesce returns when every vCPU thread is parked, device
// timers paused and the clock frozen; unquiesce thaws with added_ticks.
void guest_quiesce(struct guest *g);
void guest_unquiesce(struct guest *g, u64 added_ticks);
// Full architectural state of one parked vCPU, both ways (GPRs, MSRs, XSAVE, activity, events).
void vcpu_save_state(struct vcpu *v, struct vcpu_state *s);
int vcpu_check_state(struct vcpu *v, const struct vcpu_state *s, char *err, size_t size);
int vcpu_load_state(struct vcpu *v, const struct vcpu_state *s);

// Ends the guest with a reason; from its own vCPU thread or anywhere.
void guest_crash(struct guest *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void vcpu_kick(struct vcpu *v); // leave guest mode or HLT and look for work; any context
void guest_kick(struct guest *g);

// The guest's serial console (16550 of arch/x86/platform/uart.c).
// Output since attach is passed to sink (vCPU thread context); NULL detaches. A ring of the last
// 16 KiB is kept and can be read with guest_console_tail.
void guest_console_attach(struct guest *g, void (*sink)(struct guest *g, const char *s, size_t n));
void guest_console_input(struct guest *g, const char *s, size_t n);
size_t guest_console_tail(struct guest *g, char *buf, size_t size);

// Loader: puts kernel, modules and boot tables into RAM and sets vCPU 0's start state.
int guest_load_kernel(struct guest *g, char *err, size_t size);
int guest_check_files(struct guest *g, char *err, size_t size); // are kernel and modules here?
// A file read from the ESP at boot, by its config path (case-insensitive). NULL when absent.
struct boot_file;
const struct boot_file *boot_file_find(const char *path);

// The platform (arch/x86/platform): creates every device of the PC; ACPI tables into guest RAM.
int platform_create(struct guest *g);
void platform_destroy(struct guest *g);
int platform_write_acpi(struct guest *g, u64 *rsdp_gpa);
void platform_power_button(struct guest *g);
int platform_vcpu_init(struct vcpu *v); // local APIC
void platform_vcpu_fini(struct vcpu *v);
void platform_vcpu_reset(struct vcpu *v);
// Interrupts for the entry path: highest deliverable vector or -1; PIC's ExtINT included.
int platform_irq_peek(struct vcpu *v);
int platform_irq_ack(struct vcpu *v); // takes it (IRR -> ISR); returns the vector
// Local APIC registers as MSRs: IA32_APIC_BASE, TSC_DEADLINE, x2APIC 0x800..0x8ff. 0, E_NOENT,
// or E_INVAL for #GP.
int platform_rdmsr(struct vcpu *v, u32 index, u64 *value);
int platform_wrmsr(struct vcpu *v, u32 index, u64 value);
// INIT and SIPI from another local APIC, taken by the vCPU's loop. take_init: one waits; the vCPU
// is now VCPU_WAIT_SIPI and its registers must be reset. take_sipi: the vector, -1 when none waits.
bool platform_take_init(struct vcpu *v);
int platform_take_sipi(struct vcpu *v);
u64 platform_get_cr8(struct vcpu *v);
void platform_set_cr8(struct vcpu *v, u64 value);
// Per-vCPU platform state (local APIC) for moves; devices are in guest->devices.
extern const struct state_table lapic_state;
void platform_vcpu_pause(struct vcpu *v);  // timer into state
void platform_vcpu_resume(struct vcpu *v); // re-arm

#endif

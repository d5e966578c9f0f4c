// SPDX-License-Identifier: MIT
// What kernel/guest/ stands on, for tests of it: host memory from the C library, locks that only
// notice misuse, and a backend with registers in plain variables. Included once by a test.
#ifndef SKIFF_TESTS_FAKE_GUEST_H
#define SKIFF_TESTS_FAKE_GUEST_H

#include "unit.h"

#include "arch/x86/cpu.h"
#include "kernel/guest/guest.h"
#include "kernel/guest/vcpu.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

#define FAKE __attribute__((weak, unused))

// ---- Host ------------------------------------------------------------------------------------

static s64 fake_used[MEM_USES];
static u32 fake_pages_left = ~0u;

FAKE void *kmalloc(size_t size)
{
    return malloc(size);
}
FAKE void *kzalloc(size_t size)
{
    return calloc(1, size);
}
FAKE void kfree(void *p)
{
    free(p);
}
FAKE u64 page_alloc(unsigned order)
{
    if (!fake_pages_left)
        return 0;
    fake_pages_left--;
    void *p = aligned_alloc(PAGE_SIZE << order, PAGE_SIZE << order);
    memset(p, 0xa5, PAGE_SIZE << order); // page_alloc does not zero
    return ptr_phys(p);
}
FAKE void page_free(u64 pa, unsigned order)
{
    (void)order;
    free(phys_ptr(pa));
}
FAKE void mem_account(enum mem_use use, s64 delta)
{
    fake_used[use] += delta;
}
FAKE void thread_yield_if_needed(void)
{
}
FAKE void mutex_lock(struct mutex *m)
{
    assert_null(m->owner);
    m->owner = (struct thread *)1;
}
FAKE void mutex_unlock(struct mutex *m)
{
    assert_non_null(m->owner);
    m->owner = NULL;
}
static u32 fake_logs;
FAKE void guest_log(enum log_level level, const struct guest *g, const char *fmt, ...)
{
    (void)level, (void)g, (void)fmt;
    fake_logs++;
}
static u32 fake_kicks;
FAKE void guest_kick(struct guest *g)
{
    (void)g;
    fake_kicks++;
}
FAKE void vcpu_kick(struct vcpu *v)
{
    (void)v;
    fake_kicks++;
}
FAKE struct vcpu *thread_get_vcpu(void)
{
    return NULL;
}

// ---- Backend -----------------------------------------------------------------------------------

static struct vcpu_state fake_regs; // RIP, RSP, RFLAGS, control registers and segments
static struct {
    u32 vector, error;
    bool has_error, raised;
} fake_exception;
static u64 fake_efer_written, fake_tsc_scale, fake_tsc_offset;
static bool fake_scaling, fake_pml;

static u64 fake_get_rip(struct vcpu *v)
{
    (void)v;
    return fake_regs.rip;
}
static void fake_set_rip(struct vcpu *v, u64 rip)
{
    (void)v;
    fake_regs.rip = rip;
}
static void fake_skip(struct vcpu *v, u32 len)
{
    (void)v;
    fake_regs.rip += len;
}
static void fake_get_seg(struct vcpu *v, enum seg s, struct segment *out)
{
    (void)v;
    *out = fake_regs.seg[s];
}
static void fake_put(u64 *to, u64 value)
{
    if (to)
        *to = value;
}
static void fake_get_paging(struct vcpu *v, u64 *cr0, u64 *cr3, u64 *cr4, u64 *efer, u64 *rflags)
{
    (void)v;
    fake_put(cr0, fake_regs.cr0);
    fake_put(cr3, fake_regs.cr3);
    fake_put(cr4, fake_regs.cr4);
    fake_put(efer, fake_regs.efer);
    fake_put(rflags, fake_regs.rflags);
}
static u64 fake_get_rsp(struct vcpu *v)
{
    (void)v;
    return fake_regs.gpr[GPR_RSP];
}
static void fake_set_rsp(struct vcpu *v, u64 rsp)
{
    (void)v;
    fake_regs.gpr[GPR_RSP] = rsp;
}
static void fake_get_state(struct vcpu *v, struct vcpu_state *s)
{
    *s = fake_regs;
    memcpy(s->gpr, v->gpr, sizeof(s->gpr));
    s->gpr[GPR_RSP] = fake_regs.gpr[GPR_RSP];
}
static int fake_set_state(struct vcpu *v, const struct vcpu_state *s)
{
    memcpy(v->gpr, s->gpr, sizeof(s->gpr));
    fake_regs = *s;
    return 0;
}
static const char *fake_check_state(struct vcpu *v, const struct vcpu_state *s)
{
    (void)v;
    return s->rflags & 2 ? NULL : "RFLAGS bit 1 is clear";
}
static void fake_inject_exception(struct vcpu *v, u8 vector, bool has_error, u32 error)
{
    (void)v;
    fake_exception.vector = vector;
    fake_exception.error = error;
    fake_exception.has_error = has_error;
    fake_exception.raised = true;
}
static int fake_get_msr(struct vcpu *v, u32 index, u64 *value)
{
    (void)v;
    *value = fake_regs.efer;
    return index == 0xc0000080 ? 0 : E_NOENT;
}
static int fake_set_msr(struct vcpu *v, u32 index, u64 value)
{
    (void)v;
    fake_efer_written = value;
    return index == 0xc0000080 ? 0 : E_NOENT;
}
static u64 fake_scale_max(void)
{
    return fake_scaling ? (1ull << 56) - 1 : 0;
}
static bool fake_has_pml(void)
{
    return fake_pml;
}
static void fake_set_tsc(struct vcpu *v, u64 scale, u64 offset, bool exits)
{
    (void)v, (void)exits;
    fake_tsc_scale = scale;
    fake_tsc_offset = offset;
}
static int fake_map_large(struct guest *g, u64 gpa, u64 hpa)
{
    (void)g;
    assert_int_equal(gpa % LARGE_PAGE_SIZE, 0);
    assert_int_equal(hpa % LARGE_PAGE_SIZE, 0);
    return 0;
}

static struct backend_ops fake_ops = {
    .name = "fake",
    .get_rip = fake_get_rip,
    .set_rip = fake_set_rip,
    .skip_insn = fake_skip,
    .get_seg = fake_get_seg,
    .get_paging = fake_get_paging,
    .get_rsp = fake_get_rsp,
    .set_rsp = fake_set_rsp,
    .get_state = fake_get_state,
    .set_state = fake_set_state,
    .check_state = fake_check_state,
    .inject_exception = fake_inject_exception,
    .get_msr = fake_get_msr,
    .set_msr = fake_set_msr,
    .tsc_scale_max = fake_scale_max,
    .has_pml = fake_has_pml,
    .set_tsc = fake_set_tsc,
    .map_large = fake_map_large,
};
const struct backend_ops *backend = &fake_ops;
char backend_missing[160];

// One vCPU of one guest.
static struct guest fake_guest;
static struct vcpu fake_vcpu;

static inline void fake_guest_reset(void)
{
    memset(&fake_guest, 0, sizeof(fake_guest));
    memset(&fake_vcpu, 0, sizeof(fake_vcpu));
    memset(&fake_regs, 0, sizeof(fake_regs));
    memset(&fake_exception, 0, sizeof(fake_exception));
    strcpy(fake_guest.name, "g");
    fake_guest.config.vcpus = 1;
    fake_guest.vcpu[0] = &fake_vcpu;
    fake_guest.vcpu_count = 1;
    fake_vcpu.guest = &fake_guest;
    fake_regs.rflags = 2;
    fake_pages_left = ~0u;
}

#endif

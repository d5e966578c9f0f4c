// SPDX-License-Identifier: MIT
// The few instructions whose length or operand an exit does not tell on CPUs without next RIP and
// decode assists: their bytes are read through the guest's page tables.
#include "arch/x86/svm/svm.h"
#include "kernel/guest/memory.h"
#include "kernel/guest/walk.h"
#include "kernel/lib.h"

#define INSN_MAX 15 // APM 3 1.1

struct bytes {
    u8 byte[INSN_MAX];
    u32 count;
    bool long64;
};

// What can be read from `linear` to the end of its page or of the instruction.
static u32 fetch_page(struct guest *g, const struct paging *p, u64 linear, u8 *to, u32 want)
{
    u64 gpa;
    u32 error;
    u32 here = (u32)MIN((u64)want, PAGE_SIZE - linear % PAGE_SIZE);
    if (guest_walk(g, p, linear, ACCESS_FETCH, &gpa, &error) < 0)
        return 0;
    return guest_read(g, gpa, to, here) < 0 ? 0 : here;
}

static void fetch(struct svm_vcpu *sv, struct bytes *b)
{
    const struct vmcb *c = sv->vmcb;
    b->long64 = (c->efer & EFER_LMA) && (c->cs.attr & CS_LONG);
    b->count = MIN(c->insn_bytes_count, INSN_MAX);
    if (svm_caps.decode_assists && b->count) {
        memcpy(b->byte, c->insn_bytes, b->count);
        return;
    }
    const struct paging p = {.cr0 = c->cr0,
                             .cr3 = c->cr3,
                             .cr4 = sv->cr4,
                             .efer = c->efer & ~EFER_SVME,
                             .rflags = c->rflags,
                             .user = c->cpl == 3};
    u64 linear = b->long64 ? c->rip : (u32)(c->cs.base + c->rip);
    b->count = fetch_page(sv->v->guest, &p, linear, b->byte, INSN_MAX);
    if (b->count && b->count < INSN_MAX)
        b->count += fetch_page(sv->v->guest, &p, linear + b->count, b->byte + b->count,
                               INSN_MAX - b->count);
}

static bool is_legacy_prefix(u8 byte)
{
    switch (byte) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64 ... 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3:
        return true;
    default:
        return false;
    }
}

// Length of the prefixes; *rex is the one that counts, or 0. Only the last byte before the opcode
// can be a REX prefix that counts (APM 3 1.2.7).
static u32 prefixes(const struct bytes *b, u8 *rex, bool *lock)
{
    u32 i = 0;
    *rex = 0;
    *lock = false;
    for (; i < b->count; i++) {
        bool is_rex = b->long64 && (b->byte[i] & 0xf0) == 0x40;
        if (!is_rex && !is_legacy_prefix(b->byte[i]))
            break;
        *rex = is_rex ? b->byte[i] : 0;
        *lock |= b->byte[i] == 0xf0;
    }
    return i;
}

u32 svm_insn_len(struct svm_vcpu *sv, u32 opcode_len)
{
    struct bytes b;
    u8 rex;
    bool lock;
    if (svm_caps.next_rip)
        return (u8)(sv->vmcb->next_rip - sv->vmcb->rip);
    fetch(sv, &b);
    u32 len = prefixes(&b, &rex, &lock) + opcode_len;
    return len <= b.count ? len : 0;
}

bool svm_insn_is(struct svm_vcpu *sv, u8 first, u8 second, u8 *rex)
{
    struct bytes b;
    bool lock;
    fetch(sv, &b);
    u32 at = prefixes(&b, rex, &lock);
    return at + 2 <= b.count && b.byte[at] == first && b.byte[at + 1] == second;
}

// 0F 20 /r and 0F 22 /r. The register form is all there is, whatever ModRM.mod says (APM 3, MOV
// CRn). MOV to CR8 also comes as LOCK MOV to CR0.
bool svm_insn_mov_cr(struct svm_vcpu *sv, u8 *gpr, u8 *len)
{
    struct bytes b;
    u8 rex;
    bool lock;
    if (svm_caps.decode_assists && svm_caps.next_rip && (sv->vmcb->exit_info1 & CR_ASSIST_MOV)) {
        *gpr = sv->vmcb->exit_info1 & CR_ASSIST_GPR;
        *len = (u8)(sv->vmcb->next_rip - sv->vmcb->rip);
        return true;
    }
    fetch(sv, &b);
    u32 at = prefixes(&b, &rex, &lock);
    if (at + 3 > b.count || b.byte[at] != 0x0f || (b.byte[at + 1] & ~2) != 0x20)
        return false;
    *gpr = (b.byte[at + 2] & 7) | (rex & 1) << 3;
    *len = (u8)(at + 3);
    return true;
}

// SPDX-License-Identifier: MIT
// Segment registers between the VMCB and the architectural form (APM 2 15.5.1, 4.7).
#include "arch/x86/svm/svm.h"

#define ATTR_ACCESSED BIT(0)
#define ATTR_CODE     BIT(3)
#define ATTR_CONFORM  BIT(2)
#define ATTR_DPL      (3u << 5)
#define ATTR_PRESENT  BIT(7)
#define TSS_BUSY      BIT(1)

static struct vmcb_segment *field(struct vmcb *b, enum seg i)
{
    struct vmcb_segment *const order[SEG_COUNT] = {
        [SEG_ES] = &b->es, [SEG_CS] = &b->cs, [SEG_SS] = &b->ss,     [SEG_DS] = &b->ds,
        [SEG_FS] = &b->fs, [SEG_GS] = &b->gs, [SEG_LDTR] = &b->ldtr, [SEG_TR] = &b->tr,
    };
    return order[i];
}

// This hardware keeps a privilege level of its own and may leave in a cached descriptor what the
// other vendor never does; the form a move carries is what both can load.
static u16 attr_read(const struct vmcb *b, enum seg i, u16 attr)
{
    u16 cpl = (u16)(b->cpl << 5);
    if (!(attr & ATTR_PRESENT)) // what else it has means nothing, and differs between vendors
        attr = (attr & ATTR_DPL) | SEG_UNUSABLE;
    if (i == SEG_TR)
        return attr | TSS_BUSY;
    if (i == SEG_LDTR)
        return attr;
    if (i == SEG_SS || (i == SEG_CS && (attr & ATTR_CODE) && !(attr & ATTR_CONFORM)))
        attr = (u16)((attr & ~ATTR_DPL) | cpl);
    return attr & SEG_UNUSABLE ? attr : attr | ATTR_ACCESSED;
}

void svm_segment_read(const struct svm_vcpu *sv, enum seg i, struct segment *out)
{
    const struct vmcb_segment *s = field(sv->vmcb, i);
    out->selector = s->selector;
    out->base = s->base;
    out->limit = s->limit;
    out->attr = attr_read(sv->vmcb, i, s->attr & 0xfff);
}

void svm_segment_write(struct svm_vcpu *sv, enum seg i, const struct segment *s)
{
    u16 attr = s->attr & 0xfff;
    if (s->attr & SEG_UNUSABLE)
        attr &= ~ATTR_PRESENT;
    *field(sv->vmcb, i) = (struct vmcb_segment){s->selector, attr, s->limit, s->base};
}

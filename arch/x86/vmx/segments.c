// SPDX-License-Identifier: MIT
// Segment registers between VMCS fields and the architectural form (SDM 3C 24.4.1).
#include "arch/x86/vmx/vmx.h"

// What an unusable segment still has: SS keeps the privilege level. Other attributes are undefined,
// so they get one form, the same on every host; written as data, because a guest that goes to real
// mode loads such a register without touching its type.
#define UNUSABLE_KEEPS (SEG_UNUSABLE | 3 << 5)
#define UNUSABLE_ADDS  0x93

// VMX access rights leave a descriptor's four reserved bits (11:8) in; the neutral form does not.
void vmx_segment_read(enum seg i, struct segment *out)
{
    u32 rights = vmread(VMCS_GUEST_RIGHTS + 2 * i);
    out->selector = vmread(VMCS_GUEST_SELECTOR + 2 * i);
    out->base = vmread(VMCS_GUEST_BASE + 2 * i);
    out->limit = vmread(VMCS_GUEST_LIMIT + 2 * i);
    out->attr = (rights & 0xff) | (rights >> 4 & 0x1f00);
    if (out->attr & SEG_UNUSABLE)
        out->attr &= UNUSABLE_KEEPS;
}

void vmx_segment_write(enum seg i, const struct segment *s)
{
    u32 attr = s->attr;
    if (attr & SEG_UNUSABLE)
        attr = (attr & UNUSABLE_KEEPS) | UNUSABLE_ADDS;
    vmwrite(VMCS_GUEST_SELECTOR + 2 * i, s->selector);
    vmwrite(VMCS_GUEST_BASE + 2 * i, s->base);
    vmwrite(VMCS_GUEST_LIMIT + 2 * i, s->limit);
    vmwrite(VMCS_GUEST_RIGHTS + 2 * i, (attr & 0xff) | (attr & 0x1f00) << 4);
}

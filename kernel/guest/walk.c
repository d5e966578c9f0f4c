// SPDX-License-Identifier: MIT
// Guest page tables walked in software: 4-level, PAE, 32-bit, and no paging (SDM 3A chapter 4).
#include "kernel/guest/walk.h"

#define CR0_WP      BIT(16)
#define CR0_PG      BIT(31)
#define CR4_PSE     BIT(4)
#define CR4_PAE     BIT(5)
#define CR4_SMEP    BIT(20)
#define CR4_SMAP    BIT(21)
#define EFER_LMA    BIT(10)
#define EFER_NXE    BIT(11)
#define RFLAGS_AC   BIT(18)
#define PTE_P       BIT(0)
#define PTE_W       BIT(1)
#define PTE_U       BIT(2)
#define PTE_A       BIT(5)
#define PTE_D       BIT(6)
#define PTE_PS      BIT(7)
#define PTE_NX      BIT(63)
#define PTE_ADDRESS 0x000ffffffffff000ull

struct walk {
    struct guest *g;
    const struct paging *p;
    u64 linear;
    enum access access;
    bool writable, user, no_execute; // anded and or-ed along the way
    u32 *error;
};

static int fault(const struct walk *w, u32 reason)
{
    *w->error = reason | (w->access == ACCESS_WRITE ? PF_WRITE : 0) | (w->p->user ? PF_USER : 0);
    if (w->access == ACCESS_FETCH && ((w->p->efer & EFER_NXE) || (w->p->cr4 & CR4_SMEP)))
        *w->error |= PF_FETCH;
    return E_INVAL;
}

static bool permitted(const struct walk *w)
{
    const struct paging *p = w->p;
    if (w->access == ACCESS_FETCH) {
        if (w->no_execute || (p->user && !w->user))
            return false;
        return p->user || !w->user || !(p->cr4 & CR4_SMEP);
    }
    if (p->user)
        return w->user && (w->access == ACCESS_READ || w->writable);
    if (w->user && (p->cr4 & CR4_SMAP) && !(p->rflags & RFLAGS_AC))
        return false;
    return w->access == ACCESS_READ || w->writable || !(p->cr0 & CR0_WP);
}

// The entry at gpa, `size` bytes wide; NULL where there is no RAM.
static void *entry_at(const struct walk *w, u64 gpa, u64 *value, unsigned size)
{
    u8 *page = guest_page(w->g, gpa);
    if (!page)
        return NULL;
    void *at = page + gpa % PAGE_SIZE;
    *value = size == 8 ? *(volatile u64 *)at : *(volatile u32 *)at;
    return at;
}

// Atomically, as other vCPUs may write the same entry; its low byte is all that changes.
static void set_bits(const struct walk *w, void *at, u64 gpa, u64 value, u64 bits)
{
    if ((value & bits) == bits)
        return;
    __atomic_fetch_or((u8 *)at, (u8)bits, __ATOMIC_SEQ_CST);
    guest_mark_dirty(w->g, gpa, 8);
}

static void narrow(struct walk *w, u64 entry)
{
    w->writable = w->writable && (entry & PTE_W);
    w->user = w->user && (entry & PTE_U);
    w->no_execute = w->no_execute || ((entry & PTE_NX) && (w->p->efer & EFER_NXE));
}

// The last step: permissions of the whole way, then the accessed and dirty bits of the leaf.
static int finish(struct walk *w, void *at, u64 at_gpa, u64 entry)
{
    if (!permitted(w))
        return fault(w, PF_PRESENT);
    set_bits(w, at, at_gpa, entry, PTE_A | (w->access == ACCESS_WRITE ? PTE_D : 0));
    return 0;
}

// Tables of 512 entries, from `level` (4 or 2) down; level n entries map 2^(12+9(n-1)) bytes.
static int walk_long(struct walk *w, u64 table, int level, u64 *gpa)
{
    for (;; level--) {
        unsigned shift = 12 + 9 * (unsigned)(level - 1);
        u64 entry, at_gpa = table + (w->linear >> shift & 511) * 8;
        void *at = entry_at(w, at_gpa, &entry, 8);
        if (!at || !(entry & PTE_P))
            return fault(w, 0);
        if ((entry & PTE_NX) && !(w->p->efer & EFER_NXE))
            return fault(w, PF_PRESENT | PF_RESERVED);
        narrow(w, entry);
        bool leaf = level == 1 || (level <= 3 && (entry & PTE_PS));
        if (leaf) {
            u64 offset_mask = (1ull << shift) - 1;
            *gpa = (entry & PTE_ADDRESS & ~offset_mask) | (w->linear & offset_mask);
            return finish(w, at, at_gpa, entry);
        }
        if (level == 4 && (entry & PTE_PS))
            return fault(w, PF_PRESENT | PF_RESERVED);
        set_bits(w, at, at_gpa, entry, PTE_A);
        table = entry & PTE_ADDRESS;
    }
}

// PDPTEs carry no permissions (SDM 3A 4.4.1). They are read from memory here; the CPU reads them
// when CR3 is loaded, and a guest that changes them in between gets what it asked for.
static int walk_pae(struct walk *w, u64 *gpa)
{
    u64 entry;
    if (!entry_at(w, (w->p->cr3 & 0xffffffe0) + (w->linear >> 30 & 3) * 8, &entry, 8))
        return fault(w, 0);
    if (!(entry & PTE_P))
        return fault(w, 0);
    return walk_long(w, entry & PTE_ADDRESS, 2, gpa);
}

static int walk_32(struct walk *w, u64 *gpa)
{
    u64 entry, at_gpa = (w->p->cr3 & 0xfffff000) + (w->linear >> 22 & 1023) * 4;
    void *at = entry_at(w, at_gpa, &entry, 4);
    if (!at || !(entry & PTE_P))
        return fault(w, 0);
    narrow(w, entry);
    if ((entry & PTE_PS) && (w->p->cr4 & CR4_PSE)) {
        // PSE-36: bits 20:13 are address bits 39:32 (SDM 3A 4.3).
        *gpa = (entry & 0xffc00000) | (entry >> 13 & 0xff) << 32 | (w->linear & 0x3fffff);
        return finish(w, at, at_gpa, entry);
    }
    set_bits(w, at, at_gpa, entry, PTE_A);
    at_gpa = (entry & 0xfffff000) + (w->linear >> 12 & 1023) * 4;
    at = entry_at(w, at_gpa, &entry, 4);
    if (!at || !(entry & PTE_P))
        return fault(w, 0);
    narrow(w, entry);
    *gpa = (entry & 0xfffff000) | (w->linear & 0xfff);
    return finish(w, at, at_gpa, entry);
}

int guest_walk(struct guest *g, const struct paging *p, u64 linear, enum access a, u64 *gpa,
               u32 *error)
{
    struct walk w = {.g = g,
                     .p = p,
                     .linear = linear,
                     .access = a,
                     .writable = true,
                     .user = true,
                     .error = error};
    if (!(p->cr0 & CR0_PG)) {
        *gpa = linear & 0xffffffff;
        return 0;
    }
    if (p->efer & EFER_LMA)
        return walk_long(&w, p->cr3 & PTE_ADDRESS, 4, gpa);
    w.linear &= 0xffffffff;
    return p->cr4 & CR4_PAE ? walk_pae(&w, gpa) : walk_32(&w, gpa);
}

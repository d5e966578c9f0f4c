// SPDX-License-Identifier: MIT
// Guarded stacks. A freed stack keeps its pages and is handed out again, so that nothing is ever
// unmapped and no other CPU's TLB has to be told.
#include "arch/x86/cpu.h"
#include "arch/x86/paging.h"
#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/thread.h"

#define MAX_PAGES (STACK_STRIDE / PAGE_SIZE - 1)

struct slot {
    u8 pages; // mapped, at the slot's upper end; 0: never used
    bool in_use;
};
static struct slot slots[STACK_SLOTS]; // lock
static u32 slots_ever;                 // those at or above were never used; lock
static struct spinlock lock;

static u64 slot_top(u32 i)
{
    return STACK_REGION + (i + 1) * STACK_STRIDE;
}

// A slot with that many pages already, or else a fresh one.
static struct slot *take_slot(u32 pages)
{
    for (u32 i = 0; i < slots_ever; i++) {
        if (!slots[i].in_use && slots[i].pages == pages)
            return &slots[i];
    }
    return slots_ever < STACK_SLOTS ? &slots[slots_ever++] : NULL;
}

// Maps pages from the top down; on failure the slot keeps what it got, for a smaller stack.
static bool grow(struct slot *s, u32 pages)
{
    u64 top = slot_top((u32)(s - slots));
    while (s->pages < pages) {
        u64 page = page_alloc(0);
        if (page == 0)
            return false;
        u64 nx = host_features.nx ? PTE_NX : 0;
        if (paging_map(top - (s->pages + 1u) * PAGE_SIZE, page, PAGE_SIZE, PTE_WRITE | nx) != 0) {
            page_free(page, 0);
            return false;
        }
        s->pages++;
    }
    return true;
}

void *stack_alloc(u32 pages)
{
    assert(pages > 0 && pages <= MAX_PAGES);
    u64 flags = spin_lock_irqsave(&lock);
    struct slot *s = take_slot(pages);
    void *top = NULL;
    if (s != NULL && grow(s, pages)) {
        s->in_use = true;
        top = (void *)slot_top((u32)(s - slots));
    }
    spin_unlock_irqrestore(&lock, flags);
    return top;
}

void stack_free(void *top, u32 pages)
{
    if (top == NULL)
        return;
    u64 i = ((u64)top - STACK_REGION) / STACK_STRIDE - 1;
    assert(i < STACK_SLOTS && slot_top((u32)i) == (u64)top);
    u64 flags = spin_lock_irqsave(&lock);
    assert(slots[i].in_use && slots[i].pages == pages);
    slots[i].in_use = false;
    spin_unlock_irqrestore(&lock, flags);
}

void arch_thread_start(void);

void *arch_stack_prepare(void *stack_top, void (*fn)(void *), void *arg)
{
    // What arch_switch pops: R15, R14, R13, R12, RBX, RBP and the return address. After that the
    // stack is as at a function's entry less its return address: 16-byte aligned for the call.
    u64 *sp = (u64 *)stack_top - 2;
    *--sp = (u64)arch_thread_start;
    *--sp = 0;
    *--sp = 0;
    *--sp = (u64)fn;
    *--sp = (u64)arg;
    *--sp = 0;
    *--sp = 0;
    return sp;
}

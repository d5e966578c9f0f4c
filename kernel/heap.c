// SPDX-License-Identifier: MIT
// kmalloc: slabs of one page for small sizes, whole pages with a header for large ones.
#include "kernel/heap.h"

#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/thread.h"

// Chosen so that whole numbers of blocks fill the 4032 bytes a slab page has for them.
static const u16 class_size[] = {16,  32,  64,  96,  128,  192,  256,
                                 320, 448, 576, 800, 1008, 1344, 2016};
#define CLASSES ARRAY_SIZE(class_size)
#define LARGE   0xff

#define SLAB_MAGIC 0x534b4846u // "FHKS": also catches kfree of what kmalloc never gave

struct free_cell {
    struct free_cell *next;
};

// At the start of the page (slab) or of the first page (large).
struct slab {
    u32 magic;
    u8 class;                 // index, or LARGE
    u16 used;                 // blocks handed out
    struct slab *next, *prev; // list of slabs with a free block; lock
    struct free_cell *free;
    u64 pages; // large only
};
#define HEADER 64
static_assert(sizeof(struct slab) <= HEADER, "slab header");

static struct spinlock lock;
static struct slab *partial[CLASSES]; // lock
static u64 in_use;                    // lock

static unsigned class_for(size_t size)
{
    unsigned c = 0;
    while (class_size[c] < size)
        c++;
    return c;
}

static void list_add(struct slab *s)
{
    struct slab **head = &partial[s->class];
    s->prev = NULL;
    s->next = *head;
    if (*head)
        (*head)->prev = s;
    *head = s;
}

static void list_del(struct slab *s)
{
    if (s->next)
        s->next->prev = s->prev;
    if (s->prev)
        s->prev->next = s->next;
    else
        partial[s->class] = s->next;
}

static struct slab *slab_new(unsigned class)
{
    u64 pa = page_alloc(0);
    if (!pa)
        return NULL;
    struct slab *s = phys_ptr(pa);
    *s = (struct slab){.magic = SLAB_MAGIC, .class = (u8) class};
    u32 size = class_size[class];
    for (u32 at = HEADER; at + size <= PAGE_SIZE; at += size) {
        struct free_cell *cell = (struct free_cell *)((u8 *)s + at);
        cell->next = s->free;
        s->free = cell;
    }
    return s;
}

static void *alloc_small(unsigned class)
{
    u64 flags = spin_lock_irqsave(&lock);
    struct slab *s = partial[class];
    if (!s) {
        s = slab_new(class);
        if (s)
            list_add(s);
    }
    struct free_cell *cell = NULL;
    if (s) {
        cell = s->free;
        s->free = cell->next;
        s->used++;
        if (!s->free)
            list_del(s);
        in_use += class_size[class];
    }
    spin_unlock_irqrestore(&lock, flags);
    return cell;
}

static void account_large(struct slab *s, bool add)
{
    u64 bytes = s->pages * PAGE_SIZE;
    u64 flags = spin_lock_irqsave(&lock);
    in_use += add ? bytes : 0 - bytes;
    spin_unlock_irqrestore(&lock, flags);
}

static void *alloc_large(size_t size)
{
    if (size > (PAGE_SIZE << MEM_MAX_ORDER) - HEADER)
        return NULL;
    u64 pages = (size + HEADER + PAGE_SIZE - 1) >> PAGE_SHIFT;
    u64 pa = pages_alloc(pages);
    if (!pa)
        return NULL;
    struct slab *s = phys_ptr(pa);
    *s = (struct slab){.magic = SLAB_MAGIC, .class = LARGE, .used = 1, .pages = pages};
    account_large(s, true);
    return (u8 *)s + HEADER;
}

void *kmalloc(size_t size)
{
    if (size > class_size[CLASSES - 1])
        return alloc_large(size);
    return alloc_small(class_for(size));
}

void *kzalloc(size_t size)
{
    void *p = kmalloc(size);
    if (p)
        memset(p, 0, size);
    return p;
}

static void free_small(struct slab *s, void *p)
{
    struct free_cell *cell = p;
    u32 size = class_size[s->class];
    assert(((uintptr_t)p - (uintptr_t)s - HEADER) % size == 0);
    if (SKIFF_DEBUG)
        memset(p, 0xa5, size);
    u64 flags = spin_lock_irqsave(&lock);
    assert(s->used);
    bool was_full = !s->free;
    cell->next = s->free;
    s->free = cell;
    s->used--;
    in_use -= size;
    bool empty = !s->used;
    if (was_full && !empty)
        list_add(s);
    else if (!was_full && empty)
        list_del(s);
    if (empty)
        s->magic = 0;
    spin_unlock_irqrestore(&lock, flags);
    if (empty)
        page_free(ptr_phys(s), 0);
}

void kfree(void *p)
{
    if (!p)
        return;
    struct slab *s = (struct slab *)ALIGN_DOWN((uintptr_t)p, PAGE_SIZE);
    assert(s->magic == SLAB_MAGIC);
    if (s->class != LARGE) {
        free_small(s, p);
        return;
    }
    account_large(s, false);
    s->magic = 0;
    pages_free(ptr_phys(s), s->pages);
}

u64 heap_bytes_in_use(void)
{
    u64 flags = spin_lock_irqsave(&lock);
    u64 n = in_use;
    spin_unlock_irqrestore(&lock, flags);
    return n;
}

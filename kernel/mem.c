// SPDX-License-Identifier: MIT
// Physical pages: a buddy allocator over the memory the firmware left, one byte of state a page.
#include "kernel/mem.h"

#include "boot/boot_info.h"
#include "kernel/heap.h"
#include "kernel/lib.h"
#include "kernel/thread.h"

#define ORDERS (MEM_MAX_ORDER + 1)

// State of a page, in map[]. The order of a block is kept with its first page only.
#define PAGE_ABSENT 0xff // not ours
#define PAGE_INSIDE 0x00 // not the first of a block
#define PAGE_FREE   0x40 // | order
#define PAGE_USED   0x80 // | order

// Below 1 MiB live real-mode vectors, AP start-up code and firmware leftovers.
#define LOWEST_PA MIB

// Two zones: what 32-bit devices and identity-mapped firmware can reach is kept for those who need
// it; guest memory, which comes in large blocks, is taken from above 4 GiB first.
enum { ZONE_LOW, ZONE_HIGH, ZONES };
#define ZONE_BORDER (4 * GIB)

// A free block holds its own list node.
struct free_block {
    struct free_block *next, *prev;
};

static struct spinlock lock;
static u8 *map;                                     // by page number; lock
static u64 map_pages;                               // pages map[] covers
static struct free_block free_lists[ZONES][ORDERS]; // circular heads; lock
static u64 total_pages, free_pages;                 // lock
static u64 used_bytes[MEM_USES];                    // atomic
static u64 image_bytes, boot_file_bytes;            // set once

static int zone_of(u64 pa)
{
    return pa >= ZONE_BORDER ? ZONE_HIGH : ZONE_LOW;
}

static void list_insert(struct free_block *before, u64 pa, unsigned order)
{
    struct free_block *b = phys_ptr(pa);
    b->next = before;
    b->prev = before->prev;
    before->prev->next = b;
    before->prev = b;
    map[pa >> PAGE_SHIFT] = (u8)(PAGE_FREE | order);
}

static void list_push(u64 pa, unsigned order)
{
    list_insert(free_lists[zone_of(pa)][order].next, pa, order);
}

// What comes back is taken first again where it may still be in a cache. Large blocks were guests'
// memory and are taken last: an emulator that has translated code in them is slow to write to them
// (QEMU's TCG: some 15 ms a page).
static void list_return(u64 pa, unsigned order)
{
    struct free_block *head = &free_lists[zone_of(pa)][order];
    list_insert(order < MEM_LARGE_ORDER ? head->next : head, pa, order);
}

static void list_remove(u64 pa)
{
    struct free_block *b = phys_ptr(pa);
    b->prev->next = b->next;
    b->next->prev = b->prev;
    map[pa >> PAGE_SHIFT] = PAGE_INSIDE;
}

// Puts a block back and joins it with its buddies. Lock held.
static void release_block(u64 pa, unsigned order)
{
    assert_held(&lock);
    free_pages += 1ull << order;
    for (; order < MEM_MAX_ORDER; order++) {
        u64 buddy = pa ^ (PAGE_SIZE << order);
        if (buddy >> PAGE_SHIFT >= map_pages || map[buddy >> PAGE_SHIFT] != (PAGE_FREE | order))
            break;
        list_remove(buddy);
        map[pa >> PAGE_SHIFT] = PAGE_INSIDE;
        pa = MIN(pa, buddy);
    }
    list_return(pa, order);
}

static u64 take_block(int zone, unsigned order)
{
    assert_held(&lock);
    for (unsigned o = order; o <= MEM_MAX_ORDER; o++) {
        struct free_block *head = &free_lists[zone][o];
        if (head->next == head)
            continue;
        u64 pa = ptr_phys(head->next);
        list_remove(pa);
        while (o > order) {
            o--;
            list_push(pa + (PAGE_SIZE << o), o);
        }
        map[pa >> PAGE_SHIFT] = (u8)(PAGE_USED | order);
        free_pages -= 1ull << order;
        return pa;
    }
    return 0;
}

u64 page_alloc(unsigned order)
{
    if (order > MEM_MAX_ORDER)
        return 0;
    int first = order >= MEM_LARGE_ORDER ? ZONE_HIGH : ZONE_LOW;
    u64 flags = spin_lock_irqsave(&lock);
    u64 pa = take_block(first, order);
    if (!pa)
        pa = take_block(first ^ 1, order);
    spin_unlock_irqrestore(&lock, flags);
    return pa;
}

u64 page_alloc_zero(unsigned order)
{
    u64 pa = page_alloc(order);
    if (pa)
        memset(phys_ptr(pa), 0, PAGE_SIZE << order);
    return pa;
}

void page_free(u64 pa, unsigned order)
{
    u64 flags = spin_lock_irqsave(&lock);
    assert(pa >> PAGE_SHIFT < map_pages && order <= MEM_MAX_ORDER);
    assert(map[pa >> PAGE_SHIFT] == (PAGE_USED | order)); // freed once, as it was allocated
    map[pa >> PAGE_SHIFT] = PAGE_INSIDE;
    release_block(pa, order);
    spin_unlock_irqrestore(&lock, flags);
}

// The largest naturally aligned block that starts at page number pfn and fits in count pages.
static unsigned largest_order(u64 pfn, u64 count)
{
    unsigned order = 0;
    while (order < MEM_MAX_ORDER && !(pfn & (1ull << order)) && (2ull << order) <= count)
        order++;
    return order;
}

u64 pages_alloc(u64 count)
{
    unsigned order = 0;
    while (order <= MEM_MAX_ORDER && (1ull << order) < count)
        order++;
    u64 pa = count ? page_alloc(order) : 0;
    if (!pa)
        return 0;
    u64 flags = spin_lock_irqsave(&lock);
    u64 pfn = pa >> PAGE_SHIFT;
    u64 end = pfn + (1ull << order);
    map[pfn] = (u8)(PAGE_USED | 0); // kept for pages_free: it knows the count
    for (u64 rest = pfn + count; rest < end;) {
        unsigned o = largest_order(rest, end - rest);
        release_block(rest << PAGE_SHIFT, o);
        rest += 1ull << o;
    }
    spin_unlock_irqrestore(&lock, flags);
    return pa;
}

void pages_free(u64 pa, u64 count)
{
    u64 flags = spin_lock_irqsave(&lock);
    u64 pfn = pa >> PAGE_SHIFT;
    assert(pfn < map_pages && count && map[pfn] == (PAGE_USED | 0));
    map[pfn] = PAGE_INSIDE;
    while (count) {
        unsigned o = largest_order(pfn, count);
        release_block(pfn << PAGE_SHIFT, o);
        pfn += 1ull << o;
        count -= 1ull << o;
    }
    spin_unlock_irqrestore(&lock, flags);
}

struct span {
    u64 base, end;
};

// UEFI 2.10, 7.2 (EFI_MEMORY_TYPE): boot services code and data.
static bool is_boot_services(const struct boot_range *r)
{
    return r->efi_type == 3 || r->efi_type == 4;
}

static struct span usable(const struct boot_range *r)
{
    struct span s = {0, 0};
    if (r->type != BOOT_MEM_USABLE)
        return s;
    s.base = MAX(ALIGN_UP(r->base, PAGE_SIZE), LOWEST_PA);
    s.end = ALIGN_DOWN(r->base + r->bytes, PAGE_SIZE);
    if (s.base >= s.end)
        s.base = s.end = 0;
    return s;
}

// Finds room for map[] and marks every page absent. Returns the span map[] takes.
static struct span place_map(const struct boot_info *bi)
{
    u64 top = 0;
    for (u32 i = 0; i < bi->range_count; i++)
        top = MAX(top, usable(&bi->ranges[i]).end);
    u64 bytes = ALIGN_UP(top >> PAGE_SHIFT, PAGE_SIZE);
    for (u32 i = 0; i < bi->range_count; i++) {
        struct span s = usable(&bi->ranges[i]);
        if (is_boot_services(&bi->ranges[i]) || s.end - s.base < bytes || !bytes)
            continue;
        map = phys_ptr(s.base);
        map_pages = top >> PAGE_SHIFT;
        memset(map, PAGE_ABSENT, bytes);
        return (struct span){s.base, s.base + bytes};
    }
    panic("memory: no %llu KiB in one piece for the page map; the firmware reports %u ranges",
          (unsigned long long)(bytes / KIB), bi->range_count);
}

// Lock held.
static void add_span(struct span s)
{
    assert_held(&lock);
    u64 pfn = s.base >> PAGE_SHIFT;
    u64 end = s.end >> PAGE_SHIFT;
    memset(map + pfn, PAGE_INSIDE, end - pfn);
    total_pages += end - pfn;
    while (pfn < end) {
        unsigned o = largest_order(pfn, end - pfn);
        release_block(pfn << PAGE_SHIFT, o);
        pfn += 1ull << o;
    }
}

static void add_ranges(const struct boot_info *bi, bool boot_services, struct span taken)
{
    u64 flags = spin_lock_irqsave(&lock);
    for (u32 i = 0; i < bi->range_count; i++) {
        struct span s = usable(&bi->ranges[i]);
        if (is_boot_services(&bi->ranges[i]) != boot_services)
            continue;
        if (s.base == taken.base)
            s.base = taken.end;
        if (s.base < s.end)
            add_span(s);
    }
    spin_unlock_irqrestore(&lock, flags);
}

void mem_init(const struct boot_info *bi)
{
    for (int z = 0; z < ZONES; z++)
        for (int o = 0; o < ORDERS; o++)
            free_lists[z][o].next = free_lists[z][o].prev = &free_lists[z][o];
    struct span taken = place_map(bi);
    add_ranges(bi, false, taken);
    total_pages += (taken.end - taken.base) >> PAGE_SHIFT;
    image_bytes = bi->image_size;
    for (u32 i = 0; i < bi->file_count; i++)
        boot_file_bytes += ALIGN_UP(bi->files[i].size, PAGE_SIZE);
}

void mem_reclaim_boot(const struct boot_info *bi)
{
    add_ranges(bi, true, (struct span){0, 0});
}

void mem_account(enum mem_use use, s64 delta_bytes)
{
    __atomic_add_fetch(&used_bytes[use], (u64)delta_bytes, __ATOMIC_RELAXED);
}

void mem_get_stats(struct mem_stats *out)
{
    u64 flags = spin_lock_irqsave(&lock);
    out->total_bytes = total_pages << PAGE_SHIFT;
    out->free_bytes = free_pages << PAGE_SHIFT;
    spin_unlock_irqrestore(&lock, flags);
    for (unsigned i = 0; i < MEM_USES; i++)
        out->used_bytes[i] = __atomic_load_n(&used_bytes[i], __ATOMIC_RELAXED);
    out->heap_bytes = heap_bytes_in_use();
    out->image_bytes = image_bytes;
    out->boot_file_bytes = boot_file_bytes;
}

// SPDX-License-Identifier: MIT
// The pools of frames' memory: buffers that the NIC fills, and those for frames made here.
#include "kernel/lib.h"
#include "kernel/mem.h"
#include "net/nic.h"

#include "lwip/priv/tcp_priv.h"

#define FRAME_BUFFER  4096u
#define FRAME_BUFFERS 512u

struct nic_pool {
    struct nic_buffer *free;
    u32 bytes; // of one buffer
};
static struct nic_pool nic_pool, frame_pool;

static void put(struct nic_buffer *b)
{
    struct nic_pool *p = b->pool;
    b->next = p->free;
    p->free = b;
}

static u64 pools_bytes;

u64 nic_pools_bytes(void)
{
    return pools_bytes;
}

static int pool_init(struct nic_pool *p, u32 count, u32 bytes)
{
    u64 slot = ALIGN_UP(sizeof(struct nic_buffer) + bytes, 64ull);
    u64 pages = (count * slot + PAGE_SIZE - 1) / PAGE_SIZE, pa = pages_alloc(pages);
    if (!pa)
        return E_NOMEM;
    mem_account(MEM_NETWORK, (s64)(pages * PAGE_SIZE));
    pools_bytes += pages * PAGE_SIZE;
    p->bytes = bytes;
    // Firmware code may have run here, and a page that an emulator has translated code of is slow
    // to write until all of it is overwritten.
    memset(phys_ptr(pa), 0, count * slot);
    for (u32 i = 0; i < count; i++) {
        struct nic_buffer *b = phys_ptr(pa + i * slot);
        b->pool = p;
        put(b);
    }
    return 0;
}

int nic_buffers_init(u32 count, u32 bytes)
{
    return pool_init(&nic_pool, count, bytes);
}

int frame_pool_init(void)
{
    return frame_pool.bytes ? 0 : pool_init(&frame_pool, FRAME_BUFFERS, FRAME_BUFFER);
}

// Segments that arrived out of order wait for the one before them, which needs a buffer too.
static void free_out_of_order(const struct nic_pool *p)
{
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb && !p->free; pcb = pcb->next)
        if (pcb->ooseq)
            tcp_free_ooseq(pcb);
}

static struct nic_buffer *get(struct nic_pool *p)
{
    if (!p->free)
        free_out_of_order(p);
    struct nic_buffer *b = p->free;
    if (b)
        p->free = b->next;
    return b;
}

struct nic_buffer *nic_buffer_get(void)
{
    return get(&nic_pool);
}

void nic_buffer_put(struct nic_buffer *b)
{
    put(b);
}

static void pbuf_done(struct pbuf *p)
{
    put((struct nic_buffer *)p);
}

struct pbuf *nic_buffer_pbuf(struct nic_buffer *b, u32 from, u32 bytes)
{
    assert(from + bytes <= b->pool->bytes);
    b->pbuf.custom_free_function = pbuf_done;
    return pbuf_alloced_custom(PBUF_RAW, (u16)bytes, PBUF_REF, &b->pbuf, b->data + from,
                               (u16)bytes);
}

struct pbuf *frame_alloc(u32 bytes)
{
    struct pbuf *frame = NULL;
    u32 from = FRAME_HEADROOM;
    assert(bytes && bytes <= 0xffff);
    for (u32 n; bytes; bytes -= n, from = 0) {
        struct nic_buffer *b = get(&frame_pool);
        if (!b) {
            if (frame)
                pbuf_free(frame);
            return NULL;
        }
        n = MIN(bytes, frame_pool.bytes - from);
        struct pbuf *p = nic_buffer_pbuf(b, from, n);
        if (frame)
            pbuf_cat(frame, p);
        else
            frame = p;
    }
    return frame;
}

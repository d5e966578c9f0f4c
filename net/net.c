// SPDX-License-Identifier: MIT
// The network thread: the only one that touches lwIP. It moves frames, runs timers and work items.
#include "net/net.h"

#include "lwip/init.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/stats.h"
#include "lwip/timeouts.h"

#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "net/conn.h"
#include "net/gro.h"
#include "net/netif.h"
#include "net/nic.h"
#include "net/pace.h"
#include "net/switch.h"
#include "net/uplink.h"
#include "net/work.h"

// Frames between two looks at whether another thread wants the CPU: each may be an acknowledgement
// that lets more go out, and all that has to be done within 1 ms.
#define POLL_BUDGET 44 // of 1460 bytes make the longest segment that can be joined (gro.h)
#define WORK_BUDGET 16 // work items between two looks at the NIC

static struct nic nic;
static bool running;
static struct waitq wake;        // the network thread sleeps here
static struct waitq called;      // threads inside net_call
static volatile bool rx_pending; // set by the interrupt handler
static struct spinlock work_lock;
static struct net_work *work_head, **work_tail = &work_head; // work_lock

bool net_running(void)
{
    return running;
}

void net_post(struct net_work *w)
{
    u64 flags = spin_lock_irqsave(&work_lock);
    bool fresh = !w->queued;
    if (fresh) {
        w->queued = true;
        w->next = NULL;
        *work_tail = w;
        work_tail = &w->next;
    }
    spin_unlock_irqrestore(&work_lock, flags);
    if (fresh)
        waitq_wake_all(&wake);
}

static struct net_work *work_take(void)
{
    u64 flags = spin_lock_irqsave(&work_lock);
    struct net_work *w = work_head;
    if (w) {
        work_head = w->next;
        if (!work_head)
            work_tail = &work_head;
        w->queued = false;
    }
    spin_unlock_irqrestore(&work_lock, flags);
    return w;
}

void net_unpost(struct net_work *w)
{
    u64 flags = spin_lock_irqsave(&work_lock);
    struct net_work **at = &work_head;
    while (*at && *at != w)
        at = &(*at)->next;
    if (*at) {
        *at = w->next;
        w->queued = false;
        if (!*at)
            work_tail = at;
    }
    spin_unlock_irqrestore(&work_lock, flags);
}

struct call {
    struct net_work work;
    int (*fn)(void *arg);
    void *arg;
    int result;
    bool done;
};

static void call_run(struct net_work *w)
{
    struct call *c = container_of(w, struct call, work);
    c->result = c->fn(c->arg);
    // The last access: the caller's stack may be gone right after it.
    __atomic_store_n(&c->done, true, __ATOMIC_RELEASE);
    waitq_wake_all(&called);
}

int net_call(int (*fn)(void *arg), void *arg)
{
    struct call c = {.work = {.fn = call_run}, .fn = fn, .arg = arg};
    net_post(&c.work);
    wait_event(&called, __atomic_load_n(&c.done, __ATOMIC_ACQUIRE));
    return c.result;
}

static void rx_ready(struct nic *n)
{
    (void)n;
    rx_pending = true;
    waitq_wake_all(&wake);
}

static u64 sleep_until(bool refused)
{
    u32 ms = sys_timeouts_sleeptime();
    if (ms == SYS_TIMEOUTS_SLEEPTIME_INFINITE)
        ms = 1000;
    if (nic.interrupt == PCI_POLLED || refused)
        ms = MIN(ms, 1u);
    return time_ns() + ms * NS_PER_MS;
}

// What waits for a doorbell goes out before another thread has its turn.
static void breathe(void)
{
    switch_flush();
    nic.ops->flush(&nic);
    thread_yield_if_needed();
}

// One round over everything; returns whether there is certainly more to do.
static bool turn(void)
{
    rx_pending = false;
    bool more = nic.ops->poll(&nic, POLL_BUDGET) == POLL_BUDGET;
    gro_flush();
    breathe();
    switch_attended();
    breathe();
    for (u32 i = 0; i < WORK_BUDGET; i++) {
        struct net_work *w = work_take();
        if (!w)
            break;
        w->fn(w);
        breathe();
    }
    sys_check_timeouts();
    breathe();
    return more || work_head;
}

// While frames stream and others want the CPU: leaves it to them, for a while or until they have
// nothing to do. Meanwhile guests do not kick, and the NIC is deaf once it has interrupted. Returns
// whether to look again.
static bool wait_patiently(struct net_pace *pace)
{
    u64 now = time_ns(), wait = pace_wait_ns(pace, now);
    if (!wait)
        return false;
    if (!thread_others_ready()) { // a guest may wait to be told that its frames are sent
        switch_attended();
        breathe();
    }
    if (!thread_others_ready())
        return false;
    waitq_prepare(&wake);
    if (rx_pending || work_head)
        waitq_cancel(&wake);
    else
        waitq_commit_patiently(&wake, now + wait);
    return true;
}

static bool paced_turn(struct net_pace *pace)
{
    u64 before = thread_cpu_ns();
    bool more = turn();
    pace_note(pace, time_ns(), switch_moved(), thread_cpu_ns() - before);
    return more;
}

static void net_thread(void *arg)
{
    const struct host_config *cfg = arg;
    struct net_pace pace = {.since_ns = 0};
    bool refused = false;
    lwip_init();
    uplink_start(&nic);
    netif_start(&nic, cfg);
    // A card may be deaf for a while when this changes: better now than when a guest arrives.
    if (cfg->guest_count || cfg->peer_count)
        uplink_receive_all();
    for (;;) {
        if (refused)
            switch_retry(tcp_txnow);
        bool more = paced_turn(&pace);
        refused = uplink_was_refused();
        if (more || wait_patiently(&pace))
            continue;
        switch_rest();
        if (nic.ops->irq_rearm(&nic))
            continue;
        u64 deadline = sleep_until(refused);
        wait_event_until(&wake, rx_pending || work_head, deadline);
    }
}

int net_start(const struct host_config *cfg)
{
    nic.rx_ready = rx_ready;
    nic.mtu = cfg->mtu;
    int r = nic_probe(&nic);
    if (r == E_NOENT)
        log_error(
            "net",
            "no NIC that Skiff has a driver for (wanted: virtio-net, or Intel 82540EM, 82574, "
            "82576 or a close relative)");
    if (r)
        return r;
    log_info("net", "%s %02x:%02x:%02x:%02x:%02x:%02x", nic.ops->name, nic.mac[0], nic.mac[1],
             nic.mac[2], nic.mac[3], nic.mac[4], nic.mac[5]);
    if (!thread_create("net", net_thread, (void *)cfg, 0)) {
        nic.ops->stop(&nic);
        log_error("net", "no memory for the network thread");
        return E_NOMEM;
    }
    running = true;
    return 0;
}

void net_stop(void)
{
    if (running)
        nic.ops->stop(&nic);
}

static void add_errors(struct net_info *out, const struct stats_proto *s)
{
    out->bad_checksums += s->chkerr;
    out->bad_lengths += s->lenerr;
    out->protocol_errors += s->proterr + s->opterr + s->rterr;
    out->out_of_memory += s->memerr;
}

void net_get_info(struct net_info *out)
{
    static const char *const interrupts[] = {"polled", "INTx", "MSI", "MSI-X"};
    memset(out, 0, sizeof(*out));
    if (!running)
        return;
    out->up = true;
    strlcpy(out->driver, nic.ops->name, sizeof(out->driver));
    snprintf(out->mac, sizeof(out->mac), "%02x:%02x:%02x:%02x:%02x:%02x", nic.mac[0], nic.mac[1],
             nic.mac[2], nic.mac[3], nic.mac[4], nic.mac[5]);
    strlcpy(out->interrupt, interrupts[nic.interrupt], sizeof(out->interrupt));
    snprintf(out->offloads, sizeof(out->offloads), "%s%s%s", nic.can_sum ? "tx-checksum " : "",
             nic.can_check ? "rx-checksum " : "", nic.can_segment ? "segmentation" : "");
    out->mtu = nic.mtu;
    netif_get_info(out);
    out->rx_frames = nic.rx_frames;
    out->rx_bytes = nic.rx_bytes;
    out->rx_dropped = nic.rx_dropped;
    out->rx_errors = nic.rx_errors;
    out->tx_frames = nic.tx_frames;
    out->tx_bytes = nic.tx_bytes;
    out->tx_dropped = nic.tx_dropped;
    out->irqs = nic.irqs;
    const struct stats_proto *protocols[] = {
        &lwip_stats.link, &lwip_stats.etharp, &lwip_stats.ip_frag,  &lwip_stats.ip,
        &lwip_stats.icmp, &lwip_stats.udp,    &lwip_stats.tcp,      &lwip_stats.ip6,
        &lwip_stats.nd6,  &lwip_stats.icmp6,  &lwip_stats.ip6_frag,
    };
    for (u32 i = 0; i < ARRAY_SIZE(protocols); i++)
        add_errors(out, protocols[i]);
    out->heap_bytes = lwip_stats.mem.used;
    out->heap_peak_bytes = lwip_stats.mem.max;
    out->heap_limit_bytes = NET_HEAP_LIMIT;
    out->memory_limit_bytes = nic_pools_bytes() + conn_memory_limit();
    out->connections = conn_count();
}

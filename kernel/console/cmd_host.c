// SPDX-License-Identifier: MIT
// Commands on the host: what it is, its figures, its log, its power.
#include "arch/x86/cpu.h"
#include "arch/x86/smp.h"
#include "kernel/console/command.h"
#include "kernel/console/find.h"
#include "kernel/console/keys.h"
#include "kernel/guest/guest.h"
#include "kernel/host.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/migrate/migrate.h"
#include "kernel/time.h"
#include "net/guest_nic.h"
#include "net/net.h"
#include "storage/datastore.h"
#include "storage/disk.h"

static u64 idle_ns(void)
{
    struct thread_info t;
    u64 ns = 0;
    for (unsigned i = 0; thread_get_info(i, &t); i++)
        if (!strcmp(t.name, "idle"))
            ns += t.cpu_ns;
    return ns;
}

static void host_memory(struct out *o)
{
    struct mem_stats m;
    mem_get_stats(&m);
    u64 guests = m.used_bytes[MEM_GUEST_RAM];
    u64 host = m.image_bytes + m.total_bytes - m.free_bytes - guests;
    out_u64(o, "memory_bytes", m.total_bytes);
    out_u64(o, "free_bytes", m.free_bytes);
    out_u64(o, "guest_bytes", guests);
    out_u64(o, "host_bytes", host); // the hypervisor itself, all but guest RAM and boot files
    out_u64(o, "heap_bytes", m.heap_bytes);
    out_u64(o, "image_bytes", m.image_bytes);
    out_u64(o, "boot_file_bytes", m.boot_file_bytes);
}

// What grows with guests, moves and connections, and how far it can with those there are.
static void host_metadata(struct out *o)
{
    static const struct {
        enum mem_use use;
        const char *name, *limit_name;
    } rows[] = {
        {MEM_PAGE_TABLES, "page_table_bytes", "page_table_limit_bytes"},
        {MEM_DIRTY_LOG, "dirty_log_bytes", "dirty_log_limit_bytes"},
        {MEM_PAGE_HASHES, "page_hash_bytes", "page_hash_limit_bytes"},
        {MEM_NETWORK, "network_bytes", "network_limit_bytes"},
        {MEM_DATASTORES, "datastore_bytes", "datastore_limit_bytes"},
    };
    struct net_info n = {.up = false};
    struct mem_stats m;
    u64 limit[MEM_USES];
    guests_memory_limits(limit);
    mem_get_stats(&m);
    net_get_info(&n);
    limit[MEM_NETWORK] = n.memory_limit_bytes;
    limit[MEM_DATASTORES] = datastores_memory_limit();
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        out_u64(o, rows[i].name, m.used_bytes[rows[i].use]);
        out_u64(o, rows[i].limit_name, limit[rows[i].use]);
    }
    out_u64(o, "lwip_bytes", n.heap_bytes);
    out_u64(o, "lwip_limit_bytes", n.heap_limit_bytes);
}

static void host_network(struct out *o)
{
    struct net_info n = {.up = false};
    net_get_info(&n);
    out_bool(o, "network", n.up);
    if (!n.up)
        return;
    out_str(o, "nic", n.driver);
    out_str(o, "mac", n.mac);
    out_str(o, "interrupt", n.interrupt);
    out_u64(o, "mtu", n.mtu);
    out_str(o, "offloads", n.offloads);
    out_bool(o, "link", n.link);
    out_ip(o, "address", &n.address4);
    out_ip(o, "gateway", &n.gateway4);
    out_ip(o, "address6", &n.address6);
    out_ip(o, "link_local6", &n.link_local6);
}

static void run_host(struct call *c)
{
    struct out *o = c->out;
    char id[24];
    snprintf(id, sizeof(id), "%016llx", (unsigned long long)host_boot_id);
    out_begin(o);
    out_str(o, "name", host_config.name);
    out_str(o, "version", SKIFF_VERSION);
    out_str(o, "boot_id", id);
    out_str(o, "cpu", host_features.brand);
    out_u64(o, "cpus", cpu_count);
    out_str(o, "backend", backend ? backend->name : "none");
    if (!backend)
        out_str(o, "no_guests_because", backend_missing);
    if (host_config_error[0])
        out_str(o, "config_error", host_config_error);
    out_u64(o, "uptime_ns", time_ns());
    out_u64(o, "idle_ns", idle_ns());
    out_u64(o, "prompt_ns", console_prompt_ns());
    out_u64(o, "tsc_hz", host_tsc_hz);
    host_memory(o);
    host_metadata(o);
    host_network(o);
    out_end(o);
}

static void run_uptime(struct call *c)
{
    out_begin(c->out);
    out_u64(c->out, "uptime_ns", time_ns());
    out_end(c->out);
}

static void net_stats(struct out *o)
{
    struct net_info n = {.up = false};
    net_get_info(&n);
    out_printf(o,
               "network: received %llu frames, %llu bytes, %llu dropped, %llu errors; sent %llu "
               "frames, %llu bytes, %llu dropped; %llu interrupts\n",
               (unsigned long long)n.rx_frames, (unsigned long long)n.rx_bytes,
               (unsigned long long)n.rx_dropped, (unsigned long long)n.rx_errors,
               (unsigned long long)n.tx_frames, (unsigned long long)n.tx_bytes,
               (unsigned long long)n.tx_dropped, (unsigned long long)n.irqs);
    if (!o->json)
        return;
    out_begin(o);
    out_str(o, "kind", "network");
    out_u64(o, "rx_frames", n.rx_frames);
    out_u64(o, "rx_bytes", n.rx_bytes);
    out_u64(o, "rx_dropped", n.rx_dropped);
    out_u64(o, "rx_errors", n.rx_errors);
    out_u64(o, "tx_frames", n.tx_frames);
    out_u64(o, "tx_bytes", n.tx_bytes);
    out_u64(o, "tx_dropped", n.tx_dropped);
    out_u64(o, "irqs", n.irqs);
    out_end(o);
}

static void thread_row(struct out *o, const struct thread_info *t)
{
    char used[24], waited[24];
    out_printf(o, "%-16s %-8s cpu %u %14s  waited %14s  stack %5u of %5u  breaches %llu\n", t->name,
               t->state, t->cpu, format_ns(used, t->cpu_ns), format_ns(waited, t->waited_ns),
               t->stack_used, t->stack_size, (unsigned long long)t->breaches);
    if (!o->json)
        return;
    out_begin(o);
    out_str(o, "kind", "thread");
    out_str(o, "name", t->name);
    out_str(o, "state", t->state);
    out_u64(o, "cpu", t->cpu);
    out_u64(o, "cpu_ns", t->cpu_ns);
    out_u64(o, "waited_ns", t->waited_ns);
    out_u64(o, "waited_max_ns", t->waited_max_ns);
    out_u64(o, "stack_used", t->stack_used);
    out_u64(o, "stack_size", t->stack_size);
    out_u64(o, "breaches", t->breaches);
    out_end(o);
}

static const char *exit_name(unsigned kind)
{
    static const char *const names[] = {
        [EXIT_INTERRUPT] = "interrupt",
        [EXIT_TIMER] = "timer",
        [EXIT_IRQ_WINDOW] = "irq_window",
        [EXIT_NMI_WINDOW] = "nmi_window",
        [EXIT_IO] = "io",
        [EXIT_MMIO] = "mmio",
        [EXIT_CPUID] = "cpuid",
        [EXIT_RDMSR] = "rdmsr",
        [EXIT_WRMSR] = "wrmsr",
        [EXIT_RDTSC] = "rdtsc",
        [EXIT_CR8] = "cr8",
        [EXIT_XSETBV] = "xsetbv",
        [EXIT_HLT] = "hlt",
        [EXIT_PAUSE] = "pause",
        [EXIT_INVD] = "invd",
        [EXIT_HYPERCALL] = "hypercall",
        [EXIT_UNDEFINED] = "undefined",
        [EXIT_GP] = "gp",
        [EXIT_TRIPLE_FAULT] = "triple_fault",
        [EXIT_RETRY] = "retry",
        [EXIT_NOMEM] = "nomem",
        [EXIT_FATAL] = "fatal",
    };
    return kind < ARRAY_SIZE(names) && names[kind] ? names[kind] : "other";
}

// A copy, because a vCPU may go away while its figures are printed.
struct vcpu_figures {
    char guest[CONFIG_NAME];
    u32 index;
    u64 total, exits[EXIT_KINDS];
    struct thread_info thread;
};

// Steal time is what the vCPU waited for a CPU that another thread had.
static void vcpu_times(struct out *o, const struct thread_info *t)
{
    char used[24], steal[24], longest[24];
    if (o->json) {
        out_str(o, "state", t->state);
        out_u64(o, "cpu", t->cpu);
        out_u64(o, "cpu_ns", t->cpu_ns);
        out_u64(o, "steal_ns", t->waited_ns);
        out_u64(o, "steal_max_ns", t->waited_max_ns);
    } else {
        out_printf(o, "%s on CPU %u, ran %s, steal %s, %s at most at once, ", t->state, t->cpu,
                   format_ns(used, t->cpu_ns), format_ns(steal, t->waited_ns),
                   format_ns(longest, t->waited_max_ns));
    }
}

static void vcpu_row(struct out *o, const struct vcpu_figures *v)
{
    if (o->json) {
        out_begin(o);
        out_str(o, "kind", "vcpu");
        out_str(o, "guest", v->guest);
        out_u64(o, "vcpu", v->index);
    } else {
        out_printf(o, "%s vCPU %u: ", v->guest, v->index);
    }
    vcpu_times(o, &v->thread);
    if (o->json)
        out_u64(o, "exits", v->total);
    else
        out_printf(o, "%llu exits", (unsigned long long)v->total);
    for (unsigned k = 0; k < EXIT_KINDS; k++) {
        if (!v->exits[k])
            continue;
        char key[32];
        snprintf(key, sizeof(key), "exits_%s", exit_name(k));
        if (o->json)
            out_u64(o, key, v->exits[k]);
        else
            out_printf(o, ", %s %llu", exit_name(k), (unsigned long long)v->exits[k]);
    }
    if (o->json)
        out_end(o);
    else
        out_printf(o, "\n");
}

// The n-th vCPU of the running guests. Its thread may end at any moment.
static bool take_figures(unsigned n, struct vcpu_figures *out)
{
    bool found = false;
    mutex_lock(&guests_lock);
    for (struct guest *g = guest_first(); g && !found; g = g->next) {
        u32 count = g->state == GUEST_RUNNING || g->state == GUEST_PAUSED ? g->vcpu_count : 0;
        if (n >= count) {
            n -= count;
            continue;
        }
        const struct vcpu *v = g->vcpu[n];
        strlcpy(out->guest, g->name, sizeof(out->guest));
        out->index = v->index;
        out->total = v->exit_total;
        memcpy(out->exits, v->exits, sizeof(out->exits));
        if (!thread_find_info(v->thread, &out->thread))
            out->thread = (struct thread_info){.state = "ended"};
        found = true;
    }
    mutex_unlock(&guests_lock);
    return found;
}

static void card_row(struct out *o, const char *name, const struct switch_figures *f)
{
    out_printf(o,
               "%s network: received %llu frames, %llu bytes, %llu dropped; sent %llu frames, %llu "
               "bytes, %llu refused, %llu with a wrong source\n",
               name, (unsigned long long)f->rx_frames, (unsigned long long)f->rx_bytes,
               (unsigned long long)f->rx_dropped, (unsigned long long)f->tx_frames,
               (unsigned long long)f->tx_bytes, (unsigned long long)f->tx_refused,
               (unsigned long long)f->wrong_source);
    if (!o->json)
        return;
    out_begin(o);
    out_str(o, "kind", "guest-network");
    out_str(o, "guest", name);
    out_u64(o, "rx_frames", f->rx_frames);
    out_u64(o, "rx_bytes", f->rx_bytes);
    out_u64(o, "rx_dropped", f->rx_dropped);
    out_u64(o, "tx_frames", f->tx_frames);
    out_u64(o, "tx_bytes", f->tx_bytes);
    out_u64(o, "tx_refused", f->tx_refused);
    out_u64(o, "wrong_source", f->wrong_source);
    out_end(o);
}

// A copy, taken with the locks held under which a guest is not taken apart.
static bool take_card(const char *name, struct switch_figures *f)
{
    struct guest *g = guest_get(name);
    bool found = false;
    if (!g)
        return false;
    mutex_lock(&g->lock);
    if (g->state == GUEST_RUNNING || g->state == GUEST_PAUSED)
        found = guest_nic_figures(g, f);
    mutex_unlock(&g->lock);
    guest_put(g);
    return found;
}

static void guest_stats(struct out *o, const char *name)
{
    struct switch_figures card;
    struct vcpu_figures v;
    for (unsigned n = 0; take_figures(n, &v); n++)
        if (!name || !strcmp(v.guest, name))
            vcpu_row(o, &v);
    if (name && take_card(name, &card))
        card_row(o, name, &card);
}

static void run_stats(struct call *c)
{
    struct thread_info t;
    if (c->arg[0]) {
        if (find_guest(c, c->arg[0]))
            guest_stats(c->out, c->arg[0]);
        return;
    }
    net_stats(c->out);
    guest_stats(c->out, NULL);
    for (unsigned i = 0; thread_get_info(i, &t); i++)
        thread_row(c->out, &t);
}

static void log_row(struct out *o, const struct log_entry *e)
{
    char line[300];
    log_format(e, line, sizeof(line));
    out_printf(o, "%s\n", line);
    if (!o->json)
        return;
    out_begin(o);
    out_u64(o, "seq", e->seq);
    out_u64(o, "time_ns", e->time_ns);
    out_str(o, "level", log_level_name(e->level));
    out_str(o, "area", e->area);
    out_str(o, "text", e->text);
    out_end(o);
}

static void run_log(struct call *c)
{
    u64 count = 50;
    struct log_entry e;
    if (c->arg[0] && !find_number(c, "COUNT", c->arg[0], &count))
        return;
    u64 end = log_next_seq();
    for (u64 seq = end - MIN(end, count); seq < end && log_get(seq, &e); seq = e.seq + 1) {
        log_row(c->out, &e);
        thread_yield_if_needed();
    }
}

// Refuses while a guest would be lost, unless told to.
static bool may_stop(struct call *c)
{
    char names[160] = "";
    mutex_lock(&guests_lock);
    for (struct guest *g = guest_first(); g; g = g->next) {
        if (g->state == GUEST_OFF || g->state == GUEST_CRASHED || g->state == GUEST_MOVED ||
            (g->state == GUEST_IN_DOUBT && !g->vcpu_count))
            continue;
        size_t n = strlen(names);
        snprintf(names + n, sizeof(names) - n, "%s%s (%s)", n ? ", " : "", g->name,
                 guest_state_name(g->state));
    }
    mutex_unlock(&guests_lock);
    if (!names[0] || option_given(c, "--force"))
        return true;
    out_error(c->out, "%s would be lost; migrate or shut down first, or add --force", names);
    return false;
}

static void stop_host(struct call *c, const char *what, void (*stop)(void))
{
    if (!may_stop(c))
        return;
    out_printf(c->out, "the host %s\n", what);
    if (c->out->json) {
        out_begin(c->out);
        out_str(c->out, "host", what);
        out_end(c->out);
    }
    out_flush(c->out);
    datastores_stop();
    disks_stop();
    net_stop(); // or the NIC goes on writing to memory that is somebody else's by then
    smp_stop_others();
    if (backend)
        backend->cpu_disable();
    stop();
}

static void run_host_reboot(struct call *c)
{
    stop_host(c, "reboots", arch_reboot);
}

static void run_host_poweroff(struct call *c)
{
    stop_host(c, "powers off", arch_poweroff);
}

const struct command host_commands[] = {
    {"help", "[COMMAND]", "", "the commands, or all about one", NULL, command_help},
    {"host", "", "", "this host: CPU, memory, network, time", NULL, run_host},
    {"uptime", "", "", "this host's clock, as in the log", NULL, run_uptime},
    {"stats", "[NAME]", "", "figures: network, guests' exits, threads", NULL, run_stats},
    {"log", "[COUNT]", "", "the last lines of the log (50)", NULL, run_log},
    {"host-reboot", "", "--force", "reboots this host",
     "  Refused while guests run here; --force loses them.", run_host_reboot},
    {"host-poweroff", "", "--force", "powers this host off",
     "  Refused while guests run here; --force loses them.", run_host_poweroff},
    {NULL, NULL, NULL, NULL, NULL, NULL},
};

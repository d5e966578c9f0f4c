// SPDX-License-Identifier: MIT
// The kernel's start: every part in its order, then the services.
#include "arch/x86/cpu.h"
#include "arch/x86/smp.h"
#include "boot/boot_info.h"
#include "kernel/console/console.h"
#include "kernel/guest/guest.h"
#include "kernel/host.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/migrate/ledger.h"
#include "kernel/migrate/migrate.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "net/net.h"
#include "storage/datastore.h"
#include "storage/disk.h"

const struct boot_info *host_boot;
struct host_config host_config;
char host_config_error[320];

void kernel_main(const struct boot_info *bi) __attribute__((noreturn)); // from boot/start.S

static void start_paging(const struct boot_info *bi)
{
    arch_paging_init(bi);
    mem_reclaim_boot(bi); // neither the firmware's page tables nor its stack are in use any more
}

static void start_timer(const struct boot_info *bi)
{
    (void)bi;
    arch_timer_init();
}

static void start_threads(const struct boot_info *bi)
{
    (void)bi;
    thread_init();
    irq_enable();
}

// The machine, in an order in which each part finds below it what it needs.
static void (*const machine[])(const struct boot_info *bi) = {
    arch_early_init, mem_init, start_paging, arch_irq_init, start_timer, start_threads,
};

static void read_config(void)
{
    config_defaults(&host_config);
    if (host_boot->config == NULL)
        strlcpy(host_config_error, host_boot->config_error, sizeof(host_config_error));
    else if (config_parse(host_boot->config, &host_config, host_config_error,
                          sizeof(host_config_error)) == 0)
        strlcpy(host_config_error, host_boot->config_error, sizeof(host_config_error));
    if (host_config_error[0] != '\0')
        log_error("config", "%s", host_config_error);
    log_set_level(host_config.log_level);
}

static void tell_machine(void)
{
    struct mem_stats mem;
    mem_get_stats(&mem);
    log_info("host", "Skiff %s on %s, %u CPU%s, %llu MiB of memory free", SKIFF_VERSION,
             host_features.brand, host_boot->cpu_count, host_boot->cpu_count == 1 ? "" : "s",
             (unsigned long long)(mem.free_bytes / MIB));
}

static void start_services(void)
{
    if (backend_init() != 0)
        log_warn("host", "no guests can run here: %s", backend_missing);
    smp_start(host_boot);
    disks_start();
    datastores_start();
    if (net_start(&host_config) != 0)
        log_warn("host", "no network; guests run, but nothing can move");
    migrate_start(&host_config);
    guests_start(&host_config);
    ledger_start(); // the guests are listed now
}

void kernel_main(const struct boot_info *bi)
{
    host_boot = bi;
    for (u32 i = 0; i < ARRAY_SIZE(machine); i++)
        machine[i](bi);
    tell_machine();
    read_config();
    start_services(); // quick: what takes its time (DHCP, autostart) does so in threads
    console_start();  // so a command finds all there is
    thread_exit();
}

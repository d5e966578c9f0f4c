// SPDX-License-Identifier: MIT
// What an operator asks of a guest, and what a guest asks for itself: start, stop, reset, pause.
#include "kernel/guest/vcpu.h"
#include "kernel/lib.h"
#include "kernel/migrate/migrate.h"
#include "kernel/time.h"

#define JOB_POLL_NS (20 * NS_PER_MS)

__attribute__((format(printf, 4, 5))) static int refuse(int error, char *err, size_t size,
                                                        const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err, size, fmt, ap);
    va_end(ap);
    return error;
}

static void set_state(struct guest *g, enum guest_state state)
{
    g->state = (u8)state;
    if (state == GUEST_RUNNING || state == GUEST_OFF) {
        g->why[0] = 0;
        g->crash[0] = 0;
    }
}

static const char *advice(const struct guest *g)
{
    switch (g->state) {
    case GUEST_OFF:
    case GUEST_CRASHED:
        return "start it first";
    case GUEST_RUNNING:
        return "it runs already";
    case GUEST_PAUSED:
        return "resume it first";
    case GUEST_IN_DOUBT:
        return "decide with \"resolve NAME keep\" or \"resolve NAME drop\"";
    case GUEST_MOVED:
        return "ask the host it runs on";
    case GUEST_GONE:
        return "its move to this host was given up";
    default:
        return "wait for the move to end";
    }
}

static int wrong_state(const struct guest *g, const char *verb, char *err, size_t size)
{
    return refuse(E_BUSY, err, size, "cannot %s guest %s, which is %s: %s", verb, g->name,
                  guest_state_name(g->state), advice(g));
}

// A move owns the guest's state until it ends.
static int refuse_while_moving(const struct guest *g, const char *verb, char *err, size_t size)
{
    if (!g->job)
        return 0;
    return refuse(E_BUSY, err, size,
                  "cannot %s guest %s while it is being moved: abort the job first, or wait", verb,
                  g->name);
}

static int start_locked(struct guest *g, char *err, size_t size)
{
    assert_held(&g->lock);
    guest_teardown(g); // what a crash left to look at
    int error = guest_build(g, err, size);
    if (error)
        return error;
    error = guest_load_kernel(g, err, size);
    if (error) {
        guest_teardown(g);
        return error;
    }
    if (!g->epoch)
        g->epoch = 1;
    g->boot_count++;
    g->started_ns = time_ns();
    g->autostart_pending = false;
    set_state(g, GUEST_RUNNING);
    guest_unquiesce(g, 0);
    guest_log(LOG_INFO, g, "started: %u MiB, %u vCPU, %s", g->config.memory_mib, g->config.vcpus,
              g->config.kernel);
    return 0;
}

static bool may_start(const struct guest *g, bool asked)
{
    switch (g->state) {
    case GUEST_OFF:
    case GUEST_CRASHED:
    case GUEST_MOVED:
        return true;
    case GUEST_IN_DOUBT: // one with memory is a copy that a move left; that is not started anew
        return asked && !g->memory.bytes;
    default:
        return false;
    }
}

int guest_start_unasked(struct guest *g, char *err, size_t size)
{
    mutex_lock(&g->lock);
    int error = refuse_while_moving(g, "start", err, size);
    if (!error)
        error =
            may_start(g, true) ? start_locked(g, err, size) : wrong_state(g, "start", err, size);
    mutex_unlock(&g->lock);
    ownership_start_over(g->uuid);
    return error;
}

int guest_start(struct guest *g, char *err, size_t size)
{
    char why[160] = "";
    if (!may_start(g, false))
        return wrong_state(g, "start", err, size);
    // A crashed guest was here the last time anybody knew: nobody else can have it.
    if (g->state == GUEST_CRASHED || ownership_may_start(g->uuid, why, sizeof(why)))
        return guest_start_unasked(g, err, size);
    mutex_lock(&g->lock);
    if (may_start(g, false)) {
        strlcpy(g->why, why, sizeof(g->why));
        set_state(g, GUEST_IN_DOUBT);
    }
    mutex_unlock(&g->lock);
    return refuse(E_BUSY, err, size,
                  "guest %s is not started: %s; \"resolve %s keep\" starts it anyway", g->name, why,
                  g->name);
}

int guest_shutdown(struct guest *g, char *err, size_t size)
{
    mutex_lock(&g->lock);
    int error = 0;
    if (g->state == GUEST_RUNNING) {
        platform_power_button(g);
        guest_log(LOG_INFO, g, "power button pressed");
    } else {
        error = wrong_state(g, "shut down", err, size);
    }
    mutex_unlock(&g->lock);
    return error;
}

int guest_destroy(struct guest *g, char *err, size_t size)
{
    mutex_lock(&g->lock);
    int error = refuse_while_moving(g, "destroy", err, size);
    bool can = g->state == GUEST_RUNNING || g->state == GUEST_PAUSED || g->state == GUEST_CRASHED;
    if (!error && !can)
        error = wrong_state(g, "destroy", err, size);
    if (!error) {
        guest_teardown(g);
        set_state(g, GUEST_OFF);
        guest_log(LOG_INFO, g, "destroyed");
    }
    mutex_unlock(&g->lock);
    return error;
}

// Reset as the power-on reset is, with RAM's contents left: kernel and modules are put there again.
static int reset_locked(struct guest *g, char *err, size_t size)
{
    assert_held(&g->lock);
    int error = 0;
    guest_quiesce(g);
    g->reset_wanted = false;
    for (u32 i = 0; i < g->vcpu_count && !error; i++)
        error = vcpu_reset(g->vcpu[i]);
    if (error)
        refuse(error, err, size, "guest %s: no memory to reset its vCPUs", g->name);
    devices_reset(g);
    if (!error)
        error = guest_load_kernel(g, err, size);
    if (error)
        guest_crash(g, "it cannot start again: %s", err);
    else
        g->boot_count++;
    guest_unquiesce(g, 0);
    if (!error)
        guest_log(LOG_INFO, g, "reset, boot %llu", (unsigned long long)g->boot_count);
    return error;
}

int guest_reboot(struct guest *g, char *err, size_t size)
{
    mutex_lock(&g->lock);
    int error = refuse_while_moving(g, "reboot", err, size);
    if (!error && g->state != GUEST_RUNNING)
        error = wrong_state(g, "reboot", err, size);
    if (!error) // a guest may have come here without its files: then it had better run on
        error = guest_check_files(g, err, size);
    if (!error)
        error = reset_locked(g, err, size);
    mutex_unlock(&g->lock);
    return error;
}

int guest_pause(struct guest *g, char *err, size_t size)
{
    mutex_lock(&g->lock);
    // A move that hands over a paused guest pauses it here before it has run.
    int error = g->pause_count ? 0 : refuse_while_moving(g, "pause", err, size);
    if (!error && g->state != GUEST_RUNNING)
        error = wrong_state(g, "pause", err, size);
    if (!error) {
        guest_quiesce(g);
        // It may have ended itself on the way.
        if (g->state == GUEST_RUNNING)
            set_state(g, GUEST_PAUSED);
    }
    mutex_unlock(&g->lock);
    return error;
}

int guest_resume(struct guest *g, char *err, size_t size)
{
    mutex_lock(&g->lock);
    int error = refuse_while_moving(g, "resume", err, size);
    if (!error && g->state != GUEST_PAUSED)
        error = wrong_state(g, "resume", err, size);
    if (!error) {
        set_state(g, GUEST_RUNNING);
        guest_unquiesce(g, 0);
    }
    mutex_unlock(&g->lock);
    return error;
}

static void power_off_locked(struct guest *g)
{
    assert_held(&g->lock);
    guest_teardown(g);
    set_state(g, GUEST_OFF);
    guest_log(LOG_INFO, g, "powered off");
}

// A vCPU cannot take its own guest apart, nor wait until it is parked itself. While a move is on,
// the guest belongs to that: it ends or is aborted first, and if the guest went away with it, the
// instruction that asked is repeated over there.
static void worker(void *arg)
{
    struct guest *g = arg;
    char err[200];
    mutex_lock(&g->lock);
    while (g->job) {
        mutex_unlock(&g->lock);
        thread_sleep_ns(JOB_POLL_NS);
        mutex_lock(&g->lock);
    }
    g->worker = false;
    bool here = g->state == GUEST_RUNNING || g->state == GUEST_PAUSED;
    if (here && g->poweroff_wanted)
        power_off_locked(g);
    else if (here && g->reset_wanted)
        reset_locked(g, err, sizeof(err)); // has ended the guest with the reason where it fails
    mutex_unlock(&g->lock);
    guest_put(g);
}

void guest_start_worker(struct guest *g)
{
    char title[24];
    if (__atomic_exchange_n(&g->worker, true, __ATOMIC_SEQ_CST))
        return;
    snprintf(title, sizeof(title), "%.11s/off", g->name);
    if (!thread_create(title, worker, guest_hold(g), 0)) {
        guest_put(g);
        g->worker = false;
        guest_crash(g, "no memory for the thread that resets it or switches it off");
    }
}

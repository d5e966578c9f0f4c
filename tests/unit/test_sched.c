// SPDX-License-Identifier: MIT
// Threads on real stacks: the scheduler, wait queues and mutexes, with interrupts made by hand.

// sources: kernel/sched.c kernel/balance.c kernel/thread.c kernel/waitq.c kernel/mutex.c arch/x86/switch.S
#include "tests/unit/fake_threads.h"

static void say_twice(void *arg)
{
    note(arg);
    now += 1000;
    thread_yield();
    note(arg);
}

static void test_yield_alternates(void **state)
{
    (void)state;
    assert_non_null(thread_create("a", say_twice, "a", 0));
    assert_non_null(thread_create("b", say_twice, "b", 0));
    for (int i = 0; i < 6; i++)
        thread_yield();
    assert_string_equal(trace, "abab");
}

static void test_sleep(void **state)
{
    (void)state;
    u64 before = now;
    thread_sleep_ns(5 * NS_PER_MS);
    assert_int_equal(now - before, 5 * NS_PER_MS);
}

static u64 work_done[2];
static volatile bool stop;

static void hog(void *arg)
{
    u64 *done = arg;
    while (!stop) {
        now += 10 * NS_PER_US;
        (*done)++;
        tick();
        thread_yield_if_needed();
    }
}

static void test_two_hogs_share(void **state)
{
    (void)state;
    stop = false;
    thread_create("hog0", hog, &work_done[0], 0);
    thread_create("hog1", hog, &work_done[1], 0);
    u64 before = now;
    unsigned wakes = 0;
    u64 worst = 0;
    for (; wakes < 50; wakes++) { // a third one that sleeps most of the time runs soon when woken
        u64 due = now + 2 * NS_PER_MS;
        thread_sleep_ns(2 * NS_PER_MS);
        worst = MAX(worst, now - due);
    }
    stop = true;
    thread_sleep_ns(NS_PER_MS);
    u64 total = work_done[0] + work_done[1];
    assert_true(total * 10 * NS_PER_US <= now - before);
    assert_in_range(work_done[0] * 100 / total, 45, 55);
    assert_true(worst <= 20 * NS_PER_US);
}

static u64 longest_wait(const struct thread *t)
{
    struct thread_info info;
    assert_true(thread_find_info(t, &info));
    return info.waited_max_ns;
}

static void late_hog(void *arg)
{
    thread_sleep_ns(*(u64 *)arg - now);
    hog(&work_done[1]);
}

static void lone_hog(void *arg)
{
    u64 until = *(u64 *)arg;
    while (now < until) {
        now += 10 * NS_PER_US;
        tick();
        thread_yield_if_needed();
    }
    thread_sleep_ns(2 * NS_PER_MS);
    hog(&work_done[0]);
}

// A thread that had the CPU to itself is not made to wait for it by those that wake while it
// sleeps.
static void test_time_alone_is_not_paid_back(void **state)
{
    (void)state;
    u64 busy_until = now + NS_PER_SEC, late = busy_until + NS_PER_MS;
    stop = false;
    struct thread *lone = thread_create("lone", lone_hog, &busy_until, 0);
    for (int i = 0; i < 4; i++)
        thread_create("late", late_hog, &late, 0);
    thread_sleep_ns(NS_PER_SEC + 20 * NS_PER_MS);
    assert_true(longest_wait(lone) <= 5 * NS_PER_MS);
    stop = true;
    thread_sleep_ns(20 * NS_PER_MS);
}

static void background_hog(void *arg)
{
    thread_set_background(true);
    hog(arg);
}

// It has the CPU while nobody else wants it, and an eighth of another's share while one does: from
// the first moment on, and however long it had the CPU to itself.
static void test_the_background_gives_way(void **state)
{
    (void)state;
    stop = false;
    work_done[0] = work_done[1] = 0;
    struct thread *back = thread_create("background", background_hog, &work_done[0], 0);
    thread_sleep_ns(NS_PER_SEC);
    assert_in_range(work_done[0], 99000, 100000);
    work_done[0] = 0;
    struct thread *fore = thread_create("foreground", hog, &work_done[1], 0);
    thread_sleep_ns(100 * NS_PER_MS);
    stop = true;
    assert_in_range(work_done[1] * 10 / work_done[0], 70, 90);
    assert_true(longest_wait(fore) <= NS_PER_MS);
    assert_true(longest_wait(back) <= 20 * NS_PER_MS);
    thread_sleep_ns(20 * NS_PER_MS);
}

static void test_two_in_the_background_share(void **state)
{
    (void)state;
    stop = false;
    work_done[0] = work_done[1] = 0;
    struct thread *one = thread_create("one", background_hog, &work_done[0], 0);
    thread_sleep_ns(50 * NS_PER_MS);
    work_done[0] = 0;
    thread_create("two", background_hog, &work_done[1], 0);
    thread_sleep_ns(100 * NS_PER_MS);
    stop = true;
    assert_in_range(work_done[0] * 100 / (work_done[0] + work_done[1]), 40, 60);
    assert_true(longest_wait(one) <= 10 * NS_PER_MS);
    thread_sleep_ns(20 * NS_PER_MS);
}

// Those who wake while only the background runs do not wake far behind those who run elsewhere.
static void test_the_background_holds_nobody_back(void **state)
{
    (void)state;
    stop = false;
    work_done[0] = work_done[1] = 0;
    thread_create("background", background_hog, &work_done[0], 0);
    u64 late = now + NS_PER_SEC + NS_PER_MS, until = now + NS_PER_SEC;
    struct thread *lone = thread_create("lone", lone_hog, &until, 0);
    struct thread *other = thread_create("late", late_hog, &late, 0);
    thread_sleep_ns(NS_PER_SEC + 100 * NS_PER_MS);
    assert_true(longest_wait(lone) <= 5 * NS_PER_MS);
    assert_true(longest_wait(other) <= 5 * NS_PER_MS);
    stop = true;
    thread_sleep_ns(20 * NS_PER_MS);
}

// Ends up a little ahead of whoever made it.
static void run_ahead(void *arg)
{
    now += NS_PER_MS + *(char *)arg * NS_PER_US;
    thread_yield();
    note(arg);
}

// One that spins lets all others go first, where a plain yield lets one.
static void test_a_spinner_lets_all_go_first(void **state)
{
    (void)state;
    static char names[] = "a\0b\0c\0d";
    for (int i = 0; i < 4; i++)
        thread_create("ahead", run_ahead, names + 2 * i, 0);
    thread_yield();
    assert_string_equal(trace, "");
    thread_yield();
    assert_string_equal(trace, "a");
    thread_yield_to_all();
    assert_string_equal(trace, "abcd");
}

static void test_waiting_is_counted(void **state)
{
    (void)state;
    struct thread_info info;
    struct thread *t = thread_create("w", say_twice, "w", 0);
    now += 3000;
    assert_true(thread_find_info(t, &info));
    assert_int_equal(info.waited_ns, 3000); // still waits
    thread_yield();
    now += 500;
    assert_true(thread_find_info(t, &info));
    assert_int_equal(info.cpu_ns, 1000);
    assert_int_equal(info.waited_ns, 3500);
    assert_int_equal(info.waited_max_ns, 3000);
    thread_yield();
    assert_false(thread_find_info(t, &info));
}

static struct waitq q;
static int ready_count;

static void waiter(void *arg)
{
    wait_event(&q, ready_count > 0);
    ready_count--;
    note(arg);
}

static void test_wait_queue(void **state)
{
    (void)state;
    thread_create("1", waiter, "1", 0);
    thread_create("2", waiter, "2", 0);
    thread_yield();
    thread_yield();
    assert_string_equal(trace, "");
    ready_count = 1;
    fake_cpu_block.irq_depth++;
    waitq_wake_one(&q);
    fake_cpu_block.irq_depth--;
    thread_sleep_ns(1);
    assert_string_equal(trace, "1");
    waitq_wake_all(&q); // the condition does not hold: it waits on
    thread_sleep_ns(1);
    assert_string_equal(trace, "1");
    ready_count = 1;
    waitq_wake_all(&q);
    thread_sleep_ns(1);
    assert_string_equal(trace, "12");
    assert_null(q.head);
    assert_null(q.tail);
}

static void test_wait_deadline(void **state)
{
    (void)state;
    u64 before = now;
    ready_count = 0;
    assert_false(wait_event_until(&q, ready_count > 0, now + NS_PER_MS));
    assert_int_equal(now - before, NS_PER_MS);
    assert_null(q.head);
    ready_count = 1;
    assert_true(wait_event_until(&q, ready_count > 0, now + NS_PER_MS));
    ready_count = 0;
    assert_false(wait_event_until(&q, ready_count > 0, now - 1)); // long past
}

// A wake between prepare and commit is not lost.
static void test_wake_in_the_gap(void **state)
{
    (void)state;
    waitq_prepare(&q);
    waitq_wake_one(&q);
    u64 before = now;
    assert_true(waitq_commit(&q, 0));
    assert_int_equal(now, before);
}

static u64 woke_at;

static void patient(void *arg)
{
    waitq_prepare(&q);
    assert_false(waitq_commit_patiently(&q, now + *(u64 *)arg));
    assert_null(q.head);
    woke_at = now;
}

static void busy_for(void *arg)
{
    for (u64 until = now + *(u64 *)arg; now < until;) {
        now += 10 * NS_PER_US;
        tick();
        thread_yield_if_needed();
    }
}

// It lets the others go on until they have nothing more to do, or its time has come.
static void test_a_patient_thread(void **state)
{
    (void)state;
    u64 wait = 10 * NS_PER_MS, work = NS_PER_MS, before = now;
    thread_create("busy", busy_for, &work, 0);
    thread_create("patient", patient, &wait, 0);
    thread_sleep_ns(20 * NS_PER_MS);
    assert_int_equal(woke_at - before, work); // nothing was ready any more
    before = now;
    work = 15 * NS_PER_MS;
    thread_create("busy", busy_for, &work, 0);
    thread_create("patient", patient, &wait, 0);
    thread_sleep_ns(20 * NS_PER_MS);
    assert_in_range(woke_at - before, wait, wait + NS_PER_MS);
    before = now; // alone it need not wait at all
    waitq_prepare(&q);
    assert_false(waitq_commit_patiently(&q, now + wait));
    assert_int_equal(now, before);
    assert_null(timers);
}

static void wake_soon(void *arg)
{
    (void)arg;
    thread_sleep_ns(NS_PER_MS);
    waitq_wake_all(&q);
}

static void test_a_patient_thread_is_woken(void **state)
{
    (void)state;
    u64 before = now, work = 5 * NS_PER_MS;
    thread_create("busy", busy_for, &work, 0);
    thread_create("wake", wake_soon, NULL, 0);
    thread_yield();
    waitq_prepare(&q);
    assert_true(waitq_commit_patiently(&q, now + 10 * NS_PER_MS));
    assert_in_range(now - before, NS_PER_MS, 2 * NS_PER_MS);
    thread_sleep_ns(20 * NS_PER_MS); // and it is not run again before the CPU idles
}

static struct mutex m;

static void locker(void *arg)
{
    mutex_lock(&m);
    assert_true(mutex_held(&m));
    note(arg);
    thread_sleep_ns(1000);
    mutex_unlock(&m);
}

static void test_mutex_in_order(void **state)
{
    (void)state;
    mutex_lock(&m);
    thread_create("x", locker, "x", 0);
    thread_create("y", locker, "y", 0);
    thread_create("z", locker, "z", 0);
    thread_sleep_ns(1000);
    assert_string_equal(trace, "");
    mutex_unlock(&m);
    thread_sleep_ns(1500);
    mutex_lock(&m); // behind those who came first
    note("m");
    mutex_unlock(&m);
    thread_sleep_ns(10000);
    assert_string_equal(trace, "xyzm");
    assert_null(m.owner);
    assert_false(mutex_held(&m));
}

static int puts_seen, loads_seen, asks_seen;

static void vcpu_put(struct vcpu *v)
{
    assert_ptr_equal(v, &m);
    puts_seen++;
}

static void vcpu_load(struct vcpu *v)
{
    assert_ptr_equal(v, &m);
    loads_seen++;
}

static void vcpu_ask(struct vcpu *v)
{
    assert_ptr_equal(v, &m);
    asks_seen++;
}

static void vcpu_body(void *arg)
{
    (void)arg;
    thread_set_vcpu((struct vcpu *)&m);
    thread_sleep_ns(10);
    thread_sleep_ns(10);
    thread_set_vcpu(NULL);
    thread_sleep_ns(10);
}

static void test_xsave_and_vcpu_hooks(void **state)
{
    (void)state;
    saves = restores = 0; // from the switches alone
    thread_set_vcpu_hooks(vcpu_put, vcpu_load, vcpu_ask);
    struct thread *t = thread_create("v", vcpu_body, NULL, THREAD_XSAVE | THREAD_BIG_STACK);
    assert_non_null(thread_xsave_area(t));
    assert_null(thread_xsave_area(thread_current()));
    thread_sleep_ns(1000);
    assert_int_equal(puts_seen, 2);
    assert_int_equal(loads_seen, 2);
    assert_int_equal(saves, 3);
    assert_int_equal(restores, 4); // the first time as well
}

// Ends its slice while another waits.
static void vcpu_uses_its_slice(void)
{
    asks_seen = 0;
    now += 2 * NS_PER_MS;
    tick();
    assert_int_equal(asks_seen, 1);
    thread_set_vcpu(NULL);
    note("v");
}

static void vcpu_that_wakes_another(void *arg)
{
    (void)arg;
    thread_set_vcpu((struct vcpu *)&m);
    now += 2 * NS_PER_MS; // far enough ahead of one that slept
    asks_seen = 0;
    ready_count = 1;
    waitq_wake_all(&q);
    assert_int_equal(asks_seen, 1);
    thread_yield_if_needed();
    assert_string_equal(trace, "w");
    // Two that get on evenly: the timer says when.
    thread_create("h", say_twice, "h", 0);
    thread_yield();
    vcpu_uses_its_slice();
}

static void run_vcpu(void (*body)(void *arg))
{
    thread_create("v", body, NULL, THREAD_XSAVE);
    thread_sleep_ns(10 * NS_PER_MS);
    assert_non_null(strchr(trace, 'v'));
}

// A guest does not look whether another thread wants its CPU: its vCPU is asked to.
static void test_a_vcpu_is_asked_to_yield(void **state)
{
    (void)state;
    ready_count = 0;
    thread_create("w", waiter, "w", 0);
    thread_sleep_ns(1);
    run_vcpu(vcpu_that_wakes_another);
}

static void vcpu_that_attaches_late(void *arg)
{
    (void)arg;
    thread_create("w", say_twice, "w", 0);
    thread_set_vcpu((struct vcpu *)&m);
    vcpu_uses_its_slice();
}

// What others got ready before there was a vCPU counts as well.
static void test_a_vcpus_first_slice_ends(void **state)
{
    (void)state;
    run_vcpu(vcpu_that_attaches_late);
}

static void slow(void *arg)
{
    (void)arg;
    now += 3 * NS_PER_MS;
}

static void test_breaches_and_info(void **state)
{
    (void)state;
    u64 before = thread_slice_breaches();
    thread_create("slow", slow, NULL, 0);
    struct thread_info info;
    unsigned n = 0;
    bool seen = false;
    for (; thread_get_info(n, &info); n++)
        if (!strcmp(info.name, "slow")) {
            seen = true;
            assert_string_equal(info.state, "ready");
            assert_int_equal(info.stack_size, 16384);
            assert_in_range(info.stack_used, 8, 512);
        }
    assert_true(seen);
    assert_int_equal(n, 3); // main, idle, slow
    thread_yield();
    assert_int_equal(thread_slice_breaches() - before, 1);
}

static void xsave_owner(void *arg)
{
    (void)arg;
    thread_xsave_give();
    thread_sleep_ns(10);
    thread_xsave_take();
}

static void test_a_given_xsave_area_is_left_alone(void **state)
{
    (void)state;
    thread_create("x", xsave_owner, NULL, THREAD_XSAVE);
    thread_yield();
    saves = restores = 0;
    thread_sleep_ns(10);
    assert_int_equal(saves, 0);
    assert_int_equal(restores, 1); // taken again
}

// All that ended gave back what they had.
static void test_nothing_left(void **state)
{
    (void)state;
    thread_create("last", slow, NULL, 0);
    thread_sleep_ns(1);
    thread_create("after", slow, NULL, 0); // frees the one before
    thread_sleep_ns(1);
    assert_int_equal(stacks_out, 2); // idle and the last
    assert_int_equal(blocks_out, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_yield_alternates, start),
        cmocka_unit_test_setup(test_sleep, start),
        cmocka_unit_test_setup(test_two_hogs_share, start),
        cmocka_unit_test_setup(test_time_alone_is_not_paid_back, start),
        cmocka_unit_test_setup(test_the_background_gives_way, start),
        cmocka_unit_test_setup(test_two_in_the_background_share, start),
        cmocka_unit_test_setup(test_the_background_holds_nobody_back, start),
        cmocka_unit_test_setup(test_a_spinner_lets_all_go_first, start),
        cmocka_unit_test_setup(test_waiting_is_counted, start),
        cmocka_unit_test_setup(test_wait_queue, start),
        cmocka_unit_test_setup(test_wait_deadline, start),
        cmocka_unit_test_setup(test_wake_in_the_gap, start),
        cmocka_unit_test_setup(test_a_patient_thread, start),
        cmocka_unit_test_setup(test_a_patient_thread_is_woken, start),
        cmocka_unit_test_setup(test_mutex_in_order, start),
        cmocka_unit_test_setup(test_xsave_and_vcpu_hooks, start),
        cmocka_unit_test_setup(test_a_vcpu_is_asked_to_yield, start),
        cmocka_unit_test_setup(test_a_vcpus_first_slice_ends, start),
        cmocka_unit_test_setup(test_breaches_and_info, start),
        cmocka_unit_test_setup(test_a_given_xsave_area_is_left_alone, start),
        cmocka_unit_test_setup(test_nothing_left, start),
    };
    return cmocka_run_group_tests(tests, start_all, NULL);
}

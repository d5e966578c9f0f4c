// SPDX-License-Identifier: MIT
// Movable threads and the CPUs they run on: two CPUs that take turns.

// sources: kernel/sched.c kernel/balance.c kernel/thread.c kernel/waitq.c kernel/mutex.c arch/x86/switch.S
#include "tests/unit/fake_threads.h"

static struct waitq q;
static int ready_count;

static void become(struct cpu *c)
{
    if (syscall(SYS_arch_prctl, ARCH_SET_GS, c))
        abort();
}

// What runs on the second CPU's idle thread is the test itself: it is switched away from like one.
static struct thread *start_second_cpu(void)
{
    void *top;
    struct thread *idle = thread_create_idle(1, &top);
    assert_non_null(idle);
    cpu_count = 2;
    become(&second_cpu);
    sched_init_cpu(idle, idle);
    become(&fake_cpu_block);
    return idle;
}

static void stop_second_cpu(struct thread *idle)
{
    cpu_count = 1;
    thread_free_idle(idle);
}

static void note_cpu(void *arg)
{
    note(arg);
    note(this_cpu()->index ? "1" : "0");
    thread_yield();
    note(this_cpu()->index ? "1" : "0");
}

static void test_a_movable_thread_starts_on_an_idle_cpu(void **state)
{
    (void)state;
    struct thread *idle = start_second_cpu();
    kicks[1] = 0;
    thread_create("m", note_cpu, "m", THREAD_MOVABLE);
    thread_create("p", note_cpu, "p", 0);
    assert_int_equal(kicks[1], 1);
    thread_sleep_ns(1); // all that is the boot CPU's
    assert_string_equal(trace, "p00");
    become(&second_cpu);
    thread_yield();
    assert_string_equal(trace, "p00m11");
    become(&fake_cpu_block);
    stop_second_cpu(idle);
}

static void test_a_cpu_takes_what_waits_on_another(void **state)
{
    (void)state;
    struct thread *idle = start_second_cpu();
    thread_create("m", note_cpu, "m",
                  THREAD_MOVABLE); // goes to the second CPU, which is slow to run it
    thread_create("p", note_cpu, "p", 0);
    become(&second_cpu);
    assert_true(thread_others_ready());
    assert_false(balance_pull()); // what waits on the boot CPU must stay there
    become(&fake_cpu_block);
    assert_true(balance_pull());
    assert_false(balance_pull());
    thread_sleep_ns(1);
    assert_string_equal(trace, "p0m000");
    stop_second_cpu(idle);
}

static void test_movable_threads_keep_off_a_cpu(void **state)
{
    (void)state;
    struct thread *idle = start_second_cpu();
    thread_keep_off(BIT(1));
    kicks[1] = 0;
    thread_create("m", note_cpu, "m", THREAD_MOVABLE);
    thread_create("n", note_cpu, "n", THREAD_MOVABLE);
    assert_int_equal(kicks[1], 0);
    become(&second_cpu);
    assert_false(balance_pull());
    become(&fake_cpu_block);
    thread_sleep_ns(1);
    assert_string_equal(trace, "m0n000");
    thread_keep_off(BIT(0));
    trace[0] = 0;
    thread_create("m", note_cpu, "m", THREAD_MOVABLE);
    thread_create("n", note_cpu, "n", THREAD_MOVABLE);
    assert_false(balance_pull());
    thread_sleep_ns(1);
    assert_string_equal(trace, "");
    become(&second_cpu);
    thread_yield();
    assert_string_equal(trace, "m1n111");
    become(&fake_cpu_block);
    thread_create("p", note_cpu, "p", 0); // frees what ended on the second CPU
    stop_second_cpu(idle);
    thread_create("m", note_cpu, "m", THREAD_MOVABLE); // there is no other
    thread_sleep_ns(1);
    assert_string_equal(trace, "m1n111p0m000");
    thread_keep_off(0);
}

static void run_and_wait(void *arg)
{
    now += 100 * NS_PER_US;
    wait_event(&q, ready_count > 0);
    ready_count--;
    note(arg);
}

// CPUs that exchange no threads get on at rates of their own.
static void test_a_cpu_that_guests_keep_off_says_nothing_about_them(void **state)
{
    (void)state;
    struct thread *idle = start_second_cpu();
    thread_keep_off(BIT(0));
    ready_count = 0;
    struct thread *sleeper = thread_create("s", run_and_wait, "s", THREAD_MOVABLE);
    become(&second_cpu);
    thread_yield();
    become(&fake_cpu_block);
    struct thread *other = thread_create("o", note_cpu, "o", THREAD_MOVABLE);
    now += 10 * NS_PER_SEC; // the boot CPU is busy
    ready_count = 1;
    waitq_wake_all(&q);
    assert_true(sleeper->vruntime < other->vruntime + 10 * NS_PER_MS);
    become(&second_cpu);
    thread_yield();
    thread_yield();
    assert_non_null(strchr(trace, 's'));
    become(&fake_cpu_block);
    thread_create("p", note_cpu, "p", 0); // frees what ended on the second CPU
    stop_second_cpu(idle);
    thread_sleep_ns(1);
    thread_keep_off(0);
}

static unsigned asks;
static struct vcpu *const some_vcpu = (struct vcpu *)&q;

static void vcpu_hook(struct vcpu *v)
{
    assert_ptr_equal(v, some_vcpu);
}

static void vcpu_ask(struct vcpu *v)
{
    assert_ptr_equal(v, some_vcpu);
    asks++;
}

static void run_alone(void *arg)
{
    (void)arg;
    thread_set_vcpu(some_vcpu);
    thread_sleep_ns(1);
    for (asks = 0; asks < 5; thread_yield_if_needed()) {
        unsigned before = asks;
        now += BALANCE_NS;
        tick();
        assert_int_equal(asks, before + 1);
    }
    thread_set_vcpu(NULL);
}

// A guest without exits that has a CPU to itself: time and again, not once, is it to look at what
// waits on others.
static void test_a_vcpu_alone_looks_at_the_others_again(void **state)
{
    (void)state;
    struct thread *idle = start_second_cpu();
    thread_set_vcpu_hooks(vcpu_hook, vcpu_hook, vcpu_ask);
    thread_create("v", run_alone, NULL, 0);
    thread_sleep_ns(NS_PER_SEC);
    assert_int_equal(asks, 5);
    stop_second_cpu(idle);
}

static void run_while_another_leaves(void *arg)
{
    (void)arg;
    thread_set_vcpu(some_vcpu);
    struct thread *first = thread_create("m", note_cpu, "m", THREAD_MOVABLE);
    struct thread *second = thread_create("p", note_cpu, "p", 0);
    second->vruntime = first->vruntime + 2 * NS_PER_MS; // not sorted anew: it is the last
    thread_keep_off(0);
    become(&second_cpu);
    assert_true(balance_pull());
    become(&fake_cpu_block);
    for (u32 i = 0; i < 10; i++) {
        asks = 0;
        now += NS_PER_MS;
        tick();
        if (asks) // as a vCPU does; a guest looks at nothing by itself
            thread_yield_if_needed();
    }
    assert_non_null(strchr(trace, 'p'));
    thread_set_vcpu(NULL);
}

// Its slice was for a thread that another CPU has taken; who still waits here comes in turn.
static void test_a_slice_outlives_whom_it_was_for(void **state)
{
    (void)state;
    struct thread *idle = start_second_cpu();
    thread_keep_off(BIT(1)); // until it looks
    thread_set_vcpu_hooks(vcpu_hook, vcpu_hook, vcpu_ask);
    thread_create("v", run_while_another_leaves, NULL, 0);
    thread_sleep_ns(NS_PER_SEC);
    become(&second_cpu);
    thread_yield();
    assert_string_equal(trace, "p00m11");
    become(&fake_cpu_block);
    thread_create("p", note_cpu, "p", 0); // frees what ended on the second CPU
    stop_second_cpu(idle);
    thread_sleep_ns(1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_a_movable_thread_starts_on_an_idle_cpu, start),
        cmocka_unit_test_setup(test_a_cpu_takes_what_waits_on_another, start),
        cmocka_unit_test_setup(test_movable_threads_keep_off_a_cpu, start),
        cmocka_unit_test_setup(test_a_cpu_that_guests_keep_off_says_nothing_about_them, start),
        cmocka_unit_test_setup(test_a_vcpu_alone_looks_at_the_others_again, start),
        cmocka_unit_test_setup(test_a_slice_outlives_whom_it_was_for, start),
    };
    return cmocka_run_group_tests(tests, start_all, NULL);
}

// SPDX-License-Identifier: MIT
// The hand-over as a small model, walked through completely: every order, loss, delay and
// repetition of its messages, and a crash of either host at every step. Never two runners.

// sources: kernel/migrate/handover.c
#include "tests/unit/unit.h"

#include "kernel/migrate/handover.h"

// A message once sent may arrive at any time, never, or more than once: the set only grows.
enum message {
    M_OFFER,
    M_READY,
    M_COMMIT,
    M_RUNNING,
    M_NOT_STARTED,
    M_QUERY,
    M_COMMITTED, // answers to QUERY
    M_ABORTED,
    MESSAGES,
};

struct world {
    enum handover_state source, dest;
    bool source_up, dest_up;
    u32 sent; // bits of enum message
};

static u32 index_of(const struct world *w)
{
    return (((u32)w->source * HO_STATES + (u32)w->dest) * 4 + w->source_up * 2u + w->dest_up)
               << MESSAGES |
           w->sent;
}

#define WORLDS ((HO_STATES * HO_STATES * 4) << MESSAGES)

static u8 *seen;
static struct world *queue;
static u32 queued;

static void reach(struct world w)
{
    u32 i = index_of(&w);
    if (seen[i])
        return;
    seen[i] = 1;
    queue[queued++] = w;
}

static bool source_runs(const struct world *w)
{
    return w->source_up && (w->source == HO_PRECOPY || w->source == HO_ABORTED);
}

static bool dest_runs(const struct world *w)
{
    return w->dest_up && w->dest == HO_STARTED;
}

// What a host sends for the actions it was told to take.
static u32 messages_of(unsigned actions)
{
    u32 m = 0;
    if (actions & HO_SEND_READY)
        m |= 1 << M_READY;
    if (actions & HO_SEND_COMMIT)
        m |= 1 << M_COMMIT;
    if (actions & HO_SEND_RUNNING)
        m |= 1 << M_RUNNING;
    if (actions & HO_SEND_NOT_STARTED)
        m |= 1 << M_NOT_STARTED;
    if (actions & HO_ANSWER_COMMITTED)
        m |= 1 << M_COMMITTED;
    if (actions & (HO_ANSWER_ABORTED | HO_RESUME))
        m |= 1 << M_ABORTED;
    return m;
}

static void source_event(struct world w, enum handover_event e)
{
    if (!w.source_up)
        return;
    w.sent |= messages_of(handover_step(&w.source, e));
    if (e == HO_EV_OFFER_SENT && w.source == HO_OFFERED)
        w.sent |= 1 << M_OFFER;
    reach(w);
}

static void dest_event(struct world w, enum handover_event e)
{
    if (!w.dest_up)
        return;
    struct world before = w;
    w.sent |= messages_of(handover_step(&w.dest, e));
    reach(w);
    if (before.dest == HO_RECEIVING && w.dest == HO_READY) { // the connection breaks under READY
        handover_step(&before.dest, HO_EV_OFFER);
        handover_step(&before.dest, HO_EV_UNSENT);
        reach(before);
    }
}

static void deliver(struct world w)
{
    if (w.sent & 1 << M_OFFER)
        dest_event(w, HO_EV_OFFER);
    if (w.sent & 1 << M_READY)
        source_event(w, HO_EV_READY);
    if (w.sent & (1 << M_COMMIT | 1 << M_COMMITTED))
        dest_event(w, HO_EV_COMMIT);
    if (w.sent & 1 << M_RUNNING)
        source_event(w, HO_EV_RUNNING);
    if (w.sent & 1 << M_NOT_STARTED)
        source_event(w, HO_EV_NOT_STARTED);
    if (w.sent & 1 << M_QUERY)
        source_event(w, HO_EV_QUERY);
    if (w.sent & 1 << M_ABORTED)
        dest_event(w, HO_EV_ABORTED);
}

// What a host does by itself: offers, loses patience, asks again.
static void act(struct world w)
{
    source_event(w, HO_EV_OFFER_SENT);
    source_event(w, HO_EV_FAILED);
    dest_event(w, HO_EV_FAILED);
    if (w.dest_up && w.dest == HO_READY) {
        w.sent |= 1 << M_QUERY;
        reach(w);
    }
    if (w.source_up && w.source == HO_COMMITTED) {
        w.sent |= 1 << M_COMMIT;
        reach(w);
    }
}

static void crash(struct world w)
{
    struct world without_source = w, without_dest = w;
    without_source.source_up = false;
    without_dest.dest_up = false;
    reach(without_source);
    reach(without_dest);
}

// Hosts that have each state on record come back with what is left of it.
static void restart(struct world w)
{
    struct world source = w, dest = w;
    source.source_up = dest.dest_up = true;
    source.source = handover_after_restart(w.source);
    dest.dest = handover_after_restart(w.dest);
    reach(source);
    reach(dest);
}

enum outages { NONE, CRASHES, RESTARTS };

static void explore(struct world first, enum outages outages)
{
    memset(seen, 0, WORLDS);
    queued = 0;
    reach(first);
    for (u32 i = 0; i < queued; i++) {
        deliver(queue[i]);
        act(queue[i]);
        if (outages == CRASHES)
            crash(queue[i]);
        if (outages == RESTARTS)
            restart(queue[i]);
    }
}

static const struct world start = {HO_PRECOPY, HO_RECEIVING, true, true, 0};

static void test_never_two_runners(void **state)
{
    (void)state;
    for (enum outages o = CRASHES; o <= RESTARTS; o++) {
        explore(start, o);
        assert_true(queued > 50); // it went somewhere
        for (u32 i = 0; i < queued; i++) {
            const struct world *w = &queue[i];
            if (source_runs(w) && dest_runs(w))
                fail_msg("both run: source %s, destination %s, messages 0x%x",
                         handover_state_name(w->source), handover_state_name(w->dest), w->sent);
        }
    }
}

// When both know how it ended they agree, and exactly one has the guest.
static void ends_agree(enum outages o)
{
    explore(start, o);
    for (u32 i = 0; i < queued; i++) {
        const struct world *w = &queue[i];
        if (handover_final(w->source) && handover_final(w->dest))
            assert_int_equal(source_runs(w) + dest_runs(w), 1);
        if (w->source == HO_MOVED)
            assert_int_equal(w->dest, HO_STARTED);
    }
}

static void test_ends_agree(void **state)
{
    (void)state;
    ends_agree(NONE);
    ends_agree(RESTARTS);
}

// Whatever was lost so far, restarts of hosts that keep records included: asking again settles it.
static void doubt_ends(enum outages o)
{
    explore(start, o);
    u32 count = queued;
    struct world *all = malloc(count * sizeof(*all));
    memcpy(all, queue, count * sizeof(*all));
    for (u32 i = 0; i < count; i++) {
        bool settled = false;
        explore(all[i], o);
        for (u32 k = 0; k < queued && !settled; k++)
            settled = handover_final(queue[k].source) && handover_final(queue[k].dest);
        if (!settled)
            fail_msg("no way out of source %s, destination %s", handover_state_name(all[i].source),
                     handover_state_name(all[i].dest));
    }
    free(all);
}

static void test_doubt_always_ends(void **state)
{
    (void)state;
    doubt_ends(NONE);
    doubt_ends(RESTARTS);
}

// Before COMMIT is sent the source may go on whenever it wants; after it, never by itself.
static void test_source_rights(void **state)
{
    (void)state;
    enum handover_state s = HO_PRECOPY;
    assert_int_equal(handover_step(&s, HO_EV_FAILED), HO_RESUME);
    s = HO_OFFERED;
    assert_int_equal(handover_step(&s, HO_EV_FAILED), HO_RESUME);
    s = HO_COMMITTED;
    assert_int_equal(handover_step(&s, HO_EV_FAILED), 0);
    assert_int_equal(s, HO_COMMITTED);
    assert_int_equal(handover_step(&s, HO_EV_KEEP), HO_RESUME);
    assert_int_equal(handover_step(&s, HO_EV_DROP), HO_REFUSED);
}

static void test_messages_can_be_repeated(void **state)
{
    (void)state;
    enum handover_state d = HO_READY;
    assert_int_equal(handover_step(&d, HO_EV_COMMIT), HO_START | HO_SEND_RUNNING);
    assert_int_equal(handover_step(&d, HO_EV_COMMIT), HO_SEND_RUNNING); // not started twice
    assert_int_equal(handover_step(&d, HO_EV_ABORTED), HO_REFUSED);
    d = HO_DROPPED;
    assert_int_equal(handover_step(&d, HO_EV_COMMIT), HO_SEND_NOT_STARTED);
    enum handover_state s = HO_MOVED;
    assert_int_equal(handover_step(&s, HO_EV_QUERY), HO_ANSWER_COMMITTED);
    assert_int_equal(handover_step(&s, HO_EV_NOT_STARTED), HO_REFUSED);
}

static void test_names(void **state)
{
    (void)state;
    for (int s = 0; s < HO_STATES; s++)
        assert_string_not_equal(handover_state_name((enum handover_state)s), "?");
    assert_string_equal(handover_state_name(HO_STATES), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_never_two_runners),        cmocka_unit_test(test_ends_agree),
        cmocka_unit_test(test_doubt_always_ends),        cmocka_unit_test(test_source_rights),
        cmocka_unit_test(test_messages_can_be_repeated), cmocka_unit_test(test_names),
    };
    seen = malloc(WORLDS);
    queue = malloc(WORLDS * sizeof(*queue));
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(seen);
    free(queue);
    return failed;
}

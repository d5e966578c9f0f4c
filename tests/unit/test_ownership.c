// SPDX-License-Identifier: MIT
// Who owns a guest: claims, answers to peers, and two hosts that want to start the same one.
// sources: kernel/migrate/ownership.c kernel/migrate/handover.c
#include "tests/unit/unit.h"

#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/migrate/ledger.h"
#include "kernel/migrate/migrate.h"
#include "kernel/migrate/ownership.h"
#include "kernel/time.h"

// ---- Below --------------------------------------------------------------------------------------

static u64 now;
u64 host_boot_id = 100;
struct mutex guests_lock;
static struct guest guest;
static bool listed;

u64 time_ns(void)
{
    return now;
}

void mutex_lock(struct mutex *m)
{
    assert(!m->owner);
    m->owner = (struct thread *)1;
}

void mutex_unlock(struct mutex *m)
{
    assert(m->owner);
    m->owner = NULL;
}

void log_write(enum log_level level, const char *area, const char *fmt, ...)
{
    (void)level, (void)area, (void)fmt;
}

static int record_error;
static u32 recorded; // bits of enum handover_state

int ledger_write(const struct claim *c, enum handover_state state)
{
    (void)c;
    if (!record_error)
        recorded |= 1u << state;
    return record_error;
}

struct guest *guest_find_uuid(const u8 uuid[16])
{
    return listed && memcmp(guest.uuid, uuid, 16) == 0 ? &guest : NULL;
}

// ---- Tests --------------------------------------------------------------------------------------

static const u8 uuid[16] = {1, 2, 3};
static char why[200];

static int setup(void **state)
{
    (void)state;
    for (u32 i = 0; claim_get(i); i++)
        memset(claim_get(i), 0, sizeof(struct claim));
    start_attempts_forget();
    memset(&guest, 0, sizeof(guest));
    memcpy(guest.uuid, uuid, 16);
    guest.epoch = 4;
    listed = false;
    record_error = 0;
    recorded = 0;
    now = 1000 * NS_PER_SEC;
    return 0;
}

static struct move_ident ident(u64 move_id)
{
    struct move_ident id = {
        .epoch = 5, .move_id = move_id, .source_boot_id = 100, .dest_boot_id = 200};
    memcpy(id.uuid, uuid, 16);
    return id;
}

static struct claim *make(u64 move_id, bool source)
{
    struct move_ident id = ident(move_id);
    return claim_new(source, &id, "web", "bravo", why, sizeof(why));
}

static enum owner_state asked(u64 asker_boot_id, bool wants_start, struct wire_owner *out)
{
    struct wire_owner_ask ask = {.asker_boot_id = asker_boot_id, .wants_start = wants_start};
    memcpy(ask.uuid, uuid, 16);
    ownership_answer(&ask, out);
    return (enum owner_state)out->state;
}

static void test_answers_follow_the_guest(void **state)
{
    (void)state;
    static const struct {
        enum guest_state state;
        u64 memory;
        enum owner_state answer;
    } cases[] = {
        {GUEST_OFF, 0, OWNER_NOTHING},      {GUEST_RUNNING, MIB, OWNER_RUNS},
        {GUEST_PAUSED, MIB, OWNER_RUNS},    {GUEST_CRASHED, MIB, OWNER_NOTHING},
        {GUEST_INCOMING, MIB, OWNER_HOLDS}, {GUEST_FROZEN, MIB, OWNER_HOLDS},
        {GUEST_IN_DOUBT, MIB, OWNER_HOLDS}, {GUEST_IN_DOUBT, 0, OWNER_NOTHING},
        {GUEST_MOVED, 0, OWNER_NOTHING}, // the claim is forgotten: the new owner says so itself
    };
    struct wire_owner o;
    assert_int_equal(asked(7, false, &o), OWNER_NOTHING);
    listed = true;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        guest.state = (u8)cases[i].state;
        guest.memory.bytes = cases[i].memory;
        assert_int_equal(asked(7, false, &o), cases[i].answer);
        assert_int_equal(o.epoch, 4);
    }
}

static void test_moved_says_where(void **state)
{
    (void)state;
    struct wire_owner o;
    listed = true;
    struct claim *c = make(1, true);
    guest.state = GUEST_FROZEN;
    assert_int_equal(asked(7, false, &o), OWNER_HOLDS);
    claim_step(c, HO_EV_OFFER_SENT);
    claim_step(c, HO_EV_READY);
    guest.state = GUEST_IN_DOUBT;
    assert_int_equal(asked(7, true, &o), OWNER_HOLDS);
    claim_step(c, HO_EV_RUNNING);
    guest.state = GUEST_MOVED;
    assert_int_equal(asked(7, false, &o), OWNER_MOVED);
    assert_string_equal(o.to, "bravo");
    assert_int_equal(o.to_boot_id, 200);
    assert_int_equal(o.epoch, 5);
}

static void test_one_move_at_a_time(void **state)
{
    (void)state;
    struct claim *c = make(1, true);
    assert_non_null(c);
    assert_true(ownership_in_doubt(uuid));
    assert_null(make(2, true));
    assert_string_equal(why, "a move of guest web to bravo is not settled yet (precopy)");
    claim_step(c, HO_EV_FAILED);
    assert_false(ownership_in_doubt(uuid));
    assert_non_null(make(2, false));
}

static void test_what_must_be_on_record(void **state)
{
    (void)state;
    struct claim *c = make(1, true);
    assert_int_equal(claim_record(c), 0);
    assert_int_equal(recorded, 1u << HO_PRECOPY);
    claim_step(c, HO_EV_OFFER_SENT); // within the blackout: nothing is written
    assert_int_equal(recorded, 1u << HO_PRECOPY);
    record_error = E_IO;
    assert_int_equal(claim_step(c, HO_EV_READY), HO_REFUSED); // so no COMMIT
    assert_int_equal(c->state, HO_OFFERED);
    assert_int_equal(claim_step(c, HO_EV_FAILED), HO_RESUME);
    assert_int_equal(c->state, HO_ABORTED);

    c = make(2, false);
    assert_int_equal(claim_record(c), E_IO);
    record_error = 0;
    claim_step(c, HO_EV_OFFER);
    record_error = E_IO; // it never runs without being on record; the source may go on
    assert_int_equal(claim_step(c, HO_EV_KEEP), HO_REFUSED);
    assert_int_equal(claim_step(c, HO_EV_COMMIT), HO_DISCARD | HO_SEND_NOT_STARTED);
    assert_int_equal(c->state, HO_DROPPED);

    c = make(3, true);
    record_error = 0;
    claim_step(c, HO_EV_OFFER_SENT);
    assert_int_equal(claim_step(c, HO_EV_READY), HO_SEND_COMMIT);
    assert_true(recorded & 1u << HO_COMMITTED);
    record_error = E_IO; // what is only good to know may be lost
    assert_int_equal(claim_step(c, HO_EV_RUNNING), HO_RELEASE);
    assert_int_equal(c->state, HO_MOVED);
}

static void test_find_needs_the_whole_identity(void **state)
{
    (void)state;
    struct claim *c = make(1, true);
    struct move_ident id = ident(1);
    assert_ptr_equal(claim_find(&id, true), c);
    assert_null(claim_find(&id, false));
    id.epoch++;
    assert_null(claim_find(&id, true));
    id = ident(1);
    id.dest_boot_id++;
    assert_null(claim_find(&id, true));
    id = ident(2); // an earlier or later attempt of the same epoch
    assert_null(claim_find(&id, true));
}

static void test_settled_ones_make_room(void **state)
{
    (void)state;
    struct move_ident id = ident(0);
    for (u32 i = 0; i < CLAIMS_KEPT; i++) {
        id.uuid[15] = (u8)(i + 1);
        struct claim *c = claim_new(false, &id, "web", "bravo", why, sizeof(why));
        assert_non_null(c);
        c->linked = false;
        if (i == 3)
            claim_step(c, HO_EV_FAILED);
    }
    id.uuid[15] = 200;
    struct claim *c = claim_new(false, &id, "web", "bravo", why, sizeof(why));
    assert_ptr_equal(c, claim_get(3));
    id.uuid[15] = 201;
    assert_null(claim_new(false, &id, "web", "bravo", why, sizeof(why)));
    assert_non_null(strstr(why, "64 moves are not settled"));
}

// What is promised to another host is kept, for as long as was said.
static void test_lease(void **state)
{
    (void)state;
    struct wire_owner o;
    assert_int_equal(asked(7, true, &o), OWNER_NOTHING);
    assert_false(start_attempt_begin(uuid));
    now += START_LEASE_NS;
    assert_true(start_attempt_begin(uuid));
    start_attempt_end(uuid, true);
    assert_int_equal(asked(7, true, &o), OWNER_RUNS); // about to
    now += START_LEASE_NS;
    assert_int_equal(asked(7, true, &o), OWNER_NOTHING);
}

// A guest that was started here and moved on at once is not about to start here.
static void test_a_start_is_over_with_it(void **state)
{
    (void)state;
    struct wire_owner o;
    assert_true(start_attempt_begin(uuid));
    start_attempt_end(uuid, true);
    listed = true;
    guest.state = GUEST_RUNNING;
    ownership_start_over(uuid);
    assert_int_equal(asked(7, true, &o), OWNER_RUNS);
    guest.state = GUEST_OFF;
    assert_int_equal(asked(7, true, &o), OWNER_NOTHING);
}

static void test_asking_without_wanting_promises_nothing(void **state)
{
    (void)state;
    struct wire_owner o;
    assert_int_equal(asked(7, false, &o), OWNER_NOTHING);
    assert_true(start_attempt_begin(uuid));
}

static void test_two_at_once_smaller_goes_first(void **state)
{
    (void)state;
    struct wire_owner o;
    assert_true(start_attempt_begin(uuid));
    assert_int_equal(asked(101, true, &o), OWNER_STARTING); // we are 100: we go first
    assert_false(start_attempt_lost(uuid));
    assert_int_equal(asked(99, true, &o), OWNER_NOTHING); // that one does
    assert_true(start_attempt_lost(uuid));
    start_attempt_end(uuid, true); // its answer comes too late
    assert_false(start_attempt_begin(uuid));
    assert_int_equal(asked(99, true, &o), OWNER_NOTHING);
}

// Two hosts with the same guest ask each other, in every order of their steps: at most one starts.

static void test_every_interleaving(void **state)
{
    // The real table stands for one host (100); the other follows the same rules here.
    (void)state;
    for (u32 order = 0; order < 1u << 6; order++) {
        for (u64 other_id = 99; other_id <= 101; other_id += 2) {
            struct wire_owner o;
            bool we_asked = false, we_ended = false, we_start = false, they_start = false;
            bool they_lost = false, they_asked = false, they_ended = false;
            enum owner_state they_got = OWNER_NOTHING;
            setup(NULL);
            for (u32 s = 0; s < 6; s++) {
                if (order & 1u << s) {
                    if (!we_asked) {
                        we_asked = start_attempt_begin(uuid);
                    } else if (!we_ended) { // their answer to us
                        bool yes = !they_start && !(they_asked && !they_ended && !they_lost &&
                                                    other_id < host_boot_id);
                        if (yes && they_asked && !they_ended)
                            they_lost = true;
                        we_ended = true;
                        we_start = yes && !start_attempt_lost(uuid);
                        start_attempt_end(uuid, we_start);
                        if (we_start) {
                            listed = true;
                            guest.state = GUEST_RUNNING;
                        }
                    }
                } else if (!they_asked) {
                    they_asked = true;
                    they_got = asked(other_id, true, &o);
                } else if (!they_ended) {
                    they_ended = true;
                    they_start = they_got == OWNER_NOTHING && !they_lost;
                }
            }
            assert_false(we_start && they_start);
        }
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        T(test_answers_follow_the_guest),
        T(test_moved_says_where),
        T(test_one_move_at_a_time),
        T(test_what_must_be_on_record),
        T(test_find_needs_the_whole_identity),
        T(test_settled_ones_make_room),
        T(test_lease),
        T(test_a_start_is_over_with_it),
        T(test_asking_without_wanting_promises_nothing),
        T(test_two_at_once_smaller_goes_first),
        T(test_every_interleaving),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

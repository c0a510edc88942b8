/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/base/clock.h"
#include "server/workers.h"
#include "tests/unit/check.h"
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define SR_A  "aaaaaaaa-0000-0000-0000-00000000000a"
#define SR_B  "aaaaaaaa-0000-0000-0000-00000000000b"
#define VDI_1 "dddddddd-0000-0000-0000-000000000001"
#define VDI_2 "dddddddd-0000-0000-0000-000000000002"

static struct turn turn_of(enum lock_class lock, const char *sr, const char *vdi)
{
    struct turn t = {.lock = lock, .sr = UUID_NONE, .vdi = UUID_NONE};
    uuid_parse_text(sr, &t.sr);
    uuid_parse_text(vdi, &t.vdi);
    return t;
}

/* A call that says when it began, and ends when it is told to. */
struct task {
    atomic_bool begun, may_end, ended, late;
    atomic_uint *clock; /* counts begins, when given */
    unsigned place;     /* the clock at its begin */
};

static void task_run(void *arg)
{
    struct task *t = arg;
    if (t->clock)
        t->place = atomic_fetch_add(t->clock, 1);
    atomic_store(&t->begun, true);
    while (!atomic_load(&t->may_end))
        usleep(200);
    atomic_store(&t->ended, true);
}

static bool comes_true(atomic_bool *flag)
{
    for (int i = 0; i < 25000 && !atomic_load(flag); i++)
        usleep(200);
    return atomic_load(flag);
}

/* Long enough that a thread which may run has run. */
static bool stays_false(atomic_bool *flag)
{
    usleep(20000);
    return !atomic_load(flag);
}

static struct workers *pool(unsigned threads, unsigned running, unsigned waiting)
{
    struct workers_settings s = {.threads = threads, .lease_threads = 2, .running = running, .waiting = waiting};
    struct workers *w = NULL;
    struct fault f;
    assert_int_equal(workers_new(&s, &w, &f), 0);
    return w;
}

static void submit(struct workers *w, struct turn turn, struct task *t)
{
    const struct job_order order = {.turn = turn, .run = task_run, .arg = t};
    struct fault f;
    assert_int_equal(workers_submit(w, &order, &f), 0);
}

/* Whether second waits while first runs, in this order. */
static bool waits(struct turn first, struct turn second)
{
    struct workers *w = pool(4, 4, 4);
    struct task a = {0}, b = {0};
    submit(w, first, &a);
    assert_true(comes_true(&a.begun));
    submit(w, second, &b);
    bool excluded = turn_excludes(&first, &second);
    assert_int_equal(excluded, turn_excludes(&second, &first));
    if (excluded)
        assert_true(stays_false(&b.begun));
    else
        assert_true(comes_true(&b.begun));
    atomic_store(&a.may_end, true);
    assert_true(comes_true(&b.begun));
    atomic_store(&b.may_end, true);
    workers_stop(w);
    return excluded;
}

static void each_pair_of_classes_excludes_as_specified(void **state)
{
    (void) state;
    struct {
        enum lock_class lock;
        const char *vdi;
    } kinds[] = {{LOCK_NONE, ""}, {LOCK_SHARED, ""}, {LOCK_SHARED, VDI_1}, {LOCK_VDI, VDI_1}, {LOCK_VDI, VDI_2},
                 {LOCK_VDI, ""},  {LOCK_SERIAL, ""}, {LOCK_SERIAL, VDI_1}, {LOCK_WHOLE, ""},  {LOCK_SERIAL, VDI_2}};
    static const char *const expected[] = {
        "..........", /* NONE */
        "........W.", /* SHARED */
        "........W.", /* SHARED, naming a disk */
        "...W.W.WW.", /* VDI 1 */
        "....WW..WW", /* VDI 2 */
        "...WWWWWWW", /* VDI, disk not named */
        ".....WWWWW", /* SERIAL */
        "...W.WWWWW", /* SERIAL 1 */
        ".WWWWWWWWW", /* WHOLE */
        "....WWWWWW", /* SERIAL 2 */
    };
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        for (size_t j = 0; j < COUNT_OF(kinds); j++) {
            struct turn a = turn_of(kinds[i].lock, SR_A, kinds[i].vdi), b = turn_of(kinds[j].lock, SR_A, kinds[j].vdi);
            if (waits(a, b) != (expected[i][j] == 'W'))
                fail_msg("class %zu then class %zu", i, j);
        }
}

static void srs_do_not_wait_for_each_other(void **state)
{
    (void) state;
    assert_true(turn_excludes(&(struct turn){.lock = LOCK_WHOLE}, &(struct turn){.lock = LOCK_WHOLE}));
    struct workers *w = pool(4, 4, 4);
    struct task a = {0}, b = {0};
    submit(w, turn_of(LOCK_WHOLE, SR_A, ""), &a);
    submit(w, turn_of(LOCK_WHOLE, SR_B, ""), &b);
    assert_true(comes_true(&a.begun) && comes_true(&b.begun));
    atomic_store(&a.may_end, true);
    atomic_store(&b.may_end, true);
    workers_stop(w);
}

static void calls_on_no_sr_exclude_nothing(void **state)
{
    (void) state;
    struct workers *w = pool(4, 4, 4);
    struct task a = {0}, b = {0};
    submit(w, turn_of(LOCK_WHOLE, "", ""), &a);
    submit(w, turn_of(LOCK_WHOLE, "", ""), &b);
    assert_true(comes_true(&a.begun) && comes_true(&b.begun));
    atomic_store(&a.may_end, true);
    atomic_store(&b.may_end, true);
    workers_stop(w);
}

static void a_waiting_scan_is_not_overtaken_by_readers(void **state)
{
    (void) state;
    struct workers *w = pool(8, 4, 16);
    struct task reader = {0}, scan = {0}, late[8] = {0};
    submit(w, turn_of(LOCK_SHARED, SR_A, ""), &reader);
    submit(w, turn_of(LOCK_WHOLE, SR_A, ""), &scan);
    for (size_t i = 0; i < COUNT_OF(late); i++)
        submit(w, turn_of(LOCK_SHARED, SR_A, ""), &late[i]);
    assert_true(stays_false(&scan.begun));
    assert_false(atomic_load(&late[0].begun));
    atomic_store(&reader.may_end, true);
    assert_true(comes_true(&scan.begun));
    assert_true(stays_false(&late[0].begun));
    atomic_store(&scan.may_end, true);
    for (size_t i = 0; i < COUNT_OF(late); i++)
        atomic_store(&late[i].may_end, true);
    workers_stop(w);
    assert_true(atomic_load(&late[7].ended));
}

static void another_disk_passes_a_call_that_waits(void **state)
{
    (void) state;
    struct workers *w = pool(8, 4, 16);
    struct task first = {0}, same = {0}, other = {0};
    submit(w, turn_of(LOCK_VDI, SR_A, VDI_1), &first);
    submit(w, turn_of(LOCK_VDI, SR_A, VDI_1), &same);
    submit(w, turn_of(LOCK_VDI, SR_A, VDI_2), &other);
    assert_true(comes_true(&other.begun));
    assert_false(atomic_load(&same.begun));
    atomic_store(&first.may_end, true);
    atomic_store(&same.may_end, true);
    atomic_store(&other.may_end, true);
    workers_stop(w);
    assert_true(atomic_load(&same.ended));
}

static void what_excludes_each_other_runs_in_the_order_it_came(void **state)
{
    (void) state;
    enum { CALLS = 60 };
    struct workers *w = pool(8, 4, CALLS);
    atomic_uint clock = 0;
    struct task first = {0}, t[CALLS] = {0};
    submit(w, turn_of(LOCK_SERIAL, SR_A, ""), &first);
    for (size_t i = 0; i < CALLS; i++) {
        t[i].clock = &clock;
        atomic_store(&t[i].may_end, true);
        submit(w, turn_of(i % 3 == 0 ? LOCK_WHOLE : LOCK_SERIAL, SR_A, i % 2 ? VDI_1 : ""), &t[i]);
    }
    atomic_store(&first.may_end, true);
    workers_stop(w);
    for (unsigned i = 0; i < CALLS; i++)
        assert_int_equal(t[i].place, i);
}

static void a_hung_sr_keeps_only_its_share_of_the_threads(void **state)
{
    (void) state;
    struct workers *w = pool(4, 16, 16);
    struct task hung[8] = {0}, other = {0};
    for (size_t i = 0; i < COUNT_OF(hung); i++)
        submit(w, turn_of(LOCK_SHARED, SR_A, ""), &hung[i]);
    assert_true(comes_true(&hung[0].begun) && comes_true(&hung[1].begun));
    assert_true(stays_false(&hung[2].begun));
    atomic_store(&other.may_end, true);
    submit(w, turn_of(LOCK_WHOLE, SR_B, ""), &other);
    assert_true(comes_true(&other.ended));
    for (size_t i = 0; i < COUNT_OF(hung); i++)
        atomic_store(&hung[i].may_end, true);
    workers_stop(w);
    assert_true(atomic_load(&hung[7].ended));
}

static void one_more_than_may_wait_is_refused_busy(void **state)
{
    (void) state;
    struct workers *w = pool(8, 2, 3);
    struct task t[5] = {0}, refused = {0}, other = {0};
    for (size_t i = 0; i < COUNT_OF(t); i++)
        submit(w, turn_of(LOCK_SHARED, SR_A, ""), &t[i]);
    const struct job_order order = {.turn = turn_of(LOCK_SHARED, SR_A, ""), .run = task_run, .arg = &refused};
    struct fault f = {0};
    assert_int_equal(workers_submit(w, &order, &f), -1);
    assert_int_equal(f.code, FAULT_Busy);
    atomic_store(&other.may_end, true);
    submit(w, turn_of(LOCK_SHARED, SR_B, ""), &other);
    assert_true(comes_true(&other.ended));
    for (size_t i = 0; i < COUNT_OF(t); i++)
        atomic_store(&t[i].may_end, true);
    workers_stop(w);
    assert_false(atomic_load(&refused.begun));
}

static void stopping_runs_all_that_waits(void **state)
{
    (void) state;
    enum { CALLS = 200 };
    struct workers *w = pool(4, 2, CALLS);
    struct task t[CALLS] = {0};
    for (size_t i = 0; i < CALLS; i++) {
        atomic_store(&t[i].may_end, true);
        submit(w, turn_of(i % 5 ? LOCK_VDI : LOCK_WHOLE, i % 2 ? SR_A : SR_B, i % 3 ? VDI_1 : VDI_2), &t[i]);
    }
    workers_stop(w);
    for (size_t i = 0; i < CALLS; i++)
        assert_true(atomic_load(&t[i].ended));
}

static void a_drained_pool_refuses(void **state)
{
    (void) state;
    struct workers *w = pool(2, 1, 1);
    struct task t = {0};
    const struct job_order order = {.turn = turn_of(LOCK_SHARED, SR_A, ""), .run = task_run, .arg = &t};
    struct fault f = {0};
    workers_drain(w);
    assert_int_equal(workers_submit(w, &order, &f), -1);
    assert_int_equal(f.code, FAULT_Busy);
    workers_stop(w);
    assert_false(atomic_load(&t.begun));
}

/* Plain memory guarded by turns alone: a sanitizer, and the sums, tell when two ran at once. */
struct guarded {
    unsigned whole, disks[2];
};

struct change {
    struct guarded *memory;
    enum lock_class lock;
    unsigned disk;
};

static void change_run(void *arg)
{
    struct change *c = arg;
    if (c->lock == LOCK_WHOLE) {
        c->memory->disks[0]++;
        c->memory->disks[1]++;
        c->memory->whole++;
        return;
    }
    c->memory->disks[c->disk]++;
    if (c->lock == LOCK_SERIAL)
        c->memory->whole++;
}

static void turns_guard_plain_memory(void **state)
{
    (void) state;
    enum { CALLS = 3000 };
    struct workers *w = pool(8, 4, CALLS);
    struct guarded memory[2] = {0};
    static struct change c[CALLS];
    unsigned wholes = 0;
    for (unsigned i = 0; i < CALLS; i++) {
        static const enum lock_class locks[] = {LOCK_VDI, LOCK_VDI, LOCK_VDI, LOCK_SERIAL, LOCK_WHOLE};
        c[i] = (struct change){&memory[i % 2], locks[i % COUNT_OF(locks)], (i / 2) % 2};
        wholes += c[i].lock == LOCK_WHOLE;
        const struct job_order order = {.turn = turn_of(c[i].lock, i % 2 ? SR_A : SR_B, c[i].disk ? VDI_1 : VDI_2),
                                        .run = change_run,
                                        .arg = &c[i]};
        struct fault f;
        assert_int_equal(workers_submit(w, &order, &f), 0);
    }
    workers_stop(w);
    unsigned sum = memory[0].disks[0] + memory[0].disks[1] + memory[1].disks[0] + memory[1].disks[1];
    assert_int_equal(sum, CALLS + wholes);
}

static struct turn lease_of(const char *sr, const char *vdi)
{
    struct turn t = turn_of(LOCK_VDI, sr, vdi);
    t.lease = true;
    return t;
}

static void lease_calls_find_a_thread_when_all_others_are_taken(void **state)
{
    (void) state;
    struct workers *w = pool(4, 2, 16);
    struct task hung[12] = {0}, lease = {0}, other = {0};
    for (size_t i = 0; i < COUNT_OF(hung); i++)
        submit(w, turn_of(LOCK_SHARED, i % 2 ? SR_A : SR_B, ""), &hung[i]);
    assert_true(comes_true(&hung[0].begun) && comes_true(&hung[3].begun));
    submit(w, turn_of(LOCK_NONE, "", ""), &other);
    assert_true(stays_false(&other.begun)); /* no thread is left for it */
    atomic_store(&lease.may_end, true);
    submit(w, lease_of(SR_A, VDI_1), &lease);
    assert_true(comes_true(&lease.ended));
    assert_false(atomic_load(&other.begun));
    for (size_t i = 0; i < COUNT_OF(hung); i++)
        atomic_store(&hung[i].may_end, true);
    atomic_store(&other.may_end, true);
    workers_stop(w);
    assert_true(atomic_load(&other.ended));
}

static void a_full_queue_still_takes_lease_calls(void **state)
{
    (void) state;
    struct workers *w = pool(8, 1, 2);
    struct task hung[3] = {0}, lease[4] = {0};
    const struct job_order full = {.turn = turn_of(LOCK_SHARED, SR_A, ""), .run = task_run, .arg = &lease[3]};
    const struct job_order leases = {.turn = lease_of(SR_A, VDI_1), .run = task_run, .arg = &lease[3]};
    struct fault f;
    for (size_t i = 0; i < COUNT_OF(hung); i++)
        submit(w, turn_of(LOCK_SHARED, SR_A, ""), &hung[i]);
    assert_int_equal(workers_submit(w, &full, &f), -1);
    for (size_t i = 0; i < 3; i++)
        submit(w, lease_of(SR_A, VDI_1), &lease[i]);
    assert_true(comes_true(&lease[0].begun));
    assert_int_equal(workers_submit(w, &leases, &f), -1); /* and has a limit of its own */
    assert_int_equal(f.code, FAULT_Busy);
    for (size_t i = 0; i < COUNT_OF(hung); i++)
        atomic_store(&hung[i].may_end, true);
    for (size_t i = 0; i < COUNT_OF(lease); i++)
        atomic_store(&lease[i].may_end, true);
    workers_stop(w);
    assert_true(atomic_load(&lease[2].ended));
    assert_false(atomic_load(&lease[3].begun));
}

static void hung_lease_calls_of_one_sr_leave_threads_to_another(void **state)
{
    (void) state;
    struct workers *w = pool(2, 1, 8);
    struct task hung[4] = {0}, lease = {0};
    for (size_t i = 0; i < COUNT_OF(hung); i++)
        submit(w, lease_of(SR_A, i % 2 ? VDI_1 : VDI_2), &hung[i]);
    assert_true(comes_true(&hung[0].begun) && comes_true(&hung[1].begun));
    atomic_store(&lease.may_end, true);
    submit(w, lease_of(SR_B, VDI_1), &lease);
    assert_true(comes_true(&lease.ended));
    for (size_t i = 0; i < COUNT_OF(hung); i++)
        atomic_store(&hung[i].may_end, true);
    workers_stop(w);
}

static void note_late(void *arg)
{
    struct task *t = arg;
    atomic_store(&t->late, true);
}

static void submit_until(struct workers *w, struct turn turn, int64_t expires, struct task *t)
{
    const struct job_order order = {.turn = turn, .expires = expires, .run = task_run, .late = note_late, .arg = t};
    struct fault f;
    assert_int_equal(workers_submit(w, &order, &f), 0);
}

static void a_call_that_waited_too_long_is_told_so_and_never_begun(void **state)
{
    (void) state;
    struct workers *w = pool(4, 2, 8);
    struct task hung = {0}, late = {0}, behind = {0}, patient = {0};
    int64_t soon = clock_boot_ns() + 30000000;
    submit_until(w, turn_of(LOCK_SHARED, SR_A, ""), soon, &hung);
    assert_true(comes_true(&hung.begun));
    submit_until(w, turn_of(LOCK_WHOLE, SR_A, ""), soon, &late);
    submit_until(w, turn_of(LOCK_SHARED, SR_A, ""), 0, &behind); /* waits for the one that will be late */
    submit_until(w, turn_of(LOCK_WHOLE, SR_A, ""), 0, &patient);
    workers_expire(w);
    assert_false(atomic_load(&late.late));
    assert_false(atomic_load(&behind.begun));
    usleep(40000);
    workers_expire(w);
    assert_true(atomic_load(&late.late));
    assert_true(comes_true(&behind.begun)); /* at once: nothing is in its way any more */
    assert_false(atomic_load(&hung.late));  /* one that has begun runs to its end */
    assert_int_equal(workers_counted(w).late, 1);
    atomic_store(&hung.may_end, true);
    atomic_store(&behind.may_end, true);
    atomic_store(&patient.may_end, true);
    workers_stop(w);
    assert_true(atomic_load(&patient.ended));
    assert_false(atomic_load(&late.begun));
}

static void a_call_whose_turn_came_but_no_thread_is_late_too(void **state)
{
    (void) state;
    struct workers *w = pool(1, 1, 8);
    struct task hung = {0}, unmanned = {0}, found = {0};
    submit_until(w, turn_of(LOCK_SHARED, SR_A, ""), 0, &hung);
    assert_true(comes_true(&hung.begun));
    submit_until(w, turn_of(LOCK_SHARED, SR_B, ""), clock_boot_ns(), &unmanned);
    workers_expire(w);
    assert_true(atomic_load(&unmanned.late));
    submit_until(w, turn_of(LOCK_SHARED, SR_B, ""), clock_boot_ns(), &found); /* late when the thread comes to it */
    atomic_store(&hung.may_end, true);
    assert_true(comes_true(&found.late));
    workers_stop(w);
    assert_false(atomic_load(&unmanned.begun) || atomic_load(&found.begun));
}

static bool a_is_silent(void *arg, const struct uuid *sr)
{
    return atomic_load((atomic_bool *) arg) && strcmp(sr->text, SR_A) == 0;
}

static void a_silent_sr_takes_no_thread_from_others_and_nobody_waits_for_it(void **state)
{
    (void) state;
    atomic_bool silent = false;
    struct workers_settings s = {
        .threads = 2, .lease_threads = 1, .running = 2, .waiting = 8, .silent = a_is_silent, .silent_arg = &silent};
    struct workers *w = NULL;
    struct fault f;
    struct task hung = {0}, waiting = {0}, patient = {0}, others[2] = {0};
    struct turn gives_back = turn_of(LOCK_WHOLE, SR_A, "");
    gives_back.patient = true;
    assert_int_equal(workers_new(&s, &w, &f), 0);
    submit_until(w, turn_of(LOCK_WHOLE, SR_A, ""), 0, &hung);
    assert_true(comes_true(&hung.begun));
    submit_until(w, turn_of(LOCK_SHARED, SR_A, ""), 0, &waiting);
    submit_until(w, gives_back, 0, &patient);
    for (size_t i = 0; i < COUNT_OF(others); i++)
        submit_until(w, turn_of(LOCK_SHARED, SR_B, ""), 0, &others[i]);
    assert_true(comes_true(&others[0].begun));
    workers_expire(w);
    assert_true(stays_false(&others[1].begun)); /* the share of one SR is half */
    assert_false(atomic_load(&waiting.late));
    workers_limit(w, 2, 8);
    atomic_store(&silent, true);
    workers_expire(w);
    assert_true(atomic_load(&waiting.late));
    assert_int_equal(workers_counted(w).stalled, 1);
    assert_in_range(workers_counted(w).threads, 2, 3); /* one is for leases, and may be there by now */
    struct task more = {0};
    submit_until(w, turn_of(LOCK_SHARED, "", ""), 0, &more); /* one more than there were threads for */
    assert_true(comes_true(&more.begun));
    assert_false(atomic_load(&patient.late) || atomic_load(&patient.begun));
    atomic_store(&silent, false);
    atomic_store(&more.may_end, true);
    assert_true(comes_true(&more.ended));
    atomic_store(&hung.may_end, true);
    assert_true(comes_true(&patient.begun));
    assert_int_equal(workers_counted(w).stalled, 0);
    atomic_store(&patient.may_end, true);
    for (size_t i = 0; i < COUNT_OF(others); i++)
        atomic_store(&others[i].may_end, true);
    workers_stop(w);
    assert_false(atomic_load(&waiting.begun));
    assert_true(atomic_load(&others[1].ended));
}

static void limits_may_change_while_calls_wait(void **state)
{
    (void) state;
    struct workers *w = pool(8, 1, 1);
    struct task t[3] = {0};
    submit(w, turn_of(LOCK_SHARED, SR_A, ""), &t[0]);
    submit(w, turn_of(LOCK_SHARED, SR_A, ""), &t[1]);
    assert_true(stays_false(&t[1].begun));
    workers_limit(w, 4, 4);
    submit(w, turn_of(LOCK_SHARED, SR_A, ""), &t[2]);
    assert_true(comes_true(&t[1].begun) && comes_true(&t[2].begun));
    for (size_t i = 0; i < COUNT_OF(t); i++)
        atomic_store(&t[i].may_end, true);
    workers_stop(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_pair_of_classes_excludes_as_specified),
        cmocka_unit_test(srs_do_not_wait_for_each_other),
        cmocka_unit_test(calls_on_no_sr_exclude_nothing),
        cmocka_unit_test(a_waiting_scan_is_not_overtaken_by_readers),
        cmocka_unit_test(another_disk_passes_a_call_that_waits),
        cmocka_unit_test(what_excludes_each_other_runs_in_the_order_it_came),
        cmocka_unit_test(a_hung_sr_keeps_only_its_share_of_the_threads),
        cmocka_unit_test(one_more_than_may_wait_is_refused_busy),
        cmocka_unit_test(stopping_runs_all_that_waits),
        cmocka_unit_test(a_drained_pool_refuses),
        cmocka_unit_test(turns_guard_plain_memory),
        cmocka_unit_test(lease_calls_find_a_thread_when_all_others_are_taken),
        cmocka_unit_test(a_full_queue_still_takes_lease_calls),
        cmocka_unit_test(hung_lease_calls_of_one_sr_leave_threads_to_another),
        cmocka_unit_test(a_call_that_waited_too_long_is_told_so_and_never_begun),
        cmocka_unit_test(a_call_whose_turn_came_but_no_thread_is_late_too),
        cmocka_unit_test(a_silent_sr_takes_no_thread_from_others_and_nobody_waits_for_it),
        cmocka_unit_test(limits_may_change_while_calls_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
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
    atomic_bool begun, may_end, ended;
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
    struct workers_settings s = {threads, running, waiting};
    struct workers *w = NULL;
    struct fault f;
    assert_int_equal(workers_new(&s, &w, &f), 0);
    return w;
}

static void submit(struct workers *w, struct turn turn, struct task *t)
{
    struct fault f;
    assert_int_equal(workers_submit(w, &turn, task_run, t, &f), 0);
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
    struct turn turn = turn_of(LOCK_SHARED, SR_A, "");
    struct fault f = {0};
    assert_int_equal(workers_submit(w, &turn, task_run, &refused, &f), -1);
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
    struct turn turn = turn_of(LOCK_SHARED, SR_A, "");
    struct task t = {0};
    struct fault f = {0};
    workers_drain(w);
    assert_int_equal(workers_submit(w, &turn, task_run, &t, &f), -1);
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
        struct turn turn = turn_of(c[i].lock, i % 2 ? SR_A : SR_B, c[i].disk ? VDI_1 : VDI_2);
        struct fault f;
        assert_int_equal(workers_submit(w, &turn, change_run, &c[i], &f), 0);
    }
    workers_stop(w);
    unsigned sum = memory[0].disks[0] + memory[0].disks[1] + memory[1].disks[0] + memory[1].disks[1];
    assert_int_equal(sum, CALLS + wholes);
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

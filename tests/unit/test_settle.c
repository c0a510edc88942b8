/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/layouts/settle.h"
#include "tests/unit/check.h"
#include <stdlib.h>
#include <string.h>

struct fixture {
    struct sr sr;
    struct plan plan;
    struct settling work;
    struct fault f;
};

static int begin(void **state)
{
    struct fixture *x = calloc(1, sizeof *x);
    *state = x;
    x->work = (struct settling){.sr = &x->sr, .plan = &x->plan, .how = SETTLED_DONE};
    return x ? 0 : -1;
}

static int end(void **state)
{
    struct fixture *x = *state;
    free(atomic_load(&x->sr.poison));
    free(x);
    return 0;
}

static int finish(struct settling *w, struct fault *f)
{
    (void) f;
    assert_non_null(w->a);
    w->how = SETTLED_DONE;
    return 0;
}

static int finish_unsynced(struct settling *w, struct fault *f)
{
    sr_poison(w->sr, f, "sync failed");
    w->how = SETTLED_DONE;
    return 0;
}

static int refuse(struct settling *w, struct fault *f)
{
    w->how = SETTLED_DONE;
    return fault_set(f, FAULT_EIO, "the device is gone");
}

static const struct settle_row rows[] = {
    {"finish", finish, false},
    {"remove", finish, true},
    {"finish_unsynced", finish_unsynced, false},
    {"remove_unsynced", finish_unsynced, true},
    {"refuse", refuse, false},
};

static int settle(struct fixture *x, const char *method)
{
    x->plan.method = method;
    x->work.a = NULL;
    return settle_by_row(rows, COUNT_OF(rows), 1U << 20, &x->work, &x->f);
}

static void the_row_of_the_method_settles_it(void **state)
{
    struct fixture *x = *state;
    assert_int_equal(settle(x, "finish"), 0);
    assert_int_equal(x->work.how, SETTLED_DONE);
}

static void a_method_without_a_row_stays_open(void **state)
{
    struct fixture *x = *state;
    assert_int_equal(settle(x, "polish"), 0);
    assert_int_equal(x->work.how, SETTLED_STUCK);
}

static void a_fault_is_passed_on(void **state)
{
    struct fixture *x = *state;
    assert_int_equal(settle(x, "refuse"), -1);
    assert_int_equal(x->f.code, FAULT_EIO);
}

static void on_a_poisoned_sr_only_what_removes_is_settled(void **state)
{
    struct fixture *x = *state;
    sr_poison(&x->sr, &x->f, "sync failed");
    assert_int_equal(settle(x, "refuse"), 0);
    assert_int_equal(x->work.how, SETTLED_STUCK);
    assert_int_equal(settle(x, "remove"), 0);
    assert_int_equal(x->work.how, SETTLED_DONE);
}

static void a_sync_that_fails_while_settling_leaves_it_open(void **state)
{
    struct fixture *x = *state;
    assert_int_equal(settle(x, "finish_unsynced"), 0);
    assert_int_equal(x->work.how, SETTLED_STUCK);
    assert_int_equal(settle(x, "remove_unsynced"), 0);
    assert_int_equal(x->work.how, SETTLED_DONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_row_of_the_method_settles_it, begin, end),
        cmocka_unit_test_setup_teardown(a_method_without_a_row_stays_open, begin, end),
        cmocka_unit_test_setup_teardown(a_fault_is_passed_on, begin, end),
        cmocka_unit_test_setup_teardown(on_a_poisoned_sr_only_what_removes_is_settled, begin, end),
        cmocka_unit_test_setup_teardown(a_sync_that_fails_while_settling_leaves_it_open, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sessions of hosts, what is granted to whom in which boot, grace, and a database of the first schema brought up. */
#include "store/journal.h"
#include "store/schema.h"
#include "tests/unit/check.h"
#include "tests/unit/store_help.h"
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define S INT64_C(1000000000)

static const struct lease_terms terms = {20 * S, 60 * S, 70 * S, 80 * S, 60 * S, 141 * S};
static struct uuid sr, one, two;

static int setup(void **state)
{
    if (bench_setup(state) < 0)
        return -1;
    struct bench *b = *state;
    sr = uuid_of(SR_A);
    one = uuid_numbered(1);
    two = uuid_numbered(2);
    struct sr_row row = sr_blank(SR_A);
    OK(store_sr_put(&b->txn, &row, &b->fault));
    for (unsigned n = 1; n <= 2; n++) {
        struct vdi v = vdi_numbered(n);
        OK(store_vdi_put(&b->txn, &sr, &v, &b->fault));
    }
    return 0;
}

/* Boots and nonces by number; 0 is none. */
static struct holder session(const char *name, unsigned boot, unsigned nonce)
{
    struct holder who = {.name = name};
    if (boot)
        who.boot = uuid_numbered(100 + boot);
    if (nonce)
        who.nonce = uuid_numbered(200 + nonce);
    return who;
}

static struct host *meet(struct bench *b, struct holder who, int64_t now, enum meeting want)
{
    struct host *h = NULL;
    enum meeting how;
    OK(store_host_register(&b->txn, &who, true, &terms, now, b->arena, &h, &how, &b->fault));
    assert_int_equal(how, want);
    return h;
}

static void meet_refused(struct bench *b, struct holder who, int64_t now)
{
    struct host *h = NULL;
    enum meeting how;
    REFUSED(store_host_register(&b->txn, &who, true, &terms, now, b->arena, &h, &how, &b->fault), FAULT_LockErr);
}

static struct host *renew(struct bench *b, struct holder who, int64_t now, enum meeting want)
{
    struct host *h = NULL;
    enum meeting how;
    OK(store_host_renew(&b->txn, &who, &terms, now, b->arena, &h, &how, &b->fault));
    assert_int_equal(how, want);
    return h;
}

static void renew_refused(struct bench *b, struct holder who, int64_t now)
{
    struct host *h = NULL;
    enum meeting how;
    REFUSED(store_host_renew(&b->txn, &who, &terms, now, b->arena, &h, &how, &b->fault), FAULT_LockErr);
}

static struct granted take(struct bench *b, const struct uuid *vdi, struct holder who, bool writable, int64_t now)
{
    struct granted got = {0};
    struct lease_ask ask = ask_for(&sr, vdi, who, writable);
    ask.now = now;
    OK(store_lease_take(&b->txn, &ask, &got, &b->fault));
    return got;
}

static void take_refused(struct bench *b, const struct uuid *vdi, struct holder who, bool writable, int64_t now,
                         enum fault_code code)
{
    struct granted got = {0};
    struct lease_ask ask = ask_for(&sr, vdi, who, writable);
    ask.now = now;
    REFUSED(store_lease_take(&b->txn, &ask, &got, &b->fault), code);
}

static size_t lease_count(struct bench *b, const struct uuid *vdi)
{
    struct lease *list;
    size_t count;
    OK(store_lease_list(&b->txn, &sr, vdi, b->arena, &list, &count, &b->fault));
    return count;
}

static void a_session_lasts_as_long_as_it_is_renewed(void **state)
{
    struct bench *b = *state;
    struct holder a = session(HOST_A, 1, 1);
    struct host *h = meet(b, a, NOW, MEETING_BOOT);
    assert_true(host_is_live(h, NOW + 79 * S) && !host_is_live(h, NOW + 80 * S));
    h = renew(b, a, NOW + 20 * S, MEETING_SAME);
    assert_true(host_is_live(h, NOW + 99 * S) && !host_is_live(h, NOW + 100 * S));
    renew(b, a, NOW + 500 * S, MEETING_SAME); /* late, but nobody took anything from it */
    meet(b, a, NOW + 501 * S, MEETING_SAME);
}

static void who_never_registered_cannot_renew_but_holds_without_end(void **state)
{
    struct bench *b = *state;
    renew_refused(b, session(HOST_A, 1, 1), NOW);
    struct granted got = take(b, &one, session(HOST_A, 0, 0), true, NOW);
    take_refused(b, &one, session(HOST_B, 0, 0), false, NOW + 1000000 * S, FAULT_VDIInUse);
    assert_int_equal(take(b, &one, session(HOST_A, 0, 0), true, NOW + 1000000 * S).epoch, got.epoch);
    take_refused(b, &one, session(HOST_A, 1, 1), true, NOW, FAULT_LockErr); /* a nonce of no session */
}

static void two_agents_in_one_boot_are_both_refused(void **state)
{
    struct bench *b = *state;
    struct holder first = session(HOST_A, 1, 1), second = session(HOST_A, 1, 2);
    meet(b, first, NOW, MEETING_BOOT);
    struct granted got = take(b, &one, first, true, NOW);
    meet(b, second, NOW + 10 * S, MEETING_COLLISION);
    for (int i = 0; i < 2; i++) {
        struct holder who = i ? first : second;
        renew_refused(b, who, NOW + 11 * S);
        meet_refused(b, who, NOW + 12 * S);
        take_refused(b, &two, who, true, NOW + 12 * S, FAULT_LockErr);
    }
    take_refused(b, &one, session(HOST_B, 0, 0), true, NOW + 12 * S, FAULT_VDIInUse);
    meet(b, first, NOW + 91 * S, MEETING_SAME); /* the other has gone */
    assert_int_equal(take(b, &one, first, true, NOW + 91 * S).epoch, got.epoch);
}

static void an_agent_started_again_takes_over_once_the_first_is_silent(void **state)
{
    struct bench *b = *state;
    struct holder first = session(HOST_A, 1, 1), second = session(HOST_A, 1, 2);
    meet(b, first, NOW, MEETING_BOOT);
    struct granted got = take(b, &one, first, true, NOW);
    meet(b, second, NOW + 81 * S, MEETING_AGENT);
    assert_int_equal(take(b, &one, second, true, NOW + 82 * S).epoch, got.epoch);
    take_refused(b, &one, first, true, NOW + 82 * S, FAULT_LockErr);
    renew(b, first, NOW + 83 * S, MEETING_COLLISION); /* it was not gone */
    renew_refused(b, second, NOW + 84 * S);
}

static void the_boot_before_that_still_renews_is_a_collision(void **state)
{
    struct bench *b = *state;
    struct holder old = session(HOST_A, 1, 1), new = session(HOST_A, 2, 2);
    meet(b, old, NOW, MEETING_BOOT);
    take(b, &one, old, true, NOW);
    struct host *h = meet(b, new, NOW + 10 * S, MEETING_BOOT);
    assert_true(h->stale && h->old_expires == NOW + 80 * S);
    renew(b, old, NOW + 20 * S, MEETING_COLLISION);
    renew_refused(b, old, NOW + 21 * S);
    renew_refused(b, new, NOW + 21 * S);
    assert_int_equal(lease_count(b, &one), 1);
}

static void a_stranger_that_renews_changes_nothing(void **state)
{
    struct bench *b = *state;
    struct holder a = session(HOST_A, 1, 1);
    meet(b, a, NOW, MEETING_BOOT);
    renew_refused(b, session(HOST_A, 3, 3), NOW + 10 * S);
    renew(b, a, NOW + 20 * S, MEETING_SAME);
}

static void a_host_whose_lease_ran_out_gets_none_until_it_renews(void **state)
{
    struct bench *b = *state;
    struct holder a = session(HOST_A, 1, 1), quiet = session(HOST_A, 0, 0);
    meet(b, a, NOW, MEETING_BOOT);
    struct granted got = take(b, &one, quiet, true, NOW); /* who says nothing is the session */
    take_refused(b, &two, quiet, true, NOW + 80 * S, FAULT_LockErr);
    take_refused(b, &one, quiet, true, NOW + 80 * S, FAULT_LockErr);
    take_refused(b, &one, session(HOST_B, 0, 0), true, NOW + 100000 * S, FAULT_VDIInUse); /* time grants nothing */
    renew(b, a, NOW + 90 * S, MEETING_SAME);
    assert_int_equal(take(b, &one, quiet, true, NOW + 91 * S).epoch, got.epoch);
}

static void what_was_taken_without_a_boot_becomes_the_first_sessions(void **state)
{
    struct bench *b = *state;
    struct holder quiet = session(HOST_A, 0, 0), a = session(HOST_A, 1, 1);
    struct granted got = take(b, &one, quiet, true, NOW);
    OK(store_attach(&b->txn, &sr, &one, &quiet, true, &b->fault));
    assert_false(meet(b, a, NOW, MEETING_BOOT)->stale);
    assert_int_equal(take(b, &one, a, true, NOW).epoch, got.epoch);
    assert_true(meet(b, session(HOST_A, 2, 2), NOW + 1 * S, MEETING_BOOT)->stale);
}

static void a_new_boot_gets_a_new_epoch_for_its_own_disk_once_the_old_is_silent(void **state)
{
    struct bench *b = *state;
    struct holder old = session(HOST_A, 1, 1), new = session(HOST_A, 2, 0);
    meet(b, old, NOW, MEETING_BOOT);
    struct granted got = take(b, &one, old, true, NOW);
    take_refused(b, &one, new, true, NOW + 79 * S, FAULT_VDIInUse); /* it may be a clone of the certificate */
    struct granted fresh = take(b, &one, new, true, NOW + 80 * S);
    assert_true(fresh.fresh && fresh.epoch > got.epoch);
    assert_int_equal(lease_count(b, &one), 1);
}

static void an_attachment_of_an_earlier_boot_is_replaced(void **state)
{
    struct bench *b = *state;
    struct holder old = session(HOST_A, 1, 0), new = session(HOST_A, 2, 0);
    struct attachment *got;
    OK(store_attach(&b->txn, &sr, &one, &old, true, &b->fault));
    REFUSED(store_attach(&b->txn, &sr, &one, &old, false, &b->fault), FAULT_VDIInUse);
    OK(store_attach(&b->txn, &sr, &one, &new, false, &b->fault));
    OK(store_attachment_find(&b->txn, &sr, &one, HOST_A, b->arena, &got, &b->fault));
    assert_false(got->writable);
    assert_string_equal(got->boot.text, new.boot.text);
}

static void only_the_owner_in_its_epoch_releases(void **state)
{
    struct bench *b = *state;
    struct holder a = session(HOST_A, 1, 1), other = session(HOST_A, 1, 2), stranger = session(HOST_A, 3, 0);
    meet(b, a, NOW, MEETING_BOOT);
    uint64_t epoch = take(b, &one, a, true, NOW).epoch;
    REFUSED(store_lease_release(&b->txn, &sr, &one, &a, epoch + 1, NOW, &b->fault), FAULT_LockErr);
    REFUSED(store_lease_release(&b->txn, &sr, &one, &other, 0, NOW, &b->fault), FAULT_LockErr);
    REFUSED(store_lease_release(&b->txn, &sr, &one, &stranger, 0, NOW, &b->fault), FAULT_LockErr);
    struct holder foreign = session(HOST_B, 0, 0);
    OK(store_lease_release(&b->txn, &sr, &one, &foreign, epoch, NOW, &b->fault));
    assert_int_equal(lease_count(b, &one), 1);
    OK(store_lease_release(&b->txn, &sr, &one, &a, epoch, NOW, &b->fault));
    assert_int_equal(lease_count(b, &one), 0);
}

static void a_broken_epoch_is_never_held_again(void **state)
{
    struct bench *b = *state;
    struct holder a = session(HOST_A, 1, 1);
    meet(b, a, NOW, MEETING_BOOT);
    uint64_t epoch = take(b, &one, a, true, NOW).epoch;
    OK(store_lease_break(&b->txn, epoch, "operator:o", "fenced: test", &b->fault));
    REFUSED(store_lease_break(&b->txn, epoch, "operator:o", "fenced: test", &b->fault), FAULT_LockErr);
    struct granted got;
    struct lease_ask ask = ask_for(&sr, &one, a, true);
    ask.epoch = epoch;
    REFUSED(store_lease_take(&b->txn, &ask, &got, &b->fault), FAULT_LockErr);
    assert_int_equal(renew(b, a, NOW + 1 * S, MEETING_SAME)->broken, epoch);
    assert_true(take(b, &one, a, true, NOW).epoch > epoch);
}

static void quarantine_blocks_everyone(void **state)
{
    struct bench *b = *state;
    uint64_t epoch = take(b, &one, session(HOST_A, 0, 0), true, NOW).epoch;
    OK(store_lease_set(&b->txn, epoch, LEASE_QUARANTINED, "smapid", "no answer", &b->fault));
    take_refused(b, &one, session(HOST_B, 0, 0), false, NOW, FAULT_VDIInUse);
    assert_non_null(strstr(b->fault.detail, "in quarantine: no answer"));
    take_refused(b, &one, session(HOST_A, 0, 0), true, NOW, FAULT_VDIUnavailable);
}

static void leases_come_in_pages(void **state)
{
    struct bench *b = *state;
    struct lease *list;
    size_t count;
    uint64_t first = take(b, &one, session(HOST_A, 0, 0), false, NOW).epoch;
    uint64_t second = take(b, &one, session(HOST_B, 0, 0), false, NOW).epoch;
    uint64_t third = take(b, &two, session(HOST_A, 0, 0), false, NOW).epoch;
    OK(store_lease_page(&b->txn, NULL, NULL, 0, 2, b->arena, &list, &count, &b->fault));
    assert_true(count == 2 && list[0].epoch == first && list[1].epoch == second);
    OK(store_lease_page(&b->txn, &sr, NULL, second, 2, b->arena, &list, &count, &b->fault));
    assert_true(count == 1 && list[0].epoch == third);
    OK(store_lease_page(&b->txn, NULL, HOST_A, 0, 9, b->arena, &list, &count, &b->fault));
    assert_true(count == 2 && list[1].epoch == third);
}

static void every_start_lets_host_leases_run_their_whole_term(void **state)
{
    struct bench *b = *state;
    struct host *h;
    meet(b, session(HOST_A, 1, 1), NOW, MEETING_BOOT);
    static const int64_t starts[] = {NOW + 70 * S, NOW + 100000 * S, 5 * S}; /* later, and after the clock went back */
    for (size_t i = 0; i < COUNT_OF(starts); i++) {
        OK(store_lease_begin(&b->txn, &terms, starts[i], &b->fault));
        OK(store_host_find(&b->txn, HOST_A, b->arena, &h, &b->fault));
        assert_int_equal(h->expires, starts[i] + 80 * S);
        assert_false(h->heard);
    }
}

static struct grace grace_at(struct bench *b, int64_t now)
{
    struct grace grace;
    OK(store_grace_read(&b->txn, now, &grace, &b->fault));
    return grace;
}

static void another_boot_of_the_server_begins_grace(void **state)
{
    struct bench *b = *state;
    OK(store_lease_begin(&b->txn, &terms, NOW, &b->fault));
    assert_int_equal(grace_at(b, NOW).left, 0);
    assert_false(peer_refuses(b->db.connection, "UPDATE meta SET grace_ns = -1")); /* what store_open leaves */
    OK(store_lease_begin(&b->txn, &terms, NOW, &b->fault));
    assert_int_equal(grace_at(b, NOW + 1 * S).left, 79 * S);
    OK(store_lease_begin(&b->txn, &terms, NOW + 10 * S, &b->fault)); /* the same boot: it goes on, not anew */
    assert_int_equal(grace_at(b, NOW + 10 * S).left, 70 * S);
    assert_int_equal(grace_at(b, NOW + 80 * S).left, 0);
}

static void while_nobody_knows_who_writes_nobody_may_begin_to_write_or_read(void **state)
{
    struct bench *b = *state;
    OK(store_grace_begin(&b->txn, true, &terms, NOW, &b->fault));
    take_refused(b, &one, session(HOST_A, 0, 0), true, NOW + 140 * S, FAULT_VDIInUse);
    take_refused(b, &two, session(HOST_A, 0, 0), false, NOW, FAULT_VDIInUse);
    OK(store_lease_begin(&b->txn, &terms, 1 * S, &b->fault)); /* the clock went back: never longer than from now */
    assert_int_equal(grace_at(b, 1 * S).unknown_left, 141 * S);
    take_refused(b, &one, session(HOST_A, 0, 0), true, 141 * S, FAULT_VDIInUse);
    take(b, &one, session(HOST_A, 0, 0), true, 142 * S);
}

static void epochs_pass_what_a_data_path_knows(void **state)
{
    struct bench *b = *state;
    bool restored;
    uint64_t epoch = take(b, &one, session(HOST_A, 0, 0), false, NOW).epoch;
    OK(store_epoch_past(&b->txn, epoch, &restored, &b->fault));
    assert_false(restored);
    OK(store_epoch_past(&b->txn, epoch + 5000000, &restored, &b->fault));
    assert_true(restored);
    assert_true(take(b, &two, session(HOST_A, 0, 0), false, NOW).epoch > epoch + 5000000 + (1 << 20));
    REFUSED(store_epoch_past(&b->txn, UINT64_MAX, &restored, &b->fault), FAULT_LockErr);
}

/* ------------------------------------------------------------------ the first schema */

static void a_database_of_the_first_schema_keeps_its_leases(void **state)
{
    struct scratch s;
    (void) state;
    scratch_make(&s);
    store_close(open_store(s.state)); /* the directory, and a server's name */
    unlink(s.file);
    close(open(s.file, O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    peer_run(s.file, schema_text(1));
    peer_run(s.file,
             "PRAGMA user_version = 1;"
             "INSERT INTO meta VALUES (1, '" SR_B "', 3, 'boot', 8);"
             "INSERT INTO sr VALUES ('" SR_A "', 'file', 'live', '', '', 0, 0, 0, 0);"
             "INSERT INTO vdi VALUES ('" SR_A "', 'cccccccc-0000-4000-8000-000000000001', 'x', 'live', 'vhd', 1, "
             "0, '', '', '', 0, 0, 0, 1, 0, '', '', '', '', '');"
             "INSERT INTO attachment VALUES ('" SR_A "', '', 'h', 1, 5);"
             "INSERT INTO lease VALUES ('" SR_A "', 'cccccccc-0000-4000-8000-000000000001', 'h', 'rw', 7, 5);"
             "INSERT INTO host VALUES ('h', 5, 6);");
    struct bench bench = {.scratch = s}, *b = &bench;
    if (database_open(&b->db, s.file, true, &b->fault) < 0)
        fail_msg("%s", b->fault.detail);
    char answer[200];
    static const struct {
        const char *sql, *want;
    } now[] = {
        {"SELECT holder || mode || epoch || since || state || boot || fence FROM lease", "hrw75heldadvisory"},
        {"SELECT holder || first || last || state || boot FROM host", "h56unregistered"},
        {"SELECT holder || writable || since || boot FROM attachment", "h15"},
        {"SELECT epoch_next || ' ' || grace_ns || ' ' || unknown_ns FROM meta", "8 0 0"},
        {"PRAGMA integrity_check", "ok"},
        {"PRAGMA user_version", "3"},
    };
    for (size_t i = 0; i < COUNT_OF(now); i++)
        assert_string_equal(peer_ask(b->db.connection, now[i].sql, answer, sizeof answer), now[i].want);
    assert_true(peer_refuses(b->db.connection, "INSERT INTO lease VALUES ('" SR_A "', "
                                               "'cccccccc-0000-4000-8000-000000000001', 'other', 'rw', 9, 5, 'held', "
                                               "'', '', 'vdi', '')"));
    database_close(&b->db);
    scratch_remove(&s);
}

int main(void)
{
#define WITH_ROWS(test) cmocka_unit_test_setup_teardown(test, setup, bench_teardown)
    const struct CMUnitTest tests[] = {
        WITH_ROWS(a_session_lasts_as_long_as_it_is_renewed),
        WITH_ROWS(who_never_registered_cannot_renew_but_holds_without_end),
        WITH_ROWS(two_agents_in_one_boot_are_both_refused),
        WITH_ROWS(an_agent_started_again_takes_over_once_the_first_is_silent),
        WITH_ROWS(the_boot_before_that_still_renews_is_a_collision),
        WITH_ROWS(a_stranger_that_renews_changes_nothing),
        WITH_ROWS(a_host_whose_lease_ran_out_gets_none_until_it_renews),
        WITH_ROWS(what_was_taken_without_a_boot_becomes_the_first_sessions),
        WITH_ROWS(a_new_boot_gets_a_new_epoch_for_its_own_disk_once_the_old_is_silent),
        WITH_ROWS(an_attachment_of_an_earlier_boot_is_replaced),
        WITH_ROWS(only_the_owner_in_its_epoch_releases),
        WITH_ROWS(a_broken_epoch_is_never_held_again),
        WITH_ROWS(quarantine_blocks_everyone),
        WITH_ROWS(leases_come_in_pages),
        WITH_ROWS(every_start_lets_host_leases_run_their_whole_term),
        WITH_ROWS(another_boot_of_the_server_begins_grace),
        WITH_ROWS(while_nobody_knows_who_writes_nobody_may_begin_to_write_or_read),
        WITH_ROWS(epochs_pass_what_a_data_path_knows),
        cmocka_unit_test(a_database_of_the_first_schema_keeps_its_leases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

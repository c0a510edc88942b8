/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Attachments, leases, and the journal of operations. */
#include "server/base/clock.h"
#include "store/journal.h"
#include "store/lease.h"
#include "tests/unit/check.h"
#include "tests/unit/store_help.h"
#include <string.h>

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

static struct granted take_as(struct bench *b, const struct uuid *vdi, struct holder who, bool writable)
{
    struct granted got = {0};
    struct lease_ask ask = ask_for(&sr, vdi, who, writable);
    OK(store_lease_take(&b->txn, &ask, &got, &b->fault));
    return got;
}

static uint64_t take(struct bench *b, const struct uuid *vdi, const char *holder, bool writable)
{
    return take_as(b, vdi, holder_named(holder), writable).epoch;
}

static int attach(struct bench *b, const struct uuid *of, const struct uuid *vdi, const char *holder, bool writable)
{
    struct holder who = holder_named(holder);
    return store_attach(&b->txn, of, vdi, &who, writable, &b->fault);
}

static int release(struct bench *b, const struct uuid *vdi, const char *holder)
{
    struct holder who = holder_named(holder);
    return store_lease_release(&b->txn, &sr, vdi, &who, 0, NOW, &b->fault);
}

static void refuse(struct bench *b, const struct uuid *vdi, const char *holder, bool writable)
{
    struct granted got = {.epoch = 77};
    struct lease_ask ask = ask_for(&sr, vdi, holder_named(holder), writable);
    REFUSED(store_lease_take(&b->txn, &ask, &got, &b->fault), FAULT_VDIInUse);
    assert_int_equal(got.epoch, 77);
}

static void readers_share_and_a_writer_excludes(void **state)
{
    struct bench *b = *state;
    uint64_t a = take(b, &one, HOST_A, false);
    assert_true(take(b, &one, HOST_B, false) > a);
    refuse(b, &one, "third", true);
    take(b, &two, HOST_A, true);
    refuse(b, &two, HOST_B, false);
    refuse(b, &two, HOST_B, true);
}

static void the_same_holder_gets_the_same_epoch_again_in_the_same_mode_only(void **state)
{
    struct bench *b = *state;
    uint64_t epoch = take(b, &one, HOST_A, true);
    assert_int_equal(take(b, &one, HOST_A, true), epoch);
    refuse(b, &one, HOST_A, false);
    epoch = take(b, &two, HOST_A, false);
    assert_int_equal(take(b, &two, HOST_A, false), epoch);
    refuse(b, &two, HOST_A, true);
}

static void a_refusal_names_disk_mode_holder_time_and_epoch(void **state)
{
    struct bench *b = *state;
    char want[256], since[CLOCK_TEXT];
    uint64_t epoch = take(b, &one, HOST_A, true);
    struct lease *list;
    size_t count;
    OK(store_lease_list(&b->txn, &sr, &one, b->arena, &list, &count, &b->fault));
    clock_text(list[0].since, since);
    refuse(b, &one, HOST_B, true);
    snprintf(want, sizeof want, "VDI %s is active read-write on host %s since %s (epoch %llu)", one.text, HOST_A, since,
             (unsigned long long) epoch);
    assert_string_equal(b->fault.detail, want);
}

static void epochs_rise_and_are_never_given_twice(void **state)
{
    struct bench *b = *state;
    uint64_t last = 0;
    for (int i = 0; i < 50; i++) {
        const struct uuid *vdi = i % 2 ? &one : &two;
        uint64_t epoch = take(b, vdi, HOST_A, true);
        assert_true(epoch > last);
        last = epoch;
        OK(release(b, vdi, HOST_A));
    }
}

static void a_release_touches_only_the_holders_own_lease(void **state)
{
    struct bench *b = *state;
    take(b, &one, HOST_A, true);
    OK(release(b, &one, HOST_B));
    refuse(b, &one, HOST_B, true);
    OK(release(b, &one, HOST_A));
    OK(release(b, &one, HOST_A));
    take(b, &one, HOST_B, true);
}

static void a_lease_on_an_unknown_disk_is_refused(void **state)
{
    struct bench *b = *state;
    struct uuid other = uuid_numbered(3);
    struct granted got;
    struct lease_ask ask = ask_for(&sr, &other, holder_named(HOST_A), true);
    REFUSED(store_lease_take(&b->txn, &ask, &got, &b->fault), FAULT_VDIUnavailable);
}

static void the_schema_itself_refuses_a_second_writer(void **state)
{
    struct bench *b = *state;
    take(b, &one, HOST_A, true);
    char rw[600], ro[600], odd[600];
    snprintf(rw, sizeof rw, "INSERT INTO lease VALUES ('%s', '%s', 'x', 'rw', 1000, 1, 'held', '', '', 'vdi', '')",
             sr.text, one.text);
    snprintf(ro, sizeof ro, "INSERT INTO lease VALUES ('%s', '%s', 'x', 'ro', 1000, 1, 'held', '', '', 'vdi', '')",
             sr.text, one.text);
    snprintf(odd, sizeof odd, "INSERT INTO lease VALUES ('%s', '%s', 'x', 'wo', 1001, 1, 'held', '', '', 'vdi', '')",
             sr.text, two.text);
    assert_true(peer_refuses(b->db.connection, rw));
    assert_true(peer_refuses(b->db.connection, odd));
    assert_false(peer_refuses(b->db.connection, ro));
}

static void leases_are_listed_by_disk_or_sr_in_order_of_epoch(void **state)
{
    struct bench *b = *state;
    struct lease *list;
    size_t count;
    uint64_t epochs[] = {take(b, &two, HOST_A, false), take(b, &one, HOST_A, true), take(b, &two, HOST_B, false)};
    OK(store_lease_list(&b->txn, &sr, NULL, b->arena, &list, &count, &b->fault));
    assert_int_equal(count, 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(list[i].epoch, epochs[i]);
    assert_string_equal(list[1].vdi.text, one.text);
    assert_true(list[1].writable && !list[0].writable);
    OK(store_lease_list(&b->txn, &sr, &two, b->arena, &list, &count, &b->fault));
    assert_int_equal(count, 2);
    assert_string_equal(list[1].holder, HOST_B);
    struct uuid other = uuid_of(SR_B);
    OK(store_lease_list(&b->txn, &other, NULL, b->arena, &list, &count, &b->fault));
    assert_int_equal(count, 0);
}

static void taking_and_releasing_leaves_an_audit_trail(void **state)
{
    struct bench *b = *state;
    char answer[512], want[512];
    uint64_t epoch = take(b, &one, HOST_A, true);
    take(b, &one, HOST_A, true);
    OK(release(b, &one, HOST_A));
    OK(release(b, &one, HOST_A));
    snprintf(want, sizeof want, "lease_take %s %s %s rw %llu;lease_release %s %s %s rw %llu", HOST_A, SR_A, one.text,
             (unsigned long long) epoch, HOST_A, SR_A, one.text, (unsigned long long) epoch);
    peer_ask(b->db.connection, "SELECT group_concat(what || ' ' || who || ' ' || detail, ';') FROM audit", answer,
             sizeof answer);
    assert_string_equal(answer, want);
}

static void attaching_is_repeatable_in_one_mode_and_shared_between_hosts(void **state)
{
    struct bench *b = *state;
    struct attachment *got;
    OK(attach(b, &sr, &one, HOST_A, true));
    OK(attach(b, &sr, &one, HOST_A, true));
    REFUSED(attach(b, &sr, &one, HOST_A, false), FAULT_VDIInUse);
    assert_non_null(strstr(b->fault.detail, "read-write on host " HOST_A));
    OK(attach(b, &sr, &one, HOST_B, false));
    OK(store_attachment_find(&b->txn, &sr, &one, HOST_B, b->arena, &got, &b->fault));
    assert_false(got->writable);
    assert_true(got->since > 0);
    OK(store_detach(&b->txn, &sr, &one, HOST_B, &b->fault));
    OK(store_detach(&b->txn, &sr, &one, HOST_B, &b->fault));
    OK(store_attachment_find(&b->txn, &sr, &one, HOST_B, b->arena, &got, &b->fault));
    assert_null(got);
    OK(store_attachment_find(&b->txn, &sr, &one, HOST_A, b->arena, &got, &b->fault));
    assert_string_equal(got->holder, HOST_A);
}

static void attachments_are_listed_by_disk_by_sr_and_by_holder(void **state)
{
    struct bench *b = *state;
    struct attachment *list;
    struct uuid none = UUID_NONE;
    size_t count;
    OK(attach(b, &sr, NULL, HOST_A, true));
    OK(attach(b, &sr, &none, HOST_B, true));
    OK(attach(b, &sr, &one, HOST_A, true));
    OK(attach(b, &sr, &two, HOST_A, false));
    OK(attach(b, &sr, &two, HOST_B, false));
    OK(store_attachment_list(&b->txn, &sr, &none, NULL, b->arena, &list, &count, &b->fault));
    assert_int_equal(count, 2);
    assert_false(uuid_is(&list[0].vdi));
    OK(store_attachment_list(&b->txn, &sr, &two, NULL, b->arena, &list, &count, &b->fault));
    assert_int_equal(count, 2);
    OK(store_attachment_list(&b->txn, &sr, &none, HOST_A, b->arena, &list, &count, &b->fault));
    assert_int_equal(count, 2);
    assert_string_equal(list[0].vdi.text, one.text);
    assert_string_equal(list[1].vdi.text, two.text);
    struct uuid unknown = uuid_of(SR_B);
    REFUSED(attach(b, &unknown, NULL, HOST_A, true), FAULT_SRUnavailable);
}

static struct op_key key_of(unsigned n)
{
    struct op_key k = {.given = true, .id = uuid_numbered(1000 + n), .identity = "host:" HOST_A};
    memset(k.digest, (int) n, sizeof k.digest);
    return k;
}

static struct plan plan_of(unsigned n)
{
    return (struct plan){
        .op = uuid_numbered(n), .method = "vdi_create", .sr = sr, .vdi = one, .format = "", .name = ""};
}

static void a_plan_comes_back_as_it_was_opened_oldest_first(void **state)
{
    struct bench *b = *state;
    struct plan p = plan_of(9), *list;
    size_t count;
    p.made = two;
    p.base = uuid_numbered(5);
    p.size = 10;
    p.old_size = 5;
    p.format = "vhd";
    p.name = "x.vhd";
    p.device = 3;
    p.inode = UINT64_MAX - 1;
    p.read_only = p.keep = true;
    struct plan later = plan_of(4), elsewhere = plan_of(2);
    elsewhere.sr = uuid_of(SR_B);
    OK(store_op_open(&b->txn, &p, NULL, &b->fault));
    OK(store_op_open(&b->txn, &elsewhere, NULL, &b->fault));
    OK(store_op_open(&b->txn, &later, NULL, &b->fault));
    OK(store_op_list(&b->txn, &sr, b->arena, &list, &count, &b->fault));
    assert_int_equal(count, 2);
    assert_string_equal(list[0].op.text, p.op.text);
    assert_string_equal(list[0].method, "vdi_create");
    assert_string_equal(list[0].sr.text, SR_A);
    assert_string_equal(list[0].vdi.text, one.text);
    assert_string_equal(list[0].made.text, two.text);
    assert_string_equal(list[0].base.text, p.base.text);
    assert_true(list[0].size == 10 && list[0].old_size == 5 && list[0].device == 3 && list[0].inode == UINT64_MAX - 1);
    assert_string_equal(list[0].format, "vhd");
    assert_string_equal(list[0].name, "x.vhd");
    assert_true(list[0].read_only && list[0].keep && !list[1].read_only && !list[1].keep);
    OK(store_op_list(&b->txn, NULL, b->arena, &list, &count, &b->fault));
    assert_int_equal(count, 3);
    assert_string_equal(list[1].op.text, elsewhere.op.text);
    OK(store_op_drop(&b->txn, &p.op, &b->fault));
    OK(store_op_list(&b->txn, NULL, b->arena, &list, &count, &b->fault));
    assert_int_equal(count, 2);
}

static void assert_replay(struct bench *b, const struct op_key *key, const char *bytes, uint64_t epoch)
{
    struct op_reply *reply = (struct op_reply *) b;
    OK(store_op_replay(&b->txn, key, b->arena, &reply, &b->fault));
    if (!bytes) {
        assert_null(reply);
        return;
    }
    assert_non_null(reply);
    assert_int_equal(reply->length, strlen(bytes));
    assert_memory_equal(reply->bytes, bytes, strlen(bytes));
    assert_int_equal(reply->epoch, epoch);
}

static void an_answered_operation_is_answered_with_the_same_bytes(void **state)
{
    struct bench *b = *state;
    struct op_key key = key_of(1), none = {0};
    struct plan p = plan_of(9);
    struct op_reply reply = {"<r\xff/>", 5, 7};
    assert_replay(b, &key, NULL, 0);
    OK(store_op_open(&b->txn, &p, &key, &b->fault));
    struct op_reply *out;
    REFUSED(store_op_replay(&b->txn, &key, b->arena, &out, &b->fault), FAULT_Busy);
    OK(store_op_close(&b->txn, &p.op, &key, &reply, &b->fault));
    assert_replay(b, &key, "<r\xff/>", 7);
    assert_replay(b, &none, NULL, 0);
    struct plan *list;
    size_t count;
    OK(store_op_list(&b->txn, NULL, b->arena, &list, &count, &b->fault));
    assert_int_equal(count, 0);
}

static void an_id_used_with_another_body_or_by_another_is_a_conflict(void **state)
{
    struct bench *b = *state;
    struct op_key key = key_of(1), other = key_of(1);
    struct op_reply reply = {"", 0, 0}, *out;
    struct uuid op = uuid_numbered(9);
    OK(store_op_close(&b->txn, &op, &key, &reply, &b->fault));
    assert_replay(b, &key, "", 0);
    other.digest[31] ^= 1;
    REFUSED(store_op_replay(&b->txn, &other, b->arena, &out, &b->fault), FAULT_OperationConflict);
    other = key;
    other.identity = "host:" HOST_A "x";
    REFUSED(store_op_replay(&b->txn, &other, b->arena, &out, &b->fault), FAULT_OperationConflict);
    struct plan p = plan_of(10);
    REFUSED(store_op_open(&b->txn, &p, &key, &b->fault), FAULT_OperationConflict);
    op = uuid_numbered(11);
    REFUSED(store_op_close(&b->txn, &op, &key, &reply, &b->fault), FAULT_OperationConflict);
    assert_replay(b, &key, "", 0);
}

static void without_a_key_nothing_is_kept(void **state)
{
    struct bench *b = *state;
    struct plan p = plan_of(9);
    struct op_key none = {0};
    struct op_reply reply = {"x", 1, 0};
    OK(store_op_open(&b->txn, &p, &none, &b->fault));
    OK(store_op_close(&b->txn, &p.op, &none, &reply, &b->fault));
    OK(store_op_close(&b->txn, &p.op, NULL, &reply, &b->fault));
    char answer[16];
    assert_string_equal(peer_ask(b->db.connection, "SELECT count(*) FROM op", answer, sizeof answer), "0");
}

static void a_dropped_operation_may_be_asked_again(void **state)
{
    struct bench *b = *state;
    struct op_key key = key_of(1);
    struct plan p = plan_of(9), again = plan_of(10);
    OK(store_op_open(&b->txn, &p, &key, &b->fault));
    OK(store_op_drop(&b->txn, &p.op, &b->fault));
    assert_replay(b, &key, NULL, 0);
    OK(store_op_open(&b->txn, &again, &key, &b->fault));
}

static void a_closed_operation_keeps_its_reply_until_it_is_dropped(void **state)
{
    struct bench *b = *state;
    struct op_key key = key_of(1);
    struct plan p = plan_of(9);
    struct op_reply reply = {"first", 5, 0}, second = {"second", 6, 0};
    OK(store_op_open(&b->txn, &p, &key, &b->fault));
    OK(store_op_close(&b->txn, &p.op, &key, &reply, &b->fault));
    REFUSED(store_op_close(&b->txn, &p.op, &key, &second, &b->fault), FAULT_OperationConflict);
    OK(store_op_close(&b->txn, &p.op, NULL, NULL, &b->fault));
    assert_replay(b, &key, "first", 0);
    OK(store_op_drop(&b->txn, &p.op, &b->fault));
    assert_replay(b, &key, NULL, 0);
}

static void recovery_closes_a_row_under_the_key_it_was_opened_with(void **state)
{
    struct bench *b = *state;
    struct op_key key = key_of(1);
    struct plan p = plan_of(9);
    struct op_reply reply = {"late", 4, 0};
    OK(store_op_open(&b->txn, &p, &key, &b->fault));
    OK(store_op_close(&b->txn, &p.op, NULL, &reply, &b->fault));
    assert_replay(b, &key, "late", 0);
}

static void replies_are_kept_for_a_day_and_open_intents_for_ever(void **state)
{
    struct bench *b = *state;
    struct op_key key = key_of(1), open = key_of(2);
    struct op_reply reply = {"x", 1, 0}, *out;
    struct plan p = plan_of(9);
    struct uuid op = uuid_numbered(8);
    OK(store_op_close(&b->txn, &op, &key, &reply, &b->fault));
    OK(store_op_open(&b->txn, &p, &open, &b->fault));
    int64_t now = clock_wall_s();
    OK(store_op_expire(&b->txn, now + 24 * 3600 - 60, &b->fault));
    assert_replay(b, &key, "x", 0);
    OK(store_op_expire(&b->txn, now + 24 * 3600 + 60, &b->fault));
    assert_replay(b, &key, NULL, 0);
    REFUSED(store_op_replay(&b->txn, &open, b->arena, &out, &b->fault), FAULT_Busy);
}

static void the_oldest_replies_and_audit_lines_go_past_their_ceilings(void **state)
{
    struct bench *b = *state;
    char answer[32];
    assert_false(peer_refuses(
        b->db.connection,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100003) "
        "INSERT INTO op (uuid, state, key, identity, digest, method, sr, vdi, made, base, size, old_size, format, "
        "name, device, inode, read_only, keep, reply, epoch, opened, closed) "
        "SELECT NULL, 'closed', printf('%036d', i), '', zeroblob(32), '', '', '', '', '', 0, 0, '', '', 0, 0, 0, 0, "
        "x'', 0, 1, 4000000000 + i FROM n"));
    assert_false(peer_refuses(b->db.connection,
                              "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200002) "
                              "INSERT INTO audit (seq, at, who, what, detail) SELECT i, 1, '', 'x', '' FROM n"));
    OK(store_op_expire(&b->txn, clock_wall_s(), &b->fault));
    peer_ask(b->db.connection, "SELECT count(*) || ' ' || min(closed) FROM op", answer, sizeof answer);
    assert_string_equal(answer, "100000 4000000004");
    peer_ask(b->db.connection, "SELECT count(*) || ' ' || min(seq) FROM audit", answer, sizeof answer);
    assert_string_equal(answer, "200000 3");
}

static void a_host_is_remembered_once(void **state)
{
    struct bench *b = *state;
    char answer[32];
    OK(store_host_seen(&b->txn, HOST_A, &b->fault));
    OK(store_host_seen(&b->txn, HOST_A, &b->fault));
    OK(store_host_seen(&b->txn, HOST_B, &b->fault));
    peer_ask(b->db.connection, "SELECT count(*) FROM host WHERE first > 0 AND last >= first", answer, sizeof answer);
    assert_string_equal(answer, "2");
}

int main(void)
{
#define WITH_ROWS(test) cmocka_unit_test_setup_teardown(test, setup, bench_teardown)
    const struct CMUnitTest tests[] = {
        WITH_ROWS(readers_share_and_a_writer_excludes),
        WITH_ROWS(the_same_holder_gets_the_same_epoch_again_in_the_same_mode_only),
        WITH_ROWS(a_refusal_names_disk_mode_holder_time_and_epoch),
        WITH_ROWS(epochs_rise_and_are_never_given_twice),
        WITH_ROWS(a_release_touches_only_the_holders_own_lease),
        WITH_ROWS(a_lease_on_an_unknown_disk_is_refused),
        WITH_ROWS(the_schema_itself_refuses_a_second_writer),
        WITH_ROWS(leases_are_listed_by_disk_or_sr_in_order_of_epoch),
        WITH_ROWS(taking_and_releasing_leaves_an_audit_trail),
        WITH_ROWS(attaching_is_repeatable_in_one_mode_and_shared_between_hosts),
        WITH_ROWS(attachments_are_listed_by_disk_by_sr_and_by_holder),
        WITH_ROWS(a_plan_comes_back_as_it_was_opened_oldest_first),
        WITH_ROWS(an_answered_operation_is_answered_with_the_same_bytes),
        WITH_ROWS(an_id_used_with_another_body_or_by_another_is_a_conflict),
        WITH_ROWS(without_a_key_nothing_is_kept),
        WITH_ROWS(a_dropped_operation_may_be_asked_again),
        WITH_ROWS(a_closed_operation_keeps_its_reply_until_it_is_dropped),
        WITH_ROWS(recovery_closes_a_row_under_the_key_it_was_opened_with),
        WITH_ROWS(replies_are_kept_for_a_day_and_open_intents_for_ever),
        WITH_ROWS(the_oldest_replies_and_audit_lines_go_past_their_ceilings),
        WITH_ROWS(a_host_is_remembered_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

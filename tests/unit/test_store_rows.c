/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rows of SRs and disks. */
#include "server/base/clock.h"
#include "store/lease.h"
#include "tests/unit/check.h"
#include "tests/unit/store_help.h"
#include <string.h>

static void put_numbered(struct bench *b, const char *sr_text, unsigned n)
{
    struct uuid sr = uuid_of(sr_text);
    struct vdi v = vdi_numbered(n);
    OK(store_vdi_put(&b->txn, &sr, &v, &b->fault));
}

/* Attached and leased. */
static void hold(struct bench *b, const struct uuid *sr, const struct uuid *vdi)
{
    struct holder who = holder_named(HOST_A);
    struct lease_ask ask = ask_for(sr, vdi, who, true);
    struct granted got;
    OK(store_attach(&b->txn, sr, vdi, &who, true, &b->fault));
    OK(store_lease_take(&b->txn, &ask, &got, &b->fault));
}

static void add_sr(struct bench *b, const char *sr_text)
{
    struct sr_row row = sr_blank(sr_text);
    OK(store_sr_put(&b->txn, &row, &b->fault));
}

static uint64_t rows_of(struct bench *b, const char *table)
{
    char sql[256], answer[32];
    snprintf(sql, sizeof sql, "SELECT count(*) FROM %s", table);
    return strtoull(peer_ask(b->db.connection, sql, answer, sizeof answer), NULL, 10);
}

static void an_sr_comes_back_as_it_was_put(void **state)
{
    struct bench *b = *state;
    struct pair config[] = {{"server", "nfs.example"}, {"path", "/a b"}, {"an", "'\"&\xc3\xa9"}};
    struct sr_row row = sr_blank(SR_A), *got;
    row.state = SR_CREATING;
    row.label = "label";
    row.description = "what it is for";
    row.totals = (struct sr_totals){1, 2, UINT64_C(1) << 62};
    row.scanned = 12345;
    row.config = (struct pairs){config, COUNT_OF(config)};
    OK(store_sr_put(&b->txn, &row, &b->fault));
    OK(store_sr_find(&b->txn, &row.uuid, b->arena, &got, &b->fault));
    assert_non_null(got);
    assert_string_equal(got->uuid.text, SR_A);
    assert_string_equal(got->type, "dummy");
    assert_int_equal(got->state, SR_CREATING);
    assert_string_equal(got->label, "label");
    assert_string_equal(got->description, "what it is for");
    assert_memory_equal(&got->totals, &row.totals, sizeof row.totals);
    assert_int_equal(got->scanned, 12345);
    assert_int_equal(got->config.count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(got->config.items[i].key, config[i].key);
        assert_string_equal(got->config.items[i].value, config[i].value);
    }
}

static void putting_an_sr_again_replaces_its_config_and_keeps_its_disks(void **state)
{
    struct bench *b = *state;
    struct pair config[] = {{"location", "/a"}, {"x", "y"}};
    struct sr_row row = sr_blank(SR_A), *got;
    row.config = (struct pairs){config, 2};
    OK(store_sr_put(&b->txn, &row, &b->fault));
    put_numbered(b, SR_A, 1);
    config[0].value = "/b";
    row.config.count = 1;
    OK(store_sr_put(&b->txn, &row, &b->fault));
    OK(store_sr_find(&b->txn, &row.uuid, b->arena, &got, &b->fault));
    assert_int_equal(got->config.count, 1);
    assert_string_equal(pairs_get(&got->config, "location"), "/b");
    assert_int_equal(rows_of(b, "vdi"), 1);
}

static void an_sr_that_is_not_there_is_found_as_null(void **state)
{
    struct bench *b = *state;
    struct uuid sr = uuid_of(SR_A);
    struct sr_row *got = (struct sr_row *) state;
    struct sr_totals totals = {0};
    OK(store_sr_find(&b->txn, &sr, b->arena, &got, &b->fault));
    assert_null(got);
    REFUSED(store_sr_set_state(&b->txn, &sr, SR_LIVE, &b->fault), FAULT_SRUnavailable);
    REFUSED(store_sr_set_totals(&b->txn, &sr, &totals, &b->fault), FAULT_SRUnavailable);
    OK(store_sr_remove(&b->txn, &sr, &b->fault));
}

static void state_and_totals_of_an_sr_change_alone(void **state)
{
    struct bench *b = *state;
    struct uuid sr = uuid_of(SR_A);
    struct sr_row *got;
    add_sr(b, SR_A);
    add_sr(b, SR_B);
    OK(store_sr_set_state(&b->txn, &sr, SR_DELETING, &b->fault));
    OK(store_sr_set_totals(&b->txn, &sr, &(struct sr_totals){7, 8, 9}, &b->fault));
    OK(store_sr_find(&b->txn, &sr, b->arena, &got, &b->fault));
    assert_int_equal(got->state, SR_DELETING);
    assert_int_equal(got->totals.virtual_allocation, 9);
    assert_true(got->scanned > 0 && got->scanned <= clock_wall_s());
    sr = uuid_of(SR_B);
    OK(store_sr_find(&b->txn, &sr, b->arena, &got, &b->fault));
    assert_int_equal(got->state, SR_LIVE);
    assert_int_equal(got->totals.virtual_allocation, 0);
}

static void srs_are_listed_by_uuid_with_their_config(void **state)
{
    struct bench *b = *state;
    struct pair config[] = {{"k", "b"}};
    struct sr_row row = sr_blank(SR_B), *got;
    row.config = (struct pairs){config, 1};
    size_t count = 9;
    OK(store_sr_list(&b->txn, b->arena, &got, &count, &b->fault));
    assert_int_equal(count, 0);
    OK(store_sr_put(&b->txn, &row, &b->fault));
    add_sr(b, SR_A);
    OK(store_sr_list(&b->txn, b->arena, &got, &count, &b->fault));
    assert_int_equal(count, 2);
    assert_string_equal(got[0].uuid.text, SR_A);
    assert_int_equal(got[0].config.count, 0);
    assert_string_equal(pairs_get(&got[1].config, "k"), "b");
}

static void removing_an_sr_removes_all_that_belongs_to_it_and_nothing_else(void **state)
{
    struct bench *b = *state;
    static const char *const tables[] = {"sr", "sr_config", "vdi", "vdi_config", "attachment", "lease"};
    static const char *const srs[] = {SR_A, SR_B};
    struct pair config[] = {{"k", "v"}};
    for (size_t i = 0; i < COUNT_OF(srs); i++) {
        struct sr_row row = sr_blank(srs[i]);
        struct vdi v = vdi_numbered((unsigned) i);
        row.config = v.sm_config = (struct pairs){config, 1};
        OK(store_sr_put(&b->txn, &row, &b->fault));
        OK(store_vdi_put(&b->txn, &row.uuid, &v, &b->fault));
        hold(b, &row.uuid, &v.uuid);
    }
    for (size_t i = 0; i < COUNT_OF(tables); i++)
        assert_int_equal(rows_of(b, tables[i]), 2);
    struct uuid sr = uuid_of(SR_A);
    OK(store_sr_remove(&b->txn, &sr, &b->fault));
    for (size_t i = 0; i < COUNT_OF(tables); i++)
        assert_int_equal(rows_of(b, tables[i]), 1);
    assert_int_equal(rows_of(b, "audit WHERE what = 'lease_drop' AND who = '" HOST_A "'"), 1);
}

static struct vdi full_vdi(struct pair *config, size_t count)
{
    struct vdi v = vdi_numbered(1);
    v.location = "a place/with \"quotes\"";
    v.state = VDI_DAMAGED;
    v.format = "vhd";
    v.size = UINT64_C(2040) << 30;
    v.utilisation = 4097;
    v.label = "label";
    v.description = "description";
    v.type = "system";
    v.read_only = v.shareable = v.hidden = v.is_a_snapshot = true;
    v.managed = false;
    v.snapshot_time = "20261122T10:20:00Z";
    v.snapshot_of = "OpaqueRef:of";
    v.metadata_of_pool = "OpaqueRef:pool";
    v.parent = uuid_numbered(2);
    v.damage = "footer checksum";
    v.sm_config = (struct pairs){config, count};
    return v;
}

static void assert_same_texts(const struct vdi *a, const struct vdi *b)
{
    assert_string_equal(a->uuid.text, b->uuid.text);
    assert_string_equal(a->location, b->location);
    assert_string_equal(a->format, b->format);
    assert_string_equal(a->label, b->label);
    assert_string_equal(a->description, b->description);
    assert_string_equal(a->type, b->type);
    assert_string_equal(a->snapshot_time, b->snapshot_time);
    assert_string_equal(a->snapshot_of, b->snapshot_of);
    assert_string_equal(a->metadata_of_pool, b->metadata_of_pool);
    assert_string_equal(a->parent.text, b->parent.text);
    assert_string_equal(a->damage, b->damage);
}

static void assert_same(const struct vdi *a, const struct vdi *b)
{
    assert_same_texts(a, b);
    assert_int_equal(a->state, b->state);
    assert_int_equal(a->size, b->size);
    assert_int_equal(a->utilisation, b->utilisation);
    assert_int_equal(a->read_only, b->read_only);
    assert_int_equal(a->shareable, b->shareable);
    assert_int_equal(a->hidden, b->hidden);
    assert_int_equal(a->managed, b->managed);
    assert_int_equal(a->is_a_snapshot, b->is_a_snapshot);
    assert_int_equal(a->sm_config.count, b->sm_config.count);
    for (size_t i = 0; i < a->sm_config.count; i++) {
        assert_string_equal(a->sm_config.items[i].key, b->sm_config.items[i].key);
        assert_string_equal(a->sm_config.items[i].value, b->sm_config.items[i].value);
    }
}

static void a_disk_comes_back_as_it_was_put(void **state)
{
    struct bench *b = *state;
    struct uuid sr = uuid_of(SR_A);
    struct pair config[] = {{"type", "vhd"}, {"empty", ""}, {"a", "z"}};
    struct vdi blank = vdi_numbered(1), full = full_vdi(config, COUNT_OF(config)), *got;
    add_sr(b, SR_A);
    OK(store_vdi_put(&b->txn, &sr, &blank, &b->fault));
    OK(store_vdi_find(&b->txn, &sr, &blank.uuid, b->arena, &got, &b->fault));
    assert_same(got, &blank);
    OK(store_vdi_put(&b->txn, &sr, &full, &b->fault));
    OK(store_vdi_find(&b->txn, &sr, &full.uuid, b->arena, &got, &b->fault));
    assert_same(got, &full);
    OK(store_vdi_find_location(&b->txn, &sr, full.location, b->arena, &got, &b->fault));
    assert_same(got, &full);
    OK(store_vdi_find_location(&b->txn, &sr, blank.location, b->arena, &got, &b->fault));
    assert_null(got);
}

static void every_state_of_a_disk_is_kept(void **state)
{
    struct bench *b = *state;
    struct uuid sr = uuid_of(SR_A), vdi = uuid_numbered(1);
    struct vdi *got;
    add_sr(b, SR_A);
    put_numbered(b, SR_A, 1);
    for (enum vdi_state s = VDI_CREATING; s < VDI_STATE_COUNT; s++) {
        OK(store_vdi_set_state(&b->txn, &sr, &vdi, s, &b->fault));
        OK(store_vdi_find(&b->txn, &sr, &vdi, b->arena, &got, &b->fault));
        assert_int_equal(got->state, s);
    }
    vdi = uuid_numbered(2);
    REFUSED(store_vdi_set_state(&b->txn, &sr, &vdi, VDI_LIVE, &b->fault), FAULT_VDIUnavailable);
}

static void a_location_belongs_to_one_disk_of_its_sr(void **state)
{
    struct bench *b = *state;
    struct uuid sr = uuid_of(SR_A), other = uuid_of(SR_B);
    struct vdi one = vdi_numbered(1), two = vdi_numbered(2), *got;
    one.location = two.location = "disk.iso";
    add_sr(b, SR_A);
    add_sr(b, SR_B);
    OK(store_vdi_put(&b->txn, &sr, &one, &b->fault));
    REFUSED(store_vdi_put(&b->txn, &sr, &two, &b->fault), FAULT_VDIExists);
    assert_non_null(strstr(b->fault.detail, "disk.iso"));
    OK(store_vdi_find(&b->txn, &sr, &two.uuid, b->arena, &got, &b->fault));
    assert_null(got);
    OK(store_vdi_put(&b->txn, &other, &two, &b->fault));
}

static void a_disk_of_an_unknown_sr_is_refused(void **state)
{
    struct bench *b = *state;
    struct uuid sr = uuid_of(SR_A);
    struct vdi v = vdi_numbered(1);
    REFUSED(store_vdi_put(&b->txn, &sr, &v, &b->fault), FAULT_SRUnavailable);
}

static void a_size_past_two_to_the_63_is_refused(void **state)
{
    struct bench *b = *state;
    struct uuid sr = uuid_of(SR_A);
    struct vdi v = vdi_numbered(1);
    v.size = UINT64_C(1) << 63;
    add_sr(b, SR_A);
    REFUSED(store_vdi_put(&b->txn, &sr, &v, &b->fault), FAULT_EIO);
}

static void removing_a_disk_removes_what_belongs_to_it(void **state)
{
    struct bench *b = *state;
    struct uuid sr = uuid_of(SR_A);
    struct pair config[] = {{"k", "v"}};
    add_sr(b, SR_A);
    struct holder who = holder_named(HOST_A);
    OK(store_attach(&b->txn, &sr, NULL, &who, true, &b->fault));
    for (unsigned n = 1; n <= 2; n++) {
        struct vdi v = vdi_numbered(n);
        v.sm_config = (struct pairs){config, 1};
        OK(store_vdi_put(&b->txn, &sr, &v, &b->fault));
        hold(b, &sr, &v.uuid);
    }
    struct uuid vdi = uuid_numbered(1);
    OK(store_vdi_remove(&b->txn, &sr, &vdi, &b->fault));
    OK(store_vdi_remove(&b->txn, &sr, &vdi, &b->fault));
    assert_int_equal(rows_of(b, "vdi"), 1);
    assert_int_equal(rows_of(b, "vdi_config"), 1);
    assert_int_equal(rows_of(b, "lease"), 1);
    assert_int_equal(rows_of(b, "attachment"), 2);
    assert_int_equal(rows_of(b, "audit WHERE what = 'lease_drop'"), 1);
}

static void disks_are_listed_in_pages_each_with_its_own_config(void **state)
{
    struct bench *b = *state;
    struct uuid sr = uuid_of(SR_A), after = UUID_NONE;
    struct pair config[] = {{"number", ""}, {"second", "x"}};
    add_sr(b, SR_A);
    add_sr(b, SR_B);
    for (unsigned n = 100; n-- > 0;) {
        struct vdi v = vdi_numbered(n);
        config[0].value = v.location;
        v.sm_config = (struct pairs){config, n % 3};
        OK(store_vdi_put(&b->txn, &sr, &v, &b->fault));
    }
    put_numbered(b, SR_B, 1);
    unsigned seen = 0;
    for (;;) {
        struct vdi_list page = {0};
        OK(store_vdi_list(&b->txn, &sr, &after, 7, b->arena, &page, &b->fault));
        assert_true(page.count <= 7);
        if (page.count == 0)
            break;
        for (size_t i = 0; i < page.count; i++, seen++) {
            struct uuid want = uuid_numbered(seen);
            assert_string_equal(page.items[i].uuid.text, want.text);
            assert_int_equal(page.items[i].sm_config.count, seen % 3);
            if (seen % 3)
                assert_string_equal(pairs_get(&page.items[i].sm_config, "number"), want.text);
        }
        after = page.items[page.count - 1].uuid;
    }
    assert_int_equal(seen, 100);
    struct vdi_list all = {0};
    OK(store_vdi_list(&b->txn, &sr, NULL, 0, b->arena, &all, &b->fault));
    assert_int_equal(all.count, 100);
}

static void hidden_and_dying_disks_are_not_counted(void **state)
{
    struct bench *b = *state;
    struct uuid sr = uuid_of(SR_A);
    uint64_t count = 9;
    add_sr(b, SR_A);
    for (unsigned n = 0; n < VDI_STATE_COUNT + 1; n++) {
        struct vdi v = vdi_numbered(n);
        v.hidden = n == VDI_STATE_COUNT;
        v.state = v.hidden ? VDI_LIVE : (enum vdi_state) n;
        OK(store_vdi_put(&b->txn, &sr, &v, &b->fault));
    }
    OK(store_vdi_count(&b->txn, &sr, &count, &b->fault));
    assert_int_equal(count, VDI_STATE_COUNT - 1);
    sr = uuid_of(SR_B);
    OK(store_vdi_count(&b->txn, &sr, &count, &b->fault));
    assert_int_equal(count, 0);
}

static void children_are_counted_by_parent(void **state)
{
    struct bench *b = *state;
    struct uuid sr = uuid_of(SR_A), parent = uuid_numbered(0);
    uint64_t count = 9;
    add_sr(b, SR_A);
    for (unsigned n = 0; n < 4; n++) {
        struct vdi v = vdi_numbered(n);
        v.parent = n >= 2 ? parent : UUID_NONE;
        OK(store_vdi_put(&b->txn, &sr, &v, &b->fault));
    }
    OK(store_vdi_children(&b->txn, &sr, &parent, &count, &b->fault));
    assert_int_equal(count, 2);
    parent = uuid_numbered(3);
    OK(store_vdi_children(&b->txn, &sr, &parent, &count, &b->fault));
    assert_int_equal(count, 0);
}

int main(void)
{
#define WITH_BENCH(test) cmocka_unit_test_setup_teardown(test, bench_setup, bench_teardown)
    const struct CMUnitTest tests[] = {
        WITH_BENCH(an_sr_comes_back_as_it_was_put),
        WITH_BENCH(putting_an_sr_again_replaces_its_config_and_keeps_its_disks),
        WITH_BENCH(an_sr_that_is_not_there_is_found_as_null),
        WITH_BENCH(state_and_totals_of_an_sr_change_alone),
        WITH_BENCH(srs_are_listed_by_uuid_with_their_config),
        WITH_BENCH(removing_an_sr_removes_all_that_belongs_to_it_and_nothing_else),
        WITH_BENCH(a_disk_comes_back_as_it_was_put),
        WITH_BENCH(every_state_of_a_disk_is_kept),
        WITH_BENCH(a_location_belongs_to_one_disk_of_its_sr),
        WITH_BENCH(a_disk_of_an_unknown_sr_is_refused),
        WITH_BENCH(a_size_past_two_to_the_63_is_refused),
        WITH_BENCH(removing_a_disk_removes_what_belongs_to_it),
        WITH_BENCH(disks_are_listed_in_pages_each_with_its_own_config),
        WITH_BENCH(hidden_and_dying_disks_are_not_counted),
        WITH_BENCH(children_are_counted_by_parent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

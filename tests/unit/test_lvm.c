/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is said to lvm2, and what its answers are taken for: recorded conversations. And who uses a device, by trees
   that look like /sys. */
#include "backends/tools/blkid.h"
#include "backends/tools/lvm.h"
#include "server/base/cmd.h"
#include "tests/unit/check.h"
#include "tests/unit/replay_help.h"
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define VG         "VG_XenStorage-0a0b0c0d-1111-2222-3333-444455556666"
#define RAW        "LV-aaaaaaaa-2222-3333-4444-555555555555"
#define VHD        "VHD-bbbbbbbb-2222-3333-4444-555555555555"
#define TEXTS(...) ((const char *const[]){__VA_ARGS__, NULL})

static const char *const devices[] = {"/dev/sdb", "/dev/sdc", NULL};
static const struct lvm_scope scope = {.devices = devices, .device_count = 2, .hold = -1, .metadata_only = true};

static int arena_setup(void **state)
{
    *state = arena_new(16U << 20);
    return 0;
}

static int arena_teardown(void **state)
{
    arena_free(*state);
    return 0;
}

#define DONE(call)                                                                                                     \
    do {                                                                                                               \
        struct fault f = {0};                                                                                          \
        if ((call) < 0)                                                                                                \
            fail_msg(#call ": %d %s", f.code, f.detail);                                                               \
    } while (0)
#define REFUSED(call, want)                                                                                            \
    do {                                                                                                               \
        struct fault f = {0};                                                                                          \
        assert_int_equal(call, -1);                                                                                    \
        assert_int_equal(f.code, want);                                                                                \
        assert_true(f.detail[0] != '\0');                                                                              \
    } while (0)

/* ------------------------------------------------------------------ conversations */

static void check_report(const struct lvm_report *r)
{
    assert_int_equal(r->vg_count, 1);
    assert_int_equal(r->orphan_count, 0);
    const struct lvm_vg *vg = &r->vgs[0];
    assert_string_equal(vg->name, VG);
    assert_int_equal(vg->extent_size, 4 << 20);
    assert_int_equal(vg->pv_count, 2);
    assert_string_equal(vg->pvs[0].uuid, "0a0b0c-0d11-1122-2233-3344-4455-556601");
    assert_int_equal(vg->pvs[0].pe_start, 11534336);
    assert_int_equal(vg->pvs[0].size, 3221225472U);
    assert_int_equal(vg->lv_count, 2);
    assert_int_equal(vg->size - vg->free, (16U << 20) + (8U << 20));
    const struct lvm_lv *lv = lvm_find(vg, VHD);
    assert_non_null(lv);
    assert_int_equal(lv->size, 16 << 20);
    assert_true(lv->linear && !lv->read_only);
    assert_int_equal(lv->segment_count, 2); /* the raw volume is between */
    assert_int_equal(lv->segments[0].pv_start, 0);
    assert_int_equal(lv->segments[1].lv_start, 2);
    assert_int_equal(lv->segments[1].pv_start, 4);
    const struct lvm_lv *raw = lvm_find(vg, RAW);
    assert_non_null(raw);
    assert_true(raw->read_only && lvm_has_tag(raw->tags, "hidden"));
    assert_null(lvm_find(vg, "MGT"));
}

static void life(void **state)
{
    struct lvm_report r;
    struct lvm_new first = {.name = "tmp_12345678", .size = 8388608, .tags = TEXTS("smapi_op=12345678")};
    struct lvm_new second = {.name = RAW, .size = 5000000};
    replay_start("lvm/life");
    DONE(lvm_pv_create(&scope, "/dev/sdb", "0a0b0c-0d11-1122-2233-3344-4455-556601", &f));
    DONE(lvm_pv_create(&scope, "/dev/sdc", NULL, &f));
    DONE(lvm_vg_create(&scope, VG, TEXTS("smapi_owner=11111111-2222-3333-4444-555555555555", "smapi_op=12345678"), &f));
    DONE(lvm_lv_create(&scope, VG, &first, &f));
    DONE(lvm_lv_create(&scope, VG, &second, &f));
    DONE(lvm_lv_rename(&scope, VG, "tmp_12345678", VHD, FAULT_VDICreate, &f));
    DONE(lvm_lv_resize(&scope, VG, VHD, 16777216, &f));
    DONE(lvm_lv_resize(&scope, VG, VHD, 16777216, &f)); /* done before: lvm calls that an error */
    DONE(lvm_lv_change(&scope, VG, RAW, LVM_ACCESS_READ, TEXTS("hidden"), NULL, FAULT_VDIDelete, &f));
    DONE(lvm_lv_change(&scope, VG, RAW, LVM_ACCESS_READ, NULL, NULL, FAULT_VDIDelete, &f)); /* this too */
    DONE(lvm_read(&scope, *state, &r, &f));
    check_report(&r);
    DONE(lvm_vg_quiet(&scope, VG, &f));
    DONE(lvm_vg_quiet(&scope, VG, &f)); /* this too */
    DONE(lvm_vg_tag(&scope, VG, TEXTS("smapi_owner=99999999-2222-3333-4444-555555555555"),
                    TEXTS("smapi_owner=11111111-2222-3333-4444-555555555555"), &f));
    DONE(lvm_lv_remove(&scope, VG, TEXTS(RAW, VHD), &f));
    DONE(lvm_vg_remove(&scope, VG, &f));
    DONE(lvm_read(&scope, *state, &r, &f));
    assert_int_equal(r.vg_count, 0);
    assert_int_equal(r.orphan_count, 2);
    assert_string_equal(r.orphans[0].name, "/dev/sdb");
    DONE(lvm_pv_remove(&scope, devices, &f));
    DONE(lvm_read(&scope, *state, &r, &f));
    assert_int_equal(r.vg_count + r.orphan_count, 0);
    replay_end();
}

static void faults_have_their_codes(void **state)
{
    (void) state;
    struct lvm_new large = {.name = "VHD-c", .size = UINT64_C(1) << 50}, small = {.name = "VHD-c", .size = 4194304};
    replay_start("lvm/faults");
    REFUSED(lvm_lv_create(&scope, VG, &large, &f), FAULT_SRNoSpace);
    DONE(lvm_lv_create(&scope, VG, &small, &f));
    REFUSED(lvm_lv_create(&scope, VG, &small, &f), FAULT_LVMCreate);
    REFUSED(lvm_lv_resize(&scope, VG, "VHD-c", UINT64_C(1) << 45, &f), FAULT_SRNoSpace);
    REFUSED(lvm_lv_remove(&scope, VG, TEXTS("VHD-none"), &f), FAULT_LVMDelete);
    REFUSED(lvm_vg_remove(&scope, "VG_none", &f), FAULT_LVMDelete);
    REFUSED(lvm_vg_create(&scope, VG, NULL, &f), FAULT_LVMGroupCreate);
    REFUSED(lvm_pv_create(&scope, "/dev/sdb", NULL, &f), FAULT_LVMPartCreate);
    replay_end();
}

static void nothing_is_activated_without_a_kernel_for_it(void **state)
{
    (void) state;
    REFUSED(lvm_lv_activate(&scope, VG, TEXTS(VHD), &f), FAULT_LVMMount);
    REFUSED(lvm_lv_deactivate(&scope, VG, TEXTS(VHD), &f), FAULT_LVMUnMount);
}

static int killed(const struct cmd *cmd, struct arena *a, struct cmd_result *out, struct fault *f)
{
    (void) cmd, (void) a, (void) f;
    *out = (struct cmd_result){.status = 0, .timed_out = true, .out = "", .err = ""};
    return 0;
}

static void a_command_that_was_killed_has_failed(void **state)
{
    (void) state;
    cmd_replace_runner(killed);
    REFUSED(lvm_vg_remove(&scope, VG, &f), FAULT_LVMDelete);
    cmd_replace_runner(NULL);
}

/* ------------------------------------------------------------------ reports nobody should print */

static void reports_that_make_no_sense_are_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "{",
        "[]",
        "{\"report\":[]}",
        "{\"report\":[{\"pvseg\":{}}]}",
        "{\"report\":[{\"pvseg\":[{\"vg_name\":\"x\",\"vg_uuid\":\"u\"}]}]}",
        "{\"report\":[{\"pvseg\":[{\"vg_name\":\"x\",\"vg_uuid\":\"u\",\"vg_size\":\"1\",\"vg_free\":\"1\","
        "\"vg_extent_size\":\"0\"}]}]}",
        "{\"report\":[{\"pvseg\":[{\"vg_name\":\"x\",\"vg_uuid\":\"u\",\"vg_size\":\"-1\",\"vg_free\":\"1\","
        "\"vg_extent_size\":\"4\"}]}]}",
    };
    struct lvm_report r;
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        REFUSED(lvm_report_parse(bad[i], strlen(bad[i]), *state, &r, &f), FAULT_PVSfailed);
}

#define ROW(vg, pv, lv, type, start, count, at)                                                                        \
    "{\"vg_name\":\"same\",\"vg_uuid\":\"" vg "\",\"vg_size\":\"40\",\"vg_free\":\"0\",\"vg_extent_size\":\"4\","      \
    "\"vg_tags\":\"\",\"pv_name\":\"/dev/" pv "\",\"pv_uuid\":\"" pv "\",\"pe_start\":\"8\",\"dev_size\":\"64\","      \
    "\"pvseg_start\":\"" start "\",\"pvseg_size\":\"" count "\",\"lv_name\":\"" lv "\",\"lv_uuid\":\"" lv "\","        \
    "\"lv_size\":\"24\",\"lv_tags\":\"a,b=c\",\"lv_attr\":\"-wi\",\"seg_start_pe\":\"" at "\",\"segtype\":\"" type     \
    "\",\"stripes\":\"1\"}"

static void two_groups_of_one_name_stay_two(void **state)
{
    static const char json[] = "{\"report\":[{\"pvseg\":[" ROW("1", "sdb", "x", "linear", "0", "6", "0") "," //
        ROW("2", "sdc", "y", "linear", "0", "6", "0") "]}]}";
    struct lvm_report r;
    DONE(lvm_report_parse(json, strlen(json), *state, &r, &f));
    assert_int_equal(r.vg_count, 2);
    assert_true(r.vgs[0].lvs[0].linear && r.vgs[1].lvs[0].linear);
}

/* Only what is known to lie in plain stretches may ever be read past the kernel. */
static void volumes_with_gaps_or_stripes_are_not_linear(void **state)
{
    static const char json[] = "{\"report\":[{\"pvseg\":[" ROW("1", "sdb", "whole", "linear", "9", "2", "4") ","     //
        ROW("1", "sdb", "whole", "linear", "0", "4", "0") "," ROW("1", "sdb", "short", "linear", "20", "4", "0") "," //
        ROW("1", "sdb", "gap", "linear", "30", "3", "0") "," ROW("1", "sdb", "gap", "linear", "40", "3", "4") ","    //
        ROW("1", "sdb", "raid", "raid1", "50", "6", "0") "]}]}";
    struct lvm_report r;
    DONE(lvm_report_parse(json, strlen(json), *state, &r, &f));
    assert_true(lvm_find(&r.vgs[0], "whole")->linear);
    assert_int_equal(lvm_find(&r.vgs[0], "whole")->segments[0].pv_start, 0);
    assert_false(lvm_find(&r.vgs[0], "short")->linear);
    assert_false(lvm_find(&r.vgs[0], "gap")->linear);
    assert_false(lvm_find(&r.vgs[0], "raid")->linear);
}

static void tags_are_compared_whole(void **state)
{
    assert_true(lvm_has_tag("a,hidden,b", "hidden") && lvm_has_tag("hidden", "hidden"));
    assert_true(lvm_has_tag("hidden2,hidden", "hidden"));
    assert_false(lvm_has_tag("hidden2,xhidden", "hidden"));
    assert_false(lvm_has_tag("", "hidden"));
    assert_string_equal(lvm_tag_value("x,smapi_owner=1-2,y", "smapi_owner=", *state), "1-2");
    assert_null(lvm_tag_value("x,asmapi_owner=1-2,y", "smapi_owner=", *state));
}

/* ------------------------------------------------------------------ devices */

static char tree[128];

static void put(const char *name, const char *content)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", tree, name);
    for (char *at = path + strlen(tree) + 1; (at = strchr(at, '/')); at++) {
        *at = '\0';
        mkdir(path, 0700);
        *at = '/';
    }
    AUTO_FILE FILE *file = fopen(path, "we");
    assert_non_null(file);
    fputs(content, file);
}

static void link_to(const char *name, const char *target)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", tree, name);
    assert_int_equal(symlink(target, path), 0);
}

/* sda has a partition; on it stands dm-0, the root; sdb is free; sdc is held by dm-1, which is mounted. */
static int tree_setup(void **state)
{
    snprintf(tree, sizeof tree, "/tmp/test_lvm.XXXXXX");
    assert_non_null(mkdtemp(tree));
    put("sys/devices/sda/dev", "8:0\n");
    put("sys/devices/sda/sda1/dev", "8:1\n");
    put("sys/devices/sda/sda1/partition", "1\n");
    put("sys/devices/sda/sda2/dev", "8:2\n");
    put("sys/devices/sda/sda2/partition", "2\n");
    put("sys/devices/sdb/dev", "8:16\n");
    put("sys/devices/sdc/dev", "8:32\n");
    put("sys/devices/sdc/holders/dm-1", "");
    put("sys/devices/dm-0/slaves/sda1/dev", "8:1\n");
    put("sys/devices/dm-1/slaves/sdc/dev", "8:32\n");
    put("sys/dev/block/x", "");
    link_to("sys/dev/block/8:0", "../../devices/sda");
    link_to("sys/dev/block/8:1", "../../devices/sda/sda1");
    link_to("sys/dev/block/8:2", "../../devices/sda/sda2");
    link_to("sys/dev/block/8:16", "../../devices/sdb");
    link_to("sys/dev/block/8:32", "../../devices/sdc");
    link_to("sys/dev/block/253:0", "../../devices/dm-0");
    link_to("sys/dev/block/253:1", "../../devices/dm-1");
    put("mounts", "22 1 253:0 / / rw - ext4 /dev/mapper/root rw\n23 22 253:1 / /srv/x rw - ext4 /dev/mapper/x rw\n"
                  "24 22 0:5 / /proc rw - proc proc rw\n");
    return arena_setup(state);
}

static int tree_teardown(void **state)
{
    char command[160];
    snprintf(command, sizeof command, "rm -rf '%s'", tree);
    return system(command) || arena_teardown(state);
}

static void the_disk_below_the_root_is_the_system(void **state)
{
    (void) state;
    char sys[160], mounts[160];
    snprintf(sys, sizeof sys, "%s/sys", tree);
    snprintf(mounts, sizeof mounts, "%s/mounts", tree);
    assert_true(device_is_system(sys, mounts, makedev(253, 0)));
    assert_true(device_is_system(sys, mounts, makedev(8, 1)));
    assert_true(device_is_system(sys, mounts, makedev(8, 0)));
    assert_false(device_is_system(sys, mounts, makedev(8, 2))); /* another partition of that disk is not */
    assert_false(device_is_system(sys, mounts, makedev(8, 16)));
    assert_false(device_is_system(sys, mounts, makedev(8, 32)));
}

static void what_others_stand_on_is_in_use(void **state)
{
    char sys[160], mounts[160];
    snprintf(sys, sizeof sys, "%s/sys", tree);
    snprintf(mounts, sizeof mounts, "%s/mounts", tree);
    assert_null(device_user(sys, mounts, makedev(8, 16), *state));
    assert_null(device_user(sys, mounts, makedev(8, 2), *state));
    assert_string_equal(device_user(sys, mounts, makedev(8, 32), *state), "is mounted on /srv/x");
    assert_string_equal(device_user(sys, "/dev/null", makedev(8, 32), *state), "is held by dm-1");
}

static void a_device_must_be_one(void **state)
{
    struct device d;
    REFUSED(device_look("/dev/none/of/that/name", *state, &d, &f), FAULT_InvalidDev);
    REFUSED(device_look("/dev/null", *state, &d, &f), FAULT_ConfigDeviceInvalid);
    REFUSED(device_look("/etc/passwd/x", *state, &d, &f), FAULT_ConfigDeviceInvalid);
}

int main(void)
{
#define TEST(name)    cmocka_unit_test_setup_teardown(name, arena_setup, arena_teardown)
#define IN_TREE(name) cmocka_unit_test_setup_teardown(name, tree_setup, tree_teardown)
    const struct CMUnitTest tests[] = {
        TEST(life),
        TEST(faults_have_their_codes),
        TEST(nothing_is_activated_without_a_kernel_for_it),
        TEST(a_command_that_was_killed_has_failed),
        TEST(reports_that_make_no_sense_are_refused),
        TEST(two_groups_of_one_name_stay_two),
        TEST(volumes_with_gaps_or_stripes_are_not_linear),
        TEST(tags_are_compared_whole),
        IN_TREE(the_disk_below_the_root_is_the_system),
        IN_TREE(what_others_stand_on_is_in_use),
        TEST(a_device_must_be_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

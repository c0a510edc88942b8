/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What multipathd is told, what its answers mean, and which map stands over a path, as sysfs has it. */
#include "backends/scsi/sysfs.h"
#include "backends/tools/multipath.h"
#include "tests/unit/check.h"
#include "tests/unit/replay_help.h"
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>

#define ID    "36001405a123c7dae2477ca0000000000"
#define OTHER "36001405a123c7dae2477ca0000000001"

static char tree[] = "/tmp/smapi-multipath-XXXXXX";

static void put(const char *path, const char *text)
{
    char whole[512];
    snprintf(whole, sizeof whole, "%s/class/block/%s", tree, path);
    for (char *slash = strchr(whole + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(whole, 0700);
        *slash = '/';
    }
    FILE *file = fopen(whole, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* Two paths, sda and sdb, and sdc, which a volume stands on. */
static int setup(void **state)
{
    assert_non_null(mkdtemp(tree));
    put("sda/holders/dm-0", "");
    put("sdb/holders/dm-0", "");
    put("sdc/holders/dm-1", "");
    put("dm-0/slaves/sda", "");
    put("dm-0/slaves/sdb", "");
    put("dm-0/size", "131072\n");
    put("sda/size", "131072\n");
    put("sdb/size", "262144\n");
    put("dm-0/dm/uuid", "mpath-" ID "\n");
    put("dm-1/dm/uuid", "LVM-x\n");
    put("dm-2/dm/uuid", "mpath-" OTHER "\n");
    put("dm-2/slaves/sdy", "");
    scsi_sysfs = tree;
    *state = arena_new(1U << 20);
    return 0;
}

static int gone(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void) st, (void) kind, (void) where;
    return remove(path);
}

static int teardown(void **state)
{
    arena_free(*state);
    scsi_sysfs = "/sys";
    return nftw(tree, gone, 16, FTW_DEPTH | FTW_PHYS);
}

static void a_map_is_told_from_what_else_stands_on_a_disk(void **state)
{
    const char **paths;
    assert_string_equal(multipath_over("sda", *state), "dm-0");
    assert_string_equal(multipath_over("sdc", *state), "");
    assert_string_equal(multipath_over("sdx", *state), "");
    assert_int_equal(multipath_paths("dm-0", *state, &paths), 2);
    assert_int_equal(paths[0][2] + paths[1][2], 'a' + 'b');
    assert_int_equal(multipath_paths("dm-7", *state, &paths), 0);
}

static void paths_that_the_kernel_has_taken_away_are_none(void **state)
{
    const char **paths;
    assert_int_equal(multipath_paths("dm-2", *state, &paths), 0);
    assert_true(multipath_is("dm-2", OTHER, *state));
    assert_false(multipath_is("dm-2", ID, *state)); /* another disk's: the number was given anew */
    assert_false(multipath_is("dm-9", OTHER, *state));
}

static void a_life_is_one_command_a_step(void **state)
{
    (void) state;
    struct fault f;
    replay_start("multipath/life");
    assert_int_equal(multipath_knows("sda", -1, &f), 0);
    assert_int_equal(multipath_add(ID, -1, &f), 0);
    assert_int_equal(multipath_add(ID, -1, &f), 0);               /* done before */
    assert_int_equal(multipath_resize("dm-0", "sda", -1, &f), 0); /* nothing to be done */
    assert_int_equal(multipath_resize("dm-0", "sdb", -1, &f), 0);
    assert_int_equal(multipath_drop_path("sdb", -1, &f), 0);
    assert_int_equal(multipath_remove("dm-9", ID, -1, &f), 0); /* gone already */
    replay_end();
}

static void what_it_refuses_is_said_with_the_disk(void **state)
{
    (void) state;
    static const enum fault_code codes[] = {FAULT_ISCSIDevice, FAULT_ISCSIDevice, FAULT_InvalidDev};
    struct fault unknown = {0};
    replay_start("multipath/faults");
    assert_int_equal(multipath_knows("sdz", -1, &unknown), -1);
    assert_int_equal(unknown.code, FAULT_ISCSIDevice);
    for (size_t i = 0; i < COUNT_OF(codes); i++) {
        struct fault f = {0};
        assert_int_equal(multipath_add("3600deadbeef", -1, &f), -1);
        assert_int_equal(f.code, codes[i]);
        if (f.code == FAULT_ISCSIDevice)
            assert_non_null(strstr(f.detail, "add map 3600deadbeef"));
    }
    replay_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_map_is_told_from_what_else_stands_on_a_disk),
        cmocka_unit_test(paths_that_the_kernel_has_taken_away_are_none),
        cmocka_unit_test(a_life_is_one_command_a_step),
        cmocka_unit_test(what_it_refuses_is_said_with_the_disk),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

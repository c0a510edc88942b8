/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening: whose directory and file it may be, what is refused, what is counted, and what SQLite makes of the SQL. */
#include "server/base/clock.h"
#include "store/lease.h"
#include "store/place.h"
#include "store/schema.h"
#include "store/sums.h"
#include "tests/unit/check.h"
#include "tests/unit/store_help.h"
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

static int setup(void **state)
{
    struct scratch *s = calloc(1, sizeof *s);
    assert_non_null(s);
    scratch_make(s);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    scratch_remove(*state);
    free(*state);
    return 0;
}

static void assert_refused(const char *dir, const char *sentence)
{
    struct store *s = NULL;
    struct fault f = {0};
    bool in_use = true;
    assert_int_equal(store_open(dir, &s, &in_use, &f), -1);
    assert_null(s);
    assert_false(in_use);
    if (!strstr(f.detail, sentence))
        fail_msg("\"%s\" does not say \"%s\"", f.detail, sentence);
}

static mode_t mode_of(const char *dir, const char *name)
{
    struct stat st;
    AUTO_FD int fd = open(dir, O_RDONLY | O_DIRECTORY);
    assert_int_equal(fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
    return st.st_mode & 07777;
}

static void what_it_makes_is_private(void **state)
{
    struct scratch *s = *state;
    mode_t before = umask(0);
    struct store *store = open_store(s->state);
    umask(before);
    assert_int_equal(mode_of(s->state, "."), 0700);
    assert_int_equal(mode_of(s->state, "smapid.db"), 0600);
    assert_int_equal(mode_of(s->state, "smapid.db-wal"), 0600);
    assert_int_equal(mode_of(s->state, "smapid.lock"), 0600);
    store_close(store);
}

static void an_exposed_database_is_made_private_again(void **state)
{
    struct scratch *s = *state;
    store_close(open_store(s->state));
    assert_int_equal(chmod(s->file, 0644), 0);
    store_close(open_store(s->state));
    assert_int_equal(mode_of(s->state, "smapid.db"), 0600);
}

static void a_directory_others_may_write_is_refused(void **state)
{
    struct scratch *s = *state;
    assert_int_equal(mkdir(s->state, 0700), 0);
    assert_int_equal(chmod(s->state, 0720), 0);
    assert_refused(s->state, "others may write");
    assert_int_equal(chmod(s->state, 0702), 0);
    assert_refused(s->state, "others may write");
}

static void a_directory_of_another_user_is_refused(void **state)
{
    struct scratch *s = *state;
    if (geteuid() != 0) {
        assert_refused("/usr", "belongs to uid 0");
        return;
    }
    assert_int_equal(mkdir(s->state, 0700), 0);
    assert_int_equal(chown(s->state, 12345, 0), 0);
    assert_refused(s->state, "belongs to uid 12345");
}

static void a_missing_parent_or_a_file_in_its_place_is_refused(void **state)
{
    struct scratch *s = *state;
    char deep[128];
    snprintf(deep, sizeof deep, "%s/no/where", s->root);
    assert_refused(deep, "No such file");
    AUTO_FD int fd = open(s->state, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_refused(s->state, "Not a directory");
    assert_int_equal(unlink(s->state), 0);
}

static void a_database_behind_a_link_is_refused(void **state)
{
    struct scratch *s = *state;
    assert_int_equal(mkdir(s->state, 0700), 0);
    assert_int_equal(symlink("/tmp/elsewhere", s->file), 0);
    assert_refused(s->state, "smapid.db");
}

static void file_systems_of_other_machines_are_known(void **state)
{
    (void) state;
    assert_string_equal(place_remote_type(NFS_SUPER_MAGIC), "nfs");
    assert_string_equal(place_remote_type(CIFS_SUPER_MAGIC), "cifs");
    assert_string_equal(place_remote_type(SMB2_SUPER_MAGIC), "smb2");
    assert_string_equal(place_remote_type(FUSE_SUPER_MAGIC), "fuse");
    assert_null(place_remote_type(EXT4_SUPER_MAGIC));
    assert_null(place_remote_type(TMPFS_MAGIC));
}

static void a_newer_schema_is_refused(void **state)
{
    struct scratch *s = *state;
    store_close(open_store(s->state));
    char sql[64];
    snprintf(sql, sizeof sql, "PRAGMA user_version = %zu", schema_newest() + 1);
    peer_run(s->file, sql);
    assert_refused(s->state, "newer smapid");
}

static void a_database_of_another_program_is_refused(void **state)
{
    struct scratch *s = *state;
    assert_int_equal(mkdir(s->state, 0700), 0);
    peer_run(s->file, "CREATE TABLE theirs (x)");
    assert_refused(s->state, "another program");
}

static void a_file_that_is_no_database_is_refused(void **state)
{
    struct scratch *s = *state;
    assert_int_equal(mkdir(s->state, 0700), 0);
    AUTO_FD int fd = open(s->file, O_WRONLY | O_CREAT, 0600);
    char text[8192];
    memset(text, 'x', sizeof text);
    assert_int_equal(write(fd, text, sizeof text), sizeof text);
    assert_refused(s->state, "not a database");
}

static void a_damaged_table_is_refused(void **state)
{
    struct scratch *s = *state;
    store_close(open_store(s->state));
    AUTO_FD int fd = open(s->file, O_RDWR);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    char junk[512];
    memset(junk, 0x5a, sizeof junk);
    for (off_t page = 4096; page < st.st_size; page += 4096)
        assert_int_equal(pwrite(fd, junk, sizeof junk, page), sizeof junk);
    assert_refused(s->state, "smapid.db");
}

static void a_row_that_refers_to_nothing_is_refused(void **state)
{
    struct scratch *s = *state;
    store_close(open_store(s->state));
    peer_run(s->file, "INSERT INTO sr_config (sr, position, key, value) VALUES ('" SR_A "', 0, 'k', 'v')");
    assert_refused(s->state, "table sr_config refers to nothing");
}

static unsigned reserved_bytes(const char *file)
{
    unsigned char head[32];
    AUTO_FD int fd = open(file, O_RDONLY);
    assert_int_equal(pread(fd, head, sizeof head, 0), sizeof head);
    return head[20];
}

static void a_database_of_an_older_smapid_gets_its_checksums(void **state)
{
    struct scratch *s = *state;
    assert_int_equal(mkdir(s->state, 0700), 0);
    peer_run(s->file, schema_text(1));
    peer_run(s->file,
             "PRAGMA user_version = 1; INSERT INTO sr VALUES ('" SR_A "', 'dummy', 'live', '', '', 0, 0, 0, 0)");
    assert_int_equal(reserved_bytes(s->file), 0);
    store_close(open_store(s->state));
    assert_int_equal(reserved_bytes(s->file), SUMS_BYTES);
    char answer[64];
    struct database d;
    struct fault f;
    assert_int_equal(database_open(&d, s->file, true, &f), 0);
    peer_ask(d.connection, "SELECT uuid FROM sr", answer, sizeof answer);
    assert_string_equal(answer, SR_A);
    database_close(&d);
}

static void opens_are_counted_and_the_server_keeps_its_name(void **state)
{
    struct scratch *s = *state;
    struct store *store = open_store(s->state);
    struct store_meta first = store_meta(store);
    store_close(store);
    store = open_store(s->state);
    struct store_meta second = store_meta(store);
    store_close(store);
    assert_true(first.first_open && uuid_is(&first.server));
    assert_int_equal(first.start_seq, 1);
    assert_false(second.first_open || first.rebooted || second.rebooted);
    assert_int_equal(second.start_seq, 2);
    assert_string_equal(second.server.text, first.server.text);
}

static void another_boot_of_the_kernel_is_noticed_once(void **state)
{
    struct scratch *s = *state;
    store_close(open_store(s->state));
    peer_run(s->file, "UPDATE meta SET boot = '" SR_B "'");
    struct store *store = open_store(s->state);
    assert_true(store_meta(store).rebooted);
    store_close(store);
    store = open_store(s->state);
    assert_false(store_meta(store).rebooted);
    store_close(store);
}

static int take_first_disk(struct txn *t, void *arg, struct fault *f)
{
    struct uuid sr = uuid_of(SR_A);
    struct vdi v = vdi_numbered(1);
    struct holder who = holder_named(HOST_A);
    struct lease_ask ask = ask_for(&sr, &v.uuid, who, true);
    struct granted got = {0};
    if (put_sr(t, (char[]){SR_A}, f) < 0 || store_vdi_put(t, &sr, &v, f) < 0 ||
        store_lease_release(t, &sr, &v.uuid, &who, 0, NOW, f) < 0 || store_lease_take(t, &ask, &got, f) < 0)
        return -1;
    *(uint64_t *) arg = got.epoch;
    return 0;
}

static void epochs_jump_at_every_start(void **state)
{
    struct scratch *s = *state;
    uint64_t last = 0;
    for (int i = 0; i < 3; i++) {
        struct store *store = open_store(s->state);
        struct fault f;
        uint64_t epoch = 0;
        assert_int_equal(store_write(store, take_first_disk, &epoch, &f), 0);
        assert_true(i == 0 ? epoch == 1 : epoch >= last + (1 << 20));
        assert_true(epoch - last < 1 << 25); /* 32,768 starts at least fit in 40 bits */
        last = epoch;
        store_close(store);
    }
}

static void run_holder(const char *dir, int ready)
{
    struct store *s = NULL;
    struct fault f;
    bool in_use;
    char answer = store_open(dir, &s, &in_use, &f) == 0 ? 'y' : 'n';
    if (write(ready, &answer, 1) == 1)
        for (;;)
            pause();
    _exit(1);
}

static void a_second_process_is_refused_at_once_with_the_pid_of_the_first(void **state)
{
    struct scratch *s = *state;
    int ready[2];
    char answer = 0, pid_text[32];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork_child();
    if (child == 0)
        run_holder(s->state, ready[1]);
    assert_int_equal(read(ready[0], &answer, 1), 1);
    assert_int_equal(answer, 'y');
    struct store *store = NULL;
    struct fault f;
    bool in_use = false;
    int64_t began = clock_boot_ns();
    assert_int_equal(store_open(s->state, &store, &in_use, &f), -1);
    assert_true(clock_boot_ns() - began < 1000000000);
    assert_true(in_use);
    snprintf(pid_text, sizeof pid_text, "process %d", child);
    assert_non_null(strstr(f.detail, s->state));
    assert_non_null(strstr(f.detail, pid_text));
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    store_close(open_store(s->state));
    close(ready[0]);
    close(ready[1]);
}

static void the_connection_has_the_settings_durability_rests_on(void **state)
{
    struct bench *b = *state;
    static const char *const wanted[][2] = {
        {"PRAGMA locking_mode", "exclusive"},
        {"PRAGMA journal_mode", "wal"},
        {"PRAGMA synchronous", "2"},
        {"PRAGMA foreign_keys", "1"},
        {"PRAGMA trusted_schema", "0"},
        {"PRAGMA cell_size_check", "1"},
        {"PRAGMA mmap_size", "0"},
    };
    char answer[64];
    for (size_t i = 0; i < COUNT_OF(wanted); i++)
        assert_string_equal(peer_ask(b->db.connection, wanted[i][0], answer, sizeof answer), wanted[i][1]);
    peer_ask(b->db.connection, "PRAGMA writable_schema = ON", answer, sizeof answer);
    assert_true(peer_refuses(b->db.connection, "UPDATE sqlite_schema SET sql = ''"));
    assert_true(peer_refuses(b->db.connection, "ATTACH ':memory:' AS other"));
    assert_true(peer_refuses(b->db.connection, "SELECT load_extension('x')"));
    assert_false(peer_refuses(b->db.connection, "SELECT 1"));
}

static void every_statement_has_the_plan_its_row_names(void **state)
{
    struct bench *b = *state;
    size_t count;
    const struct statement_row *rows = statement_rows(&count);
    for (size_t i = 0; i < count; i++) {
        const char *plan = peer_plan(b->db.connection, rows[i].sql);
        if (strcmp(plan, rows[i].plan) != 0)
            fail_msg("%s: want %s, SQLite makes it %s", rows[i].name, rows[i].plan, plan);
    }
}

static void a_statement_without_an_index_is_caught(void **state)
{
    struct bench *b = *state;
    assert_string_equal(peer_plan(b->db.connection, "SELECT uuid FROM vdi WHERE size > ?1"), "SCAN");
    assert_string_equal(peer_plan(b->db.connection, "SELECT uuid FROM vdi WHERE sr = ?1 ORDER BY size"), "SORT");
    assert_string_equal(peer_plan(b->db.connection, "SELECT uuid FROM vdi WHERE sr = ?1"), "SEARCH");
}

int main(void)
{
#define WITH_SCRATCH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
#define WITH_BENCH(test)   cmocka_unit_test_setup_teardown(test, bench_setup, bench_teardown)
    const struct CMUnitTest tests[] = {
        WITH_SCRATCH(what_it_makes_is_private),
        WITH_SCRATCH(an_exposed_database_is_made_private_again),
        WITH_SCRATCH(a_directory_others_may_write_is_refused),
        WITH_SCRATCH(a_directory_of_another_user_is_refused),
        WITH_SCRATCH(a_missing_parent_or_a_file_in_its_place_is_refused),
        WITH_SCRATCH(a_database_behind_a_link_is_refused),
        cmocka_unit_test(file_systems_of_other_machines_are_known),
        WITH_SCRATCH(a_newer_schema_is_refused),
        WITH_SCRATCH(a_database_of_another_program_is_refused),
        WITH_SCRATCH(a_file_that_is_no_database_is_refused),
        WITH_SCRATCH(a_damaged_table_is_refused),
        WITH_SCRATCH(a_row_that_refers_to_nothing_is_refused),
        WITH_SCRATCH(a_database_of_an_older_smapid_gets_its_checksums),
        WITH_SCRATCH(opens_are_counted_and_the_server_keeps_its_name),
        WITH_SCRATCH(another_boot_of_the_kernel_is_noticed_once),
        WITH_SCRATCH(epochs_jump_at_every_start),
        WITH_SCRATCH(a_second_process_is_refused_at_once_with_the_pid_of_the_first),
        WITH_BENCH(the_connection_has_the_settings_durability_rests_on),
        WITH_BENCH(every_statement_has_the_plan_its_row_names),
        WITH_BENCH(a_statement_without_an_index_is_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

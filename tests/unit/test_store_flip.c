/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One bit of the database, or of its log, flips: never is the answer a wrong one. It is noticed at the start, or when
   the page is read, or the bit does not matter. SMAPI_DEEP multiplies the trials, SMAPI_SEED chooses the bits. */
#include "server/base/text.h"
#include "store/journal.h"
#include "store/lease.h"
#include "store/sr.h"
#include "store/vdi.h"
#include "tests/unit/check.h"
#include "tests/unit/store_help.h"
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { TRIALS = 100, DISKS = 60, SAME = 0, OLDER = 2, WRONG = 3, REFUSED = 4 };

static unsigned long number(const char *variable, unsigned long standard)
{
    const char *text = getenv(variable);
    return text && text[0] ? strtoul(text, NULL, 10) : standard;
}

static int fill(struct txn *t, void *arg, struct fault *f)
{
    struct uuid sr = uuid_of(SR_A);
    (void) arg;
    if (put_sr(t, (char[]){SR_A}, f) < 0)
        return -1;
    for (unsigned i = 0; i < DISKS; i++) {
        struct vdi v = vdi_numbered(i);
        v.label = "a label of some length, so that rows fill pages";
        v.size = (uint64_t) (i + 1) << 21;
        if (store_vdi_put(t, &sr, &v, f) < 0 || store_audit(t, HOST_A, "filled", v.uuid.text, f) < 0)
            return -1;
    }
    return 0;
}

/* All that can be asked for, as one text. */
static int tell(struct txn *t, void *arg, struct fault *f)
{
    struct text *out = arg;
    AUTO_ARENA struct arena *a = arena_new(64 << 20);
    struct uuid sr = uuid_of(SR_A);
    struct sr_row *srs;
    struct vdi_list disks = {0};
    struct plan *ops;
    size_t sr_count, op_count;
    if (store_sr_list(t, a, &srs, &sr_count, f) < 0 || store_vdi_list(t, &sr, &UUID_NONE, 0, a, &disks, f) < 0 ||
        store_op_list(t, &UUID_NONE, a, &ops, &op_count, f) < 0)
        return -1;
    out->length = 0;
    for (size_t i = 0; i < sr_count; i++)
        text_printf(out, "%s %s %d %s\n", srs[i].uuid.text, srs[i].type, (int) srs[i].state, srs[i].label);
    for (size_t i = 0; i < disks.count; i++) {
        const struct vdi *v = &disks.items[i];
        text_printf(out, "%s %s %d %llu %s %s %d %d\n", v->uuid.text, v->location, (int) v->state,
                    (unsigned long long) v->size, v->label, v->parent.text, v->hidden, v->read_only);
    }
    text_printf(out, "%zu\n", op_count);
    return 0;
}

/* In a process of its own, as the store aborts rather than guess. older, which may be NULL, is as good an answer. */
static int try_it(const char *dir, const char *expected, const char *older)
{
    struct store *s = NULL;
    struct fault f = {0};
    bool in_use;
    struct text now = TEXT_OF(1 << 20);
    if (store_open(dir, &s, &in_use, &f) < 0)
        return f.code != FAULT_NONE && f.detail[0] ? REFUSED : WRONG;
    if (store_read(s, tell, &now, &f) < 0)
        return REFUSED;
    if (older && strcmp(now.data, older) == 0)
        return OLDER;
    return strcmp(now.data, expected) == 0 ? SAME : WRONG;
}

static int outcome(const char *dir, const char *expected, const char *older)
{
    int status;
    pid_t child = fork_child();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr))
            abort();
        _exit(try_it(dir, expected, older));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status))
        assert_int_equal(WTERMSIG(status), SIGABRT);
    return WIFSIGNALED(status) ? REFUSED : WEXITSTATUS(status);
}

static void write_file(const char *path, const unsigned char *data, size_t length)
{
    AUTO_FD int fd = open(path, O_WRONLY | O_TRUNC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, length), (ssize_t) length);
}

static unsigned char *read_database(const char *path, size_t *length)
{
    struct stat st;
    AUTO_FD int fd = open(path, O_RDONLY);
    assert_int_equal(fstat(fd, &st), 0);
    unsigned char *data = malloc((size_t) st.st_size);
    assert_int_equal(read(fd, data, (size_t) st.st_size), st.st_size);
    *length = (size_t) st.st_size;
    return data;
}

static void a_flipped_bit_is_never_a_wrong_answer(void **state)
{
    struct scratch *s = *state;
    struct fault f;
    struct text expected = TEXT_OF(1 << 20);
    struct store *store = open_store(s->state);
    assert_int_equal(store_write(store, fill, NULL, &f), 0);
    assert_int_equal(store_read(store, tell, &expected, &f), 0);
    store_close(store);
    size_t length;
    AUTO_FREE unsigned char *data = read_database(s->file, &length);
    unsigned seed = (unsigned) number("SMAPI_SEED", 20100902);
    unsigned long trials = TRIALS * number("SMAPI_DEEP", 1), noticed = 0;
    for (unsigned long i = 0; i < trials; i++) {
        size_t bit = (size_t) ((uint64_t) rand_r(&seed) << 16 ^ (uint64_t) rand_r(&seed)) % (length * 8);
        data[bit / 8] ^= (unsigned char) (1U << bit % 8);
        write_file(s->file, data, length);
        int came = outcome(s->state, expected.data, NULL);
        if (came != SAME && came != REFUSED)
            fail_msg("bit %zu of byte %zu: a wrong answer", bit % 8, bit / 8);
        noticed += came == REFUSED;
        data[bit / 8] ^= (unsigned char) (1U << bit % 8);
    }
    write_file(s->file, data, length);
    assert_int_equal(outcome(s->state, expected.data, NULL), SAME);
    printf("%lu of %lu flipped bits were noticed, the others did not matter\n", noticed, trials);
    assert_true(noticed > trials / 2);
    text_free(&expected);
}

/* ------------------------------------------------------------------ the log */

static int fill_one(struct txn *t, void *arg, struct fault *f)
{
    struct uuid sr = uuid_of(SR_A);
    struct vdi v = vdi_numbered(*(unsigned *) arg);
    v.label = "one of those that only the log has";
    return store_vdi_put(t, &sr, &v, f);
}

/* What a kill -9 leaves of a store whose last commits are in its log alone. */
struct remains {
    char names[3][256]; /* database, log, what was synced of it */
    unsigned char *data[3];
    size_t lengths[3];
    struct text all, without_last; /* what it says, and what it said before the last commit */
};

enum { BASE, LOG, SYNCED };

static void remain(struct scratch *s, struct remains *r)
{
    static const char *const suffixes[] = {"", "-wal", "-synced"};
    struct fault f;
    struct store *store = open_store(s->state);
    r->all = r->without_last = TEXT_OF(1 << 20);
    assert_int_equal(store_write(store, fill, NULL, &f), 0);
    for (unsigned i = DISKS; i < DISKS + 8; i++) {
        assert_int_equal(store_read(store, tell, &r->without_last, &f), 0);
        assert_int_equal(store_write(store, fill_one, &i, &f), 0);
    }
    assert_int_equal(store_read(store, tell, &r->all, &f), 0);
    for (int i = 0; i < 3; i++) {
        snprintf(r->names[i], sizeof r->names[i], "%s%s", s->file, suffixes[i]);
        r->data[i] = read_database(r->names[i], &r->lengths[i]);
    }
    store_close(store);
}

static void put_back(struct remains *r, bool with_synced)
{
    for (int i = 0; i < 3; i++) {
        AUTO_FD int fd = open(r->names[i], O_WRONLY | O_CREAT | O_TRUNC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, r->data[i], r->lengths[i]), (ssize_t) r->lengths[i]);
    }
    if (!with_synced)
        assert_int_equal(unlink(r->names[SYNCED]), 0);
}

static void end_remains(struct remains *r)
{
    for (int i = 0; i < 3; i++)
        free(r->data[i]);
    text_free(&r->all);
    text_free(&r->without_last);
}

static int flip(struct scratch *s, struct remains *r, int which, size_t bit, bool with_synced)
{
    r->data[which][bit / 8] ^= (unsigned char) (1U << bit % 8);
    put_back(r, with_synced);
    int came = outcome(s->state, r->all.data, with_synced ? NULL : r->without_last.data);
    r->data[which][bit / 8] ^= (unsigned char) (1U << bit % 8);
    if (came != SAME && came != REFUSED && came != OLDER)
        fail_msg("bit %zu of byte %zu of %s: a wrong answer", bit % 8, bit / 8, r->names[which]);
    return came;
}

/* The log's header and all headers of frames bit by bit would take long: a random sample, of headers as often as of
   pages. */
static size_t choose(unsigned *seed, size_t length)
{
    size_t at = (size_t) ((uint64_t) rand_r(seed) << 16 ^ (uint64_t) rand_r(seed)) % (length * 8);
    if (rand_r(seed) % 2)
        return at;
    size_t frame = at / 8 < 32 ? 0 : (at / 8 - 32) / 4120;
    return at / 8 < 4096 ? at % (32 * 8) : (32 + frame * 4120) * 8 + at % (24 * 8);
}

static void a_flipped_bit_of_the_log_forgets_no_commit(void **state)
{
    struct scratch *s = *state;
    struct remains r;
    remain(s, &r);
    put_back(&r, true);
    assert_int_equal(outcome(s->state, r.all.data, NULL), SAME);
    unsigned seed = (unsigned) number("SMAPI_SEED", 20100902);
    unsigned long trials = TRIALS * number("SMAPI_DEEP", 1), noticed = 0;
    for (unsigned long i = 0; i < trials; i++)
        noticed += flip(s, &r, LOG, choose(&seed, r.lengths[LOG]), true) == REFUSED;
    printf("%lu of %lu flipped bits of the log were noticed, the others did not matter\n", noticed, trials);
    assert_int_equal(noticed, trials);
    for (size_t bit = 0; bit < r.lengths[SYNCED] * 8; bit += 5)
        assert_int_equal(flip(s, &r, SYNCED, bit, true), SAME);
    end_remains(&r);
}

/* As a power cut leaves it: what says how much was synced was itself never synced. */
static void without_what_says_how_much_was_synced_the_last_commit_at_most_is_forgotten(void **state)
{
    struct scratch *s = *state;
    struct remains r;
    remain(s, &r);
    unsigned seed = (unsigned) number("SMAPI_SEED", 20100902);
    unsigned long trials = TRIALS / 2 * number("SMAPI_DEEP", 1), older = 0;
    for (unsigned long i = 0; i < trials; i++)
        older += flip(s, &r, LOG, choose(&seed, r.lengths[LOG]), false) == OLDER;
    printf("%lu of %lu took the last commit away, the others were noticed\n", older, trials);
    assert_true(older < trials / 2);
    end_remains(&r);
}

/* A power cut in the middle of a commit: any part of it is there, and none of it is missed. */
static void a_log_that_ends_in_a_torn_commit_is_served(void **state)
{
    struct scratch *s = *state;
    struct remains r;
    remain(s, &r);
    size_t whole = r.lengths[LOG], begins = whole;
    AUTO_FREE unsigned char *log = malloc(whole);
    memcpy(log, r.data[LOG], whole);
    do
        begins -= 4120;
    while (memcmp(log + begins - 4120 + 4, "\0\0\0", 4) == 0);
    assert_true(begins > 4120 && begins < whole);
    for (size_t at = begins; at < whole; at += 1030) {
        memset(r.data[LOG] + at, 0, at + 1030 > whole ? whole - at : 1030);
        put_back(&r, false);
        assert_int_equal(outcome(s->state, r.all.data, r.without_last.data), OLDER);
        memcpy(r.data[LOG], log, whole);
        r.lengths[LOG] = at;
        put_back(&r, false);
        assert_int_equal(outcome(s->state, r.all.data, r.without_last.data), OLDER);
        r.lengths[LOG] = whole;
    }
    end_remains(&r);
}

/* A process whose database's log may grow by so many bytes ends, as by kill -9, after a commit that may have found no
   room and a sync of the log. Exit status 0 when there was room, 2 when not. */
static void commit_within(const struct scratch *s, off_t room)
{
    char log[300];
    struct stat st;
    struct fault f;
    struct database db;
    struct txn t = {.db = &db, .writable = true};
    unsigned number = DISKS;
    snprintf(log, sizeof log, "%s-wal", s->file);
    store_close(open_store(s->state));
    if (database_open(&db, s->file, true, &f) < 0 || fill(&t, NULL, &f) < 0 || stat(log, &st) < 0)
        _exit(1);
    struct rlimit limit = {(rlim_t) (st.st_size + room), RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &limit) < 0)
        _exit(1);
    bool fits = fill_one(&t, &number, &f) == 0;
    database_checkpoint(&db, true);
    _exit(fits ? 0 : 2);
}

static void a_commit_that_found_no_room_is_not_missed(void **state)
{
    struct scratch *s = *state;
    int status = -1;
    for (off_t room = 0; status != 0; room += room % 4120 ? 4120 - 24 : 24) {
        struct store *store = NULL;
        struct fault f = {0};
        bool in_use;
        scratch_remove(s);
        scratch_make(s);
        pid_t child = fork_child();
        if (child == 0)
            commit_within(s, room);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 1);
        if (store_open(s->state, &store, &in_use, &f) < 0)
            fail_msg("with room for %lld bytes: %s", (long long) room, f.detail);
        store_close(store);
    }
}

static void a_bit_of_the_log_that_flips_while_the_store_runs_is_noticed_when_its_page_is_read(void **state)
{
    struct bench *b = *state;
    char path[300];
    size_t length;
    b->fault.code = FAULT_NONE;
    assert_int_equal(fill(&b->txn, NULL, &b->fault), 0);
    snprintf(path, sizeof path, "%s-wal", b->scratch.file);
    AUTO_FREE unsigned char *data = read_database(path, &length);
    for (size_t at = 32; at + 4120 <= length; at += 4120)
        data[at + 24 + 2048] ^= 1;
    write_file(path, data, length);
    sqlite3_db_release_memory(b->db.connection);
    struct text now = TEXT_OF(1 << 20);
    assert_int_equal(tell(&b->txn, &now, &b->fault), -1);
    assert_int_equal(b->fault.code, FAULT_SRUnavailable);
    text_free(&now);
}

static void a_bit_that_flips_while_the_store_runs_is_noticed_when_its_page_is_read(void **state)
{
    struct bench *b = *state;
    size_t length;
    b->fault.code = FAULT_NONE;
    assert_int_equal(fill(&b->txn, NULL, &b->fault), 0);
    database_checkpoint(&b->db, true);
    AUTO_FREE unsigned char *data = read_database(b->scratch.file, &length);
    for (size_t page = 4096; page < length; page += 4096)
        data[page + 2048] ^= 1;
    write_file(b->scratch.file, data, length);
    sqlite3_db_release_memory(b->db.connection);
    struct text now = TEXT_OF(1 << 20);
    assert_int_equal(tell(&b->txn, &now, &b->fault), -1);
    assert_int_equal(b->fault.code, FAULT_SRUnavailable);
    text_free(&now);
}

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_flipped_bit_is_never_a_wrong_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(a_flipped_bit_of_the_log_forgets_no_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(without_what_says_how_much_was_synced_the_last_commit_at_most_is_forgotten,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_log_that_ends_in_a_torn_commit_is_served, setup, teardown),
        cmocka_unit_test_setup_teardown(a_commit_that_found_no_room_is_not_missed, setup, teardown),
        cmocka_unit_test_setup_teardown(
            a_bit_of_the_log_that_flips_while_the_store_runs_is_noticed_when_its_page_is_read, bench_setup,
            bench_teardown),
        cmocka_unit_test_setup_teardown(a_bit_that_flips_while_the_store_runs_is_noticed_when_its_page_is_read,
                                        bench_setup, bench_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One bit of the database flips: never is the answer a wrong one. It is noticed at the start, or when the page is read,
   or the bit does not matter. SMAPI_DEEP multiplies the trials, SMAPI_SEED chooses the bits. */
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
#include <sys/stat.h>
#include <sys/wait.h>

enum { TRIALS = 100, DISKS = 60, SAME = 0, WRONG = 3, REFUSED = 4 };

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

/* In a process of its own, as the store aborts rather than guess. */
static int try_it(const char *dir, const char *expected)
{
    struct store *s = NULL;
    struct fault f = {0};
    bool in_use;
    struct text now = TEXT_OF(1 << 20);
    if (store_open(dir, &s, &in_use, &f) < 0)
        return f.code != FAULT_NONE && f.detail[0] ? REFUSED : WRONG;
    if (store_read(s, tell, &now, &f) < 0)
        return REFUSED;
    return strcmp(now.data, expected) == 0 ? SAME : WRONG;
}

static int outcome(const char *dir, const char *expected)
{
    int status;
    pid_t child = fork_child();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr))
            abort();
        _exit(try_it(dir, expected));
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
        int came = outcome(s->state, expected.data);
        if (came != SAME && came != REFUSED)
            fail_msg("bit %zu of byte %zu: a wrong answer", bit % 8, bit / 8);
        noticed += came == REFUSED;
        data[bit / 8] ^= (unsigned char) (1U << bit % 8);
    }
    write_file(s->file, data, length);
    assert_int_equal(outcome(s->state, expected.data), SAME);
    printf("%lu of %lu flipped bits were noticed, the others did not matter\n", noticed, trials);
    assert_true(noticed > trials / 2);
    text_free(&expected);
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
        cmocka_unit_test_setup_teardown(a_bit_that_flips_while_the_store_runs_is_noticed_when_its_page_is_read,
                                        bench_setup, bench_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What stays true when the process is killed, when the disk is full and when it fails. Each test works in children:
   they die, or change what is theirs alone. */
#include "store/internal.h"
#include "tests/unit/check.h"
#include "tests/unit/store_help.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { KILLS = 20, WRITERS = 4 };

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

struct put {
    unsigned number;
    size_t label; /* bytes */
};

static int put_disk(struct txn *t, void *arg, struct fault *f)
{
    const struct put *p = arg;
    struct uuid sr = uuid_of(SR_A);
    struct vdi v = vdi_numbered(p->number);
    AUTO_FREE char *label = calloc(1, p->label + 1);
    if (!label)
        abort();
    v.label = memset(label, 'x', p->label);
    return store_vdi_put(t, &sr, &v, f);
}

static int remove_disk(struct txn *t, void *arg, struct fault *f)
{
    const struct put *p = arg;
    struct uuid sr = uuid_of(SR_A), vdi = uuid_numbered(p->number);
    return store_vdi_remove(t, &sr, &vdi, f);
}

static int put(struct store *s, unsigned number, size_t label, struct fault *f)
{
    return store_write(s, put_disk, &(struct put){number, label}, f);
}

struct writer {
    struct store *store;
    unsigned next;
    int acknowledge;
};

/* Numbers of a writer are its own; one is printed after the store has said that it is durable. */
static void *write_and_print(void *arg)
{
    struct writer *w = arg;
    struct fault f;
    for (;; w->next += WRITERS)
        if (put(w->store, w->next, 0, &f) < 0 || write(w->acknowledge, &w->next, sizeof w->next) != sizeof w->next)
            _exit(1);
    return NULL;
}

static void run_writers(const char *dir, unsigned next, int acknowledge)
{
    struct writer writers[WRITERS];
    struct fault f;
    struct store *s = open_store(dir);
    if (store_write(s, put_sr, (char[]){SR_A}, &f) < 0)
        _exit(1);
    for (unsigned i = 0; i < WRITERS; i++) {
        pthread_t thread;
        writers[i] = (struct writer){s, next + i, acknowledge};
        pthread_create(&thread, NULL, write_and_print, &writers[i]);
    }
    for (;;)
        pause();
}

/* Runs writers, kills them after a while, returns how many numbers they printed, into seen. */
static size_t kill_writers(const char *dir, unsigned next, unsigned *seen, size_t room)
{
    int pipe_ends[2];
    assert_int_equal(pipe2(pipe_ends, O_CLOEXEC), 0);
    pid_t child = fork_child();
    if (child == 0)
        run_writers(dir, next, pipe_ends[1]);
    close(pipe_ends[1]);
    size_t count = 0;
    size_t enough = 1 + (size_t) rand() % 60;
    while (count < room && read(pipe_ends[0], &seen[count], sizeof *seen) == sizeof *seen)
        if (++count == enough)
            kill(child, SIGKILL);
    assert_true(count >= enough);
    close(pipe_ends[0]);
    waitpid(child, NULL, 0);
    return count;
}

struct looked {
    const unsigned *numbers;
    size_t count, missing;
};

static int look(struct txn *t, void *arg, struct fault *f)
{
    struct looked *l = arg;
    struct uuid sr = uuid_of(SR_A);
    AUTO_ARENA struct arena *a = arena_new(64 << 20);
    l->missing = 0;
    for (size_t i = 0; i < l->count; i++) {
        struct uuid vdi = uuid_numbered(l->numbers[i]);
        struct vdi *found;
        if (store_vdi_find(t, &sr, &vdi, a, &found, f) < 0)
            return -1;
        l->missing += found == NULL;
    }
    return 0;
}

static void every_acknowledged_row_survives_kill_9(void **state)
{
    struct scratch *s = *state;
    enum { ROOM = 4096 };
    unsigned *seen = calloc(KILLS * ROOM, sizeof *seen);
    size_t count = 0;
    srand(20);
    for (unsigned i = 0; i < KILLS; i++) {
        count += kill_writers(s->state, i * 100000, seen + count, ROOM);
        struct store *store = open_store(s->state);
        struct looked l = {.numbers = seen, .count = count};
        struct fault f;
        assert_int_equal(store_read(store, look, &l, &f), 0);
        assert_int_equal(l.missing, 0);
        assert_int_equal(store_meta(store).start_seq, 2 * (i + 1));
        store_close(store);
    }
    unsigned never = 99999;
    struct store *store = open_store(s->state);
    struct looked l = {.numbers = &never, .count = 1};
    struct fault f;
    assert_int_equal(store_read(store, look, &l, &f), 0);
    assert_int_equal(l.missing, 1);
    store_close(store);
    free(seen);
}

/* Runs test in a child; its message, if it says why it failed, is the test's. */
static int run_in_child(const char *(*test)(const struct scratch *s), const struct scratch *s, char *said, size_t size)
{
    int pipe_ends[2];
    assert_int_equal(pipe(pipe_ends), 0);
    pid_t child = fork_child();
    if (child == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL);
        dup2(pipe_ends[1], STDERR_FILENO);
        const char *wrong = test(s);
        if (wrong && write(pipe_ends[1], wrong, strlen(wrong)) < 0)
            _exit(2);
        _exit(wrong ? 1 : 0);
    }
    close(pipe_ends[1]);
    size_t length = 0;
    ssize_t n;
    while (length < size - 1 && (n = read(pipe_ends[0], said + length, size - 1 - length)) > 0)
        length += (size_t) n;
    said[length] = '\0';
    close(pipe_ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    return status;
}

static void assert_passes_in_child(const char *(*test)(const struct scratch *s), const struct scratch *s)
{
    char said[1024];
    int status = run_in_child(test, s, said, sizeof said);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("status %#x: %s", (unsigned) status, said);
}

#define WANT(what)                                                                                                     \
    do {                                                                                                               \
        if (!(what))                                                                                                   \
            return "not so: " #what;                                                                                   \
    } while (0)

/* The descriptor this process has of the write-ahead log. */
static int log_descriptor(void)
{
    for (int fd = 3; fd < 64; fd++) {
        char link[32], path[256];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, path, sizeof path - 1);
        if (n > 4 && strncmp(path + n - 4, "-wal", 4) == 0)
            return fd;
    }
    return -1;
}

/* Writes past this offset fail in this process: the one way to a full disk that needs no privilege. */
static int limit_files(rlim_t most)
{
    signal(SIGXFSZ, SIG_IGN);
    return setrlimit(RLIMIT_FSIZE, &(struct rlimit){most, RLIM_INFINITY});
}

static const char *no_space_is_44_and_passes(const struct scratch *scratch)
{
    struct fault f;
    struct store *s = open_store(scratch->state);
    WANT(store_write(s, put_sr, (char[]){SR_A}, &f) == 0 && put(s, 1, 10, &f) == 0);
    WANT(limit_files(4096) == 0);
    WANT(put(s, 2, 10, &f) == -1);
    WANT(f.code == FAULT_SRNoSpace && strstr(f.detail, scratch->state));
    WANT(put(s, 3, 10, &f) == -1 && f.code == FAULT_SRNoSpace);
    WANT(limit_files(RLIM_INFINITY) == 0);
    WANT(put(s, 4, 10, &f) == 0);
    store_close(s);
    s = open_store(scratch->state);
    struct looked here = {.numbers = (unsigned[]){1, 4}, .count = 2};
    struct looked gone = {.numbers = (unsigned[]){2, 3}, .count = 2};
    WANT(store_read(s, look, &here, &f) == 0 && here.missing == 0);
    WANT(store_read(s, look, &gone, &f) == 0 && gone.missing == 2);
    store_close(s);
    return NULL;
}

static void a_full_disk_gives_44_naming_the_store_and_the_store_goes_on(void **state)
{
    assert_passes_in_child(no_space_is_44_and_passes, *state);
}

struct racer {
    struct store *store;
    struct put put;
    struct fault fault;
    int result;
    pthread_t thread;
};

static void *race(void *arg)
{
    struct racer *r = arg;
    r->result = store_write(r->store, put_disk, &r->put, &r->fault);
    return NULL;
}

/* A limit on the size of files, so that a large write meets it and a small one does not. */
static const char *small_writes_pass_beside_a_large_one(const struct scratch *scratch)
{
    struct fault f;
    struct racer racers[8] = {0};
    struct store *s = open_store(scratch->state);
    WANT(store_write(s, put_sr, (char[]){SR_A}, &f) == 0);
    WANT(limit_files(9 << 20) == 0);
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < COUNT_OF(racers); i++) {
            racers[i] = (struct racer){.store = s, .put = {100 * round + i, i == 3 ? 12 << 20 : 10}};
            pthread_create(&racers[i].thread, NULL, race, &racers[i]);
        }
        for (unsigned i = 0; i < COUNT_OF(racers); i++)
            pthread_join(racers[i].thread, NULL);
        for (unsigned i = 0; i < COUNT_OF(racers); i++)
            WANT(racers[i].result == (i == 3 ? -1 : 0));
        WANT(racers[3].fault.code == FAULT_SRNoSpace);
    }
    store_close(s);
    return NULL;
}

static void a_write_too_large_for_the_disk_does_not_take_small_ones_with_it(void **state)
{
    assert_passes_in_child(small_writes_pass_beside_a_large_one, *state);
}

/* Fills a real file system, removes something, goes on. Only where mounting is allowed. */
static const char *fill_and_free(const struct scratch *scratch)
{
    struct fault f = {0};
    struct store *s = open_store(scratch->root);
    WANT(store_write(s, put_sr, (char[]){SR_A}, &f) == 0);
    unsigned n = 0;
    while (n < 100000 && put(s, n, 2000, &f) == 0)
        n++;
    WANT(n > 100 && n < 100000 && f.code == FAULT_SRNoSpace);
    for (unsigned i = 0; i < 100; i++)
        WANT(store_write(s, remove_disk, &(struct put){i, 0}, &f) == 0);
    for (unsigned i = 0; i < 50; i++)
        WANT(put(s, i, 2000, &f) == 0);
    store_close(s);
    return NULL;
}

static const char *fill_a_tmpfs(const struct scratch *scratch)
{
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", scratch->root, "tmpfs", 0, "size=16m,mode=0700") < 0)
        _exit(77);
    return fill_and_free(scratch);
}

static void a_full_file_system_takes_removals_and_then_writes_again(void **state)
{
    char said[1024];
    int status = run_in_child(fill_a_tmpfs, *state, said, sizeof said);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        print_message("no file system can be mounted here\n");
        skip();
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("status %#x: %s", (unsigned) status, said);
}

static const char *break_the_log(const struct scratch *scratch)
{
    struct fault f;
    struct store *s = open_store(scratch->state);
    WANT(store_write(s, put_sr, (char[]){SR_A}, &f) == 0);
    int log = log_descriptor(), unwritable = open("/dev/null", O_RDONLY);
    WANT(log >= 0 && dup2(unwritable, log) == log);
    put(s, 1, 10, &f);
    return "it went on";
}

static void an_io_error_of_the_store_aborts_the_process(void **state)
{
    struct scratch *s = *state;
    char said[1024];
    int status = run_in_child(break_the_log, s, said, sizeof said);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(said, s->file));
    assert_non_null(strstr(said, "aborting"));
    store_close(open_store(s->state));
}

int main(void)
{
#define WITH_SCRATCH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH_SCRATCH(every_acknowledged_row_survives_kill_9),
        WITH_SCRATCH(a_full_disk_gives_44_naming_the_store_and_the_store_goes_on),
        WITH_SCRATCH(a_write_too_large_for_the_disk_does_not_take_small_ones_with_it),
        WITH_SCRATCH(a_full_file_system_takes_removals_and_then_writes_again),
        WITH_SCRATCH(an_io_error_of_the_store_aborts_the_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

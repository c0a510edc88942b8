/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The store thread: batches, neighbours, readers, closing. Work runs on that thread, so it reports through its
   argument and the test asserts. */
#include "store/internal.h"
#include "tests/unit/check.h"
#include "tests/unit/store_help.h"
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { THREADS = 16, ROUNDS = 40 };

struct fixture {
    struct scratch scratch;
    struct store *store;
};

static int setup(void **state)
{
    struct fixture *x = calloc(1, sizeof *x);
    assert_non_null(x);
    scratch_make(&x->scratch);
    x->store = open_store(x->scratch.state);
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *x = *state;
    store_close(x->store);
    scratch_remove(&x->scratch);
    free(x);
    return 0;
}

static void put_first_sr(struct store *s)
{
    struct fault f;
    assert_int_equal(store_write(s, put_sr, (char[]){SR_A}, &f), 0);
}

/* A disk to be put by a thread of its own; may be told to fail after it was put. */
struct put {
    struct store *store;
    unsigned number;
    size_t label; /* bytes */
    bool fails;
    int result;
    struct fault fault;
    pthread_t thread;
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
    if (store_vdi_put(t, &sr, &v, f) < 0)
        return -1;
    return p->fails ? fault_set(f, FAULT_VDICreate, "told to fail") : 0;
}

static void *put_once(void *arg)
{
    struct put *p = arg;
    p->result = store_write(p->store, put_disk, p, &p->fault);
    return NULL;
}

struct listed {
    size_t count;
    bool has[256];
};

static int list_disks(struct txn *t, void *arg, struct fault *f)
{
    struct listed *l = arg;
    struct uuid sr = uuid_of(SR_A);
    struct vdi_list all;
    AUTO_ARENA struct arena *a = arena_new(64 << 20);
    if (store_vdi_list(t, &sr, NULL, 0, a, &all, f) < 0)
        return -1;
    l->count = all.count;
    for (unsigned n = 0; n < COUNT_OF(l->has); n++) {
        struct vdi *found;
        struct uuid vdi = uuid_numbered(n);
        if (store_vdi_find(t, &sr, &vdi, a, &found, f) < 0)
            return -1;
        l->has[n] = found != NULL;
    }
    return 0;
}

static struct listed list(struct store *s)
{
    struct listed l = {0};
    struct fault f;
    assert_int_equal(store_read(s, list_disks, &l, &f), 0);
    return l;
}

/* Holds the store thread inside a write, so that what is asked meanwhile makes one batch. */
struct gate {
    struct store *store;
    sem_t entered, open;
    pthread_t thread;
};

static int stand_in_gate(struct txn *t, void *arg, struct fault *f)
{
    struct gate *g = arg;
    (void) t;
    (void) f;
    sem_post(&g->entered);
    sem_wait(&g->open);
    return 0;
}

static void *gate_thread(void *arg)
{
    struct gate *g = arg;
    struct fault f;
    store_write(g->store, stand_in_gate, g, &f);
    return NULL;
}

static void gate_shut(struct gate *g, struct store *s)
{
    g->store = s;
    sem_init(&g->entered, 0, 0);
    sem_init(&g->open, 0, 0);
    pthread_create(&g->thread, NULL, gate_thread, g);
    sem_wait(&g->entered);
}

static void gate_open(struct gate *g)
{
    sem_post(&g->open);
}

static void gate_free(struct gate *g)
{
    pthread_join(g->thread, NULL);
    sem_destroy(&g->entered);
    sem_destroy(&g->open);
}

static void wait_until_queued(struct store *s, size_t count)
{
    for (int waited = 0; waited < 5000; waited++) {
        pthread_mutex_lock(&s->lock);
        size_t queued = s->waiting_writes.count;
        pthread_mutex_unlock(&s->lock);
        if (queued == count)
            return;
        usleep(1000);
    }
    fail_msg("the writes were not queued");
}

static void queue_puts(struct store *s, struct put *puts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        puts[i].store = s;
        pthread_create(&puts[i].thread, NULL, put_once, &puts[i]);
    }
    wait_until_queued(s, count);
}

static void join_puts(struct put *puts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        pthread_join(puts[i].thread, NULL);
}

static void one_failing_neighbour_does_not_undo_the_others(void **state)
{
    struct fixture *x = *state;
    struct gate g;
    struct put puts[9] = {0};
    put_first_sr(x->store);
    for (unsigned i = 0; i < COUNT_OF(puts); i++)
        puts[i] = (struct put){.number = i, .fails = i % 3 == 1};
    gate_shut(&g, x->store);
    uint64_t before = store_counted(x->store).commits;
    queue_puts(x->store, puts, COUNT_OF(puts));
    gate_open(&g);
    join_puts(puts, COUNT_OF(puts));
    gate_free(&g);
    assert_int_equal(store_counted(x->store).commits, before + 2);
    struct listed l = list(x->store);
    assert_int_equal(l.count, 6);
    for (unsigned i = 0; i < COUNT_OF(puts); i++) {
        assert_int_equal(puts[i].result, puts[i].fails ? -1 : 0);
        assert_int_equal(puts[i].fault.code, puts[i].fails ? FAULT_VDICreate : FAULT_NONE);
        assert_int_equal(l.has[i], !puts[i].fails);
    }
}

static void *put_many(void *arg)
{
    struct put *p = arg;
    for (int i = 0; i < ROUNDS && p->result == 0; i++)
        p->result = store_write(p->store, put_disk, p, &p->fault);
    return NULL;
}

static void many_writers_share_few_commits(void **state)
{
    struct fixture *x = *state;
    struct put puts[THREADS] = {0};
    put_first_sr(x->store);
    struct store_counts before = store_counted(x->store);
    for (unsigned i = 0; i < THREADS; i++) {
        puts[i] = (struct put){.store = x->store, .number = i};
        pthread_create(&puts[i].thread, NULL, put_many, &puts[i]);
    }
    join_puts(puts, THREADS);
    struct store_counts after = store_counted(x->store);
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(puts[i].result, 0);
    assert_int_equal(after.writes - before.writes, THREADS * ROUNDS);
    assert_true(after.commits - before.commits <= THREADS * ROUNDS / 3);
    assert_int_equal(list(x->store).count, THREADS);
}

/* Writes disk n, lets the store look busy, writes disk n + 1; every second one is undone. */
static int put_pair(struct txn *t, void *arg, struct fault *f)
{
    struct put *p = arg;
    struct put first = {.number = p->number}, second = {.number = p->number + 1, .fails = p->fails};
    return put_disk(t, &first, f) < 0 ? -1 : put_disk(t, &second, f);
}

static void *put_pairs(void *arg)
{
    struct put *p = arg;
    unsigned base = p->number;
    for (unsigned i = 0; i < 16; i++) {
        p->number = base + 2 * i;
        p->fails = i % 2 == 1;
        p->result |= (store_write(p->store, put_pair, p, &p->fault) < 0) != p->fails;
    }
    return NULL;
}

static void a_reader_sees_all_of_a_write_or_nothing(void **state)
{
    struct fixture *x = *state;
    struct put puts[4] = {0};
    put_first_sr(x->store);
    for (unsigned i = 0; i < COUNT_OF(puts); i++) {
        puts[i] = (struct put){.store = x->store, .number = 32 * i};
        pthread_create(&puts[i].thread, NULL, put_pairs, &puts[i]);
    }
    size_t seen = 0;
    for (int i = 0; i < 60; i++) {
        struct listed l = list(x->store);
        assert_true(l.count % 2 == 0 && l.count >= seen);
        for (unsigned n = 0; n < 128; n += 2)
            assert_true(l.has[n] == l.has[n + 1] && (!l.has[n] || n % 4 == 0));
        seen = l.count;
    }
    join_puts(puts, COUNT_OF(puts));
    for (unsigned i = 0; i < COUNT_OF(puts); i++)
        assert_int_equal(puts[i].result, 0);
    assert_int_equal(list(x->store).count, 64);
}

static void *close_it(void *arg)
{
    store_close(arg);
    return NULL;
}

static void closing_serves_what_is_queued_first(void **state)
{
    struct fixture *x = *state;
    struct gate g;
    struct put puts[8] = {0};
    pthread_t closer;
    put_first_sr(x->store);
    for (unsigned i = 0; i < COUNT_OF(puts); i++)
        puts[i].number = i;
    gate_shut(&g, x->store);
    queue_puts(x->store, puts, COUNT_OF(puts));
    pthread_create(&closer, NULL, close_it, x->store);
    usleep(20000);
    gate_open(&g);
    join_puts(puts, COUNT_OF(puts));
    gate_free(&g);
    pthread_join(closer, NULL);
    for (unsigned i = 0; i < COUNT_OF(puts); i++)
        assert_int_equal(puts[i].result, 0);
    x->store = open_store(x->scratch.state);
    assert_int_equal(list(x->store).count, COUNT_OF(puts));
}

static void a_fault_of_a_read_comes_back(void **state)
{
    struct fixture *x = *state;
    struct put p = {.number = 1, .fails = true};
    struct fault f;
    put_first_sr(x->store);
    assert_int_equal(store_write(x->store, put_disk, &p, &f), -1);
    assert_int_equal(f.code, FAULT_VDICreate);
    uint64_t reads = store_counted(x->store).reads;
    assert_int_equal(list(x->store).count, 0);
    assert_int_equal(store_counted(x->store).reads, reads + 1);
}

static void closing_nothing_is_fine(void **state)
{
    (void) state;
    store_close(NULL);
}

static int write_inside(struct txn *t, void *arg, struct fault *f)
{
    (void) t;
    return store_write(arg, put_sr, (char[]){SR_A}, f);
}

/* A child that does something a caller must not: how it ended. */
static int status_of(const char *dir, bool inside)
{
    pid_t child = fork_child();
    if (child == 0) {
        struct rlimit none = {0, 0};
        struct fault f;
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL);
        if (!freopen("/dev/null", "w", stderr))
            _exit(2);
        struct store *s = open_store(dir);
        if (inside)
            store_write(s, write_inside, s, &f);
        else
            store_read(s, put_sr, (char[]){SR_A}, &f);
        _exit(1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return status;
}

static void waiting_for_the_store_inside_its_own_work_aborts(void **state)
{
    struct scratch s;
    (void) state;
    scratch_make(&s);
    int status = status_of(s.state, true);
    scratch_remove(&s);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void changing_rows_in_a_read_aborts(void **state)
{
    struct scratch s;
    (void) state;
    scratch_make(&s);
    int status = status_of(s.state, false);
    scratch_remove(&s);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

int main(void)
{
#define WITH_STORE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waiting_for_the_store_inside_its_own_work_aborts),
        cmocka_unit_test(changing_rows_in_a_read_aborts),
        WITH_STORE(one_failing_neighbour_does_not_undo_the_others),
        WITH_STORE(many_writers_share_few_commits),
        WITH_STORE(a_reader_sees_all_of_a_write_or_nothing),
        WITH_STORE(closing_serves_what_is_queued_first),
        WITH_STORE(a_fault_of_a_read_comes_back),
        cmocka_unit_test(closing_nothing_is_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

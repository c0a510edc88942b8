/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Durable leases with many waiters: the store's thread, which commits for all that wait at once, against one mutex and
   a transaction for each. Both on the same kind of directory, in turns; prints the ratio of the medians.
   Usage: bench_store_leases [directory on the disk to measure] */
#include "server/base/clock.h"
#include "store/lease.h"
#include "store/query.h"
#include "store/sr.h"
#include "store/vdi.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { WAITERS = 64, ROUNDS = 5, SHARED_EACH = 200, ALONE_EACH = 40 };
#define SR "aaaaaaaa-0000-4000-8000-000000000001"

struct waiter {
    struct store *store; /* NULL: the connection beneath the mutex */
    unsigned number, each;
    int64_t longest; /* ns */
};

struct take {
    struct uuid sr, vdi;
    bool release;
    uint64_t epoch;
};

static struct database alone;
static pthread_mutex_t alone_lock = PTHREAD_MUTEX_INITIALIZER;

static void check(int result, const struct fault *f)
{
    if (result == 0)
        return;
    fprintf(stderr, "%s\n", f->detail);
    exit(1);
}

static struct uuid disk(unsigned n)
{
    char text[UUID_TEXT + 1];
    struct uuid u = UUID_NONE;
    snprintf(text, sizeof text, "cccccccc-0000-4000-8000-%012u", n);
    uuid_parse_text(text, &u);
    return u;
}

static int make_rows(struct txn *t, void *arg, struct fault *f)
{
    struct sr_row row = {.type = "dummy", .state = SR_LIVE};
    (void) arg;
    uuid_parse_text(SR, &row.uuid);
    if (store_sr_put(t, &row, f) < 0)
        return -1;
    for (unsigned n = 0; n < 10000; n++) {
        struct vdi v = vdi_blank();
        v.uuid = disk(n);
        v.location = v.uuid.text;
        if (store_vdi_put(t, &row.uuid, &v, f) < 0)
            return -1;
    }
    return 0;
}

static int work(struct txn *t, void *arg, struct fault *f)
{
    struct take *k = arg;
    const struct lease_ask ask = {.sr = k->sr,
                                  .vdi = k->vdi,
                                  .who = {.name = "host"},
                                  .writable = true,
                                  .first = LEASE_HELD,
                                  .fence = "vdi",
                                  .now = clock_boot_ns()};
    struct granted got = {0};
    if (k->release)
        return store_lease_release(t, &k->sr, &k->vdi, &ask.who, 0, ask.now, f);
    if (store_lease_take(t, &ask, &got, f) < 0)
        return -1;
    k->epoch = got.epoch;
    return 0;
}

static int run_control(struct txn *t, enum statement id, struct fault *f)
{
    return query_run(query_open(t, id, NULL, 0), f);
}

static int do_alone(struct take *k, struct fault *f)
{
    struct txn t = {.db = &alone, .writable = true};
    pthread_mutex_lock(&alone_lock);
    int r = run_control(&t, STATEMENT_begin, f) < 0 || work(&t, k, f) < 0 || run_control(&t, STATEMENT_commit, f) < 0
                ? -1
                : 0;
    database_checkpoint(&alone, false);
    pthread_mutex_unlock(&alone_lock);
    return r;
}

static void *wait_for_leases(void *arg)
{
    struct waiter *w = arg;
    struct fault f = {0};
    struct take k = {.release = false};
    uuid_parse_text(SR, &k.sr);
    for (unsigned i = 0; i < w->each; i++) {
        k.vdi = disk((w->number * 150 + i / 2) % 10000);
        k.release = i % 2 == 1;
        int64_t began = clock_boot_ns();
        check(w->store ? store_write(w->store, work, &k, &f) : do_alone(&k, &f), &f);
        int64_t took = clock_boot_ns() - began;
        if (took > w->longest)
            w->longest = took;
    }
    return NULL;
}

/* Leases taken or given back a second. */
static double measure(struct store *s, unsigned each, int64_t *longest)
{
    struct waiter waiters[WAITERS];
    pthread_t threads[WAITERS];
    int64_t began = clock_boot_ns();
    for (unsigned i = 0; i < WAITERS; i++) {
        waiters[i] = (struct waiter){.store = s, .number = i, .each = each};
        pthread_create(&threads[i], NULL, wait_for_leases, &waiters[i]);
    }
    *longest = 0;
    for (unsigned i = 0; i < WAITERS; i++) {
        pthread_join(threads[i], NULL);
        if (waiters[i].longest > *longest)
            *longest = waiters[i].longest;
    }
    return WAITERS * each / ((double) (clock_boot_ns() - began) / 1e9);
}

static int rising(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

static struct store *open_with_rows(const char *dir)
{
    struct store *s = NULL;
    struct fault f = {0};
    bool in_use;
    check(store_open(dir, &s, &in_use, &f), &f);
    check(store_write(s, make_rows, NULL, &f), &f);
    return s;
}

static void run(struct store *s)
{
    double together[ROUNDS], each[ROUNDS];
    struct store_counts before = store_counted(s);
    for (int i = 0; i < ROUNDS; i++) {
        int64_t longest_together, longest_each;
        together[i] = measure(s, SHARED_EACH, &longest_together);
        each[i] = measure(NULL, ALONE_EACH, &longest_each);
        printf("round %d: together %.0f/s (longest %.1f ms), one transaction each %.0f/s (longest %.1f ms)\n", i + 1,
               together[i], (double) longest_together / 1e6, each[i], (double) longest_each / 1e6);
    }
    struct store_counts after = store_counted(s);
    qsort(together, ROUNDS, sizeof together[0], rising);
    qsort(each, ROUNDS, sizeof each[0], rising);
    printf("%llu writes in %llu commits; ratio of medians %.1f\n", (unsigned long long) (after.writes - before.writes),
           (unsigned long long) (after.commits - before.commits), together[ROUNDS / 2] / each[ROUNDS / 2]);
}

static void remove_files(const char *dir)
{
    AUTO_DIR DIR *d = opendir(dir);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
        unlinkat(dirfd(d), e->d_name, 0);
    rmdir(dir);
}

int main(int argc, char **argv)
{
    char root[256], first[300], second[300], file[320];
    struct fault f = {0};
    snprintf(root, sizeof root, "%s/smapi-bench-XXXXXX", argc > 1 ? argv[1] : "/var/tmp");
    if (!mkdtemp(root))
        return 1;
    snprintf(first, sizeof first, "%s/together", root);
    snprintf(second, sizeof second, "%s/alone", root);
    snprintf(file, sizeof file, "%s/smapid.db", second);
    store_close(open_with_rows(second));
    check(database_open(&alone, file, true, &f), &f);
    struct store *s = open_with_rows(first);
    run(s);
    store_close(s);
    database_close(&alone);
    remove_files(first);
    remove_files(second);
    rmdir(root);
    return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The store thread: takes all that waits, answers the reads, runs the writes in one transaction, then lets every
   caller go on. */
#include "server/base/clock.h"
#include "store/internal.h"
#include "store/journal.h"
#include "store/query.h"
#include <assert.h>
#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#define EXPIRY_EVERY_NS  INT64_C(60000000000)
#define EXPIRY_EVERY_OPS 10000

/* Lives on the stack of the thread that waits for done. */
struct request {
    store_work *work;
    void *arg;
    struct fault *fault;
    int result;
    bool kept; /* it had a transaction of its own, and that was committed */
    sem_t done;
    struct request *next;
};

/* The store whose work this thread runs: work that waits for its own store would wait for ever. */
static _Thread_local const struct store *served_here;

static int control(struct txn *t, enum statement id)
{
    struct fault f;
    return query_run(query_open(t, id, NULL, 0), &f);
}

static int run_work(struct txn *t, struct request *r)
{
    r->fault->code = FAULT_NONE;
    r->fault->detail[0] = '\0';
    r->result = r->work(t, r->arg, r->fault);
    assert(r->result == 0 || r->fault->code != FAULT_NONE);
    return r->result;
}

/* One request in its savepoint. False when the whole transaction is lost. */
static bool run_member(struct txn *t, struct request *r)
{
    if (control(t, STATEMENT_savepoint) < 0)
        return false;
    bool keep = run_work(t, r) == 0;
    if (t->full || !database_in_transaction(t->db))
        return false;
    return (keep || control(t, STATEMENT_undo) == 0) && control(t, STATEMENT_release) == 0;
}

/* The requests from first up to end in one transaction. False when nothing of it was kept. */
static bool run_together(struct store *s, struct request *first, struct request *end)
{
    struct txn t = {.db = &s->db, .writable = true};
    bool fine = control(&t, STATEMENT_begin) == 0;
    for (struct request *r = first; fine && r != end; r = r->next)
        fine = run_member(&t, r);
    fine = fine && control(&t, STATEMENT_commit) == 0;
    if (fine)
        atomic_fetch_add_explicit(&s->commits, 1, memory_order_relaxed);
    else if (database_in_transaction(&s->db))
        control(&t, STATEMENT_rollback);
    return fine;
}

static int refuse(struct store *s, struct request *r)
{
    r->result = -1;
    return fault_set(r->fault, FAULT_SRNoSpace, "the store %s is full: nothing was changed", s->db.path);
}

/* The disk is full, or was: the reserve is spent on bringing the log home and on writing it again from its start. What
   gives pages back, and what needs none, then still commits, until there is room for the reserve again. */
static void be_tight(struct store *s)
{
    place_spend_reserve(&s->place);
    database_checkpoint(&s->db, true);
    database_hold_size(&s->db, true);
    s->tight = true;
}

static void relax_if_possible(struct store *s)
{
    if (!s->tight || !place_reserve(&s->place))
        return;
    database_hold_size(&s->db, false);
    s->tight = false;
}

/* Those not kept yet, each for itself. True when all are. */
static bool run_each(struct store *s, struct request *first)
{
    bool all = true;
    for (struct request *r = first; r; r = r->next) {
        r->kept = r->kept || run_together(s, r, r->next);
        all = all && r->kept;
    }
    return all;
}

/* Together; when there is no room for all, each for itself, so that a small one may still pass; and what then has no
   room once more with the reserve. */
static void run_writes(struct store *s, struct request *first)
{
    relax_if_possible(s);
    if (!first || run_together(s, first, NULL))
        return;
    database_checkpoint(&s->db, true);
    if (run_each(s, first))
        return;
    be_tight(s);
    run_each(s, first);
    for (struct request *r = first; r; r = r->next)
        if (!r->kept)
            refuse(s, r);
}

static void run_reads(struct store *s, struct request *first)
{
    for (struct request *r = first; r; r = r->next) {
        struct txn t = {.db = &s->db};
        run_work(&t, r);
    }
}

/* Counts them and lets their callers go on. Each may be gone from its stack as soon as it is told. */
static void finish(struct request *first, atomic_uint_fast64_t *count)
{
    while (first) {
        struct request *next = first->next;
        atomic_fetch_add_explicit(count, 1, memory_order_relaxed);
        sem_post(&first->done);
        first = next;
    }
}

static void add(struct requests *list, struct request *r)
{
    if (list->last)
        list->last->next = r;
    else
        list->first = r;
    list->last = r;
    list->count++;
}

static struct request *take(struct requests *list)
{
    struct request *first = list->first;
    *list = (struct requests){0};
    return first;
}

static bool is_queued(const struct store *s)
{
    return s->waiting_reads.first || s->waiting_writes.first;
}

/* Waits for requests or for the time of the next expiry. False when the store is closing and all is served. */
static bool next_requests(struct store *s, struct request **reads, struct request **writes)
{
    struct timespec due = {.tv_sec = s->expiry_due / 1000000000, .tv_nsec = s->expiry_due % 1000000000};
    pthread_mutex_lock(&s->lock);
    int waited = 0;
    s->working = false;
    while (s->borrowed || (!is_queued(s) && !s->stopping && waited != ETIMEDOUT))
        waited = pthread_cond_timedwait(&s->wake, &s->lock, &due);
    s->working = true;
    *reads = take(&s->waiting_reads);
    *writes = take(&s->waiting_writes);
    bool more = *reads || *writes || !s->stopping;
    pthread_mutex_unlock(&s->lock);
    return more;
}

static int64_t monotonic_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t) t.tv_sec * 1000000000 + t.tv_nsec;
}

static int expire(struct txn *t, void *arg, struct fault *f)
{
    (void) arg;
    return store_op_expire(t, clock_wall_s(), f);
}

/* Now and then; on a full disk it fails and is tried again the next time. */
static void expire_when_due(struct store *s)
{
    uint64_t writes = atomic_load_explicit(&s->writes, memory_order_relaxed);
    if (monotonic_ns() < s->expiry_due && writes - s->expired_at_writes < EXPIRY_EVERY_OPS)
        return;
    struct fault f;
    struct request r = {.work = expire, .fault = &f};
    run_together(s, &r, NULL);
    s->expiry_due = monotonic_ns() + EXPIRY_EVERY_NS;
    s->expired_at_writes = writes;
}

static void *serve(void *arg)
{
    struct store *s = arg;
    served_here = s;
    s->expiry_due = monotonic_ns(); /* what expired while nobody served goes first */
    if (!place_reserve(&s->place))
        be_tight(s);
    struct request *reads, *writes;
    while (next_requests(s, &reads, &writes)) {
        run_reads(s, reads);
        finish(reads, &s->reads);
        run_writes(s, writes);
        finish(writes, &s->writes);
        database_checkpoint(&s->db, s->tight);
        expire_when_due(s);
    }
    return NULL;
}

static int submit(struct store *s, struct requests *list, store_work *work, void *arg, struct fault *f)
{
    assert(served_here != s);
    struct request r = {.work = work, .arg = arg, .fault = f};
    sem_init(&r.done, 0, 0);
    pthread_mutex_lock(&s->lock);
    assert(!s->stopping);
    add(list, &r);
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    while (sem_wait(&r.done) < 0)
        assert(errno == EINTR);
    sem_destroy(&r.done);
    return r.result;
}

int store_write(struct store *s, store_work *work, void *arg, struct fault *f)
{
    return submit(s, &s->waiting_writes, work, arg, f);
}

/* Takes the connection from a thread that has nothing to do. Whoever comes meanwhile queues, so no one waits for more
   than this one read. */
static bool borrow(struct store *s)
{
    assert(served_here != s);
    pthread_mutex_lock(&s->lock);
    assert(!s->stopping);
    bool free = !s->working && !s->borrowed && !is_queued(s);
    s->borrowed = s->borrowed || free;
    pthread_mutex_unlock(&s->lock);
    return free;
}

static void give_back(struct store *s)
{
    pthread_mutex_lock(&s->lock);
    s->borrowed = false;
    if (is_queued(s) || s->stopping)
        pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

/* A read that meets an idle store runs where it is: to the store's thread and back would be two changes of thread,
   which cost more than most reads. */
int store_read(struct store *s, store_work *work, void *arg, struct fault *f)
{
    if (!borrow(s))
        return submit(s, &s->waiting_reads, work, arg, f);
    struct txn t = {.db = &s->db};
    struct request r = {.work = work, .arg = arg, .fault = f};
    served_here = s;
    run_work(&t, &r);
    served_here = NULL;
    atomic_fetch_add_explicit(&s->reads, 1, memory_order_relaxed);
    give_back(s);
    return r.result;
}

int store_run_alone(struct store *s, store_work *work, void *arg, struct fault *f)
{
    struct request r = {.work = work, .arg = arg, .fault = f};
    f->code = FAULT_NONE;
    if (!run_together(s, &r, NULL))
        return f->code != FAULT_NONE ? -1 : fault_set(f, FAULT_EIO, "the store %s: a commit failed", s->db.path);
    return r.result;
}

/* Signals are for the threads that wait for them. */
int store_thread_start(struct store *s, struct fault *f)
{
    sigset_t all, before;
    sigfillset(&all);
    s->db.serving = true;
    s->working = true; /* until it first waits */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(&s->thread, NULL, serve, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code != 0) {
        errno = code;
        return fault_errno(f, FAULT_EIO, "start the store's thread");
    }
    pthread_setname_np(s->thread, "store");
    s->running = true;
    return 0;
}

void store_thread_stop(struct store *s)
{
    if (!s->running)
        return;
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    s->running = false;
}

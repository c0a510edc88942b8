/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/workers.h"

#include "server/base/clock.h"
#include <errno.h>
#include <pthread.h>
#include <string.h>

enum { STACK = 512 * 1024, BUCKETS = 256 };

/* Lease calls and others are counted, and wait for threads, apart. */
enum { OTHERS, LEASES, KINDS };

/* One submitted call. In its lane from submit to the end of run; in the ready queue while it has its turn, not yet a
   thread. */
struct job {
    struct job_order order;
    struct lane *lane;
    struct job *next; /* in running or waiting of its lane */
    struct job *next_ready;
    bool on_thread, stalled; /* its run has begun; another has its place */
};

/* The calls of one SR. Made by the first, freed by the last. */
struct lane {
    struct lane *next; /* in its bucket */
    struct uuid sr;
    struct job *running; /* have their turn; unordered */
    struct job *waiting; /* oldest first */
    unsigned running_count[KINDS], waiting_count[KINDS];
    unsigned leaving; /* late, and about to be told so */
};

/* Jobs that have their turn, oldest first. */
struct queue {
    struct job *first, **end;
};

struct workers {
    struct workers_settings limits;
    pthread_mutex_t mutex; /* guards everything below */
    pthread_cond_t wake;   /* ready is not empty, or ending */
    pthread_cond_t calm;   /* a lane went away */
    struct lane *lanes[BUCKETS];
    unsigned lane_count;
    struct queue ready[KINDS];
    unsigned ready_count[KINDS], busy_count[KINDS]; /* busy: on a thread */
    pthread_t *threads;
    unsigned thread_count, idle_count;
    unsigned stalled; /* jobs that are: at most limits.threads */
    bool draining, ending;
    uint64_t busy, late;
};

static unsigned kind_of(const struct job *job)
{
    return job->order.turn.lease ? LEASES : OTHERS;
}

bool turn_excludes(const struct turn *a, const struct turn *b)
{
    if (a->lock <= LOCK_ROWS || b->lock <= LOCK_ROWS)
        return false;
    if (a->lock == LOCK_WHOLE || b->lock == LOCK_WHOLE)
        return true;
    if (a->lock == LOCK_SHARED || b->lock == LOCK_SHARED)
        return false;
    if (a->lock == LOCK_SERIAL && b->lock == LOCK_SERIAL)
        return true;
    if ((a->lock == LOCK_VDI && !uuid_is(&a->vdi)) || (b->lock == LOCK_VDI && !uuid_is(&b->vdi)))
        return true;
    return uuid_equal(&a->vdi, &b->vdi);
}

/* ---- lanes ---- */

static struct lane **lane_bucket(struct workers *w, const struct uuid *sr)
{
    unsigned hash = 5381;
    for (const char *c = sr->text; *c; c++)
        hash = hash * 33 + (unsigned char) *c;
    return &w->lanes[hash % BUCKETS];
}

static struct lane *lane_find(struct workers *w, const struct uuid *sr)
{
    for (struct lane *l = *lane_bucket(w, sr); l; l = l->next)
        if (uuid_equal(&l->sr, sr))
            return l;
    return NULL;
}

static struct lane *lane_add(struct workers *w, const struct uuid *sr)
{
    struct lane **bucket = lane_bucket(w, sr);
    struct lane *l = calloc(1, sizeof *l);
    if (!l)
        abort();
    l->sr = *sr;
    l->next = *bucket;
    *bucket = l;
    w->lane_count++;
    return l;
}

static void lane_drop_if_empty(struct workers *w, struct lane *l)
{
    if (l->running || l->waiting || l->leaving > 0)
        return;
    struct lane **at = lane_bucket(w, &l->sr);
    while (*at != l)
        at = &(*at)->next;
    *at = l->next;
    free(l);
    w->lane_count--;
    pthread_cond_broadcast(&w->calm);
}

static bool excluded_by(const struct job *list, const struct job *end, const struct turn *turn)
{
    for (const struct job *j = list; j != end; j = j->next)
        if (turn_excludes(&j->order.turn, turn))
            return true;
    return false;
}

/* Whether job, which waits in l, may begin: against what runs and what waits longer. Calls on no SR take no lock. */
static bool may_begin(const struct lane *l, const struct job *job)
{
    if (!uuid_is(&l->sr))
        return true;
    return !excluded_by(l->running, NULL, &job->order.turn) && !excluded_by(l->waiting, job, &job->order.turn);
}

static void push(struct workers *w, struct job *job)
{
    struct queue *q = &w->ready[kind_of(job)];
    job->next_ready = NULL;
    *q->end = job;
    q->end = &job->next_ready;
    w->ready_count[kind_of(job)]++;
}

/* Takes the job out of its queue, of which at points to it. */
static struct job *pull(struct workers *w, unsigned kind, struct job **at)
{
    struct job *job = *at;
    *at = job->next_ready;
    if (!*at)
        w->ready[kind].end = at;
    w->ready_count[kind]--;
    return job;
}

static void begin(struct workers *w, struct lane *l, struct job **at)
{
    struct job *job = *at;
    *at = job->next;
    l->waiting_count[kind_of(job)]--;
    job->next = l->running;
    l->running = job;
    l->running_count[kind_of(job)]++;
    push(w, job);
}

/* Whether the SR's share lets one more of this kind run. */
static bool room_for(const struct workers *w, const struct lane *l, unsigned kind)
{
    unsigned others = l->running_count[OTHERS], all = others + l->running_count[LEASES];
    if (kind == OTHERS)
        return others < w->limits.running;
    return all < w->limits.running + (w->limits.lease_threads + 1) / 2;
}

/* Gives their turn to all that may have it, oldest first. */
static void lane_advance(struct workers *w, struct lane *l)
{
    struct job **at = &l->waiting;
    while (*at && (room_for(w, l, OTHERS) || room_for(w, l, LEASES))) {
        struct job *job = *at;
        if (room_for(w, l, kind_of(job)) && may_begin(l, job))
            begin(w, l, at);
        else if (job->order.turn.lock == LOCK_WHOLE && uuid_is(&l->sr))
            return; /* excludes all that came later */
        else
            at = &job->next;
    }
}

static void lane_forget(struct lane *l, const struct job *job)
{
    struct job **at = &l->running;
    while (*at != job)
        at = &(*at)->next;
    *at = job->next;
    l->running_count[kind_of(job)]--;
}

/* ---- threads ---- */

/* How many of the ready jobs a thread may take: lease calls always, others as long as threads are left that are not
   kept for leases. */
static unsigned takeable(const struct workers *w)
{
    unsigned left = w->limits.threads + w->stalled - w->busy_count[OTHERS];
    unsigned others = w->ready_count[OTHERS] < left ? w->ready_count[OTHERS] : left;
    return w->ready_count[LEASES] + others;
}

static struct job *take_ready(struct workers *w)
{
    unsigned kind = w->ready_count[LEASES] > 0 ? LEASES : OTHERS;
    struct job *job = pull(w, kind, &w->ready[kind].first);
    w->busy_count[kind]++;
    job->on_thread = true;
    return job;
}

static void *thread_main(void *arg);

/* 0, or an error number. */
static int thread_add(struct workers *w)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    int error = pthread_create(&w->threads[w->thread_count], &attributes, thread_main, w);
    if (error == 0)
        w->thread_count++;
    pthread_attr_destroy(&attributes);
    return error;
}

/* As many threads awake as there are jobs for them: wakes the idle, and starts one when they are too few. That it
   cannot be had is no harm: the first one lives. */
static void staff(struct workers *w)
{
    unsigned wanted = takeable(w);
    for (unsigned i = 0; i < wanted && i < w->idle_count; i++)
        pthread_cond_signal(&w->wake);
    if (wanted > w->idle_count && w->thread_count < w->limits.threads + w->limits.lease_threads + w->stalled)
        thread_add(w);
}

/* A job that left running or waiting: others may have their turn now. Frees it. */
static void settle(struct workers *w, struct job *job)
{
    struct lane *l = job->lane;
    lane_advance(w, l);
    staff(w);
    lane_drop_if_empty(w, l);
    free(job);
}

static bool is_late(const struct job *job, int64_t now)
{
    return job->order.expires != 0 && now >= job->order.expires;
}

/* Does a job, or tells it that it is late. Called with the mutex held, which is free meanwhile. */
static void work(struct workers *w, struct job *job)
{
    bool late = is_late(job, clock_boot_ns());
    w->late += late;
    pthread_mutex_unlock(&w->mutex);
    (late ? job->order.late : job->order.run)(job->order.arg);
    pthread_mutex_lock(&w->mutex);
    w->busy_count[kind_of(job)]--;
    w->stalled -= job->stalled;
    lane_forget(job->lane, job);
    settle(w, job);
}

static void *thread_main(void *arg)
{
    struct workers *w = arg;
    pthread_mutex_lock(&w->mutex);
    for (;;) {
        while (takeable(w) == 0 && !w->ending) {
            w->idle_count++;
            pthread_cond_wait(&w->wake, &w->mutex);
            w->idle_count--;
        }
        if (takeable(w) == 0)
            break;
        struct job *job = take_ready(w);
        staff(w);
        work(w, job);
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

/* ---- the pool ---- */

/* Half of the threads at most, and one at least. */
static unsigned share(const struct workers *w, unsigned running)
{
    unsigned half = w->limits.threads > 1 ? w->limits.threads / 2 : 1;
    return running < half ? running : half;
}

static struct workers *pool_new(const struct workers_settings *settings)
{
    struct workers *w = calloc(1, sizeof *w);
    if (!w || !(w->threads = calloc(2 * settings->threads + settings->lease_threads, sizeof *w->threads)))
        abort();
    w->limits = *settings;
    w->limits.running = share(w, settings->running);
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->wake, NULL);
    pthread_cond_init(&w->calm, NULL);
    for (unsigned kind = 0; kind < KINDS; kind++)
        w->ready[kind].end = &w->ready[kind].first;
    return w;
}

int workers_new(const struct workers_settings *settings, struct workers **out, struct fault *f)
{
    struct workers *w = pool_new(settings);
    pthread_mutex_lock(&w->mutex);
    int error = thread_add(w);
    pthread_mutex_unlock(&w->mutex);
    if (error) {
        workers_stop(w);
        errno = error;
        return fault_errno(f, FAULT_EIO, "start a worker thread");
    }
    *out = w;
    return 0;
}

static void append(struct lane *l, struct job *job)
{
    struct job **end = &l->waiting;
    while (*end)
        end = &(*end)->next;
    *end = job;
    job->lane = l;
    l->waiting_count[kind_of(job)]++;
}

static struct job *job_new(const struct job_order *order)
{
    struct job *job = calloc(1, sizeof *job);
    if (!job)
        abort();
    job->order = *order;
    return job;
}

/* The lane to wait in, or NULL with the fault set. */
static struct lane *admit(struct workers *w, const struct turn *turn, struct fault *f)
{
    if (w->draining) {
        fault_set(f, FAULT_Busy, "the daemon is stopping");
        return NULL;
    }
    struct lane *l = lane_find(w, &turn->sr);
    unsigned waiting = l ? l->waiting_count[turn->lease ? LEASES : OTHERS] : 0;
    if (waiting >= w->limits.waiting) {
        w->busy++;
        fault_set(f, FAULT_Busy, "%u calls wait for %s already", waiting, uuid_is(&turn->sr) ? "this SR" : "a worker");
        return NULL;
    }
    return l ? l : lane_add(w, &turn->sr);
}

int workers_submit(struct workers *w, const struct job_order *order, struct fault *f)
{
    pthread_mutex_lock(&w->mutex);
    struct lane *l = admit(w, &order->turn, f);
    if (l) {
        struct job *job = job_new(order);
        append(l, job);
        lane_advance(w, l);
        staff(w);
    }
    pthread_mutex_unlock(&w->mutex);
    return l ? 0 : -1;
}

/* ---- what is late ---- */

static bool is_silent(const struct workers *w, const struct lane *l)
{
    return w->limits.silent && uuid_is(&l->sr) && w->limits.silent(w->limits.silent_arg, &l->sr);
}

/* What runs there is kept by a server that may never answer. Its threads are not counted until it does, so that
   however many such SRs there are, the others have as many as ever. */
static void yield_places(struct workers *w, struct lane *l)
{
    for (struct job *job = l->running; job; job = job->next)
        if (job->on_thread && !job->stalled && kind_of(job) == OTHERS && w->stalled < w->limits.threads) {
            job->stalled = true;
            w->stalled++;
        }
}

/* Moves the late of a lane's waiting jobs, and in a silent SR all that are not patient, to the list at end; returns its
   new end. */
static struct job **collect_waiting(struct lane *l, bool silent, int64_t now, struct job **end)
{
    struct job **at = &l->waiting;
    while (*at) {
        struct job *job = *at;
        bool futile = silent && job->order.late && !job->order.turn.patient;
        if (!futile && !is_late(job, now)) {
            at = &job->next;
            continue;
        }
        *at = job->next;
        l->waiting_count[kind_of(job)]--;
        l->leaving++;
        *end = job;
        end = &job->next_ready;
    }
    return end;
}

/* The same for those that have their turn and find no thread. */
static struct job **collect_ready(struct workers *w, unsigned kind, int64_t now, struct job **end)
{
    struct job **at = &w->ready[kind].first;
    while (*at) {
        if (!is_late(*at, now)) {
            at = &(*at)->next_ready;
            continue;
        }
        struct job *job = pull(w, kind, at);
        lane_forget(job->lane, job);
        job->lane->leaving++;
        *end = job;
        end = &job->next_ready;
    }
    return end;
}

/* All of them, linked by next_ready. They count as leaving, which keeps their lanes and delays a drain. */
static struct job *collect(struct workers *w)
{
    struct job *late = NULL, **end = &late;
    int64_t now = clock_boot_ns();
    for (unsigned i = 0; i < BUCKETS; i++)
        for (struct lane *l = w->lanes[i]; l; l = l->next) {
            bool silent = is_silent(w, l);
            if (silent)
                yield_places(w, l);
            end = collect_waiting(l, silent, now, end);
        }
    for (unsigned kind = 0; kind < KINDS; kind++)
        end = collect_ready(w, kind, now, end);
    *end = NULL;
    return late;
}

void workers_expire(struct workers *w)
{
    pthread_mutex_lock(&w->mutex);
    struct job *late = collect(w);
    while (late) {
        struct job *job = late;
        late = job->next_ready;
        w->late++;
        pthread_mutex_unlock(&w->mutex);
        job->order.late(job->order.arg);
        pthread_mutex_lock(&w->mutex);
        job->lane->leaving--;
        settle(w, job);
    }
    staff(w);
    pthread_mutex_unlock(&w->mutex);
}

void workers_limit(struct workers *w, unsigned running, unsigned waiting)
{
    pthread_mutex_lock(&w->mutex);
    w->limits.running = share(w, running);
    w->limits.waiting = waiting;
    pthread_mutex_unlock(&w->mutex);
}

struct workers_counts workers_counted(struct workers *w)
{
    pthread_mutex_lock(&w->mutex);
    struct workers_counts c = {.threads = w->thread_count, .stalled = w->stalled, .busy = w->busy, .late = w->late};
    for (unsigned i = 0; i < BUCKETS; i++)
        for (const struct lane *l = w->lanes[i]; l; l = l->next) {
            c.running += l->running_count[OTHERS] + l->running_count[LEASES];
            c.waiting += l->waiting_count[OTHERS] + l->waiting_count[LEASES];
        }
    pthread_mutex_unlock(&w->mutex);
    return c;
}

void workers_drain(struct workers *w)
{
    pthread_mutex_lock(&w->mutex);
    w->draining = true;
    while (w->lane_count > 0)
        pthread_cond_wait(&w->calm, &w->mutex);
    pthread_mutex_unlock(&w->mutex);
}

void workers_stop(struct workers *w)
{
    if (!w)
        return;
    workers_drain(w);
    pthread_mutex_lock(&w->mutex);
    w->ending = true;
    pthread_cond_broadcast(&w->wake);
    pthread_mutex_unlock(&w->mutex);
    for (unsigned i = 0; i < w->thread_count; i++)
        pthread_join(w->threads[i], NULL);
    pthread_cond_destroy(&w->calm);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->mutex);
    free(w->threads);
    free(w);
}

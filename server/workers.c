/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/workers.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

enum { STACK = 512 * 1024, BUCKETS = 256 };

/* One submitted call. In its lane from submit to the end of run; in the ready list while it has its turn, not yet a
   thread. */
struct job {
    struct turn turn;
    void (*run)(void *);
    void *arg;
    struct lane *lane;
    struct job *next; /* in running or waiting of its lane */
    struct job *next_ready;
};

/* The calls of one SR. Made by the first, freed by the last. */
struct lane {
    struct lane *next; /* in its bucket */
    struct uuid sr;
    struct job *running; /* have their turn; unordered */
    struct job *waiting; /* oldest first */
    unsigned running_count, waiting_count;
};

struct workers {
    struct workers_settings limits;
    pthread_mutex_t mutex; /* guards everything below */
    pthread_cond_t wake;   /* ready is not empty, or ending */
    pthread_cond_t calm;   /* a lane went away */
    struct lane *lanes[BUCKETS];
    unsigned lane_count;
    struct job *ready, **ready_end;
    unsigned ready_count;
    pthread_t *threads;
    unsigned thread_count, idle_count;
    bool draining, ending;
};

bool turn_excludes(const struct turn *a, const struct turn *b)
{
    if (a->lock == LOCK_NONE || b->lock == LOCK_NONE)
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
    if (l->running || l->waiting)
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
        if (turn_excludes(&j->turn, turn))
            return true;
    return false;
}

/* Whether job, which waits in l, may begin: against what runs and what waits longer. Calls on no SR take no lock. */
static bool may_begin(const struct lane *l, const struct job *job)
{
    if (!uuid_is(&l->sr))
        return true;
    return !excluded_by(l->running, NULL, &job->turn) && !excluded_by(l->waiting, job, &job->turn);
}

static void begin(struct workers *w, struct lane *l, struct job **at)
{
    struct job *job = *at;
    *at = job->next;
    l->waiting_count--;
    job->next = l->running;
    l->running = job;
    l->running_count++;
    *w->ready_end = job;
    w->ready_end = &job->next_ready;
    w->ready_count++;
}

/* Gives their turn to all that may have it, oldest first. */
static void lane_advance(struct workers *w, struct lane *l)
{
    struct job **at = &l->waiting;
    while (*at && l->running_count < w->limits.running) {
        struct job *job = *at;
        if (may_begin(l, job))
            begin(w, l, at);
        else if (job->turn.lock == LOCK_WHOLE)
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
    l->running_count--;
}

/* ---- threads ---- */

static struct job *take_ready(struct workers *w)
{
    struct job *job = w->ready;
    w->ready = job->next_ready;
    if (!w->ready)
        w->ready_end = &w->ready;
    w->ready_count--;
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

/* Starts a thread when more is ready than threads are idle. That it cannot be had is no harm: the first one lives. */
static void staff(struct workers *w)
{
    if (w->ready_count > w->idle_count && w->thread_count < w->limits.threads)
        thread_add(w);
}

/* After lanes advanced: one idle thread for each ready job, and new threads as long as there are too few. */
static void wake_for(struct workers *w, unsigned ready_before)
{
    for (unsigned i = ready_before; i < w->ready_count; i++)
        pthread_cond_signal(&w->wake);
    staff(w);
}

static void finish(struct workers *w, struct job *job)
{
    struct lane *l = job->lane;
    unsigned before = w->ready_count;
    lane_forget(l, job);
    lane_advance(w, l);
    wake_for(w, before);
    lane_drop_if_empty(w, l);
    free(job);
}

static void *thread_main(void *arg)
{
    struct workers *w = arg;
    pthread_mutex_lock(&w->mutex);
    for (;;) {
        while (!w->ready && !w->ending) {
            w->idle_count++;
            pthread_cond_wait(&w->wake, &w->mutex);
            w->idle_count--;
        }
        if (!w->ready)
            break;
        struct job *job = take_ready(w);
        staff(w);
        pthread_mutex_unlock(&w->mutex);
        job->run(job->arg);
        pthread_mutex_lock(&w->mutex);
        finish(w, job);
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

/* ---- the pool ---- */

static struct workers *pool_new(const struct workers_settings *settings)
{
    struct workers *w = calloc(1, sizeof *w);
    if (!w || !(w->threads = calloc(settings->threads, sizeof *w->threads)))
        abort();
    w->limits = *settings;
    unsigned half = settings->threads > 1 ? settings->threads / 2 : 1;
    if (w->limits.running > half)
        w->limits.running = half;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->wake, NULL);
    pthread_cond_init(&w->calm, NULL);
    w->ready_end = &w->ready;
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
    l->waiting_count++;
}

static struct job *job_new(const struct turn *turn, void (*run)(void *), void *arg)
{
    struct job *job = calloc(1, sizeof *job);
    if (!job)
        abort();
    job->turn = *turn;
    job->run = run;
    job->arg = arg;
    return job;
}

/* The lane to wait in, or NULL with the fault set. */
static struct lane *admit(struct workers *w, const struct uuid *sr, struct fault *f)
{
    if (w->draining) {
        fault_set(f, FAULT_Busy, "the daemon is stopping");
        return NULL;
    }
    struct lane *l = lane_find(w, sr);
    if (l && l->waiting_count >= w->limits.waiting) {
        fault_set(f, FAULT_Busy, "%u calls wait for %s already", l->waiting_count,
                  uuid_is(sr) ? "this SR" : "a worker");
        return NULL;
    }
    return l ? l : lane_add(w, sr);
}

int workers_submit(struct workers *w, const struct turn *turn, void (*run)(void *), void *arg, struct fault *f)
{
    pthread_mutex_lock(&w->mutex);
    struct lane *l = admit(w, &turn->sr, f);
    if (l) {
        struct job *job = job_new(turn, run, arg);
        unsigned before = w->ready_count;
        job->lane = l;
        append(l, job);
        lane_advance(w, l);
        wake_for(w, before);
    }
    pthread_mutex_unlock(&w->mutex);
    return l ? 0 : -1;
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

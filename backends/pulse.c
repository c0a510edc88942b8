/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/pulse.h"

#include "server/base/clock.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define SECOND_NS   INT64_C(1000000000)
#define PATIENCE_NS (PULSE_SECONDS * SECOND_NS)
#define FRESH_NS    SECOND_NS /* how long an error is believed */

enum { EVERY_SECONDS = 2, STACK = 64 * 1024, KEPT_MAX = 32 };

/* Shared by its owner and its thread; the last of them frees it. */
struct pulse {
    pthread_mutex_t mutex;  /* guards everything below */
    pthread_cond_t wanted;  /* for the thread: somebody asks, or it is to end */
    pthread_cond_t changed; /* for who asks: there is an answer */
    int dir;
    char *path;     /* of pulse_open_directory: what to open first; NULL otherwise */
    bool asked;     /* the thread is to ask the server */
    bool ending;    /* the owner is gone */
    bool ended;     /* the thread is gone */
    int64_t since;  /* when the question began that has no answer; 0: none is open */
    int64_t felt;   /* when the last answer came */
    int error;      /* of the last answer */
    uint64_t count; /* of answers */
};

/* Threads that their owners had to leave behind. Past a limit nobody asks any more: every one of them is memory that
   may never come back. */
static struct {
    pthread_mutex_t mutex;
    unsigned count;
} kept = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void kept_add(int change)
{
    pthread_mutex_lock(&kept.mutex);
    kept.count += (unsigned) change;
    pthread_mutex_unlock(&kept.mutex);
}

static bool kept_many(void)
{
    pthread_mutex_lock(&kept.mutex);
    bool many = kept.count >= KEPT_MAX;
    pthread_mutex_unlock(&kept.mutex);
    return many;
}

static void pulse_free(struct pulse *p)
{
    own_fd(&p->dir);
    free(p->path);
    pthread_cond_destroy(&p->wanted);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->mutex);
    free(p);
}

static void wait_until(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t until_ns)
{
    const struct timespec t = {.tv_sec = until_ns / SECOND_NS, .tv_nsec = until_ns % SECOND_NS};
    pthread_cond_timedwait(cond, mutex, &t);
}

/* For the two conditions only, whose clock it is; differences are taken from clock_boot_ns. */
static int64_t monotonic_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND_NS + t.tv_nsec;
}

/* The system calls that may never return; without the mutex. An errno or 0. Times are asked for because an NFS client
   answers for what never changes (the inode's number) itself, however much it is told to ask. */
static int ask_server(struct pulse *p)
{
    struct statx answer;
    if (p->dir < 0)
        p->dir = open(p->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (p->dir < 0 || statx(p->dir, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &answer) < 0)
        return errno;
    return 0;
}

static void beat(struct pulse *p)
{
    p->asked = false;
    p->since = clock_boot_ns();
    pthread_mutex_unlock(&p->mutex);
    int error = ask_server(p);
    pthread_mutex_lock(&p->mutex);
    p->since = 0;
    p->felt = clock_boot_ns();
    p->error = error;
    p->count++;
    pthread_cond_broadcast(&p->changed);
}

/* At its end either the owner, who waits for it, frees p, or, when the owner has given up waiting, it does itself. */
static void *pulse_main(void *arg)
{
    struct pulse *p = arg;
    pthread_mutex_lock(&p->mutex);
    while (!p->ending) {
        beat(p);
        int64_t next = monotonic_ns() + EVERY_SECONDS * SECOND_NS;
        while (!p->asked && !p->ending && monotonic_ns() < next)
            wait_until(&p->wanted, &p->mutex, next);
    }
    bool left = p->ended;
    p->ended = true;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->mutex);
    if (left) {
        pulse_free(p);
        kept_add(-1);
    }
    return NULL;
}

static int thread_start(struct pulse *p)
{
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    int error = pthread_create(&thread, &attributes, pulse_main, p);
    pthread_attr_destroy(&attributes);
    return error;
}

/* Takes dir and path. NULL with errno. */
static struct pulse *pulse_new(int dir, char *path)
{
    pthread_condattr_t monotonic;
    struct pulse *p = calloc(1, sizeof *p);
    if (!p)
        abort();
    p->dir = dir;
    p->path = path;
    pthread_mutex_init(&p->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&p->wanted, &monotonic);
    pthread_cond_init(&p->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int error = kept_many() ? EBUSY : thread_start(p);
    if (!error)
        return p;
    pulse_free(p);
    errno = error;
    return NULL;
}

struct pulse *pulse_start(int dir)
{
    int own = fcntl(dir, F_DUPFD_CLOEXEC, 0);
    return own < 0 ? NULL : pulse_new(own, NULL);
}

/* Waits for the thread's end, but not for the server. The mutex is held, and given up. */
static void leave(struct pulse *p)
{
    int64_t until = monotonic_ns() + SECOND_NS;
    p->ending = true;
    pthread_cond_signal(&p->wanted);
    while (!p->ended && monotonic_ns() < until)
        wait_until(&p->changed, &p->mutex, until);
    bool over = p->ended;
    p->ended = true; /* for the thread, if it still lives: nobody waits for it */
    if (!over)
        kept_add(1);
    pthread_mutex_unlock(&p->mutex);
    if (over)
        pulse_free(p);
}

void pulse_stop(struct pulse *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->mutex);
    leave(p);
}

static int silent(const struct pulse *p, const char *what, struct fault *f)
{
    return fault_set(f, FAULT_SRUnavailable, "%s has not answered for %" PRId64 " s", what,
                     (clock_boot_ns() - p->since) / SECOND_NS);
}

/* What is known now. The mutex is held. */
static int judge(const struct pulse *p, const char *what, struct fault *f)
{
    int64_t now = clock_boot_ns();
    if (p->since && now - p->since >= PATIENCE_NS)
        return silent(p, what, f);
    if (!p->since && p->error && now - p->felt < FRESH_NS) {
        errno = p->error;
        return fault_errno(f, FAULT_SRUnavailable, "%s", what);
    }
    return 0;
}

int pulse_known(struct pulse *p, const char *what, struct fault *f)
{
    pthread_mutex_lock(&p->mutex);
    int r = judge(p, what, f);
    pthread_mutex_unlock(&p->mutex);
    return r;
}

int pulse_feel(struct pulse *p, const char *what, struct fault *f)
{
    pthread_mutex_lock(&p->mutex);
    int r = judge(p, what, f);
    uint64_t before = p->count;
    int64_t until = monotonic_ns() + PATIENCE_NS + SECOND_NS / 10;
    if (r == 0) {
        p->asked = !p->since; /* one that is open answers as well */
        pthread_cond_signal(&p->wanted);
        while (p->count == before && monotonic_ns() < until)
            wait_until(&p->changed, &p->mutex, until);
        r = judge(p, what, f);
        if (r == 0 && p->count == before)
            r = fault_set(f, FAULT_SRUnavailable, "%s does not answer", what);
    }
    pthread_mutex_unlock(&p->mutex);
    return r;
}

int pulse_open_directory(const char *path)
{
    char *copy = strdup(path);
    if (!copy)
        abort();
    struct pulse *p = pulse_new(-1, copy);
    if (!p)
        return -1;
    pthread_mutex_lock(&p->mutex);
    int64_t until = monotonic_ns() + PATIENCE_NS;
    while (p->count == 0 && monotonic_ns() < until)
        wait_until(&p->changed, &p->mutex, until);
    int error = p->count ? p->error : ETIMEDOUT, dir = -1;
    if (!error && (dir = fcntl(p->dir, F_DUPFD_CLOEXEC, 0)) < 0)
        error = errno;
    leave(p);
    errno = error;
    return dir;
}

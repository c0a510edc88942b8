/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/connections.h"

#include "server/base/clock.h"
#include "server/base/own.h"
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>

enum { BUCKETS = 256 };

/* How long a handshake may take before a newer one may take its place: an honest one is done by then. */
#define HANDSHAKE_GRACE_NS INT64_C(1000000000)

/* How many connections somebody has. Made by the first, freed by the last. */
struct claimant {
    struct claimant *next; /* in its bucket */
    unsigned count;
    char name[];
};

struct connection {
    struct connections *all;
    TAILQ_ENTRY(connection) in_open, in_shaking;
    int fd;
    atomic_int stage;
    atomic_int_fast64_t due; /* clock_boot_ns; 0: never */
    int64_t opened;
    bool shaking; /* in the list */
    struct claimant *claimant;
};

TAILQ_HEAD(connection_list, connection);

struct connections {
    pthread_mutex_t mutex; /* guards everything but the atomics */
    struct connection_limits limits;
    atomic_uint seconds[STAGE_COUNT]; /* of limits, for whoever holds no mutex */
    struct connection_list open;
    struct connection_list shaking; /* in STAGE_HANDSHAKE, oldest first */
    unsigned shaking_count;
    struct claimant *claimants[BUCKETS];
    struct connection_counts counts;
};

const char *stage_name(enum stage stage)
{
    static const char *const names[] = {"handshake", "idle", "head", "body", "call", "answer"};
    return names[stage];
}

void connections_free(struct connections *all)
{
    if (!all)
        return;
    pthread_mutex_destroy(&all->mutex);
    free(all);
}

static void set_limits(struct connections *all, const struct connection_limits *limits)
{
    all->limits = *limits;
    for (size_t i = 0; i < STAGE_COUNT; i++)
        atomic_store(&all->seconds[i], limits->seconds[i]);
}

struct connections *connections_new(const struct connection_limits *limits)
{
    struct connections *all = calloc(1, sizeof *all);
    if (!all)
        abort();
    pthread_mutex_init(&all->mutex, NULL);
    TAILQ_INIT(&all->open);
    TAILQ_INIT(&all->shaking);
    set_limits(all, limits);
    return all;
}

void connections_limit(struct connections *all, const struct connection_limits *limits)
{
    pthread_mutex_lock(&all->mutex);
    set_limits(all, limits);
    pthread_mutex_unlock(&all->mutex);
}

static void set_stage(struct connection *c, enum stage stage)
{
    unsigned seconds = atomic_load(&c->all->seconds[stage]);
    atomic_store(&c->stage, (int) stage);
    atomic_store(&c->due, seconds ? clock_boot_ns() + (int64_t) seconds * 1000000000 : 0);
}

/* Both with the mutex held. The owner of the socket sees it end, and closes the connection. */
static void shut(struct connection *c)
{
    atomic_store(&c->due, 0);
    shutdown(c->fd, SHUT_RDWR);
}

static void leave_shaking(struct connection *c)
{
    if (!c->shaking)
        return;
    c->shaking = false;
    TAILQ_REMOVE(&c->all->shaking, c, in_shaking);
    c->all->shaking_count--;
}

/* Too many handshakes: the oldest end, as far as they had their second. */
static void crowd_out(struct connections *all)
{
    int64_t now = clock_boot_ns();
    struct connection *oldest;
    while (all->shaking_count > all->limits.handshakes && (oldest = TAILQ_FIRST(&all->shaking)) != NULL &&
           now - oldest->opened >= HANDSHAKE_GRACE_NS) {
        shut(oldest);
        leave_shaking(oldest);
        all->counts.crowded_out++;
    }
}

static void enter_shaking(struct connection *c)
{
    struct connections *all = c->all;
    c->shaking = true;
    TAILQ_INSERT_TAIL(&all->shaking, c, in_shaking);
    all->shaking_count++;
    crowd_out(all);
}

struct connection *connection_open(struct connections *all, int fd, enum stage stage)
{
    struct connection *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->all = all;
    c->fd = fd;
    c->opened = clock_boot_ns();
    set_stage(c, stage);
    pthread_mutex_lock(&all->mutex);
    TAILQ_INSERT_TAIL(&all->open, c, in_open);
    all->counts.open++;
    if (stage == STAGE_HANDSHAKE)
        enter_shaking(c);
    pthread_mutex_unlock(&all->mutex);
    return c;
}

static struct claimant **bucket_of(struct connections *all, const char *name)
{
    unsigned hash = 5381;
    for (const char *p = name; *p; p++)
        hash = hash * 33 + (unsigned char) *p;
    return &all->claimants[hash % BUCKETS];
}

static void unclaim(struct connection *c)
{
    struct claimant *mine = c->claimant;
    if (!mine || --mine->count > 0)
        return;
    struct claimant **at = bucket_of(c->all, mine->name);
    while (*at != mine)
        at = &(*at)->next;
    *at = mine->next;
    free(mine);
}

void connection_close(struct connection *c)
{
    struct connections *all = c->all;
    pthread_mutex_lock(&all->mutex);
    leave_shaking(c);
    unclaim(c);
    TAILQ_REMOVE(&all->open, c, in_open);
    all->counts.open--;
    pthread_mutex_unlock(&all->mutex);
    free(c);
}

void connection_wait(struct connection *c, enum stage stage)
{
    bool shaken = atomic_load(&c->stage) == STAGE_HANDSHAKE;
    set_stage(c, stage);
    if (!shaken)
        return;
    pthread_mutex_lock(&c->all->mutex);
    leave_shaking(c);
    pthread_mutex_unlock(&c->all->mutex);
}

void connection_wake(struct connection *c, enum stage stage)
{
    if (atomic_load(&c->stage) == STAGE_IDLE)
        set_stage(c, stage);
}

static struct claimant *claimant_add(struct claimant **bucket, const char *name)
{
    size_t size = strlen(name) + 1;
    struct claimant *fresh = calloc(1, sizeof *fresh + size);
    if (!fresh)
        abort();
    memcpy(fresh->name, name, size);
    fresh->next = *bucket;
    *bucket = fresh;
    return fresh;
}

static bool claim(struct connection *c, const char *identity)
{
    struct claimant **bucket = bucket_of(c->all, identity), *found = *bucket;
    while (found && strcmp(found->name, identity) != 0)
        found = found->next;
    if (found && found->count >= c->all->limits.per_identity)
        return false;
    c->claimant = found ? found : claimant_add(bucket, identity);
    c->claimant->count++;
    return true;
}

bool connection_claim(struct connection *c, const char *identity)
{
    pthread_mutex_lock(&c->all->mutex);
    bool mine = claim(c, identity);
    pthread_mutex_unlock(&c->all->mutex);
    return mine;
}

void connections_sweep(struct connections *all)
{
    int64_t now = clock_boot_ns();
    struct connection *c;
    pthread_mutex_lock(&all->mutex);
    crowd_out(all);
    TAILQ_FOREACH(c, &all->open, in_open)
    {
        int64_t due = atomic_load(&c->due);
        if (due == 0 || now < due)
            continue;
        int stage = atomic_load(&c->stage); /* the owner, who sees the end at once, has another for it */
        shut(c);
        all->counts.late[stage]++;
    }
    pthread_mutex_unlock(&all->mutex);
}

struct connection_counts connections_counted(struct connections *all)
{
    pthread_mutex_lock(&all->mutex);
    struct connection_counts counts = all->counts;
    pthread_mutex_unlock(&all->mutex);
    return counts;
}

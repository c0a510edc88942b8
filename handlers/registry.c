/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handlers/registry.h"

#include "handlers/hold.h"
#include <assert.h>
#include <pthread.h>
#include <string.h>

enum { BUCKETS = 256, SR_ARENA = 64 << 20 };

struct entry {
    struct entry *next;
    enum sr_standing standing;
    char why[FAULT_DETAIL];
    struct sr sr;
};

struct registry {
    pthread_mutex_t lock; /* guards buckets and standing; taken last, held briefly */
    const struct backend_settings *settings;
    const char *holds; /* or NULL */
    struct entry *buckets[BUCKETS];
};

static struct entry **bucket_of(struct registry *r, const struct uuid *uuid)
{
    unsigned hash = 5381;
    for (const char *c = uuid->text; *c; c++)
        hash = hash * 33 + (unsigned char) *c;
    return &r->buckets[hash % BUCKETS];
}

static struct entry *find_locked(struct registry *r, const struct uuid *uuid)
{
    for (struct entry *e = *bucket_of(r, uuid); e; e = e->next)
        if (uuid_equal(&e->sr.uuid, uuid))
            return e;
    return NULL;
}

struct registry *registry_new(const struct backend_settings *settings, const char *holds)
{
    struct registry *r = calloc(1, sizeof *r);
    if (!r)
        abort();
    pthread_mutex_init(&r->lock, NULL);
    r->settings = settings;
    r->holds = holds;
    return r;
}

static void entry_free(struct entry *e)
{
    own_fd(&e->sr.hold);
    arena_free(e->sr.arena);
    free(e);
}

void registry_free(struct registry *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < BUCKETS; i++) {
        while (r->buckets[i]) {
            struct entry *e = r->buckets[i];
            r->buckets[i] = e->next;
            backend_sr_release(&e->sr);
            entry_free(e);
        }
    }
    pthread_mutex_destroy(&r->lock);
    free(r);
}

struct sr *registry_find(struct registry *r, const struct uuid *uuid)
{
    pthread_mutex_lock(&r->lock);
    struct entry *e = find_locked(r, uuid);
    pthread_mutex_unlock(&r->lock);
    return e ? &e->sr : NULL;
}

struct sr *registry_add(struct registry *r, const struct uuid *uuid, const struct sr_type *type,
                        const struct pairs *config, enum sr_standing standing)
{
    struct entry *e = calloc(1, sizeof *e);
    if (!e)
        abort();
    e->standing = standing;
    e->sr = (struct sr){.uuid = *uuid, .type = type, .settings = r->settings, .arena = arena_new(SR_ARENA)};
    e->sr.place.dir = -1;
    e->sr.hold = -1;
    e->sr.config = pairs_copy(e->sr.arena, config);
    pthread_mutex_lock(&r->lock);
    assert(!find_locked(r, uuid));
    struct entry **bucket = bucket_of(r, uuid);
    e->next = *bucket;
    *bucket = e;
    pthread_mutex_unlock(&r->lock);
    return &e->sr;
}

struct waiting {
    struct registry *registry;
    const struct uuid *sr;
};

static void tell_waiting(void *arg)
{
    const struct waiting *w = arg;
    pthread_mutex_lock(&w->registry->lock);
    struct entry *e = find_locked(w->registry, w->sr);
    if (e && e->standing == STANDING_RECOVERING)
        snprintf(e->why, sizeof e->why, "a program of the previous start still runs");
    pthread_mutex_unlock(&w->registry->lock);
}

int registry_hold(struct registry *r, struct sr *sr, unsigned seconds, struct fault *f)
{
    struct waiting w = {r, &sr->uuid};
    if (!r->holds)
        return 0;
    own_fd(&sr->hold);
    sr->hold = -1;
    return hold_take(r->holds, &sr->uuid, seconds, tell_waiting, &w, &sr->hold, f);
}

void registry_remove(struct registry *r, struct sr *sr)
{
    assert(!sr->connected);
    pthread_mutex_lock(&r->lock);
    struct entry **link = bucket_of(r, &sr->uuid);
    while (&(*link)->sr != sr)
        link = &(*link)->next;
    struct entry *e = *link;
    *link = e->next;
    pthread_mutex_unlock(&r->lock);
    if (r->holds)
        hold_drop(r->holds, &e->sr.uuid, TAKE_FD(e->sr.hold));
    entry_free(e);
}

void registry_configure(struct registry *r, struct sr *sr, const struct pairs *config)
{
    assert(!sr->connected);
    (void) r;
    struct arena *fresh = arena_new(SR_ARENA);
    sr->config = pairs_copy(fresh, config);
    arena_free(sr->arena);
    sr->arena = fresh;
}

void registry_stand(struct registry *r, const struct uuid *uuid, enum sr_standing standing, const char *why)
{
    pthread_mutex_lock(&r->lock);
    struct entry *e = find_locked(r, uuid);
    if (e) {
        e->standing = standing;
        snprintf(e->why, sizeof e->why, "%s", why);
    }
    pthread_mutex_unlock(&r->lock);
}

int registry_serves(struct registry *r, const struct uuid *uuid, bool may_retry, struct fault *f)
{
    int result = 0;
    pthread_mutex_lock(&r->lock);
    const struct entry *e = find_locked(r, uuid);
    if (e && e->standing == STANDING_RECOVERING)
        result = fault_set(f, FAULT_SRUnavailable, "SR %s is being recovered%s%s; try again", uuid->text,
                           e->why[0] ? ": " : "", e->why);
    else if (e && e->standing == STANDING_STUCK && !may_retry)
        result = fault_set(f, FAULT_SRUnavailable, "SR %s has unfinished work (%s); sr_attach tries to settle it",
                           uuid->text, e->why);
    pthread_mutex_unlock(&r->lock);
    return result;
}

int registry_answers(struct registry *r, const struct uuid *uuid, struct fault *f)
{
    pthread_mutex_lock(&r->lock);
    struct entry *e = find_locked(r, uuid);
    int result = e ? sr_known_silent(&e->sr, f) : 0;
    pthread_mutex_unlock(&r->lock);
    return result;
}

bool registry_is_stuck(struct registry *r, const struct uuid *uuid)
{
    pthread_mutex_lock(&r->lock);
    const struct entry *e = find_locked(r, uuid);
    bool stuck = e && e->standing == STANDING_STUCK;
    pthread_mutex_unlock(&r->lock);
    return stuck;
}

const struct sr_type *registry_type(struct registry *r, const struct uuid *uuid)
{
    pthread_mutex_lock(&r->lock);
    const struct entry *e = find_locked(r, uuid);
    const struct sr_type *type = e ? e->sr.type : NULL;
    pthread_mutex_unlock(&r->lock);
    return type;
}

size_t registry_recovering(struct registry *r, struct arena *a, struct uuid **out)
{
    size_t count = 0, at = 0;
    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < BUCKETS; i++)
        for (const struct entry *e = r->buckets[i]; e; e = e->next)
            count += e->standing == STANDING_RECOVERING;
    struct uuid *list = ARENA_ARRAY(a, struct uuid, count);
    for (size_t i = 0; i < BUCKETS; i++)
        for (const struct entry *e = r->buckets[i]; e; e = e->next)
            if (e->standing == STANDING_RECOVERING)
                list[at++] = e->sr.uuid;
    pthread_mutex_unlock(&r->lock);
    *out = list;
    return count;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/host.h"

#include "server/base/clock.h"
#include "store/journal.h"
#include "store/query.h"
#include <string.h>

#define NS_PER_S INT64_C(1000000000)

const char *const host_state_names[] = {"unregistered", "live", "collided"};

bool host_is_live(const struct host *h, int64_t now)
{
    return h && h->state == HOST_LIVE && now < h->expires;
}

static struct host read_row(struct query *q, struct arena *a)
{
    return (struct host){
        .name = query_text(q, 0, a),
        .state = (enum host_state) query_word(q, 1, host_state_names, HOST_STATE_COUNT),
        .boot = query_uuid(q, 2),
        .nonce = query_uuid(q, 3),
        .watchdog = query_flag(q, 4),
        .heard = query_flag(q, 5),
        .term = query_number(q, 6),
        .expires = query_number(q, 7),
        .old_boot = query_uuid(q, 8),
        .old_nonce = query_uuid(q, 9),
        .old_expires = query_number(q, 10),
        .stale = query_flag(q, 11),
        .broken = query_count(q, 12),
        .last = query_number(q, 13),
    };
}

static void read_item(struct query *q, struct arena *a, void *item)
{
    *(struct host *) item = read_row(q, a);
}

int store_host_find(struct txn *t, const char *name, struct arena *a, struct host **out, struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, host_find, as_text(name));
    struct host *one = NULL;
    int found = query_next(&q, f);
    if (found < 0)
        return -1;
    if (found) {
        one = ARENA_NEW(a, struct host);
        *one = read_row(&q, a);
    }
    *out = one;
    return 0;
}

int store_host_list(struct txn *t, struct arena *a, struct host **out, size_t *count, struct fault *f)
{
    AUTO_QUERY struct query q = query_open(t, STATEMENT_host_list, NULL, 0);
    return query_list(&q, read_item, sizeof **out, a, out, count, f);
}

static int put(struct txn *t, struct host *h, struct fault *f)
{
    h->last = clock_wall_s();
    return query_run(QUERY(t, host_put, as_text(h->name), as_text(host_state_names[h->state]), as_uuid(&h->boot),
                           as_uuid(&h->nonce), as_flag(h->watchdog), as_flag(h->heard), as_number(h->term),
                           as_number(h->expires), as_uuid(&h->old_boot), as_uuid(&h->old_nonce),
                           as_number(h->old_expires), as_flag(h->stale), as_count(h->broken), as_number(h->last)),
                     f);
}

static bool is_session(const struct host *h, const struct holder *who)
{
    return uuid_equal(&h->boot, &who->boot) && uuid_equal(&h->nonce, &who->nonce);
}

static bool was_session(const struct host *h, const struct holder *who)
{
    return uuid_equal(&h->old_boot, &who->boot) && uuid_equal(&h->old_nonce, &who->nonce);
}

static int audit(struct txn *t, const char *what, const struct holder *who, struct fault *f)
{
    char detail[128];
    snprintf(detail, sizeof detail, "boot %s nonce %s", who->boot.text, who->nonce.text);
    return store_audit(t, who->name, what, detail, f);
}

static int64_t seconds_left(int64_t until, int64_t now)
{
    return until > now ? (until - now + NS_PER_S - 1) / NS_PER_S : 0;
}

int host_refuse_collision(const struct host *h, int64_t now, struct fault *f)
{
    return fault_set(f, FAULT_LockErr,
                     "two agents say to be host %s (of boot %s, and another): both are refused for %lld s; "
                     "then let only one register",
                     h->name, h->boot.text, (long long) seconds_left(h->expires, now));
}

/* How who stands to the session the host has. */
static enum meeting meet(const struct host *h, const struct holder *who, int64_t now)
{
    bool same_boot = uuid_equal(&h->boot, &who->boot);
    if (is_session(h, who))
        return MEETING_SAME;
    if (host_is_live(h, now) && (same_boot || was_session(h, who)))
        return MEETING_COLLISION;
    return same_boot ? MEETING_AGENT : MEETING_BOOT;
}

/* Both are refused from now on, for as long as either may believe to hold the lease. */
static int collide(struct txn *t, struct host *h, const struct holder *who, const struct lease_terms *terms,
                   int64_t now, struct fault *f)
{
    int64_t term = h->term > terms->ttl ? h->term : terms->ttl;
    h->state = HOST_COLLIDED;
    h->expires = now + term;
    h->old_boot = who->boot;
    h->old_nonce = who->nonce;
    h->old_expires = now + term;
    return put(t, h, f) < 0 ? -1 : audit(t, "host_collision", who, f);
}

static int find_stale(struct txn *t, struct host *h, struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, stale_of_host, as_text(h->name), as_uuid(&h->boot), as_number(1));
    int found = query_next(&q, f);
    h->stale = found > 0;
    return found < 0 ? -1 : 0;
}

/* The session becomes who's; what has no boot is taken to be of this one. */
static int begin_session(struct txn *t, struct host *h, const struct holder *who, struct fault *f)
{
    if (h->state != HOST_UNREGISTERED) {
        h->old_boot = h->boot;
        h->old_nonce = h->nonce;
        h->old_expires = h->expires > h->old_expires ? h->expires : h->old_expires;
    }
    h->boot = who->boot;
    h->nonce = who->nonce;
    if (query_run(QUERY(t, lease_adopt, as_text(h->name), as_uuid(&h->boot), as_uuid(&h->nonce)), f) < 0 ||
        query_run(QUERY(t, attach_adopt, as_text(h->name), as_uuid(&h->boot)), f) < 0 || find_stale(t, h, f) < 0)
        return -1;
    return audit(t, "host_register", who, f);
}

static int extend(struct txn *t, struct host *h, const struct lease_terms *terms, int64_t now, struct fault *f)
{
    h->state = HOST_LIVE;
    h->heard = true;
    h->term = terms->ttl;
    h->expires = now + terms->ttl;
    return put(t, h, f);
}

int store_host_register(struct txn *t, const struct holder *who, bool watchdog, const struct lease_terms *terms,
                        int64_t now, struct arena *a, struct host **out, enum meeting *how, struct fault *f)
{
    struct host *h = NULL;
    if (store_host_find(t, who->name, a, &h, f) < 0)
        return -1;
    if (!h) {
        h = ARENA_NEW(a, struct host);
        *h = (struct host){.name = who->name};
    }
    if (h->state == HOST_COLLIDED && now < h->expires)
        return host_refuse_collision(h, now, f);
    *out = h;
    *how = meet(h, who, now);
    if (*how == MEETING_COLLISION)
        return collide(t, h, who, terms, now, f);
    if (*how != MEETING_SAME && begin_session(t, h, who, f) < 0)
        return -1;
    h->watchdog = watchdog;
    return extend(t, h, terms, now, f);
}

int store_host_renew(struct txn *t, const struct holder *who, const struct lease_terms *terms, int64_t now,
                     struct arena *a, struct host **out, enum meeting *how, struct fault *f)
{
    struct host *h = NULL;
    if (store_host_find(t, who->name, a, &h, f) < 0)
        return -1;
    if (!h || h->state == HOST_UNREGISTERED)
        return fault_set(f, FAULT_LockErr, "host %s has no session to renew; smapi.host_register comes first",
                         who->name);
    if (h->state == HOST_COLLIDED)
        return host_refuse_collision(h, now, f);
    *out = h;
    *how = is_session(h, who) ? MEETING_SAME : MEETING_COLLISION;
    if (*how == MEETING_SAME)
        return extend(t, h, terms, now, f);
    if (host_is_live(h, now) && was_session(h, who))
        return collide(t, h, who, terms, now, f);
    return fault_set(f, FAULT_LockErr, "host %s has another session now (boot %s); smapi.host_register makes a new one",
                     who->name, h->boot.text);
}

int store_host_unregister(struct txn *t, const struct holder *who, int64_t now, struct arena *a, struct fault *f)
{
    struct host *h = NULL;
    if (store_host_find(t, who->name, a, &h, f) < 0)
        return -1;
    if (!h || h->state == HOST_UNREGISTERED)
        return fault_set(f, FAULT_LockErr, "host %s has no session to end", who->name);
    if (h->state == HOST_COLLIDED)
        return host_refuse_collision(h, now, f);
    if (!is_session(h, who))
        return fault_set(f, FAULT_LockErr, "host %s has another session (boot %s), which only itself can end",
                         who->name, h->boot.text);
    struct host gone = {.name = h->name, .broken = h->broken};
    return put(t, &gone, f) < 0 ? -1 : audit(t, "host_unregister", who, f);
}

static void read_stale(struct query *q, struct arena *a, void *item)
{
    (void) a;
    *(struct stale_disk *) item = (struct stale_disk){query_uuid(q, 0), query_uuid(q, 1)};
}

int store_host_stale(struct txn *t, const struct host *h, size_t limit, struct arena *a, struct stale_disk **out,
                     size_t *count, struct fault *f)
{
    AUTO_QUERY struct query q =
        QUERY(t, stale_of_host, as_text(h->name), as_uuid(&h->boot), as_number((int64_t) limit));
    if (query_list(&q, read_stale, sizeof **out, a, out, count, f) < 0)
        return -1;
    return *count || !t->writable ? 0 : query_run(QUERY(t, host_clean, as_text(h->name)), f);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/lease.h"

#include "server/base/clock.h"
#include "store/journal.h"
#include "store/query.h"
#include <assert.h>
#include <string.h>

static const char *const modes[] = {"ro", "rw"}; /* indexed by writable */
static const char *const states[] = {"granting", "held", "releasing", "revoking", "quarantined"};

const char *lease_state_name(enum lease_state state)
{
    return states[state];
}

static struct lease read_row(struct query *q, struct arena *a)
{
    return (struct lease){
        .sr = query_uuid(q, 0),
        .vdi = query_uuid(q, 1),
        .holder = query_text(q, 2, a),
        .writable = query_word(q, 3, modes, COUNT_OF(modes)) == 1,
        .epoch = query_count(q, 4),
        .since = query_number(q, 5),
        .state = (enum lease_state) query_word(q, 6, states, COUNT_OF(states)),
        .boot = query_uuid(q, 7),
        .nonce = query_uuid(q, 8),
        .fence = query_text(q, 9, a),
        .why = query_text(q, 10, a),
    };
}

static void read_item(struct query *q, struct arena *a, void *item)
{
    *(struct lease *) item = read_row(q, a);
}

int store_lease_list(struct txn *t, const struct uuid *sr, const struct uuid *vdi, struct arena *a, struct lease **out,
                     size_t *count, struct fault *f)
{
    bool one = vdi && uuid_is(vdi);
    AUTO_QUERY struct query q =
        one ? QUERY(t, lease_of_vdi, as_uuid(sr), as_uuid(vdi)) : QUERY(t, lease_of_sr, as_uuid(sr));
    return query_list(&q, read_item, sizeof **out, a, out, count, f);
}

int store_lease_page(struct txn *t, const struct uuid *sr, const char *holder, uint64_t after, size_t limit,
                     struct arena *a, struct lease **out, size_t *count, struct fault *f)
{
    struct bind from = as_count(after), most = as_count(limit);
    AUTO_QUERY struct query q = sr && uuid_is(sr) ? QUERY(t, lease_page_sr, from, most, as_uuid(sr))
                                : holder          ? QUERY(t, lease_page_holder, from, most, as_text(holder))
                                                  : QUERY(t, lease_page, from, most);
    return query_list(&q, read_item, sizeof **out, a, out, count, f);
}

int store_lease_count(struct txn *t, const char *holder, uint64_t *out, struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, lease_count, as_text(holder));
    if (query_next(&q, f) < 0)
        return -1;
    *out = query_count(&q, 0);
    return 0;
}

int store_lease_find(struct txn *t, const struct uuid *sr, const struct uuid *vdi, uint64_t epoch, struct arena *a,
                     struct lease **out, struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, lease_find, as_count(epoch));
    int found = query_next(&q, f);
    if (found < 0)
        return -1;
    struct lease *one = found ? ARENA_NEW(a, struct lease) : NULL;
    if (one)
        *one = read_row(&q, a);
    *out = one && uuid_equal(&one->sr, sr) && uuid_equal(&one->vdi, vdi) ? one : NULL;
    return 0;
}

/* ------------------------------------------------------------------ who asks */

#define NS_PER_S INT64_C(1000000000)

/* What the host's row says of the caller, whose boot becomes the session's when it does not say. */
struct session {
    enum host_state state;
    struct uuid boot, nonce;
    int64_t expires;
};

static int find_session(struct txn *t, const char *name, struct session *out, struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, host_find, as_text(name));
    struct session s = {.state = HOST_UNREGISTERED};
    int found = query_next(&q, f);
    if (found > 0)
        s = (struct session){(enum host_state) query_word(&q, 1, host_state_names, HOST_STATE_COUNT), query_uuid(&q, 2),
                             query_uuid(&q, 3), query_number(&q, 7)};
    *out = s;
    return found < 0 ? -1 : 0;
}

static bool is_live(const struct session *s, int64_t now)
{
    return s->state == HOST_LIVE && now < s->expires;
}

/* Of two boots that are known and differ. */
static bool other_boot(const struct uuid *a, const struct uuid *b)
{
    return uuid_is(a) && uuid_is(b) && !uuid_equal(a, b);
}

/* Whether the caller is the session that may take leases, when the host has one; without one it is who it is. */
static int check_session(const struct session *s, const struct holder *who, int64_t now, struct fault *f)
{
    bool none = s->state == HOST_UNREGISTERED || other_boot(&who->boot, &s->boot);
    if (none)
        return !uuid_is(&who->nonce) ? 0
                                     : fault_set(f, FAULT_LockErr,
                                                 "host %s has not registered this boot and nonce; "
                                                 "smapi.host_register comes first",
                                                 who->name);
    if (uuid_is(&who->nonce) && !uuid_equal(&who->nonce, &s->nonce))
        return fault_set(f, FAULT_LockErr, "host %s has another session now, of the same boot", who->name);
    if (s->state == HOST_COLLIDED)
        return fault_set(f, FAULT_LockErr, "two agents say to be host %s: neither gets a lease", who->name);
    if (now >= s->expires)
        return fault_set(f, FAULT_LockErr, "the host lease of %s ran out %lld s ago; smapi.host_renew comes first",
                         who->name, (long long) ((now - s->expires) / NS_PER_S));
    return 0;
}

/* ------------------------------------------------------------------ taking */

static const char *state_words(enum lease_state state)
{
    static const char *const words[] = {"; it is being granted", "", "; it is being released",
                                        "; it is being revoked: ", "; it is in quarantine: "};
    return words[state];
}

/* The current row is in the way. */
static int refuse(struct query *q, const struct uuid *vdi, enum fault_code code, const char *more, struct fault *f)
{
    char since[CLOCK_TEXT];
    clock_text(query_number(q, 5), since);
    enum lease_state state = (enum lease_state) query_word(q, 6, states, COUNT_OF(states));
    return fault_set(f, code, "VDI %s is active %s on host %s since %s (epoch %llu)%s%.200s%s", vdi->text,
                     query_word(q, 3, modes, COUNT_OF(modes)) == 1 ? "read-write" : "read-only", query_peek(q, 2),
                     since, (unsigned long long) query_count(q, 4), state_words(state), query_peek(q, 10), more);
}

/* What the disk's leases leave to the caller. */
struct found {
    struct granted held; /* its own in this mode; epoch 0 for none */
    uint64_t stale;      /* of its own earlier boot, to be replaced; 0 for none */
};

/* A lease of the caller's own. */
static int look_at_own(struct query *q, const struct lease_ask *ask, const struct session *s, struct found *out,
                       struct fault *f)
{
    struct uuid boot = query_uuid(q, 7);
    bool writable = query_word(q, 3, modes, COUNT_OF(modes)) == 1;
    enum lease_state state = (enum lease_state) query_word(q, 6, states, COUNT_OF(states));
    if (state == LEASE_QUARANTINED)
        return refuse(q, &ask->vdi, FAULT_VDIUnavailable, "; vdi_deactivate tries again", f);
    if (state == LEASE_RELEASING || state == LEASE_REVOKING)
        return refuse(q, &ask->vdi, FAULT_VDIInUse, "", f);
    if (other_boot(&ask->who.boot, &boot)) {
        if (is_live(s, ask->now) && uuid_equal(&s->boot, &boot))
            return refuse(q, &ask->vdi, FAULT_VDIInUse, " by a boot of this host that has renewed since", f);
        out->stale = query_count(q, 4);
        return 0;
    }
    if (writable != ask->writable)
        return refuse(q, &ask->vdi, FAULT_VDIInUse, "; deactivate it first", f);
    out->held = (struct granted){.epoch = query_count(q, 4), .state = state};
    return 0;
}

static int look_at_held(struct txn *t, const struct lease_ask *ask, const struct session *s, struct found *out,
                        struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, lease_of_vdi, as_uuid(&ask->sr), as_uuid(&ask->vdi));
    struct found found = {.stale = 0};
    int more;
    while ((more = query_next(&q, f)) > 0) {
        bool own = query_is(&q, 2, ask->who.name, strlen(ask->who.name));
        bool other_writes = query_word(&q, 3, modes, COUNT_OF(modes)) == 1;
        if (own && look_at_own(&q, ask, s, &found, f) < 0)
            return -1;
        if (!own && (ask->writable || other_writes))
            return refuse(&q, &ask->vdi, FAULT_VDIInUse, "", f);
    }
    if (more < 0)
        return -1;
    *out = found;
    return 0;
}

/* The next epoch, never given before. While nobody knows who writes, nobody may, nor read beside it. */
static int take_epoch(struct txn *t, const struct lease_ask *ask, uint64_t *epoch, struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, epoch_take, as_uuid(&ask->sr));
    int found = query_next(&q, f);
    if (found < 0)
        return -1;
    assert(found == 1); /* store_open made the row */
    *epoch = query_count(&q, 0);
    int64_t unknown = query_number(&q, 1);
    if (query_next(&q, f) < 0)
        return -1;
    if (unknown <= ask->now)
        return 0;
    return fault_set(f, FAULT_VDIInUse,
                     "who writes VDI %s is not known since the database was rebuilt or put back, or the SR taken over; "
                     "try again in %lld s",
                     ask->vdi.text, (long long) ((unknown - ask->now + NS_PER_S - 1) / NS_PER_S));
}

enum { DETAIL = 128 };

/* How the trail names a lease. */
static const char *name_lease(char out[DETAIL], const struct uuid *sr, const struct uuid *vdi, const char *mode,
                              uint64_t epoch)
{
    snprintf(out, DETAIL, "%s %s %s %llu", sr->text, vdi->text, mode, (unsigned long long) epoch);
    return out;
}

static int audit(struct txn *t, const char *what, const struct uuid *sr, const struct uuid *vdi, const char *holder,
                 const char *mode, uint64_t epoch, struct fault *f)
{
    char detail[DETAIL];
    return store_audit(t, holder, what, name_lease(detail, sr, vdi, mode, epoch), f);
}

int store_lease_was_broken(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const char *holder,
                           uint64_t epoch, bool *out, struct fault *f)
{
    char read[DETAIL], write[DETAIL];
    AUTO_QUERY struct query q =
        QUERY(t, lease_was_broken, as_text(holder), as_text(name_lease(read, sr, vdi, modes[false], epoch)),
              as_text(name_lease(write, sr, vdi, modes[true], epoch)));
    int found = query_next(&q, f);
    *out = found > 0;
    return found < 0 ? -1 : 0;
}

static int grant(struct txn *t, const struct lease_ask *ask, const struct session *s, struct granted *out,
                 struct fault *f)
{
    uint64_t fresh;
    const char *mode = modes[ask->writable];
    const struct uuid *boot = &ask->who.boot, *nonce = uuid_equal(boot, &s->boot) ? &s->nonce : NULL;
    if (take_epoch(t, ask, &fresh, f) < 0)
        return -1;
    if (query_run(QUERY(t, lease_add, as_uuid(&ask->sr), as_uuid(&ask->vdi), as_text(ask->who.name), as_text(mode),
                        as_count(fresh), as_number(clock_wall_s()), as_text(states[ask->first]), as_uuid(boot),
                        as_uuid(nonce), as_text(ask->fence)),
                  f) < 0)
        return t->refused == REFUSED_REFERENCE
                   ? fault_set(f, FAULT_VDIUnavailable, "VDI %s is not in SR %s", ask->vdi.text, ask->sr.text)
                   : -1;
    if (audit(t, "lease_take", &ask->sr, &ask->vdi, ask->who.name, mode, fresh, f) < 0)
        return -1;
    *out = (struct granted){.epoch = fresh, .state = ask->first, .fresh = true};
    return 0;
}

/* Removes a lease; its audit line balances that of its taking. *out, in a, is what it was. */
static int end(struct txn *t, uint64_t epoch, const char *what, struct arena *a, struct lease *out, struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, lease_remove, as_count(epoch));
    int found = query_next(&q, f);
    if (found < 0)
        return -1;
    if (!found)
        return fault_set(f, FAULT_LockErr, "the lease of epoch %llu is gone", (unsigned long long) epoch);
    struct lease l = read_row(&q, a);
    if (query_next(&q, f) < 0)
        return -1;
    *out = l;
    return audit(t, what, &l.sr, &l.vdi, l.holder, modes[l.writable], epoch, f);
}

/* A line by who on something that was done to a lease. */
static int audit_why(struct txn *t, const char *what, const struct lease *l, const char *who, const char *why,
                     struct arena *a, struct fault *f)
{
    const char *detail = arena_printf(a, "%s %s %s %llu of %s: %s", l->sr.text, l->vdi.text, modes[l->writable],
                                      (unsigned long long) l->epoch, l->holder, why);
    return store_audit(t, who, what, detail, f);
}

int store_lease_break(struct txn *t, uint64_t epoch, const char *who, const char *why, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(1 << 20);
    struct lease l;
    if (end(t, epoch, "lease_broken", a, &l, f) < 0 || audit_why(t, "lease_break", &l, who, why, a, f) < 0)
        return -1;
    return query_run(QUERY(t, host_broken, as_text(l.holder), as_count(epoch)), f);
}

int store_lease_take(struct txn *t, const struct lease_ask *asked, struct granted *out, struct fault *f)
{
    struct lease_ask ask = *asked;
    struct session s;
    struct found found;
    AUTO_ARENA struct arena *a = arena_new(1 << 20);
    struct lease gone;
    if (find_session(t, ask.who.name, &s, f) < 0)
        return -1;
    if (!uuid_is(&ask.who.boot))
        ask.who.boot = s.boot;
    if (check_session(&s, &ask.who, ask.now, f) < 0 || look_at_held(t, &ask, &s, &found, f) < 0)
        return -1;
    if (ask.epoch && ask.epoch != found.held.epoch)
        return fault_set(f, FAULT_LockErr, "host %s has no lease of epoch %llu on VDI %s (any more)", ask.who.name,
                         (unsigned long long) ask.epoch, ask.vdi.text);
    if (found.stale && end(t, found.stale, "lease_reboot", a, &gone, f) < 0)
        return -1;
    if (!found.held.epoch)
        return grant(t, &ask, &s, out, f);
    *out = found.held;
    return 0;
}

/* ------------------------------------------------------------------ letting go */

int store_lease_check(struct txn *t, const struct lease *l, const struct holder *who, uint64_t epoch, int64_t now,
                      struct fault *f)
{
    struct session s;
    if (epoch && epoch != l->epoch)
        return fault_set(f, FAULT_LockErr, "host %s has VDI %s in epoch %llu, not %llu", who->name, l->vdi.text,
                         (unsigned long long) l->epoch, (unsigned long long) epoch);
    if (uuid_is(&who->nonce) && !uuid_equal(&who->nonce, &l->nonce))
        return fault_set(f, FAULT_LockErr, "VDI %s was taken by another session of host %s", l->vdi.text, who->name);
    if (!other_boot(&who->boot, &l->boot))
        return 0;
    if (find_session(t, who->name, &s, f) < 0)
        return -1;
    if (!is_live(&s, now) || !uuid_equal(&s.boot, &l->boot))
        return 0;
    return fault_set(f, FAULT_LockErr, "VDI %s was taken by another boot of host %s, which has renewed since",
                     l->vdi.text, who->name);
}

/* 1 with the holder's lease on the disk, 0 without one. */
static int find_own(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const char *holder, struct arena *a,
                    struct lease *out, struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, lease_own, as_uuid(sr), as_uuid(vdi), as_text(holder));
    int found = query_next(&q, f);
    if (found > 0)
        *out = read_row(&q, a);
    return found;
}

int store_lease_release(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const struct holder *who,
                        uint64_t epoch, int64_t now, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(1 << 20);
    struct lease l = {.epoch = 0};
    int found = find_own(t, sr, vdi, who->name, a, &l, f);
    if (found <= 0)
        return found;
    if (store_lease_check(t, &l, who, epoch, now, f) < 0)
        return -1;
    return end(t, l.epoch, "lease_release", a, &l, f);
}

int store_lease_set(struct txn *t, uint64_t epoch, enum lease_state state, const char *who, const char *why,
                    struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(1 << 20);
    AUTO_QUERY struct query q = QUERY(t, lease_set, as_count(epoch), as_text(states[state]), as_text(why));
    int found = query_next(&q, f);
    if (found < 0)
        return -1;
    if (!found)
        return fault_set(f, FAULT_LockErr, "the lease of epoch %llu is gone", (unsigned long long) epoch);
    struct lease l = read_row(&q, a);
    if (query_next(&q, f) < 0)
        return -1;
    if (state != LEASE_REVOKING && state != LEASE_QUARANTINED)
        return 0;
    return audit_why(t, state == LEASE_REVOKING ? "lease_revoke" : "lease_quarantine", &l, who, why, a, f);
}

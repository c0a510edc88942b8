/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a restart must wait for, and epochs that must never come again. */
#include "server/base/log.h"
#include "store/host.h"
#include "store/journal.h"
#include "store/query.h"

/* As at a start: whoever put the older database back may have granted as many since. */
#define EPOCHS_BEYOND (UINT64_C(1) << 20)

static int64_t at_most(int64_t moment, int64_t limit)
{
    return moment > limit ? limit : moment;
}

static int read_one(struct query q, int columns, int64_t out[], struct fault *f)
{
    int found = query_next(&q, f);
    for (int i = 0; i < columns && found > 0; i++)
        out[i] = query_number(&q, i);
    query_close(&q);
    return found < 0 ? -1 : 0;
}

static int put(struct txn *t, int64_t grace, int64_t unknown, struct fault *f)
{
    return query_run(QUERY(t, grace_put, as_number(grace), as_number(unknown)), f);
}

/* The longest that any host was promised, or will be. */
static int longest_term(struct txn *t, const struct lease_terms *terms, int64_t *out, struct fault *f)
{
    int64_t longest = 0;
    if (read_one(query_open(t, STATEMENT_host_longest, NULL, 0), 1, &longest, f) < 0)
        return -1;
    *out = longest > terms->ttl ? longest : terms->ttl;
    return 0;
}

/* A moment of an earlier start: to be begun (-1), still to come but never later than it can be, or over. */
static int64_t resume(int64_t moment, int64_t length, int64_t now)
{
    if (moment < 0)
        return now + length;
    return moment <= now ? 0 : at_most(moment, now + length);
}

int store_lease_begin(struct txn *t, const struct lease_terms *terms, int64_t now, struct fault *f)
{
    int64_t until[2] = {0, 0}, longest;
    if (read_one(query_open(t, STATEMENT_grace_find, NULL, 0), 2, until, f) < 0 ||
        longest_term(t, terms, &longest, f) < 0)
        return -1;
    if (query_run(QUERY(t, host_rearm, as_number(now), as_number(terms->ttl)), f) < 0)
        return -1;
    if (query_run(QUERY(t, sr_unknown_again, as_number(until[0] < 0), as_number(now + terms->dead)), f) < 0)
        return -1;
    return put(t, resume(until[0], longest, now), resume(until[1], terms->dead, now), f);
}

int store_grace_sr(struct txn *t, const struct uuid *sr, const struct lease_terms *terms, int64_t now, struct fault *f)
{
    return query_run(QUERY(t, sr_unknown, as_uuid(sr), as_number(now + terms->dead)), f);
}

int store_grace_begin(struct txn *t, bool unknown, const struct lease_terms *terms, int64_t now, struct fault *f)
{
    int64_t until[2] = {0, 0}, longest;
    if (read_one(query_open(t, STATEMENT_grace_find, NULL, 0), 2, until, f) < 0 ||
        longest_term(t, terms, &longest, f) < 0)
        return -1;
    if (put(t, now + longest, unknown ? now + terms->dead : until[1], f) < 0)
        return -1;
    return store_audit(t, "smapid", "grace", unknown ? "what hosts hold is not known" : "after a restart", f);
}

int store_grace_read(struct txn *t, int64_t now, struct grace *out, struct fault *f)
{
    int64_t until[2] = {0, 0};
    if (read_one(query_open(t, STATEMENT_grace_find, NULL, 0), 2, until, f) < 0)
        return -1;
    *out = (struct grace){until[0] > now ? until[0] - now : 0, until[1] > now ? until[1] - now : 0};
    return 0;
}

int store_epoch_past(struct txn *t, uint64_t seen, bool *restored, struct fault *f)
{
    *restored = false;
    if (seen >= (uint64_t) INT64_MAX - EPOCHS_BEYOND)
        return fault_set(f, FAULT_LockErr, "a data path knows the epoch %llu, which no server can have granted",
                         (unsigned long long) seen);
    if (query_run(QUERY(t, epoch_past, as_count(seen)), f) < 0)
        return -1;
    *restored = query_changed(t) > 0;
    return query_run(QUERY(t, epoch_past, as_count(seen + 1 + (*restored ? EPOCHS_BEYOND : 0))), f);
}

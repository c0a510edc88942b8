/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/journal.h"

#include "server/base/clock.h"
#include "store/query.h"
#include <string.h>

enum {
    KEPT_SECONDS = 24 * 3600, /* replies */
    KEPT_REPLIES = 100000,    /* of these, at most */
    KEPT_AUDIT = 200000       /* lines */
};

static bool is_given(const struct op_key *key)
{
    return key && key->given;
}

static struct bind key_id(const struct op_key *key)
{
    return is_given(key) ? as_uuid(&key->id) : as_null();
}

static struct bind key_identity(const struct op_key *key)
{
    return is_given(key) ? as_text(key->identity) : as_null();
}

static struct bind key_digest(const struct op_key *key)
{
    return is_given(key) ? as_blob(key->digest, DIGEST_SIZE) : as_null();
}

static int taken(const struct op_key *key, struct fault *f)
{
    return fault_set(f, FAULT_OperationConflict, "operation id %s was used for another call", key->id.text);
}

/* The current row of op_find against the key it was asked with. */
static int judge(struct query *q, const struct op_key *key, struct arena *a, struct op_reply **out, struct fault *f)
{
    static const char *const states[] = {"open", "closed"};
    if (!query_is(q, 1, key->identity, strlen(key->identity)) || !query_is(q, 2, key->digest, DIGEST_SIZE))
        return taken(key, f);
    if (query_word(q, 0, states, COUNT_OF(states)) == 0)
        return fault_set(f, FAULT_Busy, "operation %s is under way; ask again", key->id.text);
    struct op_reply *reply = ARENA_NEW(a, struct op_reply);
    reply->bytes = query_blob(q, 3, a, &reply->length);
    reply->epoch = query_count(q, 4);
    *out = reply;
    return 0;
}

int store_op_replay(struct txn *t, const struct op_key *key, struct arena *a, struct op_reply **out, struct fault *f)
{
    if (!is_given(key)) {
        *out = NULL;
        return 0;
    }
    AUTO_QUERY struct query q = QUERY(t, op_find, as_uuid(&key->id));
    int found = query_next(&q, f);
    if (found > 0)
        return judge(&q, key, a, out, f);
    if (found == 0)
        *out = NULL;
    return found;
}

int store_op_open(struct txn *t, const struct plan *p, const struct op_key *key, struct fault *f)
{
    int r = query_run(QUERY(t, op_open, as_uuid(&p->op), as_text(p->method), as_uuid(&p->sr), as_uuid(&p->vdi),
                            as_uuid(&p->made), as_uuid(&p->base), as_count(p->size), as_count(p->old_size),
                            as_text(p->format), as_text(p->name), as_count(p->device), as_count(p->inode),
                            as_flag(p->read_only), as_flag(p->keep), key_id(key), key_identity(key), key_digest(key),
                            as_number(clock_wall_s())),
                      f);
    return r < 0 && t->refused == REFUSED_UNIQUE && is_given(key) ? taken(key, f) : r;
}

static int record(struct txn *t, const struct uuid *op, const struct op_key *key, const struct op_reply *reply,
                  struct fault *f)
{
    int r = query_run(QUERY(t, op_record, as_uuid(op), key_id(key), key_identity(key), key_digest(key),
                            as_blob(reply->bytes, reply->length), as_count(reply->epoch), as_number(clock_wall_s())),
                      f);
    return r < 0 && t->refused == REFUSED_UNIQUE ? taken(key, f) : r;
}

int store_op_close(struct txn *t, const struct uuid *op, const struct op_key *key, const struct op_reply *reply,
                   struct fault *f)
{
    if (reply) {
        if (query_run(QUERY(t, op_keep, as_uuid(op), as_blob(reply->bytes, reply->length), as_count(reply->epoch),
                            as_number(clock_wall_s())),
                      f) < 0)
            return -1;
        if (query_changed(t) > 0)
            return 0;
    }
    if (query_run(QUERY(t, op_end, as_uuid(op)), f) < 0)
        return -1;
    return query_changed(t) == 0 && reply && is_given(key) ? record(t, op, key, reply, f) : 0;
}

int store_op_drop(struct txn *t, const struct uuid *op, struct fault *f)
{
    return query_run(QUERY(t, op_drop, as_uuid(op)), f);
}

static struct plan read_plan(struct query *q, struct arena *a)
{
    return (struct plan){
        .op = query_uuid(q, 0),
        .method = query_text(q, 1, a),
        .sr = query_uuid(q, 2),
        .vdi = query_uuid(q, 3),
        .made = query_uuid(q, 4),
        .base = query_uuid(q, 5),
        .size = query_count(q, 6),
        .old_size = query_count(q, 7),
        .format = query_text(q, 8, a),
        .name = query_text(q, 9, a),
        .device = query_count(q, 10),
        .inode = query_count(q, 11),
        .read_only = query_flag(q, 12),
        .keep = query_flag(q, 13),
    };
}

static void read_item(struct query *q, struct arena *a, void *item)
{
    *(struct plan *) item = read_plan(q, a);
}

int store_op_list(struct txn *t, const struct uuid *sr, struct arena *a, struct plan **out, size_t *count,
                  struct fault *f)
{
    AUTO_QUERY struct query q = sr && uuid_is(sr) ? QUERY(t, op_list_sr, as_uuid(sr)) : QUERY(t, op_list);
    return query_list(&q, read_item, sizeof **out, a, out, count, f);
}

int store_op_expire(struct txn *t, int64_t wall_now, struct fault *f)
{
    if (query_run(QUERY(t, op_expire, as_number(wall_now - KEPT_SECONDS)), f) < 0 ||
        query_run(QUERY(t, op_trim, as_number(KEPT_REPLIES)), f) < 0)
        return -1;
    return query_run(QUERY(t, audit_trim, as_number(KEPT_AUDIT)), f);
}

int store_host_seen(struct txn *t, const char *holder, struct fault *f)
{
    return query_run(QUERY(t, host_seen, as_text(holder), as_number(clock_wall_s())), f);
}

int store_audit(struct txn *t, const char *who, const char *what, const char *detail, struct fault *f)
{
    return query_run(QUERY(t, audit_add, as_number(clock_wall_s()), as_text(who), as_text(what), as_text(detail)), f);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/base/clock.h"
#include "store/lease.h"
#include "store/query.h"

static struct attachment read_row(struct query *q, struct arena *a)
{
    return (struct attachment){
        .vdi = query_uuid(q, 0),
        .holder = query_text(q, 1, a),
        .writable = query_flag(q, 2),
        .since = query_number(q, 3),
        .boot = query_uuid(q, 4),
    };
}

static void read_item(struct query *q, struct arena *a, void *item)
{
    *(struct attachment *) item = read_row(q, a);
}

/* There is one already. */
static int check_mode(struct query *q, const struct uuid *vdi, const char *holder, bool writable, struct fault *f)
{
    bool had = query_flag(q, 2);
    if (had == writable)
        return 0;
    char since[CLOCK_TEXT];
    clock_text(query_number(q, 3), since);
    bool disk = vdi && uuid_is(vdi);
    return fault_set(f, FAULT_VDIInUse, "%s%s is attached %s on host %s since %s; detach it first",
                     disk ? "VDI " : "the SR", disk ? vdi->text : "", had ? "read-write" : "read-only", holder, since);
}

/* The boot of who, when it is known; that of its session otherwise. */
static int boot_of(struct txn *t, const struct holder *who, struct uuid *out, struct fault *f)
{
    *out = who->boot;
    if (uuid_is(out))
        return 0;
    AUTO_QUERY struct query q = QUERY(t, host_find, as_text(who->name));
    int found = query_next(&q, f);
    if (found > 0)
        *out = query_uuid(&q, 2);
    return found < 0 ? -1 : 0;
}

static int put(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const struct holder *who, bool writable,
               const struct uuid *boot, struct fault *f)
{
    int r = query_run(QUERY(t, attach_put, as_uuid(sr), as_uuid(vdi), as_text(who->name), as_flag(writable),
                            as_number(clock_wall_s()), as_uuid(boot)),
                      f);
    if (r < 0 && t->refused == REFUSED_REFERENCE)
        return fault_set(f, FAULT_SRUnavailable, "SR %s is not known", sr->text);
    return r;
}

int store_attach(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const struct holder *who, bool writable,
                 struct fault *f)
{
    struct uuid boot;
    if (boot_of(t, who, &boot, f) < 0)
        return -1;
    AUTO_QUERY struct query q = QUERY(t, attach_find, as_uuid(sr), as_uuid(vdi), as_text(who->name));
    int found = query_next(&q, f);
    if (found < 0)
        return -1;
    if (found) {
        struct uuid then = query_uuid(&q, 4);
        if (uuid_equal(&then, &boot) || !uuid_is(&then) || !uuid_is(&boot))
            return check_mode(&q, vdi, who->name, writable, f);
        query_next(&q, f);
    }
    return put(t, sr, vdi, who, writable, &boot, f);
}

int store_detach_check(struct txn *t, const struct attachment *held, const struct holder *who, int64_t now,
                       struct arena *a, struct fault *f)
{
    struct host *h = NULL;
    if (store_host_find(t, who->name, a, &h, f) < 0)
        return -1;
    if (!host_is_live(h, now) || !uuid_equal(&h->boot, &held->boot))
        return 0;
    bool boot = uuid_is(&who->boot) && !uuid_equal(&who->boot, &h->boot);
    bool agent = uuid_is(&who->nonce) && !uuid_equal(&who->nonce, &h->nonce);
    if (!boot && !agent)
        return 0;
    return fault_set(f, FAULT_LockErr, "VDI %s was attached by another %s of host %s, which has renewed since",
                     held->vdi.text, boot ? "boot" : "session", who->name);
}

int store_detach(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const char *holder, struct fault *f)
{
    return query_run(QUERY(t, attach_remove, as_uuid(sr), as_uuid(vdi), as_text(holder)), f);
}

int store_attachment_find(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const char *holder,
                          struct arena *a, struct attachment **out, struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, attach_find, as_uuid(sr), as_uuid(vdi), as_text(holder));
    struct attachment *one = NULL;
    int found = query_next(&q, f);
    if (found < 0)
        return -1;
    if (found) {
        one = ARENA_NEW(a, struct attachment);
        *one = read_row(&q, a);
    }
    *out = one;
    return 0;
}

int store_attachment_any(struct txn *t, const struct uuid *sr, struct arena *a, struct attachment **out,
                         struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, attach_disk, as_uuid(sr));
    struct attachment *one = NULL;
    int found = query_next(&q, f);
    if (found < 0)
        return -1;
    if (found) {
        one = ARENA_NEW(a, struct attachment);
        *one = read_row(&q, a);
    }
    *out = one;
    return 0;
}

int store_attachment_list(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const char *holder,
                          struct arena *a, struct attachment **out, size_t *count, struct fault *f)
{
    AUTO_QUERY struct query q = holder ? QUERY(t, attach_of_holder, as_uuid(sr), as_text(holder))
                                       : QUERY(t, attach_list, as_uuid(sr), as_uuid(vdi));
    return query_list(&q, read_item, sizeof **out, a, out, count, f);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/lease.h"

#include "server/base/clock.h"
#include "store/journal.h"
#include "store/query.h"
#include <assert.h>
#include <string.h>

static const char *const modes[] = {"ro", "rw"}; /* indexed by writable */

static struct lease read_row(struct query *q, struct arena *a)
{
    return (struct lease){
        .vdi = query_uuid(q, 0),
        .holder = query_text(q, 1, a),
        .writable = query_word(q, 2, modes, COUNT_OF(modes)) == 1,
        .epoch = query_count(q, 3),
        .since = query_number(q, 4),
    };
}

static int list_rows(struct query *q, struct arena *a, struct lease **out, size_t *count, struct fault *f)
{
    struct lease *list = NULL;
    size_t n = 0, room = 0;
    int more;
    while ((more = query_next(q, f)) > 0) {
        list = array_room(a, list, sizeof *list, n, &room);
        list[n++] = read_row(q, a);
    }
    if (more < 0)
        return -1;
    *out = list;
    *count = n;
    return 0;
}

int store_lease_list(struct txn *t, const struct uuid *sr, const struct uuid *vdi, struct arena *a, struct lease **out,
                     size_t *count, struct fault *f)
{
    bool one = vdi && uuid_is(vdi);
    AUTO_QUERY struct query q =
        one ? QUERY(t, lease_of_vdi, as_uuid(sr), as_uuid(vdi)) : QUERY(t, lease_of_sr, as_uuid(sr));
    return list_rows(&q, a, out, count, f);
}

/* The current row is in the way. */
static int refuse(struct query *q, const struct uuid *vdi, bool own, struct fault *f)
{
    char since[CLOCK_TEXT];
    clock_text(query_number(q, 4), since);
    return fault_set(f, FAULT_VDIInUse, "VDI %s is active %s on host %s since %s (epoch %llu)%s", vdi->text,
                     query_word(q, 2, modes, COUNT_OF(modes)) == 1 ? "read-write" : "read-only", query_peek(q, 1),
                     since, (unsigned long long) query_count(q, 3), own ? "; deactivate it first" : "");
}

/* Looks at who has the disk: *held is this holder's epoch in this mode, 0 for none. */
static int check_held(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const char *holder, bool writable,
                      uint64_t *held, struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, lease_of_vdi, as_uuid(sr), as_uuid(vdi));
    uint64_t epoch = 0;
    int more;
    while ((more = query_next(&q, f)) > 0) {
        bool own = query_is(&q, 1, holder, strlen(holder));
        bool other = query_word(&q, 2, modes, COUNT_OF(modes)) == 1;
        if (own && other == writable)
            epoch = query_count(&q, 3);
        else if (own || writable || other)
            return refuse(&q, vdi, own, f);
    }
    if (more < 0)
        return -1;
    *held = epoch;
    return 0;
}

static int take_epoch(struct txn *t, uint64_t *epoch, struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, epoch_take);
    int found = query_next(&q, f);
    if (found < 0)
        return -1;
    assert(found == 1); /* store_open made the row */
    *epoch = query_count(&q, 0);
    return query_next(&q, f);
}

static int audit(struct txn *t, const char *what, const struct uuid *sr, const struct uuid *vdi, const char *holder,
                 const char *mode, uint64_t epoch, struct fault *f)
{
    char detail[128];
    snprintf(detail, sizeof detail, "%s %s %s %llu", sr->text, vdi->text, mode, (unsigned long long) epoch);
    return store_audit(t, holder, what, detail, f);
}

static int grant(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const char *holder, bool writable,
                 uint64_t *epoch, struct fault *f)
{
    uint64_t fresh;
    if (take_epoch(t, &fresh, f) < 0)
        return -1;
    if (query_run(QUERY(t, lease_add, as_uuid(sr), as_uuid(vdi), as_text(holder), as_text(modes[writable]),
                        as_count(fresh), as_number(clock_wall_s())),
                  f) < 0)
        return t->refused == REFUSED_REFERENCE
                   ? fault_set(f, FAULT_VDIUnavailable, "VDI %s is not in SR %s", vdi->text, sr->text)
                   : -1;
    if (audit(t, "lease_take", sr, vdi, holder, modes[writable], fresh, f) < 0)
        return -1;
    *epoch = fresh;
    return 0;
}

int store_lease_take(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const char *holder, bool writable,
                     uint64_t *epoch, struct fault *f)
{
    uint64_t held = 0;
    if (check_held(t, sr, vdi, holder, writable, &held, f) < 0)
        return -1;
    if (!held)
        return grant(t, sr, vdi, holder, writable, epoch, f);
    *epoch = held;
    return 0;
}

int store_lease_release(struct txn *t, const struct uuid *sr, const struct uuid *vdi, const char *holder,
                        struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, lease_remove, as_uuid(sr), as_uuid(vdi), as_text(holder));
    int found = query_next(&q, f);
    if (found <= 0)
        return found;
    const char *mode = modes[query_word(&q, 0, modes, COUNT_OF(modes))];
    uint64_t epoch = query_count(&q, 1);
    if (query_next(&q, f) < 0)
        return -1;
    return audit(t, "lease_release", sr, vdi, holder, mode, epoch, f);
}

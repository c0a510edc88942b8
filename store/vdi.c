/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/vdi.h"

#include "server/base/clock.h"
#include "store/query.h"
#include <string.h>

static const char *const states[VDI_STATE_COUNT] = {[VDI_CREATING] = "creating",
                                                    [VDI_LIVE] = "live",
                                                    [VDI_DELETING] = "deleting",
                                                    [VDI_DAMAGED] = "damaged",
                                                    [VDI_QUARANTINED] = "quarantined"};

static struct vdi read_row(struct query *q, struct arena *a)
{
    return (struct vdi){
        .uuid = query_uuid(q, 0),
        .location = query_text(q, 1, a),
        .state = (enum vdi_state) query_word(q, 2, states, COUNT_OF(states)),
        .format = query_text(q, 3, a),
        .size = query_count(q, 4),
        .utilisation = query_count(q, 5),
        .label = query_text(q, 6, a),
        .description = query_text(q, 7, a),
        .type = query_text(q, 8, a),
        .read_only = query_flag(q, 9),
        .shareable = query_flag(q, 10),
        .hidden = query_flag(q, 11),
        .managed = query_flag(q, 12),
        .is_a_snapshot = query_flag(q, 13),
        .snapshot_time = query_text(q, 14, a),
        .snapshot_of = query_text(q, 15, a),
        .metadata_of_pool = query_text(q, 16, a),
        .parent = query_uuid(q, 17),
        .damage = query_text(q, 18, a),
    };
}

/* Fills the sm_config of these disks, which are in order of uuid, in one pass over both. */
static int read_configs(struct txn *t, const struct uuid *sr, struct vdi *vdis, size_t count, struct arena *a,
                        struct fault *f)
{
    if (count == 0)
        return 0;
    AUTO_QUERY struct query q =
        QUERY(t, vdi_config_range, as_uuid(sr), as_uuid(&vdis[0].uuid), as_uuid(&vdis[count - 1].uuid));
    size_t at = 0, room = 0;
    int more;
    while ((more = query_next(&q, f)) > 0) {
        struct uuid vdi = query_uuid(&q, 0);
        for (; at < count && !uuid_equal(&vdis[at].uuid, &vdi); at++)
            room = 0;
        if (at == count)
            return fault_set(f, FAULT_EIO, "the store has sm_config of VDI %s, which it has not", vdi.text);
        struct pairs *p = &vdis[at].sm_config;
        p->items = arena_grown(a, p->items, p->count, &room, sizeof *p->items);
        p->items[p->count++] = (struct pair){query_text(&q, 1, a), query_text(&q, 2, a)};
    }
    return more;
}

static int read_one(struct query *q, const struct uuid *sr, struct arena *a, struct vdi **out, struct fault *f)
{
    struct vdi *vdi = NULL;
    int found = query_next(q, f);
    if (found < 0)
        return -1;
    if (found) {
        vdi = ARENA_NEW(a, struct vdi);
        *vdi = read_row(q, a);
        if (read_configs(q->txn, sr, vdi, 1, a, f) < 0)
            return -1;
    }
    *out = vdi;
    return 0;
}

int store_vdi_find(struct txn *t, const struct uuid *sr, const struct uuid *vdi, struct arena *a, struct vdi **out,
                   struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, vdi_find, as_uuid(sr), as_uuid(vdi));
    return read_one(&q, sr, a, out, f);
}

int store_vdi_find_location(struct txn *t, const struct uuid *sr, const char *location, struct arena *a,
                            struct vdi **out, struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, vdi_find_location, as_uuid(sr), as_text(location));
    return read_one(&q, sr, a, out, f);
}

int store_vdi_list(struct txn *t, const struct uuid *sr, const struct uuid *after, size_t limit, struct arena *a,
                   struct vdi_list *out, struct fault *f)
{
    int64_t most = limit && limit < INT64_MAX ? (int64_t) limit : -1;
    AUTO_QUERY struct query q = QUERY(t, vdi_list, as_uuid(sr), as_uuid(after), as_number(most));
    struct vdi_list list = {0};
    int more;
    while ((more = query_next(&q, f)) > 0)
        *vdi_list_add(a, &list) = read_row(&q, a);
    if (more < 0 || read_configs(t, sr, list.items, list.count, a, f) < 0)
        return -1;
    *out = list;
    return 0;
}

/* In words of disks and SRs why the row was refused. */
static int put_refused(struct txn *t, const struct uuid *sr, const struct vdi *vdi, struct fault *f)
{
    if (t->refused == REFUSED_UNIQUE)
        return fault_set(f, FAULT_VDIExists, "SR %s has another VDI at the location %s of VDI %s", sr->text,
                         vdi->location, vdi->uuid.text);
    if (t->refused == REFUSED_REFERENCE)
        return fault_set(f, FAULT_SRUnavailable, "SR %s is not known", sr->text);
    return -1;
}

static int put_row(struct txn *t, const struct uuid *sr, const struct vdi *v, struct fault *f)
{
    return query_run(QUERY(t, vdi_put, as_uuid(sr), as_uuid(&v->uuid), as_text(v->location), as_text(states[v->state]),
                           as_text(v->format), as_count(v->size), as_count(v->utilisation), as_text(v->label),
                           as_text(v->description), as_text(v->type), as_flag(v->read_only), as_flag(v->shareable),
                           as_flag(v->hidden), as_flag(v->managed), as_flag(v->is_a_snapshot),
                           as_text(v->snapshot_time), as_text(v->snapshot_of), as_text(v->metadata_of_pool),
                           as_uuid(&v->parent), as_text(v->damage)),
                     f);
}

int store_vdi_put(struct txn *t, const struct uuid *sr, const struct vdi *vdi, struct fault *f)
{
    if (put_row(t, sr, vdi, f) < 0)
        return put_refused(t, sr, vdi, f);
    if (query_run(QUERY(t, vdi_config_clear, as_uuid(sr), as_uuid(&vdi->uuid)), f) < 0)
        return -1;
    for (size_t i = 0; i < vdi->sm_config.count; i++)
        if (query_run(QUERY(t, vdi_config_add, as_uuid(sr), as_uuid(&vdi->uuid), as_count(i),
                            as_text(vdi->sm_config.items[i].key), as_text(vdi->sm_config.items[i].value)),
                      f) < 0)
            return -1;
    return 0;
}

int store_vdi_set_state(struct txn *t, const struct uuid *sr, const struct uuid *vdi, enum vdi_state state,
                        struct fault *f)
{
    if (query_run(QUERY(t, vdi_set_state, as_uuid(sr), as_uuid(vdi), as_text(states[state])), f) < 0)
        return -1;
    if (query_changed(t) > 0)
        return 0;
    return fault_set(f, FAULT_VDIUnavailable, "VDI %s is not in SR %s", vdi->text, sr->text);
}

/* sm_config and leases go with the row, by the schema; attachments do not refer to it, as they may be the SR's. */
int store_vdi_remove(struct txn *t, const struct uuid *sr, const struct uuid *vdi, struct fault *f)
{
    if (query_run(QUERY(t, lease_audit_vdi, as_uuid(sr), as_uuid(vdi), as_number(clock_wall_s())), f) < 0 ||
        query_run(QUERY(t, attach_clear, as_uuid(sr), as_uuid(vdi)), f) < 0)
        return -1;
    return query_run(QUERY(t, vdi_remove, as_uuid(sr), as_uuid(vdi)), f);
}

static int read_count(struct query *q, uint64_t *out, struct fault *f)
{
    if (query_next(q, f) < 0)
        return -1;
    *out = query_count(q, 0);
    return 0;
}

int store_vdi_count(struct txn *t, const struct uuid *sr, uint64_t *out, struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, vdi_count, as_uuid(sr));
    return read_count(&q, out, f);
}

int store_vdi_allocation(struct txn *t, const struct uuid *sr, uint64_t *out, struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, vdi_allocation, as_uuid(sr));
    return read_count(&q, out, f);
}

int store_vdi_depth(struct txn *t, const struct uuid *sr, const struct uuid *vdi, uint64_t *out, struct fault *f)
{
    struct uuid at = *vdi;
    uint64_t depth = 0;
    while (uuid_is(&at) && depth < STORE_DEPTH_MAX) {
        AUTO_QUERY struct query q = QUERY(t, vdi_parent_of, as_uuid(sr), as_uuid(&at));
        int found = query_next(&q, f);
        if (found < 0)
            return -1;
        if (found == 0)
            break;
        at = query_uuid(&q, 0);
        depth++;
    }
    *out = depth;
    return 0;
}

int store_vdi_children(struct txn *t, const struct uuid *sr, const struct uuid *vdi, uint64_t *out, struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, vdi_children, as_uuid(sr), as_uuid(vdi));
    return read_count(&q, out, f);
}

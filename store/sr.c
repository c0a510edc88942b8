/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/sr.h"

#include "server/base/clock.h"
#include "store/query.h"

static const char *const states[] = {[SR_CREATING] = "creating", [SR_LIVE] = "live", [SR_DELETING] = "deleting"};

static struct sr_row read_row(struct query *q, struct arena *a)
{
    return (struct sr_row){
        .uuid = query_uuid(q, 0),
        .type = query_text(q, 1, a),
        .state = (enum sr_state) query_word(q, 2, states, COUNT_OF(states)),
        .label = query_text(q, 3, a),
        .description = query_text(q, 4, a),
        .totals = {query_count(q, 5), query_count(q, 6), query_count(q, 7)},
        .scanned = query_number(q, 8),
    };
}

static int read_config(struct txn *t, struct sr_row *row, struct arena *a, struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, sr_config_find, as_uuid(&row->uuid));
    struct pairs config = {0};
    size_t room = 0;
    int more;
    while ((more = query_next(&q, f)) > 0) {
        config.items = arena_grown(a, config.items, config.count, &room, sizeof *config.items);
        config.items[config.count++] = (struct pair){query_text(&q, 0, a), query_text(&q, 1, a)};
    }
    if (more == 0)
        row->config = config;
    return more;
}

int store_sr_find(struct txn *t, const struct uuid *uuid, struct arena *a, struct sr_row **out, struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, sr_find, as_uuid(uuid));
    struct sr_row *row = NULL;
    int found = query_next(&q, f);
    if (found < 0)
        return -1;
    if (found) {
        row = ARENA_NEW(a, struct sr_row);
        *row = read_row(&q, a);
        if (read_config(t, row, a, f) < 0)
            return -1;
    }
    *out = row;
    return 0;
}

int store_sr_list(struct txn *t, struct arena *a, struct sr_row **out, size_t *count, struct fault *f)
{
    AUTO_QUERY struct query q = QUERY(t, sr_list);
    struct sr_row *rows = NULL;
    size_t n = 0, room = 0;
    int more;
    while ((more = query_next(&q, f)) > 0) {
        rows = arena_grown(a, rows, n, &room, sizeof *rows);
        rows[n] = read_row(&q, a);
        if (read_config(t, &rows[n], a, f) < 0)
            return -1;
        n++;
    }
    if (more < 0)
        return -1;
    *out = rows;
    *count = n;
    return 0;
}

int store_sr_put(struct txn *t, const struct sr_row *row, struct fault *f)
{
    if (query_run(QUERY(t, sr_put, as_uuid(&row->uuid), as_text(row->type), as_text(states[row->state]),
                        as_text(row->label), as_text(row->description), as_count(row->totals.physical_size),
                        as_count(row->totals.physical_utilisation), as_count(row->totals.virtual_allocation),
                        as_number(row->scanned)),
                  f) < 0 ||
        query_run(QUERY(t, sr_config_clear, as_uuid(&row->uuid)), f) < 0)
        return -1;
    for (size_t i = 0; i < row->config.count; i++)
        if (query_run(QUERY(t, sr_config_add, as_uuid(&row->uuid), as_count(i), as_text(row->config.items[i].key),
                            as_text(row->config.items[i].value)),
                      f) < 0)
            return -1;
    return 0;
}

/* After an update that must have met its row. */
static int check_known(struct txn *t, const struct uuid *uuid, struct fault *f)
{
    if (query_changed(t) > 0)
        return 0;
    return fault_set(f, FAULT_SRUnavailable, "SR %s is not known", uuid->text);
}

int store_sr_set_state(struct txn *t, const struct uuid *uuid, enum sr_state state, struct fault *f)
{
    if (query_run(QUERY(t, sr_set_state, as_uuid(uuid), as_text(states[state])), f) < 0)
        return -1;
    return check_known(t, uuid, f);
}

int store_sr_set_totals(struct txn *t, const struct uuid *uuid, const struct sr_totals *totals, struct fault *f)
{
    if (query_run(QUERY(t, sr_set_totals, as_uuid(uuid), as_count(totals->physical_size),
                        as_count(totals->physical_utilisation), as_count(totals->virtual_allocation),
                        as_number(clock_wall_s())),
                  f) < 0)
        return -1;
    return check_known(t, uuid, f);
}

/* What refers to the row goes with it, by the schema; its leases leave a line in the audit trail. */
int store_sr_remove(struct txn *t, const struct uuid *uuid, struct fault *f)
{
    if (query_run(QUERY(t, lease_audit_sr, as_uuid(uuid), as_number(clock_wall_s())), f) < 0)
        return -1;
    return query_run(QUERY(t, sr_remove, as_uuid(uuid)), f);
}

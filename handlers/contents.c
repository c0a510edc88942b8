/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* smapi.sr_contents: the specification's tables 1.1 and 1.2, for people and tools, in pages. */
#include "handlers/state.h"
#include "server/base/clock.h"
#include <string.h>

enum { PAGE = 100, PAGE_MAX = 1000 };

/* Where a disk stands in its tree. */
struct place_in_tree {
    uint64_t depth, children;
};

struct page {
    struct call *c;
    struct uuid after;
    size_t limit;
    struct sr_row *sr;
    uint64_t allocation;
    struct vdi_list disks;
    struct place_in_tree *places; /* of disks, in their order */
    struct lease *leases;
    size_t lease_count;
    struct attachment *hosts;
    size_t host_count;
};

static int read_places(struct txn *t, struct page *p, struct fault *f)
{
    const struct uuid *sr = &p->c->keys.sr;
    p->places = ARENA_ARRAY(p->c->arena, struct place_in_tree, p->disks.count);
    for (size_t i = 0; i < p->disks.count; i++) {
        const struct uuid *vdi = &p->disks.items[i].uuid;
        if (store_vdi_depth(t, sr, vdi, &p->places[i].depth, f) < 0 ||
            store_vdi_children(t, sr, vdi, &p->places[i].children, f) < 0)
            return -1;
    }
    return 0;
}

static int read_page(struct txn *t, void *arg, struct fault *f)
{
    struct page *p = arg;
    struct arena *a = p->c->arena;
    const struct uuid *sr = &p->c->keys.sr;
    p->disks = (struct vdi_list){0};
    if (store_sr_find(t, sr, a, &p->sr, f) < 0)
        return -1;
    if (!p->sr)
        return need_sr(&(struct call){.keys = p->c->keys}, f);
    if (store_vdi_allocation(t, sr, &p->allocation, f) < 0 ||
        store_vdi_list(t, sr, &p->after, p->limit, a, &p->disks, f) < 0 ||
        store_attachment_list(t, sr, &UUID_NONE, NULL, a, &p->hosts, &p->host_count, f) < 0)
        return -1;
    if (read_places(t, p, f) < 0)
        return -1;
    return store_lease_list(t, sr, &UUID_NONE, a, &p->leases, &p->lease_count, f);
}

static void put_text(struct arena *a, struct value *v, const char *name, const char *text)
{
    value_put(a, v, name, value_string(a, text));
}

static const char *state_name(enum vdi_state state)
{
    static const char *const names[VDI_STATE_COUNT] = {"creating", "live", "deleting", "damaged", "quarantined"};
    return names[state];
}

static struct value *leases_of(const struct page *p, const struct uuid *vdi)
{
    struct arena *a = p->c->arena;
    struct value *list = value_array(a);
    for (size_t i = 0; i < p->lease_count; i++) {
        const struct lease *l = &p->leases[i];
        char since[CLOCK_TEXT];
        if (!uuid_equal(&l->vdi, vdi))
            continue;
        clock_text(l->since, since);
        struct value *v = value_struct(a);
        put_text(a, v, "host", l->holder);
        put_text(a, v, "mode", l->writable ? "rw" : "ro");
        value_put(a, v, "epoch", value_size(a, l->epoch));
        put_text(a, v, "since", since);
        put_text(a, v, "state", lease_state_name(l->state));
        value_append(a, list, v);
    }
    return list;
}

static struct value *map_value(struct arena *a, const struct pairs *pairs)
{
    struct value *v = value_struct(a);
    for (size_t i = 0; i < pairs->count; i++)
        put_text(a, v, pairs->items[i].key, pairs->items[i].value);
    return v;
}

static struct value *disk_value(const struct page *p, size_t at)
{
    struct arena *a = p->c->arena;
    const struct vdi *d = &p->disks.items[at];
    const struct place_in_tree *place = &p->places[at];
    struct value *v = value_struct(a);
    put_text(a, v, "uuid", d->uuid.text);
    put_text(a, v, "location", d->location);
    value_put(a, v, "size", value_size(a, d->size));
    value_put(a, v, "utilisation", value_size(a, d->utilisation));
    put_text(a, v, "label", d->label);
    put_text(a, v, "description", d->description);
    value_put(a, v, "shareable", value_boolean(a, d->shareable));
    value_put(a, v, "read_only", value_boolean(a, d->read_only));
    put_text(a, v, "parent", d->parent.text);
    value_put(a, v, "hidden", value_boolean(a, d->hidden));
    value_put(a, v, "managed", value_boolean(a, d->managed));
    value_put(a, v, "sm_config", map_value(a, &d->sm_config));
    value_put(a, v, "depth", value_size(a, place->depth));
    /* A hidden base with one child only: the two could be one image. */
    value_put(a, v, "coalescable", value_boolean(a, d->hidden && place->children == 1));
    put_text(a, v, "type", d->type);
    put_text(a, v, "format", d->format);
    value_put(a, v, "is_a_snapshot", value_boolean(a, d->is_a_snapshot));
    put_text(a, v, "state", state_name(d->state));
    put_text(a, v, "damage", d->damage);
    value_put(a, v, "leases", leases_of(p, &d->uuid));
    return v;
}

static struct value *sr_value(const struct page *p)
{
    struct arena *a = p->c->arena;
    struct value *v = value_struct(a), *hosts = value_array(a);
    put_text(a, v, "uuid", p->sr->uuid.text);
    put_text(a, v, "type", p->sr->type);
    put_text(a, v, "fencing", p->c->sr ? fencing_name(backend_fencing(p->c->sr)) : "");
    value_put(a, v, "physical_size", value_size(a, p->sr->totals.physical_size));
    value_put(a, v, "physical_utilization", value_size(a, p->sr->totals.physical_utilisation));
    value_put(a, v, "virtual_allocation", value_size(a, p->allocation));
    put_text(a, v, "label", p->sr->label);
    put_text(a, v, "description", p->sr->description);
    for (size_t i = 0; i < p->host_count; i++)
        value_append(a, hosts, value_string(a, p->hosts[i].holder));
    value_put(a, v, "hosts", hosts);
    return v;
}

static int read_limits(struct page *p, struct fault *f)
{
    const struct smapi_sr_contents_args *args = ARGS(p->c, smapi_sr_contents);
    p->limit = args->limit ? (size_t) args->limit : PAGE;
    if (args->limit > PAGE_MAX)
        return fault_set(f, FAULT_BadRequest, "limit must not be above %d", PAGE_MAX);
    if (args->after && args->after[0] && !uuid_parse_text(args->after, &p->after))
        return fault_set(f, FAULT_BadRequest, "after must be the member next of the answer before");
    return 0;
}

/* The totals of this moment; of the last scan when the SR cannot be asked. */
static void refresh_totals(struct page *p)
{
    struct sr_totals now;
    struct fault ignored;
    if (p->c->sr && p->c->sr->connected && backend_sr_totals(p->c->sr, &now, &ignored) == 0)
        p->sr->totals = now;
}

static int smapi_sr_contents_act(struct dispatch *d, struct call *c, struct fault *f)
{
    struct page p = {.c = c};
    struct arena *a = c->arena;
    if (read_limits(&p, f) < 0 || store_read(d->settings.store, read_page, &p, f) < 0)
        return -1;
    refresh_totals(&p);
    struct value *v = value_struct(a), *disks = value_array(a);
    for (size_t i = 0; i < p.disks.count; i++)
        value_append(a, disks, disk_value(&p, i));
    bool more = p.disks.count == p.limit;
    value_put(a, v, "sr", sr_value(&p));
    value_put(a, v, "vdis", disks);
    put_text(a, v, "next", more ? p.disks.items[p.disks.count - 1].uuid.text : "");
    c->result = v;
    return 0;
}

const struct phases smapi_sr_contents_phases = {.act = smapi_sr_contents_act};

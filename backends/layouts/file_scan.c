/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The images of the directory as disks. */
#include "backends/layouts/file_cache.h"
#include "backends/layouts/file_tree.h"
#include <string.h>
#include <sys/statvfs.h>

/* ------------------------------------------------------------------ rows and images together */

/* Rows by uuid, in the arena; the index is made when the first guess fails. */
struct rows {
    const struct vdi_list *list;
    struct arena *a;
    uint32_t *index; /* 1 + position in list, 0 for free; or NULL */
    size_t mask;
};

static uint32_t *rows_place(const struct rows *r, const struct uuid *uuid)
{
    size_t at = file_uuid_hash(uuid) & r->mask;
    while (r->index[at] && !file_same_uuid(&r->list->items[r->index[at] - 1].uuid, uuid))
        at = (at + 1) & r->mask;
    return &r->index[at];
}

static void rows_index(struct rows *r)
{
    size_t places = file_places_for(r->list->count);
    r->index = ARENA_ARRAY(r->a, uint32_t, places);
    r->mask = places - 1;
    for (size_t i = 0; i < r->list->count; i++)
        *rows_place(r, &r->list->items[i].uuid) = (uint32_t) i + 1;
}

static const struct vdi *rows_find(struct rows *r, struct scanned *s)
{
    if (s->row < r->list->count && file_same_uuid(&r->list->items[s->row].uuid, &s->uuid))
        return &r->list->items[s->row];
    if (!r->index)
        rows_index(r);
    uint32_t at = *rows_place(r, &s->uuid);
    s->row = at ? at - 1 : 0;
    return at ? &r->list->items[at - 1] : NULL;
}

static void describe_damaged(const struct scanned *s, const char *why, const struct vdi *known, struct arena *a,
                             struct vdi *out)
{
    struct vdi vdi = known ? *known : vdi_blank();
    vdi.uuid = s->uuid;
    vdi.location = known && known->location[0] ? known->location : arena_copy(a, s->uuid.text, UUID_TEXT);
    vdi.format = s->format->name;
    if (!s->damage) {
        vdi.size = s->info.size;
        vdi.utilisation = s->info.utilisation;
        vdi.parent = s->info.parent;
        vdi.hidden = s->info.hidden;
    }
    if (vdi.state != VDI_QUARANTINED) {
        vdi.state = VDI_DAMAGED;
        vdi.damage = why;
    }
    *out = vdi;
}

/* What one report is made of. */
struct report {
    int dir;
    struct arena *a;
    const struct scan_cache *images;
    const struct standing *tree; /* of each image */
    struct rows rows;
};

static void describe(const struct report *r, size_t i, const struct vdi *row, struct vdi *out)
{
    const struct scanned *s = &r->images->items[i];
    const struct standing *t = &r->tree[i];
    if (t->damage) {
        describe_damaged(s, t->damage, row, r->a, out);
    } else {
        struct image_info info = s->info;
        info.hidden = info.hidden || t->children > 0;
        image_describe(r->dir, &s->uuid, s->format, &info, row, r->a, out);
    }
}

/* Everything read, but for disks that an operation is making or removing. Returns the sum of the sizes of those that
   are served. */
static uint64_t report(struct report *r, struct vdi_list *out)
{
    struct vdi_list list = {.items = ARENA_ARRAY(r->a, struct vdi, r->images->count), .room = r->images->count};
    uint64_t sum = 0;
    for (size_t i = 0; i < r->images->count; i++) {
        const struct vdi *row = rows_find(&r->rows, &r->images->items[i]);
        if (row && (row->state == VDI_CREATING || row->state == VDI_DELETING))
            continue;
        struct vdi *vdi = &list.items[list.count++];
        describe(r, i, row, vdi);
        sum += r->tree[i].damage || vdi->hidden ? 0 : vdi->size;
    }
    *out = list;
    return sum;
}

int file_sr_totals(struct sr *sr, struct sr_totals *out, struct fault *f)
{
    struct statvfs fs;
    if (fstatvfs(sr->place.dir, &fs) < 0)
        return fault_errno(f, FAULT_SRScan, "read the size of %s", sr->place.path);
    *out = (struct sr_totals){.physical_size = (uint64_t) fs.f_blocks * fs.f_frsize,
                              .physical_utilisation = (uint64_t) (fs.f_blocks - fs.f_bfree) * fs.f_frsize};
    return 0;
}

static int scan(struct sr *sr, const struct vdi_list *known, struct arena *a, struct vdi_list *out,
                struct sr_totals *totals, struct fault *f)
{
    struct file_sr *state = sr->state;
    struct sr_totals t;
    if (scan_cache_refresh(sr, a, &state->cache, f) < 0 || file_sr_totals(sr, &t, f) < 0)
        return -1;
    struct report r = {.dir = sr->place.dir,
                       .a = a,
                       .images = state->cache,
                       .tree = tree_resolve(state->cache, a),
                       .rows = {.list = known, .a = a}};
    t.virtual_allocation = report(&r, out);
    *totals = t;
    return 0;
}

int file_sr_scan(struct sr *sr, const struct vdi_list *known, struct arena *a, struct vdi_list *out,
                 struct sr_totals *totals, struct fault *f)
{
    struct file_sr *state = sr->state;
    pthread_mutex_lock(&state->mutex);
    int r = scan(sr, known, a, out, totals, f);
    pthread_mutex_unlock(&state->mutex);
    return r;
}

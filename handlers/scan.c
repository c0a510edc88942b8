/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bringing rows in step with a medium. */
#include "handlers/state.h"
#include <string.h>

struct scan_read {
    const struct uuid *sr;
    struct work *work;
};

static int read_known(struct txn *t, void *arg, struct fault *f)
{
    struct scan_read *r = arg;
    r->work->known = (struct vdi_list){0};
    return store_vdi_list(t, r->sr, &UUID_NONE, 0, r->work->arena, &r->work->known, f);
}

int scan_look(struct dispatch *d, struct sr *sr, struct work *work, struct fault *f)
{
    struct scan_read r = {&sr->uuid, work};
    if (store_read(d->settings.store, read_known, &r, f) < 0)
        return -1;
    work->found = (struct vdi_list){0};
    if (backend_sr_scan(sr, &work->known, work->arena, &work->found, &work->totals, f) < 0)
        return -1;
    work->scanned = true;
    return 0;
}

static int by_uuid(const void *a, const void *b)
{
    const struct vdi *x = a, *y = b;
    return strcmp(x->uuid.text, y->uuid.text);
}

static const struct vdi *find(const struct vdi_list *list, const struct uuid *uuid)
{
    struct vdi key = {.uuid = *uuid};
    return list->count ? bsearch(&key, list->items, list->count, sizeof key, by_uuid) : NULL;
}

/* What a scan may change of a row; labels only where the medium has some. */
static bool same_disk(const struct vdi *a, const struct vdi *b)
{
    return a->state == b->state && a->size == b->size && a->utilisation == b->utilisation && a->hidden == b->hidden &&
           a->read_only == b->read_only && uuid_equal(&a->parent, &b->parent) && !strcmp(a->location, b->location) &&
           !strcmp(a->format, b->format) && !strcmp(a->damage, b->damage) && !strcmp(a->label, b->label) &&
           !strcmp(a->description, b->description);
}

static bool under_way(const struct vdi *row)
{
    return row->state == VDI_CREATING || row->state == VDI_DELETING;
}

static int record_found(struct txn *t, const struct uuid *sr, const struct vdi *disk, const struct vdi *row,
                        struct fault *f)
{
    if (row && (under_way(row) || same_disk(row, disk)))
        return 0;
    return store_vdi_put(t, sr, disk, f);
}

/* A disk that is gone from the medium leaves the rows, unless somebody holds it: then it stays, and says so. One in
   quarantine waits for a person. */
static int record_gone(struct txn *t, const struct uuid *sr, const struct vdi *row, struct arena *a, struct fault *f)
{
    size_t attached, leased;
    struct attachment *attachments;
    struct lease *leases;
    if (under_way(row) || row->state == VDI_QUARANTINED)
        return 0;
    if (store_attachment_list(t, sr, &row->uuid, NULL, a, &attachments, &attached, f) < 0 ||
        store_lease_list(t, sr, &row->uuid, a, &leases, &leased, f) < 0)
        return -1;
    if (!attached && !leased)
        return store_vdi_remove(t, sr, &row->uuid, f);
    struct vdi kept = *row;
    kept.state = VDI_DAMAGED;
    kept.damage = "its image is gone from the medium while a host holds it";
    return same_disk(row, &kept) ? 0 : store_vdi_put(t, sr, &kept, f);
}

int scan_record(struct txn *t, const struct uuid *sr, struct work *work, struct fault *f)
{
    if (work->found.count)
        qsort(work->found.items, work->found.count, sizeof *work->found.items, by_uuid);
    for (size_t i = 0; i < work->found.count; i++) {
        const struct vdi *disk = &work->found.items[i];
        if (record_found(t, sr, disk, find(&work->known, &disk->uuid), f) < 0)
            return -1;
    }
    for (size_t i = 0; i < work->known.count; i++)
        if (!find(&work->found, &work->known.items[i].uuid) &&
            record_gone(t, sr, &work->known.items[i], work->arena, f) < 0)
            return -1;
    return store_sr_set_totals(t, sr, &work->totals, f);
}

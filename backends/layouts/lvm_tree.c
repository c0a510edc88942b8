/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/layouts/lvm.h"
#include <inttypes.h>
#include <string.h>

/* ------------------------------------------------------------------ all disks */

static int by_uuid(const void *a, const void *b)
{
    const struct lvm_disk *x = a, *y = b;
    return strcmp(x->uuid.text, y->uuid.text);
}

struct lvm_disk *lvm_disks_find(const struct lvm_disks *d, const struct uuid *uuid)
{
    struct lvm_disk key = {.uuid = *uuid};
    return d->count ? bsearch(&key, d->items, d->count, sizeof key, by_uuid) : NULL;
}

static void look(const struct lvm_vg *vg, struct arena *a, struct lvm_disk *disk)
{
    struct fault f = {0};
    if (lvm_info(vg, disk->lv, disk->raw, &disk->info, &f) < 0)
        disk->damage = arena_text(a, f.detail);
}

/* What is wrong between a child and its parent; NULL when it is sound. */
static const char *bond_wrong(const struct lvm_disk *child, const struct lvm_disk *parent, struct arena *a)
{
    if (!uuid_is(&child->info.parent))
        return "the name of its parent holds no uuid";
    if (!parent)
        return arena_printf(a, "its parent %s is missing", child->info.parent.text);
    if (parent->raw != (image_parent_format(&image_vhd, &child->info) == &image_raw))
        return arena_printf(a, "its parent %s is of another kind", parent->uuid.text);
    const char *wrong = parent->raw ? NULL : image_parent_wrong(&child->info, &parent->info);
    return wrong ? arena_printf(a, "its parent %s %s", parent->uuid.text, wrong) : NULL;
}

/* Images from the disk to its root; 0 when that is more than there may be, which a loop is too. */
static size_t depth_of(const struct lvm_disks *d, const struct lvm_disk *disk)
{
    size_t depth = 1;
    while (disk && !disk->damage && disk->info.differencing) {
        if (++depth > IMAGE_CHAIN_LIMIT)
            return 0;
        disk = lvm_disks_find(d, &disk->info.parent);
    }
    return depth;
}

/* A disk above a damaged one is damaged; the root of the damage is told. */
static void spread_damage(const struct lvm_disks *d, struct lvm_disk *disk, struct arena *a)
{
    const struct lvm_disk *at = disk;
    for (int i = 0; i < IMAGE_CHAIN_LIMIT && at && !at->damage && at->info.differencing; i++)
        at = lvm_disks_find(d, &at->info.parent);
    if (at && at != disk && at->damage)
        disk->damage = arena_printf(a, "%s, from which it is made, is damaged: %s", at->uuid.text, at->damage);
}

static void hang_together(struct lvm_disks *d, struct arena *a)
{
    for (size_t i = 0; i < d->count; i++) {
        struct lvm_disk *disk = &d->items[i];
        if (disk->damage || !disk->info.differencing)
            continue;
        struct lvm_disk *parent = lvm_disks_find(d, &disk->info.parent);
        const char *wrong = bond_wrong(disk, parent, a);
        disk->damage = wrong;
        disk->counted = !wrong;
        if (!wrong)
            parent->children++;
    }
    for (size_t i = 0; i < d->count; i++) {
        d->items[i].depth = depth_of(d, &d->items[i]);
        if (!d->items[i].damage && d->items[i].depth == 0)
            d->items[i].damage = "there are too many images in its chain, or it comes back to itself";
    }
    for (size_t i = 0; i < d->count; i++)
        spread_damage(d, &d->items[i], a);
}

/* Two volumes of one disk: neither is believed. */
static void mark_doubles(struct lvm_disks *d)
{
    size_t kept = 0;
    for (size_t i = 0; i < d->count; i++) {
        if (kept && uuid_equal(&d->items[kept - 1].uuid, &d->items[i].uuid))
            d->items[kept - 1].damage = "there are two volumes of it, one raw and one a VHD";
        else
            d->items[kept++] = d->items[i];
    }
    d->count = kept;
}

int lvm_disks_read(const struct lvm_vg *vg, struct arena *a, struct lvm_disks *out, struct fault *f)
{
    (void) f;
    struct lvm_disks d = {.items = ARENA_ARRAY(a, struct lvm_disk, vg->lv_count + 1)};
    for (size_t i = 0; i < vg->lv_count; i++) {
        struct lvm_disk disk = {.lv = &vg->lvs[i]};
        if (lvm_name_parse(vg->lvs[i].name, &disk.raw, &disk.uuid))
            d.items[d.count++] = disk;
    }
    if (d.count)
        qsort(d.items, d.count, sizeof *d.items, by_uuid);
    for (size_t i = 0; i < d.count; i++)
        look(vg, a, &d.items[i]);
    mark_doubles(&d);
    hang_together(&d, a);
    *out = d;
    return 0;
}

/* ------------------------------------------------------------------ one disk */

static int add_link(const struct lvm_vg *vg, const struct uuid *uuid, const struct image_info *child,
                    struct lvm_chain *c, struct image_info *info, bool *raw, struct fault *f)
{
    const struct lvm_lv *lv = lvm_find_disk(vg, uuid, raw);
    if (!lv)
        return fault_set(f, FAULT_VDIUnavailable, "there is no volume of disk %s", uuid->text);
    if (child && *raw != (image_parent_format(&image_vhd, child) == &image_raw))
        return fault_set(f, FAULT_VDILoad, "the volume of disk %s is of another kind than its child was made from",
                         uuid->text);
    if (lvm_info(vg, lv, *raw, info, f) < 0)
        return fault_prefix(f, "disk %s", uuid->text);
    const char *wrong = child && !*raw ? image_parent_wrong(child, info) : NULL;
    if (wrong)
        return fault_set(f, FAULT_VDILoad, "disk %s %s", uuid->text, wrong);
    c->lvs[c->count] = lv;
    c->uuids[c->count++] = *uuid;
    return 0;
}

int lvm_chain_read(const struct lvm_vg *vg, const struct uuid *uuid, struct lvm_chain *out, struct fault *f)
{
    struct lvm_chain *c = out;
    struct image_info info;
    bool raw;
    c->count = 0;
    if (add_link(vg, uuid, NULL, c, &c->info, &c->raw, f) < 0)
        return -1;
    info = c->info;
    while (info.differencing) {
        const struct image_info child = info;
        if (!uuid_is(&child.parent))
            return fault_set(f, FAULT_VDILoad, "disk %s: the name of a parent in its chain holds no uuid", uuid->text);
        if (c->count == IMAGE_CHAIN_LIMIT)
            return fault_set(f, FAULT_SnapshotChainTooLong, "disk %s has more than %d images in its chain", uuid->text,
                             IMAGE_CHAIN_LIMIT);
        if (add_link(vg, &child.parent, &child, c, &info, &raw, f) < 0)
            return fault_prefix(f, "disk %s, parent %zu in its chain", uuid->text, c->count);
    }
    return 0;
}

/* ------------------------------------------------------------------ scan */

static int known_by_uuid(const void *a, const void *b)
{
    const struct vdi *const *x = a, *const *y = b;
    return strcmp((*x)->uuid.text, (*y)->uuid.text);
}

/* The rows, sorted. */
static const struct vdi **sorted(const struct vdi_list *known, struct arena *a)
{
    const struct vdi **rows = ARENA_ARRAY(a, const struct vdi *, known->count + 1);
    for (size_t i = 0; i < known->count; i++)
        rows[i] = &known->items[i];
    if (known->count)
        qsort(rows, known->count, sizeof *rows, known_by_uuid);
    return rows;
}

static const struct vdi *row_of(const struct vdi **rows, size_t count, const struct uuid *uuid)
{
    struct vdi key = {.uuid = *uuid};
    const struct vdi *at = &key, **found = NULL;
    if (count)
        found = bsearch(&at, rows, count, sizeof *rows, known_by_uuid);
    return found ? *found : NULL;
}

static void report(struct sr *sr, const struct lvm_disk *disk, const struct vdi *known, struct arena *a,
                   struct vdi *out)
{
    struct vdi kept = known ? *known : vdi_blank();
    if (disk->damage) {
        kept.uuid = disk->uuid;
        kept.location = kept.location && kept.location[0] ? kept.location : arena_copy(a, disk->uuid.text, UUID_TEXT);
        kept.format = disk->raw ? image_raw.name : image_vhd.name;
        kept.utilisation = disk->lv->size;
        if (kept.state != VDI_QUARANTINED)
            kept.state = VDI_DAMAGED;
        kept.damage = disk->damage;
        *out = kept;
        return;
    }
    struct image_info info = disk->info;
    info.hidden = info.hidden || disk->children > 0;
    lvm_describe(sr, &disk->uuid, disk->raw, disk->lv, &info, known ? &kept : NULL, a, out);
}

static struct sr_totals totals_of(const struct lvm_vg *vg)
{
    return (struct sr_totals){.physical_size = vg->size, .physical_utilisation = vg->size - vg->free};
}

int lvm_sr_totals(struct sr *sr, struct sr_totals *out, struct fault *f)
{
    struct lvm_vg *vg;
    AUTO_ARENA struct arena *a = arena_new(256U << 20);
    if (lvm_group(sr, a, &vg, f) < 0)
        return -1;
    *out = totals_of(vg);
    return 0;
}

int lvm_sr_scan(struct sr *sr, const struct vdi_list *known, struct arena *a, struct vdi_list *out,
                struct sr_totals *totals, struct fault *f)
{
    struct lvm_vg *vg;
    struct lvm_disks disks;
    struct vdi_list list = {0};
    if (lvm_group(sr, a, &vg, f) < 0 || lvm_disks_read(vg, a, &disks, f) < 0)
        return -1;
    struct sr_totals t = totals_of(vg);
    const struct vdi **rows = sorted(known, a);
    for (size_t i = 0; i < disks.count; i++) {
        struct vdi *vdi = vdi_list_add(a, &list);
        report(sr, &disks.items[i], row_of(rows, known->count, &disks.items[i].uuid), a, vdi);
        t.virtual_allocation += disks.items[i].damage || vdi->hidden ? 0 : vdi->size;
    }
    *out = list;
    *totals = t;
    return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Removing a disk, and the hidden bases nothing is made from any more: one lvremove for all of them. */
#include "backends/layouts/lvm.h"
#include "server/base/point.h"
#include <string.h>

#define PASS(name, code, f) (POINT(name) < 0 ? fault_errno(f, code, "at point " #name) : 0)

/* ------------------------------------------------------------------ what the plan holds */

/* A volume's uuid as a number, for the plan (FNV-1a). */
static uint64_t identity(const struct lvm_lv *lv)
{
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    for (const char *c = lv->uuid; *c; c++)
        sum = (sum ^ (unsigned char) *c) * UINT64_C(0x100000001b3);
    return sum >> 1 ? sum >> 1 : 1; /* the store's numbers have a sign; 0 stands for any */
}

static const char *lineage_text(struct arena *a, const struct lvm_chain *c)
{
    char *text = arena_alloc(a, c->count * (UUID_TEXT + 1) + 1), *at = text;
    for (size_t i = 1; i < c->count; i++, at += UUID_TEXT + 1) {
        memcpy(at, c->uuids[i].text, UUID_TEXT);
        at[UUID_TEXT] = ' ';
    }
    return text;
}

int lvm_vdi_locate(struct sr *sr, const struct vdi *vdi, struct arena *a, struct plan *plan, struct fault *f)
{
    struct lvm_vg *vg;
    struct lvm_chain chain;
    struct fault ignored;
    bool raw;
    if (lvm_group(sr, a, &vg, f) < 0)
        return -1;
    const struct lvm_lv *lv = lvm_find_disk(vg, &vdi->uuid, &raw);
    lvm_chain_read(vg, &vdi->uuid, &chain, &ignored); /* what cannot be followed is not removed */
    plan->device = 0;
    plan->inode = lv ? identity(lv) : 0;
    plan->name = lineage_text(a, &chain);
    return 0;
}

/* ------------------------------------------------------------------ hiding */

static int hide_vhd(struct sr *sr, const struct lvm_vg *vg, const struct lvm_lv *lv, struct fault *f)
{
    struct image_info info;
    AUTO_VOLUME struct volume v = {0};
    if (volume_open(vg, lv, true, &v, f) < 0 || lvm_image_info(&v, false, &info, f) < 0)
        return -1;
    return info.hidden ? 0 : lvm_image_footers(sr, &v, lv->size, info.size, true, f);
}

int lvm_hide(struct sr *sr, const struct uuid *vdi, enum fault_code code, struct fault *f)
{
    struct lvm_vg *vg;
    bool raw;
    AUTO_ARENA struct arena *a = arena_new(256U << 20);
    if (lvm_group(sr, a, &vg, f) < 0)
        return -1;
    const struct lvm_lv *lv = lvm_find_disk(vg, vdi, &raw);
    if (!lv)
        return fault_set(f, FAULT_VDIUnavailable, "there is no volume of disk %s", vdi->text);
    if (!raw && hide_vhd(sr, vg, lv, f) < 0)
        return -1;
    if (PASS(hide_written, code, f) < 0)
        return -1;
    if (lv->read_only && (!raw || lvm_has_tag(lv->tags, LVM_TAG_HIDDEN)))
        return 0;
    return lvm_change(sr, lv->name, LVM_ACCESS_READ, raw ? LVM_TAG_HIDDEN : NULL, NULL, code, f);
}

/* ------------------------------------------------------------------ removing */

struct doomed {
    const char *names[IMAGE_CHAIN_LIMIT + 1];
    size_t count;
};

/* The bases above the disk that go with it: hidden, and nothing else is made from them. */
static void doom_bases(const struct plan *plan, const struct lvm_disks *disks, const struct lvm_disk *last,
                       struct doomed *d, struct deletion *out)
{
    struct uuid uuid;
    for (const char *at = plan->name; strlen(at) > UUID_TEXT && uuid_parse(at, UUID_TEXT, &uuid); at += UUID_TEXT + 1) {
        const struct lvm_disk *base = lvm_disks_find(disks, &uuid);
        size_t doomed = last && last->counted && uuid_equal(&last->info.parent, &uuid);
        if (base && (base->damage || !base->info.hidden || base->children != doomed || d->count == IMAGE_CHAIN_LIMIT))
            return;
        if (base)
            d->names[d->count++] = base->lv->name;
        last = base;
        out->gone[out->gone_count++] = uuid;
    }
}

/* A volume that cannot be read may be a child of anything. */
static bool has_unknown(const struct lvm_disks *disks, const struct uuid *but)
{
    for (size_t i = 0; i < disks->count; i++)
        if (disks->items[i].damage && !disks->items[i].raw && !disks->items[i].info.size &&
            !uuid_equal(&disks->items[i].uuid, but))
            return true;
    return false;
}

static int remove_all(struct sr *sr, const struct lvm_vg *vg, const struct doomed *d, struct fault *f)
{
    struct lvm_scope scope = lvm_sr_scope(sr);
    if (d->count && lvm_lv_remove(&scope, vg->name, d->names, f) < 0)
        return -1;
    return PASS(delete_unlinked, FAULT_LVMDelete, f);
}

int lvm_vdi_delete(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct deletion *out,
                   struct fault *f)
{
    (void) vdi; /* the plan names it, also after a crash */
    struct lvm_vg *vg;
    struct lvm_disks disks;
    struct doomed d = {.count = 0};
    struct deletion deletion = {.gone = ARENA_ARRAY(a, struct uuid, strlen(plan->name) / UUID_TEXT + 1)};
    if (lvm_group(sr, a, &vg, f) < 0 || lvm_disks_read(vg, a, &disks, f) < 0)
        return -1;
    const struct lvm_disk *disk = lvm_disks_find(&disks, &plan->vdi);
    if (disk && plan->inode && plan->inode != identity(disk->lv))
        return fault_set(f, FAULT_VDIUnavailable, "%s is not the volume that was to be deleted", disk->lv->name);
    bool unknown = has_unknown(&disks, &plan->vdi);
    deletion.kept = disk && (disk->children || (unknown && disk->info.hidden));
    if (deletion.kept) {
        *out = deletion;
        return lvm_hide(sr, &plan->vdi, FAULT_VDIDelete, f);
    }
    if (disk)
        d.names[d.count++] = disk->lv->name;
    if (!unknown)
        doom_bases(plan, &disks, disk, &d, &deletion);
    if (remove_all(sr, vg, &d, f) < 0 || lvm_mgt_drop(sr, &plan->vdi, f) < 0)
        return -1;
    for (size_t i = 0; i < deletion.gone_count; i++)
        if (lvm_mgt_drop(sr, &deletion.gone[i], f) < 0)
            return -1;
    *out = deletion;
    return 0;
}

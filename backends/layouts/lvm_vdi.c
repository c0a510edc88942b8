/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/layouts/lvm.h"
#include "server/base/point.h"
#include <inttypes.h>
#include <string.h>

/* Passing a point fails as the step before it would. */
#define PASS(name, code, f) (POINT(name) < 0 ? fault_errno(f, code, "at point " #name) : 0)

/* ------------------------------------------------------------------ create */

static int check_free(struct sr *sr, const struct lvm_vg *vg, const struct uuid *uuid, struct fault *f)
{
    bool raw;
    const struct lvm_lv *lv = lvm_find_disk(vg, uuid, &raw);
    return lv ? fault_set(f, FAULT_VDIExists, "SR %s holds %s already", sr->uuid.text, lv->name) : 0;
}

/* What is to be made. */
struct made {
    bool raw;
    uint64_t size, volume; /* virtual; of the volume */
    char name[LVM_NAME], temp[LVM_NAME];
};

static int shape(struct sr *sr, const struct lvm_vg *vg, const struct plan *plan, const struct vdi *wanted,
                 struct made *out, struct fault *f)
{
    const struct image_format *format = wanted->format[0] ? image_format_find(wanted->format) : &image_vhd;
    if (!format)
        return fault_set(f, FAULT_VDIType, "there is no image format \"%.64s\"", wanted->format);
    struct made m = {.raw = format == &image_raw};
    if (format->round(wanted->size, &m.size, f) < 0)
        return -1;
    if (m.size > UINT64_MAX - vg->extent_size)
        return fault_set(f, FAULT_VDISize, "a volume of %" PRIu64 " bytes cannot be made", m.size);
    if (m.raw)
        m.size = m.volume = lvm_round(vg, m.size);
    else
        m.volume = lvm_is_thin(sr) ? lvm_empty_size(vg) : lvm_thick_size(vg, m.size);
    lvm_name(m.name, m.raw, &plan->vdi);
    lvm_temp_name(m.temp, &plan->op, m.name);
    *out = m;
    return 0;
}

static int make_volume(struct sr *sr, const struct plan *plan, const struct lvm_vg *vg, const struct made *m,
                       struct fault *f)
{
    char tag[64];
    const char *const tags[] = {tag, NULL};
    struct lvm_scope scope = lvm_sr_scope(sr);
    snprintf(tag, sizeof tag, LVM_TAG_OP "%.8s", plan->op.text);
    if (m->volume > vg->free)
        return fault_set(f, FAULT_SRNoSpace, "SR %s has %" PRIu64 " bytes free, of %" PRIu64 " needed for disk %s",
                         sr->uuid.text, vg->free, m->volume, plan->vdi.text);
    const struct lvm_new wanted = {.name = m->temp, .size = m->volume, .tags = tags};
    return lvm_lv_create(&scope, vg->name, &wanted, f) < 0 ? -1 : PASS(create_temp_made, FAULT_LVMCreate, f);
}

/* Nothing of what was on the extents before is ever seen through the disk. */
static int fill_volume(struct sr *sr, const struct plan *plan, const struct made *m, struct arena *a, struct fault *f)
{
    struct lvm_vg *vg;
    AUTO_VOLUME struct volume v = {0};
    if (lvm_group(sr, a, &vg, f) < 0)
        return -1;
    const struct lvm_lv *lv = lvm_find(vg, m->temp);
    if (!lv || !lvm_is_of(lv, &plan->op))
        return fault_set(f, FAULT_LVMNoVolume, "volume %s is gone that was just made", m->temp);
    if (volume_open(vg, lv, true, &v, f) < 0)
        return -1;
    if (!m->raw)
        return lvm_image_make(sr, &v, &plan->vdi, m->size, NULL, f);
    return volume_zero(&v, 0, lv->size) < 0 ? fault_errno(f, FAULT_LVMWrite, "zero volume %s", lv->name)
                                            : lvm_sync(sr, &v, f);
}

int lvm_vdi_create(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a, struct vdi *out,
                   struct fault *f)
{
    struct lvm_vg *vg;
    struct made m;
    if (lvm_group(sr, a, &vg, f) < 0 || check_free(sr, vg, &plan->vdi, f) < 0 ||
        shape(sr, vg, plan, wanted, &m, f) < 0 || make_volume(sr, plan, vg, &m, f) < 0)
        return -1;
    if (fill_volume(sr, plan, &m, a, f) < 0 || PASS(create_temp_synced, FAULT_LVMWrite, f) < 0 ||
        lvm_rename(sr, m.temp, m.name, FAULT_LVMCreate, f) < 0 || PASS(create_published, FAULT_LVMCreate, f) < 0)
        return -1;
    const struct vdi kept = layout_copy(a, wanted);
    const struct lvm_lv lv = {.size = m.volume};
    const struct image_info info = {.size = m.size};
    struct vdi made;
    lvm_describe(sr, &plan->vdi, m.raw, &lv, &info, &kept, a, &made);
    if (lvm_mgt_put(sr, &made, f) < 0)
        return -1;
    *out = made;
    return 0;
}

/* ------------------------------------------------------------------ introduce */

/* A disk that is on the medium. The location is its uuid or the name of its volume. */
int lvm_vdi_introduce(struct sr *sr, const struct plan *plan, const char *location, struct arena *a, struct vdi *out,
                      struct fault *f)
{
    struct uuid named;
    struct lvm_vg *vg;
    struct lvm_chain chain;
    bool raw;
    if (!uuid_parse_text(location, &named) && !lvm_name_parse(location, &raw, &named))
        return fault_set(f, FAULT_InvalidArg, "location \"%.200s\" is neither a uuid nor the name of a disk's volume",
                         location);
    if (!uuid_equal(&named, &plan->vdi))
        return fault_set(f, FAULT_InvalidArg, "the volume is that of disk %s and can be introduced only as that",
                         named.text);
    if (lvm_group(sr, a, &vg, f) < 0 || lvm_chain_read(vg, &plan->vdi, &chain, f) < 0)
        return -1;
    lvm_describe(sr, &plan->vdi, chain.raw, chain.lvs[0], &chain.info, NULL, a, out);
    return 0;
}

/* ------------------------------------------------------------------ update */

int lvm_vdi_update(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct vdi *out,
                   struct fault *f)
{
    struct vdi now;
    (void) plan;
    if (lvm_describe_now(sr, &vdi->uuid, vdi, a, &now, f) < 0 || lvm_mgt_put(sr, &now, f) < 0)
        return -1;
    *out = now;
    return 0;
}

/* ------------------------------------------------------------------ resize */

static int check_growable(const struct lvm_vg *vg, const struct uuid *uuid, struct arena *a, struct fault *f)
{
    struct lvm_disks disks;
    if (lvm_disks_read(vg, a, &disks, f) < 0)
        return -1;
    const struct lvm_disk *disk = lvm_disks_find(&disks, uuid);
    if (!disk)
        return fault_set(f, FAULT_VDIUnavailable, "there is no volume of disk %s", uuid->text);
    if (disk->damage)
        return fault_set(f, FAULT_VDIUnavailable, "disk %s: %s", uuid->text, disk->damage);
    if (disk->info.hidden || disk->children)
        return fault_set(f, FAULT_VDIResize, "disk %s is the base of other disks and keeps its size", uuid->text);
    return 0;
}

/* The volume first. What a raw disk gains was somebody's: until it is zeroed, a tag says from where on. */
static int extend(struct sr *sr, const struct lvm_vg *vg, const struct lvm_lv *lv, bool raw, uint64_t size,
                  struct fault *f)
{
    char tag[64];
    struct lvm_scope scope = lvm_sr_scope(sr);
    if (size <= lv->size)
        return 0;
    if (size - lv->size > vg->free)
        return fault_set(f, FAULT_SRNoSpace, "SR %s has %" PRIu64 " bytes free, of %" PRIu64 " needed", sr->uuid.text,
                         vg->free, size - lv->size);
    snprintf(tag, sizeof tag, LVM_TAG_ZERO "%" PRIu64, lv->size);
    if (raw && !strstr(lv->tags, LVM_TAG_ZERO) &&
        lvm_change(sr, lv->name, LVM_ACCESS_KEEP, tag, NULL, FAULT_LVMResize, f) < 0)
        return -1;
    return lvm_lv_resize(&scope, vg->name, lv->name, size, f) < 0 ? -1 : PASS(resize_grown, FAULT_LVMResize, f);
}

static int finish_raw(struct sr *sr, const struct lvm_vg *vg, const struct lvm_lv *lv, struct arena *a, struct fault *f)
{
    AUTO_VOLUME struct volume v = {0};
    const char *from = lvm_tag_value(lv->tags, LVM_TAG_ZERO, a);
    if (!from)
        return 0;
    uint64_t at = strtoull(from, NULL, 10);
    if (volume_open(vg, lv, true, &v, f) < 0)
        return -1;
    if (at < lv->size && volume_zero(&v, at, lv->size - at) < 0)
        return fault_errno(f, FAULT_LVMWrite, "zero what volume %s gained", lv->name);
    if (lvm_sync(sr, &v, f) < 0)
        return -1;
    return lvm_change(sr, lv->name, LVM_ACCESS_KEEP, NULL, arena_printf(a, LVM_TAG_ZERO "%s", from), FAULT_LVMResize,
                      f);
}

int lvm_resize_finish(struct sr *sr, const struct uuid *vdi, uint64_t size, struct fault *f)
{
    struct lvm_vg *vg;
    bool raw;
    struct image_info info;
    AUTO_VOLUME struct volume v = {0};
    AUTO_ARENA struct arena *a = arena_new(256U << 20);
    if (lvm_group(sr, a, &vg, f) < 0)
        return -1;
    const struct lvm_lv *lv = lvm_find_disk(vg, vdi, &raw);
    if (!lv)
        return fault_set(f, FAULT_VDIUnavailable, "there is no volume of disk %s", vdi->text);
    if (raw)
        return finish_raw(sr, vg, lv, a, f);
    if (volume_open(vg, lv, true, &v, f) < 0 || lvm_image_info(&v, false, &info, f) < 0)
        return -1;
    return lvm_image_footers(sr, &v, lv->size, size > info.size ? size : info.size, info.hidden, f);
}

/* How long the volume of a disk becomes that has that size. */
static uint64_t volume_for(const struct sr *sr, const struct lvm_vg *vg, const struct lvm_lv *lv, bool raw,
                           uint64_t size)
{
    uint64_t wanted = raw ? lvm_round(vg, size) : lvm_is_thin(sr) ? lv->size : lvm_thick_size(vg, size);
    return wanted > lv->size ? wanted : lv->size;
}

int lvm_vdi_resize(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct vdi *out,
                   struct fault *f)
{
    struct lvm_vg *vg;
    bool raw;
    uint64_t size;
    if (lvm_group(sr, a, &vg, f) < 0 || check_growable(vg, &plan->vdi, a, f) < 0)
        return -1;
    const struct lvm_lv *lv = lvm_find_disk(vg, &plan->vdi, &raw);
    if ((raw ? image_raw : image_vhd).round(plan->size, &size, f) < 0)
        return fault_prefix(f, "disk %s", vdi->uuid.text);
    if (extend(sr, vg, lv, raw, volume_for(sr, vg, lv, raw, size), f) < 0 ||
        lvm_resize_finish(sr, &plan->vdi, size, f) < 0)
        return -1;
    return lvm_describe_now(sr, &plan->vdi, vdi, a, out, f);
}

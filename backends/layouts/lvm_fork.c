/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdi_snapshot and vdi_clone. Two volumes are made under temporary names, each an empty child of the base to be; the
   disk's volume gets the base's name, which is the point of no return; the first child gets the disk's name, the second
   the new disk's; the base is hidden and made read-only. The first child's tags hold all three names, so that a server
   without this one's journal can finish it too. Until the point of no return everything can be taken back; after it
   everything can be done again, as the children are whole. */
#include "backends/layouts/fork.h"
#include "backends/layouts/lvm.h"
#include "server/base/point.h"
#include <string.h>

#define MEMORY (256U << 20)

/* Passing a point fails as the step before it would. */
#define PASS(name, code, f) (POINT(name) < 0 ? fault_errno(f, code, "at point " #name) : 0)

/* ------------------------------------------------------------------ may it be done */

static int check_source(struct sr *sr, const struct plan *plan, const struct lvm_vg *vg, struct lvm_chain *c,
                        struct fault *f)
{
    bool raw;
    const struct uuid *const fresh[] = {&plan->base, &plan->made};
    if (lvm_chain_read(vg, &plan->vdi, c, f) < 0)
        return -1;
    if (c->info.hidden)
        return fault_set(f, fork_code(plan), "disk %s is hidden: it is the base of other disks", plan->vdi.text);
    if (c->count + 1 > IMAGE_CHAIN_LIMIT)
        return fault_set(f, FAULT_SnapshotChainTooLong,
                         "disk %s has %zu images in its chain already; there are never more than %d", plan->vdi.text,
                         c->count, IMAGE_CHAIN_LIMIT);
    if (c->raw && image_vhd.round(c->info.size, &(uint64_t){0}, f) < 0)
        return fault_prefix(f, "the children of disk %s would be VHDs", plan->vdi.text);
    for (size_t i = 0; i < COUNT_OF(fresh); i++)
        if (lvm_find_disk(vg, fresh[i], &raw))
            return fault_set(f, FAULT_VDIExists, "SR %s holds a volume of disk %s already", sr->uuid.text,
                             fresh[i]->text);
    return 0;
}

/* ------------------------------------------------------------------ the children */

static int make_volume(struct sr *sr, const struct plan *plan, const struct lvm_vg *vg, const struct uuid *child,
                       uint64_t size, bool first, struct fault *f)
{
    char name[LVM_NAME], temp[LVM_NAME], op[64], fork[160];
    const char *const tags[] = {op, first ? fork : NULL, NULL};
    struct lvm_scope scope = lvm_sr_scope(sr);
    lvm_name(name, false, child);
    lvm_temp_name(temp, &plan->op, name);
    snprintf(op, sizeof op, LVM_TAG_OP "%.8s", plan->op.text);
    snprintf(fork, sizeof fork, LVM_TAG_FORK "%s:%s:%s", plan->vdi.text, plan->base.text, plan->made.text);
    const struct lvm_new wanted = {.name = temp, .size = size, .tags = tags};
    return lvm_lv_create(&scope, vg->name, &wanted, f);
}

static int write_child(struct sr *sr, const struct plan *plan, const struct lvm_vg *vg, const struct uuid *child,
                       const struct uuid *id, const struct lvm_parent *parent, struct fault *f)
{
    char name[LVM_NAME], temp[LVM_NAME];
    AUTO_VOLUME struct volume v = {0};
    lvm_name(name, false, child);
    lvm_temp_name(temp, &plan->op, name);
    const struct lvm_lv *lv = lvm_find(vg, temp);
    if (!lv || !lvm_is_of(lv, &plan->op))
        return fault_set(f, FAULT_LVMNoVolume, "volume %s is gone that was just made", temp);
    return volume_open(vg, lv, true, &v, f) < 0 ? -1 : lvm_image_make(sr, &v, id, parent->info.size, parent, f);
}

/* A base is never written again: it is as short as it can be. */
static int shorten(struct sr *sr, const struct uuid *disk, struct arena *a, struct fault *f)
{
    struct lvm_vg *vg;
    bool raw;
    if (lvm_group(sr, a, &vg, f) < 0)
        return -1;
    const struct lvm_lv *lv = lvm_find_disk(vg, disk, &raw);
    return lv && !raw ? lvm_shorten(sr, vg, lv, f) : 0;
}

/* A disk in use is written on; a snapshot never is. */
static int make_children(struct sr *sr, const struct plan *plan, struct lvm_vg *vg, const struct lvm_chain *c,
                         bool active, struct arena *a, struct fault *f)
{
    const struct lvm_parent parent = {.uuid = plan->base, .raw = c->raw, .info = c->info};
    uint64_t full = lvm_thick_size(vg, c->info.size), empty = lvm_empty_size(vg);
    bool thin = lvm_is_thin(sr);
    uint64_t first = thin && !active ? empty : full, second = thin || plan->read_only ? empty : full;
    if (first + second > vg->free && !active &&
        (shorten(sr, &plan->vdi, a, f) < 0 || lvm_group(sr, a, &vg, f) < 0)) /* it is about to be a base */
        return -1;
    if (first + second > vg->free)
        return fault_set(f, FAULT_SRNoSpace, "SR %s has %llu bytes free, of %llu needed", sr->uuid.text,
                         (unsigned long long) vg->free, (unsigned long long) (first + second));
    if (make_volume(sr, plan, vg, &plan->vdi, first, true, f) < 0 ||
        make_volume(sr, plan, vg, &plan->made, second, false, f) < 0 || lvm_group(sr, a, &vg, f) < 0 ||
        write_child(sr, plan, vg, &plan->vdi, &plan->op, &parent, f) < 0 ||
        write_child(sr, plan, vg, &plan->made, &plan->made, &parent, f) < 0)
        return -1;
    return PASS(fork_child_made, fork_code(plan), f);
}

/* ------------------------------------------------------------------ where it stands, and the rest of it */

/* The operation's volume that is to be, or is, the disk's. */
static const struct lvm_lv *child_of(const struct lvm_vg *vg, const struct lvm_fork *fork, const struct uuid *disk,
                                     bool *published)
{
    char name[LVM_NAME], temp[LVM_NAME];
    lvm_name(name, false, disk);
    lvm_temp_name(temp, &fork->op, name);
    const struct lvm_lv *lv = lvm_find(vg, temp);
    *published = !lv;
    if (!lv)
        lv = lvm_find(vg, name);
    return lv && lvm_is_of(lv, &fork->op) ? lv : NULL;
}

enum lvm_fork_state lvm_fork_state(const struct lvm_vg *vg, const struct lvm_fork *fork)
{
    bool raw, first_published, second_published;
    const struct lvm_lv *base = lvm_find_disk(vg, &fork->base, &raw);
    const struct lvm_lv *first = child_of(vg, fork, &fork->disk, &first_published);
    const struct lvm_lv *second = child_of(vg, fork, &fork->made, &second_published);
    if (!first && !second)
        return LVM_FORK_NONE;
    if (!base)
        return LVM_FORK_PREPARED;
    return first && second ? LVM_FORK_BEGUN : LVM_FORK_STRANGE;
}

static int publish(struct sr *sr, const struct lvm_vg *vg, const struct lvm_fork *fork, const struct uuid *disk,
                   enum fault_code code, struct fault *f)
{
    bool published;
    char name[LVM_NAME];
    const struct lvm_lv *lv = child_of(vg, fork, disk, &published);
    if (!lv)
        return fault_set(f, FAULT_LVMNoVolume, "the volume that was to be disk %s is gone", disk->text);
    lvm_name(name, false, disk);
    return published ? 0 : lvm_rename(sr, lv->name, name, code, f);
}

/* Both children are there under their names; the base is hidden. */
int lvm_fork_finish(struct sr *sr, const struct lvm_fork *fork, enum fault_code code, struct fault *f)
{
    struct lvm_vg *vg;
    AUTO_ARENA struct arena *a = arena_new(MEMORY);
    if (lvm_group(sr, a, &vg, f) < 0 || publish(sr, vg, fork, &fork->disk, code, f) < 0 ||
        PASS(fork_published, code, f) < 0 || publish(sr, vg, fork, &fork->made, code, f) < 0 ||
        PASS(fork_second_made, code, f) < 0 || shorten(sr, &fork->base, a, f) < 0 ||
        lvm_hide(sr, &fork->base, code, f) < 0)
        return -1;
    return PASS(fork_hidden, code, f);
}

/* ------------------------------------------------------------------ all of it */

/* From here on it is completed, whatever happens. */
static int begin(struct sr *sr, const struct plan *plan, const struct lvm_chain *c, struct fault *f)
{
    char base[LVM_NAME];
    lvm_name(base, c->raw, &plan->base);
    if (lvm_rename(sr, c->lvs[0]->name, base, fork_code(plan), f) < 0)
        return -1;
    return PASS(fork_linked, fork_code(plan), f);
}

int lvm_fork_describe(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a,
                      struct vdi *made, struct vdi *base, struct fault *f)
{
    const struct vdi new_disk = fork_made(plan, wanted), new_base = fork_base(plan);
    struct vdi made_now, base_now;
    if (lvm_describe_now(sr, &plan->made, &new_disk, a, &made_now, f) < 0 ||
        lvm_describe_now(sr, &plan->base, &new_base, a, &base_now, f) < 0 || lvm_mgt_put(sr, &made_now, f) < 0 ||
        lvm_mgt_put(sr, &base_now, f) < 0)
        return -1;
    *made = made_now;
    *base = base_now;
    return 0;
}

int lvm_vdi_fork(struct sr *sr, const struct plan *plan, const struct vdi *wanted, const struct vdi *vdi,
                 struct arena *a, struct vdi *made, struct vdi *base, struct fault *f)
{
    struct lvm_vg *vg;
    struct lvm_chain c;
    const struct lvm_fork fork = {plan->op, plan->vdi, plan->base, plan->made, plan->read_only};
    if (lvm_group(sr, a, &vg, f) < 0 || check_source(sr, plan, vg, &c, f) < 0)
        return -1;
    int active = lvm_is_active(vg, c.lvs[0], f);
    if (active < 0 || make_children(sr, plan, vg, &c, active, a, f) < 0 || begin(sr, plan, &c, f) < 0 ||
        lvm_fork_finish(sr, &fork, fork_code(plan), f) < 0)
        return -1;
    const char *ignored;
    if (active && lvm_vdi_attach(sr, vdi, !vdi->read_only, a, &ignored, f) < 0)
        return -1;
    return lvm_fork_describe(sr, plan, wanted, a, made, base, f);
}

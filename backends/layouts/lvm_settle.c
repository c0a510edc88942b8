/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bringing the medium to an end of an operation, by what stands on it: names, tags that carry the operation, and what
   VHDs say of themselves. Each step may be cut off and done again. */
#include "backends/layouts/lvm.h"
#include "backends/layouts/settle.h"
#include <string.h>

#define MEMORY (256U << 20)

static int undone(struct settling *w)
{
    w->how = SETTLED_UNDONE;
    return 0;
}

/* The disk as the slot would have answered it. */
static int done(struct settling *w, struct fault *f)
{
    if (lvm_describe_now(w->sr, &w->plan->vdi, w->wanted, w->a, w->vdi, f) < 0)
        return -1;
    if (lvm_mgt_put(w->sr, w->vdi, f) < 0)
        return -1;
    w->how = SETTLED_DONE;
    return 0;
}

/* ------------------------------------------------------------------ temporary names */

static bool is_temp(const struct lvm_lv *lv, const char *tag)
{
    return strncmp(lv->name, LVM_TEMP, strlen(LVM_TEMP)) == 0 && lvm_has_tag(lv->tags, tag);
}

int lvm_sweep(struct sr *sr, const struct uuid *op, struct fault *f)
{
    char tag[64];
    struct lvm_vg *vg;
    struct lvm_scope scope = lvm_sr_scope(sr);
    AUTO_ARENA struct arena *a = arena_new(MEMORY);
    snprintf(tag, sizeof tag, LVM_TAG_OP "%.8s", op->text);
    if (lvm_group(sr, a, &vg, f) < 0)
        return -1;
    const char **names = ARENA_ARRAY(a, const char *, vg->lv_count + 1);
    size_t count = 0;
    for (size_t i = 0; i < vg->lv_count; i++)
        if (is_temp(&vg->lvs[i], tag))
            names[count++] = vg->lvs[i].name;
    return count ? lvm_lv_remove(&scope, vg->name, names, f) : 0;
}

/* <disk>:<base>:<new disk> */
static bool parse_fork(const char *text, struct lvm_fork *out)
{
    struct uuid *const parts[] = {&out->disk, &out->base, &out->made};
    for (size_t i = 0; i < COUNT_OF(parts); i++, text += UUID_TEXT + 1)
        if (strlen(text) < UUID_TEXT || !uuid_parse(text, UUID_TEXT, parts[i]) ||
            text[UUID_TEXT] != (i + 1 < COUNT_OF(parts) ? ':' : '\0'))
            return false;
    return true;
}

/* Of a volume that an operation left: its fork, when it is of one. */
static bool stray_fork(const struct lvm_lv *lv, struct arena *a, struct lvm_fork *out)
{
    const char *op = lvm_tag_value(lv->tags, LVM_TAG_OP, a), *text = lvm_tag_value(lv->tags, LVM_TAG_FORK, a);
    *out = (struct lvm_fork){.read_only = true};
    if (!op || strlen(op) != 8)
        return false;
    memcpy(out->op.text, op, 8);
    return text && parse_fork(text, out);
}

/* The fork of which a volume was to be a part. */
static bool find_fork(const struct lvm_vg *vg, const char *op, struct arena *a, struct lvm_fork *out)
{
    for (size_t i = 0; i < vg->lv_count; i++)
        if (stray_fork(&vg->lvs[i], a, out) && memcmp(out->op.text, op, 8) == 0)
            return true;
    return false;
}

/* Of a compose, or of a reset: what has begun is finished. */
static int settle_relink(struct sr *sr, const struct lvm_vg *vg, const struct lvm_lv *lv, struct arena *a,
                         bool *changed, struct fault *f)
{
    struct uuid disk, parent;
    *changed = true;
    if (lvm_tag_value(lv->tags, LVM_TAG_RESET, a))
        return lvm_reset_finish(sr, vg, lv, f);
    if (strncmp(lv->name, LVM_TEMP, strlen(LVM_TEMP)) == 0 && lvm_link_parse(lv, &disk, &parent, a))
        return lvm_link_finish(sr, vg, lv, f);
    *changed = false;
    return 0;
}

/* One that has begun is past its point of no return; one that lacks a volume is left for people to look at. */
static int settle_stray(struct sr *sr, const struct lvm_vg *vg, const char *op, struct arena *a, bool *changed,
                        struct fault *f)
{
    struct lvm_fork fork = {.read_only = true};
    enum lvm_fork_state state = find_fork(vg, op, a, &fork) ? lvm_fork_state(vg, &fork) : LVM_FORK_NONE;
    memcpy(fork.op.text, op, 8);
    *changed = state != LVM_FORK_STRANGE;
    if (!*changed)
        return 0;
    return state == LVM_FORK_BEGUN ? lvm_fork_finish(sr, &fork, FAULT_VDISnapshot, f) : lvm_sweep(sr, &fork.op, f);
}

int lvm_settle_strays(struct sr *sr, struct fault *f)
{
    struct lvm_vg *vg;
    AUTO_ARENA struct arena *a = arena_new(MEMORY);
    if (lvm_group(sr, a, &vg, f) < 0)
        return -1;
    for (size_t i = 0; i < vg->lv_count; i++) {
        bool changed;
        if (settle_relink(sr, vg, &vg->lvs[i], a, &changed, f) < 0)
            return -1;
        if (changed)
            return lvm_settle_strays(sr, f);
        const char *op = lvm_tag_value(vg->lvs[i].tags, LVM_TAG_OP, a);
        if (strncmp(vg->lvs[i].name, LVM_TEMP, strlen(LVM_TEMP)) != 0 || !op || strlen(op) != 8)
            continue;
        if (settle_stray(sr, vg, op, a, &changed, f) < 0)
            return -1;
        if (changed)
            return lvm_settle_strays(sr, f); /* with the group as it is now */
    }
    return 0;
}

/* ------------------------------------------------------------------ disks */

static int find_disk(struct settling *w, struct lvm_vg **vg, const struct lvm_lv **lv, bool *raw, struct fault *f)
{
    if (lvm_group(w->sr, w->a, vg, f) < 0)
        return -1;
    *lv = lvm_find_disk(*vg, &w->plan->vdi, raw);
    return 0;
}

/* Table F. A volume of this operation under the disk's name was published by it. */
static int settle_create(struct settling *w, struct fault *f)
{
    struct lvm_vg *vg;
    const struct lvm_lv *lv;
    bool raw;
    struct image_info info;
    struct fault ignored;
    struct lvm_scope scope = lvm_sr_scope(w->sr);
    if (lvm_sweep(w->sr, &w->plan->op, f) < 0 || find_disk(w, &vg, &lv, &raw, f) < 0)
        return -1;
    if (!lv || !lvm_is_of(lv, &w->plan->op))
        return undone(w);
    if (w->plan->keep && !atomic_load(&w->sr->poison) && lvm_info(vg, lv, raw, &info, &ignored) == 0 &&
        info.size >= w->plan->size)
        return done(w, f);
    const char *const names[] = {lv->name, NULL};
    return lvm_lv_remove(&scope, vg->name, names, f) < 0 ? -1 : undone(w);
}

static int settle_delete(struct settling *w, struct fault *f)
{
    struct vdi vdi = vdi_blank();
    struct deletion deleted;
    vdi.uuid = w->plan->vdi;
    if (lvm_vdi_delete(w->sr, w->plan, &vdi, w->a, &deleted, f) < 0)
        return f->code == FAULT_VDIUnavailable ? undone(w) : -1;
    *w->deleted = deleted;
    w->how = SETTLED_DONE;
    return 0;
}

/* Table D: what the volume gained is zeroed, or gets its footer; the size is what then stands. */
static int settle_resize(struct settling *w, struct fault *f)
{
    struct lvm_vg *vg;
    const struct lvm_lv *lv;
    bool raw;
    struct image_info info;
    if (find_disk(w, &vg, &lv, &raw, f) < 0)
        return -1;
    if (!lv)
        return undone(w);
    if (lvm_resize_finish(w->sr, &w->plan->vdi, 0, f) < 0 || find_disk(w, &vg, &lv, &raw, f) < 0 ||
        lvm_info(vg, lv, raw, &info, f) < 0)
        return -1;
    return info.size >= w->plan->size ? done(w, f) : undone(w);
}

/* Tables B and C. */
static int settle_fork(struct settling *w, struct fault *f)
{
    struct lvm_vg *vg;
    const struct plan *p = w->plan;
    const struct lvm_fork fork = {p->op, p->vdi, p->base, p->made, p->read_only};
    if (lvm_group(w->sr, w->a, &vg, f) < 0)
        return -1;
    switch (lvm_fork_state(vg, &fork)) {
    case LVM_FORK_NONE:
        return undone(w);
    case LVM_FORK_PREPARED:
        return lvm_sweep(w->sr, &p->op, f) < 0 ? -1 : undone(w);
    case LVM_FORK_STRANGE:
        return 0;
    case LVM_FORK_BEGUN:
        break;
    }
    if (lvm_fork_finish(w->sr, &fork, p->read_only ? FAULT_VDISnapshot : FAULT_VDIClone, f) < 0 ||
        lvm_fork_describe(w->sr, p, w->wanted, w->a, w->vdi, w->base, f) < 0)
        return -1;
    w->how = SETTLED_DONE;
    return 0;
}

/* A reset that has begun is finished. */
static int settle_reset(struct settling *w, struct fault *f)
{
    struct lvm_vg *vg;
    const struct lvm_lv *lv;
    bool raw;
    if (find_disk(w, &vg, &lv, &raw, f) < 0)
        return -1;
    if (!lv)
        return undone(w);
    if (lvm_reset_finish(w->sr, vg, lv, f) < 0)
        return -1;
    return !raw && lvm_is_reset(vg, lv) ? done(w, f) : undone(w);
}

/* So is a compose whose log is whole. One that is over has left its parent in the child, and hidden. */
static int settle_compose(struct settling *w, struct fault *f)
{
    struct lvm_vg *vg;
    struct lvm_chain c;
    struct uuid disk, parent;
    struct image_info info;
    struct fault ignored;
    bool raw;
    if (lvm_group(w->sr, w->a, &vg, f) < 0)
        return -1;
    const struct lvm_lv *log = lvm_link_find(vg, w->plan);
    if (log && lvm_link_parse(log, &disk, &parent, w->a)) {
        if (lvm_link_finish(w->sr, vg, log, f) < 0)
            return -1;
    } else if (log && lvm_sweep(w->sr, &w->plan->op, f) < 0) {
        return -1;
    }
    if (lvm_group(w->sr, w->a, &vg, f) < 0)
        return -1;
    const struct lvm_lv *lv = lvm_find_disk(vg, &w->plan->base, &raw);
    if (lvm_chain_read(vg, &w->plan->vdi, &c, &ignored) < 0 || !uuid_equal(&c.info.parent, &w->plan->base) || !lv ||
        lvm_info(vg, lv, raw, &info, &ignored) < 0 || !info.hidden)
        return undone(w);
    w->how = SETTLED_DONE;
    return lvm_link_describe(w->sr, w->plan, w->wanted, NULL, w->a, w->vdi, w->base, f);
}

/* The row has the old labels: so gets the medium. */
static int settle_update(struct settling *w, struct fault *f)
{
    struct vdi now;
    if (w->wanted && uuid_equal(&w->wanted->uuid, &w->plan->vdi) &&
        (lvm_describe_now(w->sr, &w->plan->vdi, w->wanted, w->a, &now, f) < 0 || lvm_mgt_put(w->sr, &now, f) < 0))
        return -1;
    return undone(w);
}

/* Nothing was touched. */
static int settle_introduce(struct settling *w, struct fault *f)
{
    w->wanted = NULL;
    return w->plan->keep ? done(w, f) : undone(w);
}

static int settle_sr_create(struct settling *w, struct fault *f)
{
    return lvm_sr_undo(w->sr, w->plan, f) < 0 ? -1 : undone(w);
}

static int settle_sr_delete(struct settling *w, struct fault *f)
{
    bool empty = false;
    if (lvm_sr_clear(w->sr, w->plan, &empty, f) < 0)
        return -1;
    w->how = empty ? SETTLED_DONE : SETTLED_UNDONE;
    return 0;
}

static const struct settle_row rows[] = {
    {"vdi_create", settle_create, true},      {"vdi_delete", settle_delete, false},
    {"vdi_resize", settle_resize, false},     {"vdi_introduce", settle_introduce, false},
    {"vdi_epoch_begin", settle_reset, false}, {"vdi_compose", settle_compose, false},
    {"vdi_update", settle_update, false},     {"vdi_snapshot", settle_fork, false},
    {"vdi_clone", settle_fork, false},        {"sr_create", settle_sr_create, true},
    {"sr_delete", settle_sr_delete, true},
};

int lvm_settle(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a, enum settled *how,
               struct vdi *vdi, struct vdi *base, struct deletion *deleted, struct fault *f)
{
    struct settling w = {
        .sr = sr, .plan = plan, .wanted = wanted, .a = a, .vdi = vdi, .base = base, .deleted = deleted};
    if (settle_by_row(rows, COUNT_OF(rows), MEMORY, &w, f) < 0)
        return -1;
    *how = w.how;
    return 0;
}
